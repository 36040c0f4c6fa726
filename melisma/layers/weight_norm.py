"""Weight normalisation: on for training, folded for inference, and read in every spelling that checkpoints use.

The spellings are ``weight_g`` with ``weight_v`` (``torch.nn.utils.weight_norm``), ``parametrizations.weight.original0``
with ``original1`` (``torch.nn.utils.parametrizations.weight_norm``), and the plain folded ``weight``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm
from torch.overrides import TorchFunctionMode

SPELLINGS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))

_blank: ContextVar[bool] = ContextVar("blank", default=False)


class _WithoutDraws(TorchFunctionMode):
    """Nothing is drawn for weights."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@contextmanager
def blank() -> Iterator[None]:
    """Within this block modules are made folded, their weights whatever memory holds: those of a file follow.

    To draw 15 million weights and their norms takes half a second on one core, before a file replaces them all.
    """
    token = _blank.set(True)
    try:
        with _WithoutDraws():
            yield
    finally:
        _blank.reset(token)


def normed(convolution: nn.Module, initial_std: float | None = 0.01) -> nn.Module:
    """Put weight normalisation over the first axis on a convolution and return it.

    The weight is drawn from N(0, ``initial_std``) before, as HiFi-GAN does; ``None`` leaves it as it is. Within
    :func:`blank` nothing is put on.
    """
    if initial_std is not None:
        nn.init.normal_(convolution.weight, 0.0, initial_std)  # type: ignore[arg-type]
    convolution.is_normed = True  # type: ignore[assignment]
    return convolution if _blank.get() else weight_norm(convolution)


def fold(module: nn.Module) -> nn.Module:
    """Replace every weight norm in ``module`` by the weight that it amounts to, in place."""
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
    return module


def unfold(module: nn.Module) -> nn.Module:
    """Put weight norm back, in place, on the convolutions that :func:`normed` made: for training folded weights on."""
    for part in list(module.modules()):
        if getattr(part, "is_normed", False) and not parametrize.is_parametrized(part, "weight"):
            weight_norm(part)
    return module


def product(gain: Tensor, direction: Tensor) -> Tensor:
    """The weight of a weight norm over the first axis, float32: ``direction`` with ``gain`` as the norm of each row."""
    # The operator behind torch's own weight_norm, so that a folded weight equals the unfolded one to the last bit.
    return torch._weight_norm(direction.float(), gain.float(), 0)


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and direction of a weight: :func:`product` of them is the weight to the last bit."""
    shape = (weight.shape[0], *[1] * (weight.ndim - 1))
    empty = (weight.flatten(1).abs().amax(dim=1) == 0).reshape(shape)
    # A row of zeros has no direction: its gain of zero says it all.
    direction = torch.where(empty, 1.0, weight.detach())
    # The operator's own norms: another order of summing would end in another last digit.
    _, norms = torch._weight_norm_interface(direction, direction.new_ones(shape), 0)
    return torch.where(empty, 0.0, norms.reshape(shape).to(weight.dtype)), direction
