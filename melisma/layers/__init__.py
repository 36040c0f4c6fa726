"""melisma.layers"""
