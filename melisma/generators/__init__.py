"""Generators and their table.

A generator is a frozen config dataclass and an ``nn.Module`` that is made from it alone; rule 1 of
``docs/architecture.md`` says what the module must offer. To add one, add a line to :data:`GENERATORS`.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from melisma.config import from_mapping, lookup
from melisma.generators.analytic import Analytic, AnalyticConfig
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.generators.spectral import Spectral, SpectralConfig

GENERATORS: dict[str, tuple[type, type[nn.Module]]] = {
    "nsf-hifigan": (NsfHifiganConfig, NsfHifigan),
    "spectral": (SpectralConfig, Spectral),
    "analytic": (AnalyticConfig, Analytic),
}


def build_generator(name: str, config: Mapping[str, Any], what: str = "config") -> nn.Module:
    """Make the generator ``name`` from a mapping of its settings.

    ``what`` names the mapping's origin in errors. An unknown name or setting is a ``MelismaError``.
    """
    config_class, generator_class = lookup(GENERATORS, name, "generator")
    return generator_class(from_mapping(config_class, config, what))


def name_of(generator: nn.Module) -> str:
    """The name under which a generator's class stands in the table."""
    for name, (_, generator_class) in GENERATORS.items():
        if type(generator) is generator_class:
            return name
    raise ValueError(f"{type(generator).__name__} is not in the table of generators")
