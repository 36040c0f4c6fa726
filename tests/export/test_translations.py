"""Operators that are written anew for onnxruntime, against torch."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from melisma.errors import MelismaError
from melisma.export.onnx_file import open_session
from melisma.export.trace import check_opset, convert
from melisma.export.translations import factors


class Operators(nn.Module):
    """Everything in the table, at lengths that take either way through it."""

    def forward(self, *values: Tensor) -> Tensor:
        (x,) = values  # (batch, samples), a multiple of 720 long
        results = []
        for points, hop in ((96, 36), (512, 128), (720, 240)):
            frames = nn.functional.pad(x, (points, points)).unfold(-1, points, hop)
            spectrum = torch.fft.rfft(frames) * torch.linspace(0.5, 2.0, points // 2 + 1)
            back = torch.fft.irfft(spectrum, n=points)
            power = torch.fft.irfft(spectrum.abs().square(), n=points)
            results += [spectrum.real, spectrum.imag, back, power]
        total = torch.zeros_like(x)
        total[:, 1:-1] += x[:, :-2]
        wide = torch.sinh(torch.stack([x.double() * 1e-8, x.double() * 0.05, x.double() * 9.0]))
        summed = torch.cumsum(x + 100.0, dim=1)
        results += [total, torch.log1p(wide.abs()), summed]
        return torch.cat([(value / value.std()).to(x.dtype).reshape(x.shape[0], -1) for value in results], dim=1)


def test_translations_are_what_they_stand_for() -> None:
    torch.manual_seed(0)
    units = torch.export.Dim("units", min=1, max=100)
    model = convert(Operators(), (torch.randn(2, 3 * 5760),), ({1: 5760 * units},), ["x"], "y", 1)
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"DFT", "Sinh", "ScatterND"}
    session = open_session(model.SerializeToString())
    for length in (5760, 17280, 5760 * 5):
        x = torch.randn(2, length)
        wanted = Operators()(x).numpy()
        assert np.abs(session.run(None, {"x": x.numpy()})[0] - wanted).max() < 5e-5


@pytest.mark.parametrize("points", [258, 512, 720, 1024, 2048, 4096, 514])
def test_factors_split_what_they_can(points: int) -> None:
    split = factors(points)
    if points in (258, 514):  # twice a prime, or nearly: nothing to gain
        assert split is None or split[0] * split[1] == points
    else:
        assert split is not None
        assert split[0] * split[1] == points
        assert split[1] % 2 == 0
        assert sum(split) < 4 * points**0.5
    assert factors(128) is None


@pytest.mark.parametrize("opset", [9, 17, 99])
def test_unsupported_opsets_are_named(opset: int) -> None:
    with pytest.raises(MelismaError, match=f"opset {opset} is not supported; use 18 to"):
        check_opset(opset)
