"""melisma.interop"""
