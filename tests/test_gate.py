"""What the fine structure of a mel tells: blur closes the gate of the projection, and the pitch is read from it."""

import pytest
import torch

from melisma.audio.mel import OPENVPI_44K, log_mel
from melisma.audio.mel_bands import natural
from melisma.generators.analytic import analytic
from melisma.generators.spectral import Spectral, SpectralConfig
from melisma.layers.mel_projection import MelProjection
from melisma.layers.pitch_gate import pitch_gate, ripple_hz, sharpness
from melisma.noise import counter_normal


def blurred(values: torch.Tensor) -> torch.Tensor:
    """Gaussian over bins and frames, standard deviation 2, of ``(1, frames, bins)``."""
    kernel = torch.exp(-0.5 * (torch.arange(-8, 9) / 2.0) ** 2)
    kernel = kernel / kernel.sum()
    padded = torch.nn.functional.pad(values.unsqueeze(1), (8, 8, 8, 8), mode="replicate")
    return torch.nn.functional.conv2d(
        torch.nn.functional.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)
    ).squeeze(1)


def test_the_gate_is_closed_for_a_blurred_mel_and_open_for_a_true_one() -> None:
    model = analytic(OPENVPI_44K)
    f0_hz = torch.full((1, 80), 260.0)
    f0_hz[:, 40:] = 0.0
    features = torch.full((1, 128, 80), -3.0)
    with torch.no_grad():
        reference = log_mel(model(features, f0_hz, projections=0)[:, 0], OPENVPI_44K)
        for mel_values, low, high in ((reference, 0.9, 1.0), (blurred(reference.transpose(1, 2)).mT, 0.0, 0.1)):
            audio = model(mel_values, f0_hz, projections=0)[:, 0]
            actual = log_mel(audio, OPENVPI_44K).transpose(1, 2)
            pulses = model.excite(f0_hz).pulse_mel
            gate = pitch_gate(mel_values.transpose(1, 2), actual, pulses, (f0_hz > 0).float(), OPENVPI_44K)[0, :, 0]
            for part in (gate[10:30], gate[50:70]):
                assert low <= float(part.mean()) <= high


def test_projection_does_no_harm_to_a_blurred_mel() -> None:
    model = analytic(OPENVPI_44K)
    f0_hz = torch.full((1, 80), 260.0)
    features = torch.full((1, 128, 80), -3.0)
    with torch.no_grad():
        smooth = blurred(log_mel(model(features, f0_hz, projections=0)[:, 0], OPENVPI_44K).mT).mT
        draws = model.randomness(f0_hz, 0, 0, 80)
        plain, projected = (model(smooth, f0_hz, randomness=draws, projections=k)[0, 0] for k in (0, 8))
    assert (plain - projected)[5000:-5000].std() < 0.1 * plain.std()


@pytest.mark.parametrize("hz", [180.0, 300.0, 550.0, 800.0])
def test_the_pitch_of_a_mel_is_read_from_its_ripple(hz: float) -> None:
    model = analytic(OPENVPI_44K)
    f0_hz = torch.full((1, 60), hz)
    with torch.no_grad():
        audio = model(torch.full((1, 128, 60), -3.0), f0_hz, projections=0)[:, 0]
    found = ripple_hz(log_mel(audio, OPENVPI_44K).mT, OPENVPI_44K)[0, 10:-10]
    assert ((found / hz - 1.0).abs() < 0.12).all()


def test_an_octave_down_is_sung_an_octave_down() -> None:
    """The mel of 440 Hz with F0 220 Hz: the odd harmonics of 220 Hz must be there."""
    model = analytic(OPENVPI_44K)
    high, low = torch.full((1, 90), 440.0), torch.full((1, 90), 220.0)
    with torch.no_grad():
        mel_values = log_mel(model(torch.full((1, 128, 90), -3.0), high, projections=0)[:, 0], OPENVPI_44K)
        audio = model(mel_values, low)[0, 0, 8192:-8192]
    spectrum = torch.fft.rfft(audio * torch.hann_window(len(audio))).abs()
    level = [float(spectrum[round(k * 220.0 * len(audio) / 44100) + torch.arange(-3, 4)].max()) for k in (1, 2, 3, 4)]
    assert min(level[0], level[2]) > 0.3 * max(level[1], level[3])


def test_a_creak_of_some_frames_does_not_close_the_gate() -> None:
    """Frames whose mel shows no pitch at all, inside a note that does: half a second votes."""
    model = analytic(OPENVPI_44K)
    f0_hz = torch.full((1, 90), 200.0)
    with torch.no_grad():
        features = log_mel(model(torch.full((1, 128, 90), -3.0), f0_hz, projections=0)[:, 0], OPENVPI_44K)
        features[..., 40:48] += torch.randn(1, 128, 8, generator=torch.Generator().manual_seed(0))
        actual = log_mel(model(features, f0_hz, projections=0)[:, 0], OPENVPI_44K).mT
        voiced = torch.ones_like(f0_hz)
        gate = pitch_gate(features.mT, actual, model.excite(f0_hz).pulse_mel, voiced, OPENVPI_44K)[0, :, 0]
        other = model.excite(f0_hz * 2 ** (1 / 12))
        closed = pitch_gate(features.mT, actual, other.pulse_mel, voiced, OPENVPI_44K)[0, :, 0]
    assert gate[40:48].mean() > 0.7
    assert closed[10:-10].mean() < 0.3


def test_rounds_on_the_low_band_bring_the_low_bands_nearer_and_leave_the_high_ones() -> None:
    model = analytic(OPENVPI_44K)
    f0_hz = torch.full((1, 60), 150.0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        wanted = torch.randn(1, 60, 128, generator=generator) * 0.3 - 3.0
        audio = model(wanted.mT, f0_hz, randomness=model.randomness(f0_hz, 0, 0, 60), projections=0)[:, 0]
        projection, gate = MelProjection(wanted, OPENVPI_44K), torch.ones(1, 60, 1)
        before, after = (projection.log_mel(projection(audio, gate, 0, rounds)) for rounds in (0, 16))
    error = (before - wanted).abs().mean((0, 1)), (after - wanted).abs().mean((0, 1))
    assert error[1][:64].mean() < 0.6 * error[0][:64].mean()
    assert (before - after)[..., 80:].abs().max() < 0.02


def test_below_the_first_band_nothing_grows() -> None:
    """The lowest bands ask for more than there is; what no band hears must not be turned up with them."""
    frames, hop = 400, 512
    noise, other = (0.05 * counter_normal(seed, 0, frames * hop, 1).T for seed in (3, 4))
    wanted = natural(log_mel(other, OPENVPI_44K), OPENVPI_44K).transpose(1, 2)
    made = MelProjection(wanted, OPENVPI_44K)(noise, torch.ones(1, frames, 1), 4, 64)
    hz = torch.arange(frames * hop // 2 + 1) * 44100 / (frames * hop)
    before, after = (torch.fft.rfft(audio)[0, hz < 3.0].abs().square().sum() for audio in (noise, made))
    assert after < 1.5 * before


@pytest.mark.parametrize("voiced", [True, False])
def test_what_a_recording_shows_is_sharp_until_it_is_blurred(voiced: bool) -> None:
    f0_hz = torch.full((1, 80), 150.0 if voiced else 0.0)
    with torch.no_grad():
        audio = analytic(OPENVPI_44K)(torch.full((1, 128, 80), -3.0), f0_hz, projections=0)[:, 0]
    mel = log_mel(audio, OPENVPI_44K).transpose(1, 2)
    assert sharpness(mel)[:, 10:-10].min() > 0.9
    assert sharpness(blurred(mel))[:, 10:-10].max() == 0.0


def test_of_a_blurred_mel_a_network_believes_the_envelope_only() -> None:
    torch.manual_seed(0)
    model = Spectral(SpectralConfig(OPENVPI_44K, channels=16, blocks=1)).eval()
    sharp, f0_hz = torch.full((1, 40, 128), -3.0), torch.full((1, 40), 200.0)
    sharp[..., ::2] += 1.0
    detail = torch.tensor([0.5, -0.5]).repeat(64)

    def pulses(mel: torch.Tensor, missed: torch.Tensor | float) -> torch.Tensor:
        start = model.start(mel, f0_hz, model.excite(f0_hz).pulse_mel)
        return model.correct(start, mel - missed).pulse_log[..., 30:-30]

    with torch.no_grad():
        for mel, most in ((sharp, 1.0), (blurred(sharp), 0.1)):
            plain = pulses(mel, 0.0)
            assert ((pulses(mel, detail) - plain).abs().max() > 0.2) == (most == 1.0)
            assert (pulses(mel, detail) - plain).abs().max() < most
            assert (pulses(mel, 1.0) - plain).mean() > 0.5
