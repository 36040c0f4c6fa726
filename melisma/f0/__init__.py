"""F0 estimators, one file each; ``estimate.ESTIMATORS`` is their table and :func:`estimate_f0` the door to all."""

from melisma.f0.estimate import DEFAULT_METHOD, ESTIMATORS, estimate_f0

__all__ = ["DEFAULT_METHOD", "ESTIMATORS", "estimate_f0"]
