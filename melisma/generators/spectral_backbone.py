"""Backbone and head of the spectral generator for listening on a CPU.

The same computation as in ``spectral.py``, whose forward takes this way where it can; tests hold the two together.
Workers share the frames: each takes its own through all blocks, and waits for its neighbours only at the end of a
block, because the depthwise convolution of the next one reads theirs. Where the CPU multiplies tiles of bfloat16 (AMX),
float32 is two of those.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melisma.generators.spectral_parts import Proposal
from melisma.kernels import LANES, choice, frames_amx, numba_part, ripple, rounding, workers
from melisma.kernels.grid import together
from melisma.kernels.projection import fused
from melisma.layers.pitch_gate import REACH_BANDS
from melisma.layers.streaming import Memory
from melisma.layers.weights import made_of, weights_of

_frames = numba_part("frames_numba")
_matrices = numba_part("matrix_numba")
_steps = numba_part("frames_step_numba")

if TYPE_CHECKING:
    from melisma.generators.spectral import Spectral

_LEAST_FRAMES = 24  # for a worker of its own
_MOST_FRAMES = 240  # that go through a block together: with what they become inside of it they fit the second cache


class FastBackbone:
    """Backbone and head, packed: ``in_tiles`` for AMX, else for vectors."""

    def __init__(self, generator: "Spectral", in_tiles: bool) -> None:
        config = generator.config
        pack = frames_amx.packed if in_tiles else _matrices().packed
        self.in_tiles = in_tiles
        self.channels, self.size = config.channels, config.kernel_size
        self.left = config.kernel_size - 1 if config.causal else config.kernel_size // 2
        entry: Any = generator.entry
        self.spare = -entry.in_channels % frames_amx.DEEP if in_tiles else 0  # rows of zeros
        weights = F.pad(entry.weight, (0, 0, 0, self.spare)).permute(2, 1, 0).flatten(0, 1)
        self.entry = (pack(weights), _flat(entry.bias), weights.shape[0], *_norm(generator.entry_norm))
        blocks: list[Any] = list(generator.blocks)
        self.blocks = (
            np.stack([_rows(block.depthwise.weight[:, 0].t()) for block in blocks]),
            np.stack([_rows(block.depthwise.bias) for block in blocks]),
            *(np.stack(each) for each in zip(*(_norm(block.norm) for block in blocks), strict=True)),
            np.stack([pack(block.widen.weight.t()) for block in blocks]),
            np.stack([_flat(block.widen.bias) for block in blocks]),
            # A block's scale is in its last product.
            np.stack([pack((block.narrow.weight * block.scale.unsqueeze(1)).t()) for block in blocks]),
            np.stack([_rows(block.narrow.bias * block.scale) for block in blocks]),
        )
        self.columns = generator.head.out_features
        bias = F.pad(generator.head.bias, (0, -self.columns % (frames_amx if in_tiles else _matrices()).WIDE))
        self.leave = (*_norm(generator.exit_norm), pack(generator.head.weight.t()), _flat(bias))
        self.epsilon = np.float32(generator.exit_norm.eps)

    def __call__(self, conditions: Tensor) -> Tensor:
        """``(batch, frames, rows)`` -> what the head says, ``(batch, frames, rows)``.

        Within :func:`melisma.kernels.rounding.halved`, tiles round to bfloat16.
        """
        ends = (self.left, self.size - 1 - self.left)
        return together([self._clip(F.pad(clip, (0, self.spare, *ends))) for clip in conditions])

    def step(self, conditions: Tensor, memory: Memory) -> Tensor | None:
        """The next frames ``(1, frames, rows)`` of a stream -> what the head says of as many; None where it cannot.

        That is at both ends of a stream, where convolutions see padding. What is remembered is what the layers' own
        steps remember.
        """
        blocks, before = len(self.blocks[0]), self.size - 1
        entry = memory.at("entry").recall("tail")
        tails = [memory.at(number).at("depthwise").recall("tail") for number in range(blocks)]
        if memory.last or len(conditions) != 1 or any(t is None or t.shape[-1] != before for t in (entry, *tails)):
            return None
        assert entry is not None
        given = torch.cat([entry.transpose(1, 2), conditions], dim=1)[0]
        past, frames = torch.empty(blocks, before, self.channels), conditions.shape[1]
        for block, tail in zip(past, tails, strict=True):
            block.copy_(tail[0].t())  # type: ignore[index]  # none is None
        out = torch.empty(frames, self.leave[3].size)
        lanes = past.view(blocks, -1, LANES).numpy()
        sizes = frames, self.left, self.epsilon
        packs = self.entry, self.blocks, self.leave
        _steps().next_frames(sizes, (given.numpy(), given.shape[1]), *packs, lanes, out.numpy())
        memory.at("entry").keep("tail", given[frames:].t().unsqueeze(0))
        waiting = before - self.left  # frames that wait for those that their convolution reads
        for number, block in enumerate(past):
            here, tail = memory.at(number), block.t().unsqueeze(0)
            here.at("depthwise").take("tail", tail)
            here.take("sum.0", tail[..., before - waiting :])
        return out[:, : self.columns].unsqueeze(0)

    def after_draft(self, proposal: Proposal, heard: Tensor, largest: float) -> tuple[Tensor, Tensor]:
        """What a draft that sounds like ``heard`` misses of a proposal, and what the head says of both.

        ``largest`` is in nepers: more is not missed. Both are ``(batch, frames, rows)``.
        """
        missed, said = [], []
        streams = proposal.wanted, proposal.pulse_mel, heard, proposal.f0_hz, proposal.sharp
        for wanted, pulses, sound, f0_hz, sharp in zip(*streams, strict=True):
            frames, bands = wanted.shape
            rows = torch.empty(frames + self.size - 1, 3 * bands + 2 + self.spare)
            rows[: self.left], rows[self.left + frames :] = 0.0, 0.0
            sizes = REACH_BANDS, largest, self.left
            missed.append(ripple.conditions((wanted, pulses, sound), f0_hz, sharp, sizes, rows))
            said.append(self._clip(rows))
        return together(missed), together(said)

    def _clip(self, heard: Tensor) -> Tensor:
        frames = heard.shape[0] - self.size + 1
        groups, width = self.channels // LANES, self.leave[3].size
        work = [torch.empty(frames * groups, LANES).numpy() for _ in range(2)] + [torch.empty(frames, width).numpy()]
        edges = workers.edges(frames, _LEAST_FRAMES)
        most = int(np.diff(edges).max())
        most = -(-most // -(-most // _MOST_FRAMES))  # even shares
        arguments = (most, self.left, self.epsilon), (heard.numpy(), heard.shape[1])
        packs = self.entry, self.blocks, self.leave, tuple(work)
        kernel: Callable[..., None] = _frames().backbone
        if self.in_tiles:
            kernel = partial(frames_amx.backbone, 1 if rounding.is_halved() else 2)
        workers.meeting(kernel, edges, *arguments, *packs)
        return torch.from_numpy(work[2])[:, : self.columns]


def packed(generator: "Spectral", conditions: Tensor, tiles: bool = True) -> FastBackbone | None:
    """The packed backbone, kept until its weights change; None where the plain one is to be taken.

    ``tiles``: in tiles for AMX, where there are any; streams, which bring a few frames at once, would not fill them.

    That is: in training or with gradients, in graphs that are traced, elsewhere than on a CPU, in other precisions,
    with a width that is no multiple of thirty-two, and where numba is missing.
    """
    if generator.training or not fused(conditions) or torch.is_autocast_enabled("cpu"):
        return None
    weights = weights_of(generator)
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        return None
    inner = generator.config.channels * generator.config.expansion
    if generator.config.channels % (2 * LANES) or inner % (2 * LANES) or any(w.dtype != torch.float32 for w in weights):
        return None
    in_tiles = tiles and choice.backbone().path == "amx"
    return made_of(generator, weights, lambda: FastBackbone(generator, in_tiles), in_tiles)


def _rows(values: Tensor) -> np.ndarray:
    return values.detach().contiguous().reshape(-1, LANES).numpy()


def _flat(values: Tensor) -> np.ndarray:
    return values.detach().contiguous().numpy()


def _norm(norm: nn.LayerNorm) -> tuple[np.ndarray, np.ndarray]:
    return _rows(norm.weight), _rows(norm.bias)
