"""Weight normalisation: on for training, folded for inference, and read in every spelling that checkpoints use.

The spellings are ``weight_g`` with ``weight_v`` (``torch.nn.utils.weight_norm``), ``parametrizations.weight.original0``
with ``original1`` (``torch.nn.utils.parametrizations.weight_norm``), and the plain folded ``weight``.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

SPELLINGS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))


def normed(convolution: nn.Module, initial_std: float | None = 0.01) -> nn.Module:
    """Put weight normalisation over the first axis on a convolution and return it.

    The weight is drawn from N(0, ``initial_std``) before, as HiFi-GAN does; ``None`` leaves it as it is.
    """
    if initial_std is not None:
        nn.init.normal_(convolution.weight, 0.0, initial_std)  # type: ignore[arg-type]
    convolution.is_normed = True  # type: ignore[assignment]
    return weight_norm(convolution)


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
