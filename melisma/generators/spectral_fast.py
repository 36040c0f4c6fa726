"""The spectral generator for listening on a CPU.

The same computation as in ``spectral.py``, whose forward takes this way where it can; tests hold the two together.
In the backbone, workers share the frames: each takes its own through all blocks, and waits for its neighbours only at
the end of a block, because the depthwise convolution of the next one reads theirs. Between the matrix products stand
two passes, both of them in the cache.
"""

from functools import lru_cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melisma.audio.mel import MelContract
from melisma.audio.mel_bands import band_to_bin_weights, flat_mel
from melisma.audio.stft import hann
from melisma.generators.spectral_parts import Proposal
from melisma.kernels import LANES, workers
from melisma.kernels.grid import Transform
from melisma.kernels.masks import Masks
from melisma.kernels.projection import fused, neighbours
from melisma.layers.framing import Subframes

if TYPE_CHECKING:
    from melisma.generators.analytic import Analytic, AnalyticConfig
    from melisma.generators.spectral import Spectral
    from melisma.layers.convnext import ConvNeXtBlock

_LEAST_FRAMES = 24  # for a worker of its own


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
        return torch.stack([clip.sing(torch.cat([pulse, noise], dim=-1)) for clip, pulse, noise in rows])


def fast_envelope(config: "AnalyticConfig", wanted: Tensor, width_hz: Tensor) -> Tensor:
    """:meth:`melisma.generators.spectral.Analytic.envelope`."""
    shared = _masks(config.mel, config.n_fft, config.subframes, config.causal)
    bins = len(shared.lower)
    width = (width_hz * config.n_fft / config.mel.sample_rate).clamp(min=1.0, max=bins / 2).double()
    return torch.stack([shared.envelopes(mel, row)[:, :bins] for mel, row in zip(wanted, width, strict=True)])


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
        self.channels = config.channels
        self.left = config.kernel_size - 1 if config.causal else config.kernel_size // 2
        self.right = config.kernel_size - 1 - self.left
        entry: Any = generator.entry
        self.entry = entry.weight.permute(2, 1, 0).reshape(-1, self.channels).contiguous()
        self.entry_bias = entry.bias
        self.entry_norm = _norm(generator.entry_norm)
        self.blocks = [_Block(block, self.left) for block in generator.blocks]  # type: ignore[arg-type]
        self.exit_norm = _norm(generator.exit_norm)
        self.head, self.head_bias = generator.head.weight.t().contiguous(), generator.head.bias

    def __call__(self, conditions: Tensor) -> Tensor:
        """``(batch, frames, rows)`` -> what the head says, ``(batch, frames, rows)``."""
        return torch.stack([self._clip(clip) for clip in conditions])

    def _clip(self, conditions: Tensor) -> Tensor:
        frames = conditions.shape[0]
        seen = F.pad(conditions, (0, 0, self.left, self.right)).unfold(0, self.left + self.right + 1, 1)
        x = (torch.empty(frames, self.channels), torch.empty(frames, self.channels))
        out = torch.empty(frames, self.head.shape[1])
        count = max(1, min(workers.count(), frames // _LEAST_FRAMES))
        edges = [frames * part // count for part in range(count + 1)]
        counter = np.zeros(1, np.int64)
        workers.together([partial(self._part, edges, worker, counter, seen, x, out) for worker in range(count)])
        return out

    def _part(
        self, edges: list[int], worker: int, counter: np.ndarray, seen: Tensor, x: tuple[Tensor, Tensor], out: Tensor
    ) -> None:
        first, stop, count = edges[worker], edges[worker + 1], len(edges) - 1
        try:
            window = seen[first:stop].transpose(1, 2).flatten(1)
            torch.addmm(self.entry_bias, window, self.entry, out=x[0][first:stop])
            _numba().normalise(_rows(x[0]), first, stop, self.entry_norm)
            for number, block in enumerate(self.blocks, start=1):
                _numba().wait(counter, number * count)
                block(x[(number - 1) % 2], x[number % 2], first, stop)
            last = x[len(self.blocks) % 2]
            _numba().normalise(_rows(last), first, stop, self.exit_norm)
            torch.addmm(self.head_bias, last[first:stop], self.head, out=out[first:stop])
        except BaseException:
            workers.release(counter)
            raise


class _Block:
    """A ConvNeXt block, packed; its scale is in its last product."""

    def __init__(self, block: "ConvNeXtBlock", left: int) -> None:
        depthwise: Any = block.depthwise
        self.depthwise = (_rows(depthwise.weight[:, 0].t()), _rows(depthwise.bias), left)
        self.norm = _norm(block.norm)
        self.widen, self.widen_bias = block.widen.weight.t().contiguous(), block.widen.bias
        self.narrow = (block.narrow.weight * block.scale.unsqueeze(1)).t().contiguous()
        self.skip = _rows(block.narrow.bias * block.scale)

    def __call__(self, x: Tensor, after: Tensor, first: int, stop: int) -> None:
        """The frames ``first`` to ``stop`` of ``x`` to those of ``after``."""
        given, normalised = _rows(x), torch.empty(stop - first, x.shape[1])
        _numba().begin_block(
            given, x.shape[0], first, stop, self.depthwise, self.norm, self.skip, _rows(normalised), _rows(after)
        )
        inside = torch.addmm(self.widen_bias, normalised, self.widen)
        _numba().gelu(_rows(inside))
        after[first:stop].addmm_(inside, self.narrow)


def _rows(values: Tensor) -> np.ndarray:
    return values.detach().contiguous().reshape(-1, LANES).numpy()


def _norm(norm: nn.LayerNorm) -> tuple[np.ndarray, np.ndarray, np.float32]:
    return _rows(norm.weight), _rows(norm.bias), np.float32(norm.eps)


@lru_cache(maxsize=1)
def _numba() -> ModuleType:
    from melisma.kernels import frames_numba

    return frames_numba


_packed: WeakKeyDictionary[nn.Module, tuple[Any, FastBackbone]] = WeakKeyDictionary()


def packed(generator: "Spectral", conditions: Tensor) -> FastBackbone | None:
    """The packed backbone, kept until its weights change; None where the plain one is to be taken.

    That is: in training or with gradients, in graphs that are traced, elsewhere than on a CPU, in other precisions,
    with a width that is no multiple of sixteen, and where numba is missing.
    """
    if generator.training or not fused(conditions) or torch.is_autocast_enabled("cpu"):
        return None
    weights = list(generator.parameters())
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        return None
    inner = generator.config.channels * generator.config.expansion
    if generator.config.channels % LANES or inner % LANES or any(w.dtype != torch.float32 for w in weights):
        return None
    seen = tuple((weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights)
    known = _packed.get(generator)
    if known is None or known[0] != seen:
        with torch.no_grad():
            known = _packed[generator] = (seen, FastBackbone(generator))
    return known[1]
