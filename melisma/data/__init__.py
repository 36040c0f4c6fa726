"""melisma.data"""
