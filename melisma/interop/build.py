"""The table of foreign generators."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from melisma.config import lookup
from melisma.generators.nsf_hifigan import NsfHifigan
from melisma.interop import bigvgan, hifigan, openvpi, rvc, sovits

Builder = Callable[[Any, Mapping[str, Tensor]], tuple[NsfHifigan, list[str]]]

BUILDERS: dict[str, Builder] = {
    "so-vits-svc": sovits.build,
    "so-vits-svc-snake": sovits.build_snake,
    "openvpi": openvpi.build,
    "rvc": rvc.build,
    "hifi-gan": hifigan.build,
    "bigvgan": bigvgan.build,
}


def build(kind: str, config: Mapping[str, Any] | Sequence[Any], state: Mapping[str, Tensor]) -> NsfHifigan:
    """Make a generator from a foreign configuration and a state dict with foreign names.

    Args:
        kind: a key of :data:`BUILDERS`.
        config: the reference constructor's mapping; for ``rvc`` also the list of 18 of real files.
        state: all weights of the generator and nothing else (constants of filters aside), weight norm in any spelling.

    Returns:
        The generator in evaluation mode, float32, weight norm folded, without gradients.

    Raises:
        MelismaError: a setting or a key is missing, unknown or wrong; it is named.
    """
    generator, _ = lookup(BUILDERS, kind, "kind of generator")(config, state)
    return generator
