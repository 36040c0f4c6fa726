"""Foreign formats and our own file: one file per format.

:func:`build` makes a generator from a foreign configuration and state dict, :func:`load_checkpoint` from a file of any
format, :func:`save_checkpoint` and :func:`save_model` write our own, :func:`describe` says what a file is.
"""

from melisma.interop.build import BUILDERS, build
from melisma.interop.checkpoint import load_checkpoint, save_checkpoint
from melisma.interop.describe import describe, facts
from melisma.interop.loaded import LoadedModel
from melisma.interop.own import load_model, save_model

__all__ = [
    "BUILDERS",
    "LoadedModel",
    "build",
    "describe",
    "facts",
    "load_checkpoint",
    "load_model",
    "save_checkpoint",
    "save_model",
]
