"""Putting a foreign state dict into a generator: find every weight under its foreign name, fold, check, load."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from melisma.errors import MelismaError
from melisma.layers.activations import TAPS, AntiAliased
from melisma.layers.weight_norm import SPELLINGS, blank, product

_SHOWN = 5
_FILTERS = ("upsample.filter", "downsample.lowpass.filter")

Renames = Sequence[tuple[str, str]]
Made = TypeVar("Made", bound=nn.Module)

# Our names -> the names of so-vits-svc, openvpi, RVC and HiFi-GAN.
COMMON: Renames = ((r"^source\.merge\.", "m_source.l_linear."), (r"^up_activations\.", "snakes."))


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries below ``prefix``, without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def foreign_name(name: str, renames: Renames) -> str:
    """The foreign name of one of our weights."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


class _Findings:
    """What is wrong with a state dict."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.unknown: list[str] = []
        self.misshapen: list[str] = []

    def shape(self, name: str, value: Tensor, wanted: Sequence[int]) -> bool:
        """Whether a value has the wanted shape; noted if not."""
        if not isinstance(value, Tensor):
            self.misshapen.append(f"{name} is no tensor")
            return False
        if tuple(value.shape) != tuple(wanted):
            self.misshapen.append(f"{name} {tuple(value.shape)} should be {tuple(wanted)}")
            return False
        return True

    def report(self) -> str:
        """One line; empty if nothing is wrong."""
        groups = (("missing keys", self.missing), ("unknown keys", self.unknown), ("misshapen keys", self.misshapen))
        parts = []
        for label, names in groups:
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                parts.append(f"{label}: {', '.join(names[:_SHOWN])}{more}")
        return "; ".join(parts)


def _find(name: str, wanted: Tensor, state: Mapping[str, Tensor], used: set[str], findings: _Findings) -> Tensor | None:
    """The value of one weight, from whichever spelling the state has."""
    if name in state:
        used.add(name)
        return state[name] if findings.shape(name, state[name], wanted.shape) else None
    stem = name[: -len("weight")] if name.endswith(".weight") else None
    for gain, direction in SPELLINGS if stem is not None else ():
        halves = [f"{stem}{gain}", f"{stem}{direction}"]
        there = [half for half in halves if half in state]
        used.update(there)
        if len(there) == 1:
            findings.missing.append(halves[0] if there[0] == halves[1] else halves[1])
            return None
        if there:
            gain_shape = (wanted.shape[0], *[1] * (wanted.ndim - 1))
            checks = [
                findings.shape(halves[0], state[halves[0]], gain_shape),
                findings.shape(halves[1], state[halves[1]], wanted.shape),
            ]
            return product(state[halves[0]], state[halves[1]]) if all(checks) else None
    findings.missing.append(name)
    return None


def _filter_names(generator: nn.Module, renames: Renames) -> set[str]:
    """Constants that the references keep in their states and that we compute."""
    parts = [name for name, part in generator.named_modules() if isinstance(part, AntiAliased)]
    return {foreign_name(f"{part}.{constant}", renames) for part in parts for constant in _FILTERS}


def load_foreign(make: Callable[[], Made], state: Mapping[str, Tensor], what: str, renames: Renames = COMMON) -> Made:
    """A module with the weights of ``state``, folded and ready for inference.

    Args:
        make: makes the module as the configuration describes it.
        state: foreign names; weight norm in any spelling; anti-aliasing filters may be there or not.
        what: names the state's origin in errors.
        renames: patterns from our names to the foreign ones.

    Raises:
        MelismaError: one line that names the missing, unknown and misshapen keys.
    """
    with blank():
        generator = make()
    findings, used = _Findings(), set[str]()
    values: dict[str, Tensor] = {}
    for name, wanted in generator.state_dict().items():
        value = _find(foreign_name(name, renames), wanted, state, used, findings)
        if value is not None:
            values[name] = value.to(torch.float32)
    filters = _filter_names(generator, renames)
    for name, value in state.items():
        if name in filters:
            findings.shape(name, value, (1, 1, TAPS))
        elif name not in used:
            findings.unknown.append(name)
    if report := findings.report():
        raise MelismaError(f"{what}: {report}; is the configuration the one of this checkpoint?")
    generator.load_state_dict(values)
    generator.requires_grad_(False).eval()
    return generator
