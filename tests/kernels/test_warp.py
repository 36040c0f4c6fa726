"""A recording read through a warp by the kernel against the plain code."""

import numpy as np
import pytest

from melisma.audio.transpose import MARGIN, PhaseCurve, Warp
from melisma.kernels import choice

pytest.importorskip("numba")


@pytest.mark.parametrize("fine", [1, 2])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_warp_reads_what_the_plain_code_reads(fine: int, channels: int) -> None:
    drawing, frames, hop = np.random.default_rng(fine), 60, 256
    recording = drawing.standard_normal((channels, frames * hop + 2 * MARGIN)).astype(np.float32)
    f0_hz = 150.0 * 2 ** np.sin(np.arange(frames) / 5)
    f0_hz[20:30] = 0.0
    here, target = PhaseCurve(f0_hz, 22050, hop), PhaseCurve(f0_hz * 2 ** (5 / 12), 22050, hop)
    # The first and the last frame reach beyond the ends of both curves.
    centres = np.linspace(0.0, frames * hop, 40)
    periods = np.round(here.at(centres) - target.at(centres))
    warp = Warp(target, here, centres, periods, fine, 512 * fine)

    def take(index: np.ndarray) -> np.ndarray:
        return recording[:, np.clip(index + MARGIN, 0, recording.shape[1] - 1)]

    found = warp.read(take)
    with choice.plain():
        expected = warp.read(take)
    assert found.shape == expected.shape == (channels, 40, 512 * fine)
    np.testing.assert_allclose(found, expected, atol=2e-5)
