"""Run every kernel that is slow to compile once, so that its machine code is kept; see :mod:`melisma.kernels.ready`.

``python -m melisma.inference.compiling`` does so at any time, at an installation for instance.
"""

import itertools
import os
from dataclasses import replace

import numpy as np
import torch

from melisma.audio.mel import OPENVPI_44K
from melisma.audio.mel_bands import local_power
from melisma.audio.transpose import MARGIN, PhaseCurve, Warp
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.generators.spectral import Spectral, SpectralConfig
from melisma.kernels import amx, choice, gang, ready, residual, winograd
from melisma.kernels.packed import PackedConvolution
from melisma.layers.activations import lowpass_taps
from melisma.layers.weight_norm import fold

_FRAMES = 40


def compile_all() -> None:
    """Compile what is not compiled yet, of all that singing takes; does nothing where numba is missing."""
    if not choice.projection().fast:
        return
    ready.force()
    with torch.inference_mode():
        _spectral()
        _convolutional()
        _recordings()
        _chunks_of_residual_blocks()
    ready.declare()


def _spectral() -> None:
    small = SpectralConfig(
        OPENVPI_44K, channels=32, blocks=1, projections=1, hold_frames=5,
        settles=1, settle_average=0.25, settles_alone=1,
    )  # fmt: skip
    causal = SpectralConfig(OPENVPI_44K, channels=32, blocks=1, projections=0, causal=True)
    features, f0_hz = torch.full((1, OPENVPI_44K.n_mels, _FRAMES), -4.0), torch.full((1, _FRAMES), 200.0)
    for config in (small, causal):
        generator = Spectral(config).eval()
        for projections in sorted({0, config.projections}):
            randomness = generator.randomness(f0_hz, 0, 0, _FRAMES)
            generator(features, f0_hz, projections=projections, randomness=randomness)
        state = None
        for frames in (_FRAMES - 4, 4):  # the backbone's own step comes after the beginning of a stream
            made = generator.step(features[..., :frames], f0_hz[:, :frames], None, state, generator.draws(0, 0, frames))
            state = made[1]
    local_power(features.transpose(1, 2).contiguous(), f0_hz, OPENVPI_44K, 1024)
    gang.run([lambda: None, lambda: None])


def _convolutional() -> None:
    features, f0_hz = torch.zeros(1, 32, _FRAMES), torch.full((1, _FRAMES), 200.0)
    small = NsfHifiganConfig(44100, 32, upsample_initial_channel=64)
    for config in (small, replace(small, activation="snakebeta"), replace(small, source="mini")):
        generator = NsfHifigan(config).eval().requires_grad_(False)
        fold(generator)
        generator(features, f0_hz, randomness=generator.randomness(f0_hz, 0, 0, _FRAMES))
        generator.step(features, f0_hz, randomness=generator.draws(0, 0, _FRAMES), last=True)


def _recordings() -> None:
    curve = PhaseCurve(np.full(_FRAMES, 200.0), 44100, 512)
    centres = np.arange(4, _FRAMES - 4) * 512.0
    for channels in (1, 2):  # numba tells whether a slice of all channels is contiguous
        recording = np.zeros((channels, _FRAMES * 512 + 2 * MARGIN), np.float32)
        warp = Warp(curve, curve, centres, np.zeros(len(centres)), 1, 1024)
        warp.read(lambda index, samples=recording: samples[:, index + MARGIN])  # type: ignore[misc]


def _chunks_of_residual_blocks() -> None:
    weight, bias, x = torch.zeros(32, 32, 3), torch.zeros(32), torch.zeros(_FRAMES, 32)
    packed: list[PackedConvolution] = [residual.pack_taps(weight, bias)]
    if choice.filtering().fast:
        filtered = winograd.pack(weight, bias)
        packed.append(filtered)
        filtered(x)
    if choice.tiles().fast:
        tiles = amx.pack(weight, bias)
        packed.append(tiles)
        amx.in_turn([tiles] * 2, (0.1, 0.1), tiles(x), x, False, (False, False))
    snakes = residual.Snakes([torch.ones(2, 32)] * 2 * residual.STEPS, lowpass_taps())
    remembered: list[tuple[float | residual.Snakes, int]] = [(0.1, 3), (snakes, 7)]
    for convolution, (activation, count) in itertools.product(packed, remembered):
        nothing: list[residual.Past] = [[None] * count] * residual.STEPS
        residual.next_chunk(x, activation, [convolution] * 2 * residual.STEPS, nothing, True).run()


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)
    compile_all()
