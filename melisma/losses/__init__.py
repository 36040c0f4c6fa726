"""melisma.losses"""
