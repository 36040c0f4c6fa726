"""melisma.training"""
