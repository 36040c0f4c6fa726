"""Discriminators, and the table of them."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from melisma.config import lookup, suggest
from melisma.discriminators.base import Discriminator
from melisma.discriminators.cqt import SubBandCqt
from melisma.discriminators.period import MultiPeriod
from melisma.discriminators.resolution import MultiResolution
from melisma.discriminators.scale import MultiScale, SingleScale
from melisma.errors import MelismaError

DISCRIMINATORS: dict[str, type[Discriminator]] = {
    "multi-period": MultiPeriod,
    "multi-scale": MultiScale,
    "single-scale": SingleScale,
    "multi-resolution": MultiResolution,
    "sub-band-cqt": SubBandCqt,
}
SAMPLE_RATE = "sample_rate"


def build_discriminator(name: str, settings: Mapping[str, Any], sample_rate: float, what: str) -> Discriminator:
    """Make the discriminator ``name``.

    Args:
        name: a key of :data:`DISCRIMINATORS`.
        settings: of its constructor, without the sample rate.
        sample_rate: of the audio that it will judge, Hz.
        what: names the settings' origin in errors.

    Raises:
        MelismaError: an unknown name or setting, or a value of a wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    kind = lookup(DISCRIMINATORS, name, "discriminator")
    kinds = get_type_hints(kind.__init__)
    known = [key for key in inspect.signature(kind).parameters if key != SAMPLE_RATE]
    given: dict[str, Any] = {SAMPLE_RATE: sample_rate} if SAMPLE_RATE in kinds else {}
    for key, value in settings.items():
        if key not in known:
            raise MelismaError(f"{what}: unknown key {key!r}{suggest(str(key), known)} Known: {', '.join(known)}")
        try:
            given[key] = TypeAdapter(kinds[key]).validate_python(value)
        except ValidationError as error:
            raise MelismaError(f"{what}: {key}: {error.errors()[0]['msg']}") from error
    try:
        return kind(**given)
    except ValueError as error:
        raise MelismaError(f"{what}: {error}; lists that belong together must be equally long") from error


__all__ = [
    "DISCRIMINATORS",
    "Discriminator",
    "MultiPeriod",
    "MultiResolution",
    "MultiScale",
    "SingleScale",
    "SubBandCqt",
    "build_discriminator",
]
