"""melisma.discriminators"""
