"""melisma: a neural vocoder library for singing.

Features, an F0 curve and maybe a speaker in, audio out, at any pitch.

    import melisma
    vocoder = melisma.load("melisma-44k")
    audio = vocoder.resynthesize(audio, sample_rate, shift_semitones=3)

Importing the package loads nothing heavy: names and submodules arrive when they are first asked for (PEP 562).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melisma import (
        audio,
        data,
        discriminators,
        editing,
        evaluation,
        f0,
        generators,
        inference,
        interop,
        layers,
        losses,
        noise,
        source,
        training,
    )
    from melisma.audio.mel import MelContract, log_mel
    from melisma.errors import MelismaError
    from melisma.f0 import estimate_f0
    from melisma.inference.vocoder import Vocoder, load
    from melisma.source import Randomness

    __version__: str

_NAMES = {
    "MelContract": "melisma.audio.mel",
    "MelismaError": "melisma.errors",
    "Randomness": "melisma.source",
    "Vocoder": "melisma.inference.vocoder",
    "estimate_f0": "melisma.f0",
    "load": "melisma.inference.vocoder",
    "log_mel": "melisma.audio.mel",
}
_SUBMODULES = (
    "audio",
    "data",
    "discriminators",
    "editing",
    "evaluation",
    "f0",
    "generators",
    "inference",
    "interop",
    "layers",
    "losses",
    "noise",
    "source",
    "training",
)

__all__ = [  # noqa: PLE0604, RUF100
    "MelContract",
    "MelismaError",
    "Randomness",
    "Vocoder",
    "__version__",
    "audio",
    "data",
    "discriminators",
    "editing",
    "estimate_f0",
    "evaluation",
    "f0",
    "generators",
    "inference",
    "interop",
    "layers",
    "load",
    "log_mel",
    "losses",
    "noise",
    "source",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"melisma.{name}")
    elif name == "__version__":
        from importlib.metadata import version

        value = version("melisma")
    else:
        raise AttributeError(f"module 'melisma' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
