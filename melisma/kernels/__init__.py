"""Kernels: the same computations as the layers' plain torch code, faster; each is checked against it.

``choice`` says which of them this machine can run, and why.
"""

LANES = 16  # float32 that are computed side by side: a register of AVX-512, two of AVX2
