"""melisma.evaluation"""
