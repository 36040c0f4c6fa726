"""Loading discriminator weights in any spelling of weight norm and spectral norm."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from melisma.errors import MelismaError

PARAMETRIZED = "parametrizations.weight."


def folded_weight_norm(weight: Tensor) -> dict[str, Tensor]:
    """Length and direction of a weight whose norm was folded in."""
    length = weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
    return {"original0": length, "original1": torch.where(length == 0, torch.ones_like(weight), weight)}


def folded_spectral_norm(weight: Tensor, rounds: int = 20) -> dict[str, Tensor]:
    """Original and singular vectors of a weight whose norm was folded in.

    The right vector is scaled so that the layer divides by exactly one; the first training step brings it back to
    length one.
    """
    matrix = weight.flatten(1).float()
    right = torch.ones(matrix.shape[1]) / matrix.shape[1] ** 0.5
    for _ in range(rounds):
        left = nn.functional.normalize(matrix @ right, dim=0)
        right = nn.functional.normalize(matrix.T @ left, dim=0)
    return {"original": weight, "0._u": left, "0._v": right / torch.dot(left, matrix @ right)}


# For each kind of norm: what torch's parametrization calls the parts -> what older files call them.
OLD_NAMES = {
    "weight norm": {"original0": "weight_g", "original1": "weight_v"},
    "spectral norm": {"original": "weight_orig", "0._u": "weight_u", "0._v": "weight_v"},
}
UNFOLD = {"weight norm": folded_weight_norm, "spectral norm": folded_spectral_norm}


def _take_weight(prefix: str, kind: str, rest: MutableMapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the weight of one layer from ``rest``, in whichever spelling, and return its parts that are there."""
    names = OLD_NAMES[kind]
    if prefix + "weight" in rest:
        return UNFOLD[kind](rest.pop(prefix + "weight"))
    new = {part: prefix + PARAMETRIZED + part for part in names}
    old = {part: prefix + name for part, name in names.items()}
    spelling = new if any(name in rest for name in new.values()) else old
    return {part: rest.pop(name) for part, name in spelling.items() if name in rest}


def load_weights(module: nn.Module, state: Mapping[str, Any], what: str) -> None:
    """Load a foreign state dict whose layer names are those of ``module``.

    Args:
        module: has its norms as torch parametrizations.
        state: tensors or arrays by name; a ``module.`` before every name (DDP) is dropped.
        what: names the module in errors.

    Raises:
        MelismaError: missing, extra or misshapen entries; the line names them.
    """
    expected = module.state_dict()
    ddp = bool(state) and all(name.startswith("module.") for name in state)
    rest = {name.removeprefix("module.") if ddp else name: torch.as_tensor(value) for name, value in state.items()}
    ready: dict[str, Tensor] = {}
    for prefix in sorted({name.partition(PARAMETRIZED)[0] for name in expected if PARAMETRIZED in name}):
        kind = "weight norm" if f"{prefix}{PARAMETRIZED}original0" in expected else "spectral norm"
        parts = _take_weight(prefix, kind, rest)
        ready |= {f"{prefix}{PARAMETRIZED}{part}": value for part, value in parts.items()}
    ready |= {name: rest.pop(name) for name in list(rest) if name in expected}
    missing = [name for name in expected if name not in ready]
    wrong = [
        f"{name} {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
        for name, value in ready.items()
        if value.shape != expected[name].shape
    ]
    complaints = [
        f"{label} {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for label, names in (("missing", missing), ("unknown", list(rest)), ("misshapen", wrong))
        if names
    ]
    if complaints:
        raise MelismaError(f"these weights do not fit {what}: {'; '.join(complaints)}; is it another model's state?")
    module.load_state_dict(ready)
