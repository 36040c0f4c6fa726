"""The spectral generator for listening on a CPU.

The same computation as in ``spectral.py``, whose forward takes this way where it can; tests hold the two together.
In the backbone, workers share the frames: each takes its own through all blocks, and waits for its neighbours only at
the end of a block, because the depthwise convolution of the next one reads theirs.
"""

import dataclasses
from functools import lru_cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melisma.audio.mel import MelContract
from melisma.audio.mel_bands import band_to_bin_weights, flat_mel
from melisma.audio.stft import hann
from melisma.generators.spectral_parts import Proposal
from melisma.kernels import LANES, workers
from melisma.kernels.grid import Transform, together
from melisma.kernels.masks import Masks
from melisma.kernels.projection import fused, neighbours
from melisma.layers.framing import Subframes
from melisma.layers.weights import made_of, weights_of

if TYPE_CHECKING:
    from melisma.generators.analytic import Analytic, AnalyticConfig
    from melisma.generators.spectral import Spectral

_LEAST_FRAMES = 24  # for a worker of its own
_MOST_FRAMES = 240  # that go through a block together: with what they become inside of it they fit the second cache


class FastFilters:
    """Proposals to audio, for one pulse train and one noise, each ``(batch, samples)``."""

    def __init__(self, generator: "Analytic", train: Tensor, noise: Tensor) -> None:
        config = generator.config
        shared = _masks(config.mel, config.n_fft, config.subframes, config.causal)
        frames = train.shape[1] // config.mel.hop_length
        self.clips = [shared.clip(*rows, frames) for rows in zip(train, noise, strict=True)]

    def __call__(self, proposal: Proposal) -> Tensor:
        """``(batch, samples)``."""
        rows = zip(self.clips, proposal.pulse_log, proposal.noise_log, strict=True)
        return together([clip.sing(pulse, noise) for clip, pulse, noise in rows])


def fast_envelope(config: "AnalyticConfig", wanted: Tensor, width_hz: Tensor) -> Tensor:
    """:meth:`melisma.generators.spectral.Analytic.envelope`."""
    shared = _masks(config.mel, config.n_fft, config.subframes, config.causal)
    bins = len(shared.lower)
    width = (width_hz * config.n_fft / config.mel.sample_rate).clamp(min=1.0, max=bins / 2).double()
    return together([shared.envelopes(mel, row)[:, :bins] for mel, row in zip(wanted, width, strict=True)])


def fast_belief(config: "AnalyticConfig", proposal: Proposal, missed: Tensor, belief: Tensor) -> Proposal:
    """What :class:`melisma.generators.spectral.Spectral` makes of a draft."""
    shared = _masks(config.mel, config.n_fft, config.subframes, config.causal)
    rows = zip(proposal.pulse_log, proposal.noise_log, missed, belief, strict=True)
    made = [shared.believe((pulse, noise), *heard) for pulse, noise, *heard in rows]
    pulse_log, noise_log = (together(masks) for masks in zip(*made, strict=True))
    return dataclasses.replace(proposal, pulse_log=pulse_log, noise_log=noise_log)


@lru_cache(maxsize=8)
def _masks(mel: MelContract, n_fft: int, subframes: int, causal: bool) -> Masks:
    with torch.inference_mode(False):
        like, hop_length = torch.zeros(0), mel.hop_length // subframes
        transform = Transform(hop_length, hann(n_fft, like).numpy(), (n_fft - hop_length) // 2, reflected=False)
        lower, weights = neighbours(band_to_bin_weights(mel, n_fft, like.device, like.dtype))
        offsets = np.array(Subframes(subframes, causal).offsets, np.float32)
        return Masks(transform, offsets, mel.floor**2, flat_mel(mel, like), lower, weights)


class FastBackbone:
    """Backbone and head, packed."""

    def __init__(self, generator: "Spectral") -> None:
        config = generator.config
        pack = _matrices().packed
        self.channels, self.size = config.channels, config.kernel_size
        self.left = config.kernel_size - 1 if config.causal else config.kernel_size // 2
        entry: Any = generator.entry
        weights = entry.weight.permute(2, 1, 0).reshape(-1, self.channels)
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
        width = -(-self.columns // _matrices().WIDE) * _matrices().WIDE
        bias = F.pad(generator.head.bias, (0, width - self.columns))
        self.leave = (*_norm(generator.exit_norm), pack(generator.head.weight.t()), _flat(bias))
        self.epsilon = np.float32(generator.exit_norm.eps)

    def __call__(self, conditions: Tensor) -> Tensor:
        """``(batch, frames, rows)`` -> what the head says, ``(batch, frames, rows)``."""
        return together([self._clip(clip) for clip in conditions])

    def _clip(self, conditions: Tensor) -> Tensor:
        frames = conditions.shape[0]
        heard = F.pad(conditions, (0, 0, self.left, self.size - 1 - self.left))
        groups, width = self.channels // LANES, self.leave[3].size
        work = [torch.empty(frames * groups, LANES).numpy() for _ in range(2)] + [torch.empty(frames, width).numpy()]
        count = max(1, min(workers.count(), frames // _LEAST_FRAMES))
        edges, counter = np.array([frames * part // count for part in range(count + 1)]), np.zeros(1, np.int64)
        most = -(-frames // count)
        most = -(-most // -(-most // _MOST_FRAMES))  # even shares
        given = (most, self.left, self.epsilon), (heard.numpy(), heard.shape[1])
        arguments = counter, *given, self.entry, self.blocks, self.leave, tuple(work)
        workers.together([partial(_numba().backbone, worker, edges, *arguments) for worker in range(count)])
        return torch.from_numpy(work[2])[:, : self.columns]


def _rows(values: Tensor) -> np.ndarray:
    return values.detach().contiguous().reshape(-1, LANES).numpy()


def _flat(values: Tensor) -> np.ndarray:
    return values.detach().contiguous().numpy()


def _norm(norm: nn.LayerNorm) -> tuple[np.ndarray, np.ndarray]:
    return _rows(norm.weight), _rows(norm.bias)


@lru_cache(maxsize=1)
def _numba() -> ModuleType:
    from melisma.kernels import frames_numba

    return frames_numba


@lru_cache(maxsize=1)
def _matrices() -> ModuleType:
    from melisma.kernels import matrix_numba

    return matrix_numba


def packed(generator: "Spectral", conditions: Tensor) -> FastBackbone | None:
    """The packed backbone, kept until its weights change; None where the plain one is to be taken.

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
    return made_of(generator, weights, lambda: FastBackbone(generator))
