"""Kernels: the same computations as the layers' plain torch code, faster; each is checked against it.

``choice`` says which of them this machine can run, and why.
"""
