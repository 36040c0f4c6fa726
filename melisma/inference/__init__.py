"""melisma.inference"""
