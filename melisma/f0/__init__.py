"""melisma.f0"""
