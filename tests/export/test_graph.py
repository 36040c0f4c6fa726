"""What stands around a generator in a graph."""

import numpy as np
import pytest
import torch
from kinds import loaded

from melisma.audio.f0_curve import NEUTRAL_HZ, interpolate_unvoiced
from melisma.export.graph import ExportGraph, GraphOptions, filled_f0


@pytest.mark.parametrize("seed", range(6))
def test_filled_f0_is_interpolation_through_unvoiced_frames(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curves = rng.uniform(60, 900, (4, 30)).astype(np.float32)
    curves[rng.uniform(size=curves.shape) < (0.2, 0.5, 0.9, 0.97, 0.0, 0.6)[seed]] = 0.0
    curves[0, :3] = curves[1, -3:] = curves[2] = 0.0
    silent = ~(curves > 0).any(axis=1, keepdims=True)
    wanted = interpolate_unvoiced(np.where(silent, np.float32(NEUTRAL_HZ), curves))
    assert np.allclose(filled_f0(torch.tensor(curves)).numpy(), wanted, rtol=3e-7, atol=0.0)


def test_draws_that_are_inputs_are_known_by_their_axes() -> None:
    graph = ExportGraph(loaded("so-vits-svc").generator, GraphOptions(seed=None))
    assert graph.draws == {
        "initial_phase": [("batch", 1), ("fixed", 9)],
        "noise": [("batch", 1), ("frames", 4), ("fixed", 9)],
        "start_phase": [("batch", 1)],
    }
    assert graph.names == ["features", "f0_hz", "speaker", *graph.draws]
    assert ExportGraph(loaded("so-vits-svc").generator, GraphOptions(seed=0)).draws == {}
