"""NSF-HiFi-GAN for listening on a CPU: what comes after the first convolution, channels last and in tiles of time.

The same network as in ``nsf_hifigan.py``, whose forward takes this way where it can; tests hold the two together over
every setting. Every stage is cut into tiles that fit the cache, with as much context as its residual blocks reach, and
the tiles go side by side: upsampling (as one matrix product for all phases), excitation, residual blocks and, in the
last stage, the convolution to audio. No stage waits for the whole of the one before: a tile begins when those that it
reads are there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrize

from melisma.generators.nsf_blocks import FEW_CHANNELS, Block, Way, activation_of, steps_of
from melisma.kernels import amx, choice, ready, workers
from melisma.kernels.convolution import pack, polyphase
from melisma.layers.residual import RESIDUAL_BLOCKS
from melisma.layers.weights import made_of, weights_of

if TYPE_CHECKING:
    from melisma.generators.nsf_hifigan import NsfHifigan

# Values of a tile: a megabyte for each array of it. Short tiles waste work on their context.
_TILE_VALUES = 1 << 18
_TILE_SAMPLES = (2048, 16384)
_LEAST_SAMPLES = 512  # of a tile that is cut for the sake of a second core


class Stage:
    """One upsampling and what follows it."""

    def __init__(self, generator: "NsfHifigan", number: int, way: Way) -> None:
        config = generator.config
        self.rate, taps = config.upsample_rates[number], config.upsample_kernel_sizes[number]
        self.channels = config.channels(number + 1)
        # Beside filtering the upsampling is what is left in bfloat16, and that to few channels decides its error.
        few = FEW_CHANNELS if way.rounding is None else 2 * FEW_CHANNELS
        self.dtype = torch.float32 if self.channels < few else way.dtype
        before = config.activation_before_upsampling
        self.before = activation_of(generator.up_activations[number]) if before else None
        self.share = self._share(generator, number)
        raising: Any = generator.ups[number]
        bias = raising.bias if self.share is None else raising.bias + self.share[1]
        weight = polyphase(raising.weight, self.rate)
        self.taps = weight.shape[-1]
        snaky = config.activation != "leaky-relu"
        self.raising: Callable[[Tensor], Tensor]
        if way.tiles and amx.fits(weight):
            self.raising = partial(amx.pack(weight, bias.repeat(self.rate)), cut=(True, True))
        else:
            self.raising = pack(weight, bias.repeat(self.rate), self.dtype, padding=0)
        # Samples that the plain upsampling leaves out before its first, by its padding and by the family's alignment.
        self.padding = (taps - self.rate) // 2
        self.overhang = taps - self.rate - 2 * self.padding
        self.shift = self.overhang if config.padding == "up" else 0
        count = len(config.resblock_kernel_sizes)
        blocks = generator.resblocks[number * count : (number + 1) * count]
        shapes = zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        reaches = [RESIDUAL_BLOCKS[config.resblock].reach(size, dilations, snaky) for size, dilations in shapes]
        steps = [steps_of(block, self.dtype, snaky, way) for block in blocks]
        self.blocks = [Block(*both) for both in zip(steps, reaches, strict=True)]
        self.reach = max(reaches)

    def _share(self, generator: "NsfHifigan", number: int) -> tuple[Tensor, Tensor, int, int] | None:
        """Weight ``(window, channels)``, bias, step and left padding of the excitation's share; None without one."""
        config = generator.config
        if config.source == "none" or not generator._has_share(number):
            return None
        convolution: Any = generator.source_conv if config.source == "mini" else generator.noise_convs[number]
        weight = convolution.weight[:, 0].t().contiguous()
        step = convolution.stride[0]
        left = 0 if weight.shape[0] == 1 else (step + (config.padding == "up")) // 2
        return weight, convolution.bias, step, left

    def length(self, time: int, excited: bool) -> int:
        """Samples that come of ``time`` samples."""
        return time * self.rate + (0 if excited else self.overhang)

    def tiles(self, length: int) -> list[tuple[int, int]]:
        """Where to cut ``length`` samples of output."""
        most = min(max(_TILE_VALUES // self.channels, _TILE_SAMPLES[0]), _TILE_SAMPLES[1])
        return workers.stretches(length, _LEAST_SAMPLES, most)

    def __call__(
        self,
        before: Tensor,
        windows: Tensor | None,
        first: int,
        stop: int,
        excited: bool,
        out: Tensor | None = None,
    ) -> Tensor:
        """Samples ``first`` to ``stop`` of the stage's output, ``(time, channels)`` float32.

        Args:
            before: output of the stage before, whole.
            windows: of the padded excitation, ``(time, window)``, where this stage has a share.
            first: first sample; those around it are computed too, as far as the residual blocks reach.
            stop: one after the last.
            excited: whether the length is cut to that of an excitation.
            out: where to.
        """
        length = self.length(before.shape[0], excited)
        begin, end = max(0, first - self.reach), min(length, stop + self.reach)
        x = self._raised(before, begin, end, excited)
        if windows is not None and self.share is not None:
            x.addmm_(windows[begin:end], self.share[0])
        *others, last = [partial(block, x, begin, (first, stop), length) for block in self.blocks]
        if not others:
            return last() if out is None else out.copy_(last())
        total = others[0]()
        for block in others[1:]:
            total += block()
        return torch.add(total, last(), out=total if out is None else out).div_(len(self.blocks))

    def _skipped(self, excited: bool) -> int:
        """Samples of the plain upsampling before the stage's first."""
        return self.padding + (self.shift if excited else 0)

    def read(self, first: int, stop: int, length: int, excited: bool) -> tuple[int, int]:
        """What samples ``first`` to ``stop`` of ``length`` are made of: the first row of the stage before, and one
        after the last, or a few more."""
        begin, end = max(0, first - self.reach), min(length, stop + self.reach)
        skipped = self._skipped(excited)
        beside = 0 if self.before is None else self.before.reach
        return (begin + skipped) // self.rate - self.taps + 1 - beside, (end - 1 + skipped) // self.rate + 1 + beside

    def _raised(self, before: Tensor, begin: int, end: int, excited: bool) -> Tensor:
        """Samples ``begin`` to ``end`` after the upsampling."""
        skipped = self._skipped(excited)
        first, stop = (begin + skipped) // self.rate, (end - 1 + skipped) // self.rate + 1
        low, time = first - (self.taps - 1), before.shape[0]
        near = before[max(0, low) : min(time, stop)]
        if self.before is not None:
            left = max(0, low - self.before.reach)
            near = self.before(before[left : min(time, stop + self.before.reach)])
            near = near[max(0, low) - left : max(0, low) - left + min(time, stop) - max(0, low)]
        near, outside = near.to(self.dtype), (max(0, -low), max(0, stop - time))
        near = F.pad(near, (0, 0, *outside)) if any(outside) else near  # to pad with nothing would be a copy
        raised = self.raising(near).reshape(-1, self.channels)
        start = begin + skipped - first * self.rate
        return raised[start : start + end - begin].float()


class FastNsfHifigan:
    """Everything after the first convolution and its conditioning, packed.

    Args:
        generator: with folded weights.
        way: how.
    """

    def __init__(self, generator: "NsfHifigan", way: Way) -> None:
        config = generator.config
        self.stages = [Stage(generator, number, way) for number in range(len(config.upsample_rates))]
        self.hop_length = config.hop_length
        self.final = activation_of(generator.post_activation)
        last: Any = generator.conv_post
        self.conv_post = pack(last.weight, last.bias, torch.float32)
        self.bound = torch.tanh if config.final_activation == "tanh" else partial(torch.clamp, min=-1.0, max=1.0)

    def __call__(self, x: Tensor, excitation: Tensor | None, frames: int) -> Tensor:
        """Make audio.

        Args:
            x: float32 ``(batch, channels, frames)``, after the first convolution.
            excitation: ``(batch, 1, time)`` at its own rate, or None.
            frames: of the features.

        Returns:
            ``(batch, 1, frames * hop_length)`` float32.
        """
        audio = x.new_empty(x.shape[0], 1, frames * self.hop_length)
        given = None if excitation is None else excitation[:, 0].float()
        plan = _Plan()
        for item in range(x.shape[0]):
            self._clip(plan, x[item].t().contiguous(), None if given is None else given[item], audio[item, 0])
        workers.run(plan.tasks, plan.after)
        return audio

    def _clip(self, plan: "_Plan", rows: Tensor, excitation: Tensor | None, audio: Tensor) -> None:
        """Plan all stages of a clip: a tile begins as soon as those of the stage before that it reads are there."""
        excited = excitation is not None
        before, there = rows, [_Tile(0, rows.shape[0], ())]
        for stage in self.stages:
            last = stage is self.stages[-1]
            length = stage.length(before.shape[0], excited)
            made = audio if last else before.new_empty(length, stage.channels)
            share = _windows(stage, excitation)
            make = partial(self._tile_of_audio if last else _tile, stage, before, share, excited, made)
            far = self.conv_post.padding + self.final.reach if last else 0
            tiles = []
            for first, stop in stage.tiles(made.shape[0]):
                low, high = stage.read(max(0, first - far), min(length, stop + far), length, excited)
                awaited = [number for tile in there if tile.first < high and tile.stop > low for number in tile.numbers]
                tiles.append(_Tile(first, stop, (plan.add(partial(make, first, stop), awaited),)))
            before, there = made, tiles

    def _tile_of_audio(
        self, stage: Stage, before: Tensor, windows: Tensor | None, excited: bool, audio: Tensor, first: int, stop: int
    ) -> None:
        """The last stage and the way to audio."""
        length = stage.length(before.shape[0], excited)
        near, far = self.conv_post.padding, self.conv_post.padding + self.final.reach
        begin, end = max(0, first - far), min(length, stop + far)
        y = self.final(stage(before, windows, begin, end, excited))
        low, high = max(0, first - near), min(length, stop + near)
        audio[first:stop] = self.bound(self.conv_post(y[low - begin : high - begin])[first - low : stop - low, 0])


@dataclass(frozen=True)
class _Tile:
    """Samples of a stage's output, and the numbers of the tasks that make them."""

    first: int
    stop: int
    numbers: tuple[int, ...]


class _Plan:
    """Tasks, and which ones each of them waits for."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], None]] = []
        self.after: list[list[int]] = []

    def add(self, task: Callable[[], None], awaited: list[int]) -> int:
        """The number of a new task."""
        self.tasks.append(task)
        self.after.append(awaited)
        return len(self.tasks) - 1


def _tile(
    stage: Stage, before: Tensor, windows: Tensor | None, excited: bool, made: Tensor, first: int, stop: int
) -> None:
    stage(before, windows, first, stop, excited, made[first:stop])


def _windows(stage: Stage, excitation: Tensor | None) -> Tensor | None:
    if excitation is None or stage.share is None:
        return None
    weight, _, step, left = stage.share
    window = weight.shape[0]
    padded = F.pad(excitation, (left, step - left)) if window > 1 else excitation
    return padded.unfold(0, window, step)


def packed(generator: "NsfHifigan", features: Tensor) -> FastNsfHifigan | None:
    """The packed form of a generator, kept until its weights change; None where the plain forward is to be taken.

    That is: in training, with weight norm or gradients, in graphs that are traced, elsewhere than on a CPU, and where
    a kernel is missing (:mod:`melisma.kernels.choice` says why).
    """
    if not choice.convolutions().fast or features.device.type != "cpu" or type(features) is not Tensor:
        return None
    if generator.training or not choice.kernels_allowed():
        return None
    if features.dtype != torch.float32 or (features.requires_grad and torch.is_grad_enabled()):
        return None
    weights = weights_of(generator)
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        return None
    if generator.config.activation != "leaky-relu" and not choice.snake().fast:
        return None
    if any(weight.dtype != torch.float32 for weight in weights) or parametrize.is_parametrized(generator.conv_pre):
        return None
    way = _way()
    return None if way is None else made_of(generator, weights, lambda: FastNsfHifigan(generator, way), way)


def _way() -> Way | None:
    """How, here and now; None for the plain forward."""
    filtered = ready.usable(choice.filtering())
    if not torch.is_autocast_enabled("cpu"):
        return Way("single" if filtered else None)
    if torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return None
    if ready.usable(choice.tiles()):
        return Way("half", tiles=True)
    filtered = filtered and choice.half_precision().path == "winograd"
    rounding: Literal["half"] | None = "half" if filtered else None
    if choice.bfloat16_convolutions().fast and (choice.bfloat16_instructions() or not filtered):
        return Way(rounding, dtype=torch.bfloat16)
    return Way(rounding) if filtered else None
