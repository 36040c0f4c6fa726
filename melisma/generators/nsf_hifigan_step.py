"""The NSF-HiFi-GAN family chunk by chunk: the same layers in the same order as its forward, nothing computed twice."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from melisma.kernels import choice, rounding, workers
from melisma.layers import rows
from melisma.layers.residual_rows import side_by_side
from melisma.layers.streaming import Memory, State
from melisma.source import GlidingSource, Randomness

if TYPE_CHECKING:
    from melisma.generators.nsf_hifigan import NsfHifigan


def step(
    generator: "NsfHifigan",
    features: Tensor,
    f0_hz: Tensor | None,
    speaker: Tensor | None,
    memory: Memory,
    randomness: Randomness,
) -> tuple[Tensor, State]:
    """See :meth:`melisma.generators.nsf_hifigan.NsfHifigan.step`, which checks the inputs."""
    config = generator.config
    frames = features.shape[-1]
    before = memory.count("frames", frames)
    half = torch.is_autocast_enabled("cpu")
    like = features if frames else features.new_zeros(features.shape[0], 1, 1)  # the last step may bring none
    with torch.autocast("cpu", enabled=False):
        by_rows = (config.activation == "leaky-relu" or choice.snake().fast) and rows.wanted(generator, like)
    with _by_rows(half) if by_rows else nullcontext():
        excitation = None
        if f0_hz is not None and config.source != "none":
            excitation = _excite(generator, f0_hz, memory.at("source"), randomness).to(features.dtype)
        x = memory.through("conv_pre", generator.conv_pre, features)
        x = _condition(generator, x, frames, speaker, memory.at("condition"), randomness)
        x = rows.as_rows(x) if by_rows else x
        for stage in range(len(generator.ups)):
            x = _stage(generator, x, stage, excitation, memory.at("stages").at(stage), by_rows)
        x = memory.through("post_activation", generator.post_activation, x)
        x = memory.through("conv_post", generator.conv_post, x)
        x = x.tanh() if config.final_activation == "tanh" else x.clamp(-1.0, 1.0)
        emitted = memory.count("samples", x.shape[-1])
        return x[..., : (before + frames) * generator.hop_length - emitted], memory.state


@contextmanager
def _by_rows(half: bool) -> Iterator[None]:
    """Torch's own casts would turn every layer's layout; the convolutions round by themselves instead."""
    with workers.ours(), torch.autocast("cpu", enabled=False), rounding.halved(half):
        yield


def _excite(generator: "NsfHifigan", f0_hz: Tensor, memory: Memory, randomness: Randomness) -> Tensor:
    source = generator.source
    start = memory.recall("phase")
    if isinstance(source, GlidingSource):
        # A frame glides to the next one's F0, so the newest frame waits for it.
        f0_hz = memory.joined("f0", f0_hz)
        ready = f0_hz.shape[1] if memory.last else max(0, f0_hz.shape[1] - 1)
        excitation, phase = source.step(f0_hz, start, ready)
        memory.keep("f0", f0_hz[:, ready:])
    else:
        drawn = randomness.initial_phase
        if drawn is None:
            drawn = memory.recall("initial_phase")
            drawn = torch.rand(f0_hz.shape[0], source.sines.harmonics) if drawn is None else drawn
            memory.keep("initial_phase", drawn)
        excitation, phase = source.step(f0_hz, start, dataclasses.replace(randomness, initial_phase=drawn))
    memory.keep("phase", phase)
    return excitation


def _condition(
    generator: "NsfHifigan", x: Tensor, frames: int, speaker: Tensor | None, memory: Memory, randomness: Randomness
) -> Tensor:
    if generator.config.feature_noise > 0:
        drawn = randomness.feature_noise
        noise = x.new_empty(*x.shape[:2], frames).normal_() if drawn is None else drawn.to(x)
        x, noise = memory.together("noise", x, noise)
        x = x + generator.config.feature_noise * noise
    if speaker is None:
        return x
    x, shift = memory.together("speaker", x, generator.cond(speaker).expand(-1, -1, frames))
    return x + shift


def _stage(
    generator: "NsfHifigan", x: Tensor, stage: int, excitation: Tensor | None, memory: Memory, by_rows: bool
) -> Tensor:
    config = generator.config
    if config.activation_before_upsampling:
        x = memory.through("up_activation", generator.up_activations[stage], x)
    first = None if excitation is None else config.first_sample(stage)
    x = memory.through("up", generator.ups[stage], x, first)
    if excitation is not None and generator._has_share(stage):
        convolution = generator.source_conv if config.source == "mini" else generator.noise_convs[stage]
        padding = (0, 0) if config.source == "mini" else generator._share_padding(stage)
        share = memory.through("share", convolution, excitation, *padding)
        x, share = memory.together("excited", x, share)
        x = x + share
    together = memory.together("blocks", *_blocks(generator, x, stage, memory.at("blocks"), by_rows))
    return sum(together[1:], together[0]) / len(together)


def _blocks(generator: "NsfHifigan", x: Tensor, stage: int, memory: Memory, by_rows: bool) -> list[Tensor]:
    """The residual blocks of a stage, side by side where the signal is in rows."""
    sizes = generator.config.resblock_kernel_sizes
    count = len(sizes)
    blocks = [generator.resblocks[stage * count + index] for index in range(count)]
    parts = [x] * count
    if not by_rows:
        return [memory.through(index, block, x) for index, block in enumerate(blocks)]
    x = rows.as_rows(x)
    at_once = side_by_side(blocks, x, [memory.at(index) for index in range(count)])
    if at_once is not None:
        return at_once

    def step(index: int) -> None:
        parts[index] = memory.through(index, blocks[index], x)

    workers.run([partial(step, index) for index in sorted(range(count), key=lambda index: -sizes[index])])
    return parts
