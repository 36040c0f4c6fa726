"""What is read off the fine structure of mels, by kernels and by the plain code."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from melisma.audio.mel import OPENVPI_44K, MelContract
from melisma.generators.analytic import Analytic, AnalyticConfig
from melisma.kernels import choice, ready, ripple
from melisma.layers.pitch_gate import foreign_ripple, missed_of, pitch_gate, ripple_hz, sharpness

pytest.importorskip("numba")

FEW = MelContract(16000, 512, 512, 128, 40, 0.0, 8000.0)  # fewer bands than are looked at elsewhere
RIPPLES = {OPENVPI_44K: (0.8, 3.0), FEW: (0.35, 1.0)}  # bands a radian, at the first and at the last frame


@pytest.fixture(autouse=True)
def compiled() -> None:
    ready.force()


def drawn(mel: MelContract, batch: int, frames: int, ripple_of: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Three mels that have the same ripple in part, so that gates open in part."""
    bands = torch.arange(mel.n_mels)
    comb = torch.cos(bands / torch.linspace(*RIPPLES[mel], frames).unsqueeze(-1)).expand(batch, -1, -1)
    noise = [ripple_of * torch.randn(batch, frames, mel.n_mels) for _ in range(3)]
    return 0.8 * comb + noise[0] - 4.0, comb + noise[1] - 4.0, comb.roll(frames // 3, 1) + noise[2]


def widths(config: AnalyticConfig, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Of a mel that shows a ripple of its own, at a pitch below it."""
    return torch.cat(Analytic(config).widths(0.8 * a, 100.0 + 20.0 * b[..., 0].abs(), c))


READ: dict[str, Callable[[MelContract, Tensor, Tensor, Tensor], Tensor]] = {
    "gate": lambda mel, a, b, c: pitch_gate(a, b, c, (a[..., 0] > -4.0).float(), mel),
    "sharpness": lambda mel, a, b, c: sharpness(0.5 * a),
    "widths": lambda mel, *mels: widths(AnalyticConfig(mel, 2 * mel.hop_length), *mels),
    "causal widths": lambda mel, *mels: widths(
        AnalyticConfig(mel, 2 * mel.hop_length, projections=0, causal=True), *mels
    ),
    "foreign": lambda mel, a, b, c: foreign_ripple(a, c),
    "ripple": lambda mel, a, b, c: ripple_hz(a, mel),
    "missed": lambda mel, a, b, c: missed_of(a, b, c[..., 0].sigmoid(), 0.5),
}


@pytest.mark.parametrize("what", READ)
@pytest.mark.parametrize("mel", [OPENVPI_44K, FEW], ids=["openvpi", "few"])
def test_kernels_read_what_the_plain_code_reads(what: str, mel: MelContract) -> None:
    torch.manual_seed(0)
    seen = []
    for batch, frames, noise in ((1, 1, 0.3), (1, 7, 0.1), (3, 60, 0.2), (2, 150, 0.5)):
        given = drawn(mel, batch, frames, noise)
        assert ripple.fused(*given)
        found = READ[what](mel, *given)
        with choice.plain():
            assert not ripple.fused(*given)
            expected = READ[what](mel, *given)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
        seen.append(expected.flatten())
    assert torch.cat(seen).std() > 0  # not shut, or open, throughout


def test_mels_may_lie_as_they_like() -> None:
    wanted, heard, _ = drawn(OPENVPI_44K, 2, 40)
    sharp = torch.rand(40, 2).t()
    turned = wanted.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(missed_of(turned, heard, sharp, 1.5), missed_of(wanted, heard, sharp.contiguous(), 1.5))
    assert torch.equal(foreign_ripple(turned, heard), foreign_ripple(wanted, heard))


def test_where_no_lag_is_strong_the_first_peak_is_behind_the_last() -> None:
    values = torch.tensor([[[-1.0, 1.0, 0.0], [-2.0, 3.0, 0.0], [-3.0, 2.9, 0.0]]])
    assert ripple.first_peaks(values, 0.8).tolist() == [[3, 1, 0]]
    strong = values >= 0.8 * values.amax(dim=1, keepdim=True)
    assert torch.where(strong, torch.arange(3).unsqueeze(-1), 3).amin(dim=1).tolist() == [[3, 1, 0]]


def test_gradients_take_the_plain_way() -> None:
    wanted, heard, _ = drawn(OPENVPI_44K, 1, 20)
    missed_of(wanted, heard.requires_grad_(), torch.ones(1, 20), 1.5).sum().backward()
    assert heard.grad is not None
    assert heard.grad.any()
