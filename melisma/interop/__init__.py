"""Foreign formats and our own file: one file per format, and :func:`build` as the door to their generators."""

from melisma.interop.build import BUILDERS, build

__all__ = ["BUILDERS", "build"]
