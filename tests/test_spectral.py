"""The spectral family: what must be true of every member, trained or not."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from melisma.audio.mel import OPENVPI_44K, MelContract, log_mel
from melisma.audio.stft import spectra
from melisma.errors import MelismaError
from melisma.generators.analytic import Analytic, AnalyticConfig, analytic
from melisma.generators.spectral import Spectral, SpectralConfig
from melisma.kernels import choice
from melisma.layers.framing import Hold
from melisma.layers.mel_projection import mel_of
from melisma.layers.pitch_gate import pitch_gate
from melisma.layers.streaming import WHOLE
from melisma.losses.spectral import energy_distance, spectral_distance
from melisma.source import Randomness

SMALL = MelContract(sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=40, fmin=40.0, fmax=7000.0)


def small_spectral(**changes: float) -> Spectral:
    torch.manual_seed(0)
    config = dataclasses.replace(SpectralConfig(mel=SMALL, n_fft=256, channels=16, blocks=2), **changes)
    model = Spectral(config)
    torch.nn.init.normal_(model.head.weight, std=0.05)
    return model.eval()


MODELS = {
    "analytic": lambda: analytic(SMALL).eval(),
    "spectral": small_spectral,
    "one subframe": lambda: small_spectral(subframes=1, n_fft=512),
    "no draft": lambda: small_spectral(draft=False),
    "held": lambda: small_spectral(hold_frames=4),
    "averaged": lambda: small_spectral(settle_average=0.25, settles_alone=1),
}


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> Analytic:
    return MODELS[request.param]()


def song(frames: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth log-mel and an F0 curve with an unvoiced gap."""
    rng = np.random.default_rng(frames)
    tilt = np.linspace(0.0, -4.0, SMALL.n_mels)[None, :, None]
    level = rng.normal(size=(batch, SMALL.n_mels, frames)) * 0.3 + tilt
    f0_hz = 180.0 * 2.0 ** (0.3 * np.sin(np.arange(frames) / 9.0)) * np.ones((batch, 1))
    f0_hz[:, frames // 3 : frames // 3 + 5] = 0.0
    return torch.tensor(level, dtype=torch.float32), torch.tensor(f0_hz, dtype=torch.float32)


@pytest.mark.parametrize("frames", [1, 2, 7, 50])
def test_length_is_frames_times_hop(model: Analytic, frames: int) -> None:
    features, f0_hz = song(frames)
    with torch.no_grad():
        audio = model(features, f0_hz)
    assert audio.shape == (1, 1, frames * SMALL.hop_length)
    assert torch.isfinite(audio).all()


def test_a_batch_is_its_clips(model: Analytic) -> None:
    features, f0_hz = song(40, batch=3)
    draws = model.randomness(f0_hz, seed=3, start_frame=0, frames=40)
    with torch.no_grad():
        together = model(features, f0_hz, randomness=draws)
        for row in range(3):
            one = Randomness(draws.initial_phase[row : row + 1], draws.noise[row : row + 1])
            alone = model(features[row : row + 1], f0_hz[row : row + 1], randomness=one)
            assert (alone - together[row]).abs().max() < 5e-4 * together.std()  # rounding, through dozens of rounds


def test_pieces_are_the_whole(model: Analytic) -> None:
    frames, halo = 160, model.halo_frames
    features, f0_hz = song(frames)
    hop = model.hop_length
    with torch.no_grad():
        whole = model(features, f0_hz, randomness=model.randomness(f0_hz, 5, 0, frames))[0, 0]
        for start, stop in ((0, 50), (50, 61), (61, 160)):
            first, last = max(0, start - halo), min(frames, stop + halo)
            draws = model.randomness(f0_hz, 5, first, last - first)
            piece = model(features[..., first:last], f0_hz[:, first:last], randomness=draws)[0, 0]
            inner = piece[(start - first) * hop : (stop - first) * hop]
            assert (inner - whole[start * hop : stop * hop]).abs().max() < 1e-4 * whole.std()


def test_notes_are_held_at_the_pitch_of_the_nearer_one() -> None:
    curve = torch.tensor([[0, 0, 0, 0, 100.0, 110.0, 0, 0, 0, 0, 0, 200.0, 0, 0, 0, 0]])
    expected = [0, 0, 100, 100, 100, 110, 110, 110, 0, 200, 200, 200, 200, 200, 0, 0]
    assert Hold(2)(curve)[0].tolist() == expected
    assert Hold(3)(curve)[0, 6:11].tolist() == [110, 110, 110, 200, 200]
    assert torch.equal(Hold(0)(curve), curve)


@pytest.mark.parametrize("start", [0, 3, 21, 23, 30, 33, 40, 59])
def test_pieces_that_begin_beside_a_note_keep_the_phase(start: int) -> None:
    model = small_spectral(hold_frames=5)
    f0_hz = torch.full((1, 100), 210.0)
    for first, stop in ((0, 4), (20, 22), (30, 50), (56, 59), (90, 100)):
        f0_hz[:, first:stop] = 0.0
    hop, first = model.hop_length, start + 6  # beside what a piece does not know, and a ramp of one frame
    phase = model.randomness(f0_hz, 0, start, 100 - start).initial_phase
    whole = model.excite(f0_hz, model.randomness(f0_hz, 0, 0, 100).initial_phase).train[0, first * hop :]
    piece = model.excite(f0_hz[:, start:], phase).train[0, (first - start) * hop :]
    assert (piece - whole).abs().max() < 1e-4 * whole.std()


@pytest.mark.parametrize("subframes", [1, 2, 4])
def test_nothing_repeats_with_the_frame(subframes: int) -> None:
    """A held sound has masks that hold: what alternates from subframe to subframe buzzes at the frame rate."""
    model = small_spectral(subframes=subframes, n_fft=512)
    features, f0_hz = torch.linspace(-2, -4, SMALL.n_mels)[None, :, None].expand(1, -1, 60), torch.full((1, 60), 250.0)
    with torch.no_grad():
        proposal = model.start(features.transpose(1, 2), f0_hz, model.excite(f0_hz).pulse_mel)
        for stage in model.stages:
            proposal = stage(proposal, proposal.wanted + 0.5, WHOLE)
        masks = model.between(proposal)
    for mask in (masks.pulse_log, masks.noise_log):
        held = mask[:, 25 * subframes : 35 * subframes]
        assert held.std(dim=(0, 2)).min() > 0.01  # the network does say something
        assert (held - held[:, :1]).abs().max() < 1e-3


@pytest.mark.parametrize("plain", [True, False])
def test_breath_has_no_mean(model: Analytic, plain: bool) -> None:
    frames, clips = 400, 8
    features = torch.linspace(-2, -5, SMALL.n_mels)[None, :, None].expand(clips, -1, frames)
    noise = torch.randn(clips, frames * SMALL.hop_length, 1, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), choice.plain() if plain else nullcontext():
        audio = model(features, torch.zeros(clips, frames), None, Randomness(noise=noise), projections=0)[:, 0]
    # White noise would make this 1; what is left hangs over the ends of a clip.
    assert audio.sum(1).square().mean() / audio.square().sum(1).mean() < 0.02


def test_the_seed_decides(model: Analytic) -> None:
    features, f0_hz = song(30)
    with torch.no_grad():
        first, same, other = (model(features, f0_hz, randomness=model.randomness(f0_hz, s, 0, 30)) for s in (1, 1, 2))
    assert torch.equal(first, same)
    assert (first - other).abs().max() > 1e-3 * first.std()


@pytest.mark.parametrize("frames", [3, 40])
def test_the_ends_of_a_crop_are_not_made_what_lies_beyond_them(frames: int) -> None:
    """Half a window at both ends has heard what the audio does not have."""
    model = small_spectral()
    features, f0_hz = song(frames)
    with torch.no_grad():
        wanted = features.transpose(1, 2)
        audio, excitation = model.sing(wanted, f0_hz, Randomness())
        open_gate = torch.ones(1, frames)
        whole, crop = (model.project(audio, wanted, excitation, 2, open_gate, cut=cut) for cut in (False, True))
    ends = [slice(SMALL.hop_length // 2), slice(-SMALL.hop_length // 2, None)]
    for end in ends if frames > 3 else [slice(None)]:
        assert (whole - audio)[:, end].abs().max() > 1e-2 * audio.std()
        assert (crop - audio)[:, end].abs().max() < 1e-3 * audio.std()
    if frames > 3:
        assert (crop - audio).abs().max() > 1e-2 * audio.std()


class Graph(torch.nn.Module):
    """A model whose phase and noise are tensors of their own."""

    def __init__(self, model: Analytic) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, features: torch.Tensor, f0_hz: torch.Tensor, phase: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        return self.model(features, f0_hz, randomness=Randomness(phase, noise))


@pytest.mark.parametrize("projections", [0, 2])
def test_exported_is_eager_at_other_lengths(projections: int) -> None:
    model = small_spectral(projections=projections, low_rounds=8, hold_frames=3)
    features, f0_hz = song(40)
    draws = model.randomness(f0_hz, 0, 0, 40)

    frames = torch.export.Dim("frames", min=8, max=4096)
    with torch.no_grad():
        exported = torch.export.export(
            Graph(model),
            (features, f0_hz, draws.initial_phase, draws.noise),
            dynamic_shapes=({2: frames}, {1: frames}, {}, {1: SMALL.hop_length * frames}),
        ).module()
        for length in (40, 23, 90):
            features, f0_hz = song(length)
            draws = model.randomness(f0_hz, 1, 0, length)
            eager = model(features, f0_hz, randomness=draws)
            traced = exported(features, f0_hz, draws.initial_phase, draws.noise)
            assert (eager - traced).abs().max() < 1e-4 * eager.std()


def test_gradients_reach_every_weight() -> None:
    model = small_spectral()
    features, f0_hz = song(30)
    model(features, f0_hz).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_network_that_says_nothing_is_analytic() -> None:
    model = small_spectral(draft=False)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    plain = Analytic(AnalyticConfig(mel=SMALL, n_fft=256))
    features, f0_hz = song(30)
    draws = plain.randomness(f0_hz, 0, 0, 30)
    with torch.no_grad():
        difference = model(features, f0_hz, randomness=draws) - plain(features, f0_hz, randomness=draws)
    assert difference.abs().max() < 1e-4


def test_a_draft_brings_the_mel_nearer() -> None:
    model, plain = small_spectral(), Analytic(AnalyticConfig(mel=SMALL, n_fft=256))
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    features, f0_hz = song(60)
    draws = plain.randomness(f0_hz, 0, 0, 60)
    with torch.no_grad():
        errors = [
            (log_mel(each(features, f0_hz, randomness=draws, projections=0)[:, 0], SMALL) - features).abs().mean()
            for each in (model, plain)
        ]
    assert errors[0] < 0.8 * errors[1]


def test_settling_alone_brings_the_mel_nearer_where_nothing_projects() -> None:
    model = small_spectral(settles_alone=1)
    without = small_spectral()
    without.load_state_dict(
        {
            name: values[: without.head.out_features] if name.startswith("head.") else values
            for name, values in model.state_dict().items()
        }
    )
    features, f0_hz = song(60)
    draws = model.randomness(f0_hz, 0, 0, 60)

    def error(generator: Spectral, mel: torch.Tensor) -> torch.Tensor:
        made = generator(mel, f0_hz, randomness=draws, projections=0)[:, 0]
        return (log_mel(made, SMALL) - mel).abs().mean()

    blurred = features.mean(dim=1, keepdim=True).expand(features.shape)
    with torch.no_grad():
        assert error(model, features) < 0.95 * error(without, features)
        projected = [each(features, f0_hz, randomness=draws, projections=1) for each in (model, without)]
        assert torch.equal(*projected)
        assert torch.equal(error(model, blurred), error(without, blurred))


def test_settling_alone_leaves_a_mel_of_another_pitch_alone() -> None:
    model = small_spectral(settles_alone=1)
    sung, others = (torch.full((1, 60), 300.0 * 2 ** (semitones / 12)) for semitones in (0, 4))
    wanted = model.excite(sung).pulse_mel - 3.0
    middle, changes = slice(15, 45), []
    with torch.no_grad():
        for f0_hz in (sung, others):
            proposal = model.start(wanted, f0_hz, model.excite(f0_hz).pulse_mel)
            proposal = dataclasses.replace(proposal, belief=torch.zeros(1, 60, 2 * SMALL.n_mels))
            settled = model.settle(proposal, wanted + 0.5, detail_only=True)
            changes.append((settled.pulse_log - proposal.pulse_log)[:, middle].abs().mean())
    assert changes[0] > 0.4
    assert changes[1] < 0.05


def test_averaged_settlings_make_masks_that_move_less() -> None:
    movements = []
    features, f0_hz = song(60)
    for share in (0.0, 0.25):
        model = small_spectral(settles=2, settle_average=share)
        torch.nn.init.zeros_(model.head.weight)
        wanted = features.transpose(1, 2)
        proposal = model.start(wanted, f0_hz, model.excite(f0_hz).pulse_mel)
        noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0))
        before = proposal.pulse_log
        for stage in model.stages:
            proposal = stage(proposal, wanted + noise, WHOLE)
        said = proposal.pulse_log - before
        moved = (said[:, 1:] - said[:, :-1]).abs()
        voiced = (f0_hz[:, 1:] > 0) & (f0_hz[:, :-1] > 0)
        movements.append((moved[voiced].mean(), moved[~voiced].mean()))
    (voiced, unvoiced), (voiced_averaged, unvoiced_averaged) = movements
    assert voiced_averaged < 0.75 * voiced
    assert unvoiced_averaged > 0.75 * unvoiced


@pytest.mark.parametrize("hz", [55.0, 220.0, 880.0, 1600.0])
def test_the_pitch_is_the_one_asked_for(hz: float) -> None:
    model = analytic(OPENVPI_44K)
    frames = 90
    features = torch.full((1, 128, frames), -2.0)
    f0_hz = torch.full((1, frames), hz)
    with torch.no_grad():
        audio = model(features, f0_hz, projections=0)[0, 0]
    spectrum = torch.fft.rfft(audio * torch.hann_window(len(audio)), n=1 << 18).abs()
    step = 44100 / (1 << 18)
    for harmonic in (1, 2, 3):
        near = slice(int((harmonic - 0.3) * hz / step), int((harmonic + 0.3) * hz / step))
        peak = (int(spectrum[near].argmax()) + near.start) * step / harmonic
        assert abs(1200 * np.log2(peak / hz)) < 3.0


def test_silence_is_silent() -> None:
    model = analytic(OPENVPI_44K)
    features = torch.full((1, 128, 40), float(np.log(1e-5)))
    with torch.no_grad():
        for f0_hz in (torch.zeros(1, 40), torch.full((1, 40), 200.0)):
            assert model(features, f0_hz).abs().max() < 1e-5


def test_projection_brings_the_mel_nearer() -> None:
    model = analytic(SMALL)
    features, f0_hz = song(80)
    f0_hz = torch.zeros_like(f0_hz)
    distances = []
    with torch.no_grad():
        for rounds in (0, 1, 3, 8):
            draws = model.randomness(f0_hz, 0, 0, 80)
            audio = model(features, f0_hz, randomness=draws, projections=rounds)[:, 0]
            distances.append(float((log_mel(audio, SMALL) - features).abs().mean()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.6 * distances[0]


def voice_mel(model: Analytic, f0_hz: torch.Tensor) -> torch.Tensor:
    """Natural log-mel ``(1, frames, n_mels)`` of a flat voice at that pitch."""
    features = torch.full((1, model.mel.n_mels, f0_hz.shape[1]), -3.0)
    with torch.no_grad():
        audio = model(features, f0_hz, projections=0)[:, 0]
    return log_mel(audio, model.mel).transpose(1, 2)


@pytest.mark.parametrize(("cents", "low", "high"), [(0, 0.9, 1.0), (60, 0.0, 0.1), (-60, 0.0, 0.1), (400, 0.0, 0.1)])
def test_the_gate_closes_on_another_pitch(cents: float, low: float, high: float) -> None:
    model = analytic(OPENVPI_44K)
    f0_hz = torch.full((1, 60), 240.0)
    wanted, actual = voice_mel(model, f0_hz), voice_mel(model, f0_hz * 2 ** (cents / 1200))
    pulses = model.excite(f0_hz * 2 ** (cents / 1200)).pulse_mel
    gate = pitch_gate(wanted, actual, pulses, torch.ones(1, 60), OPENVPI_44K)[0, 10:-10]
    assert low <= float(gate.mean()) <= high
    assert float(pitch_gate(wanted, actual, pulses, torch.zeros(1, 60), OPENVPI_44K).min()) == 1.0


def test_mel_of_agrees_with_log_mel() -> None:
    audio = torch.randn(1, 6400) * 0.1
    left, right = SMALL.pad_amounts(6400)
    padded = torch.nn.functional.pad(audio.unsqueeze(1), (left, right), mode="reflect").squeeze(1)
    ours = mel_of(spectra(padded, SMALL.n_fft, SMALL.hop_length), SMALL).transpose(1, 2)
    assert (ours - log_mel(audio, SMALL)).abs().max() < 1e-4


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(MelismaError, match="centre"):
        AnalyticConfig(mel=dataclasses.replace(SMALL, padding="centre"))
    with pytest.raises(MelismaError, match="hop_length"):
        AnalyticConfig(mel=SMALL, n_fft=200)
    with pytest.raises(MelismaError, match="cannot wait"):
        AnalyticConfig(mel=SMALL, projections=0, causal=True, hold_frames=2)
    for settings in ({"settles": -1}, {"settles_alone": -1}, {"settle_average": 0.6}):
        with pytest.raises(MelismaError, match=next(iter(settings))):
            small_spectral(**settings)


def test_energy_distance_rewards_draws_that_differ() -> None:
    """Noise against noise: two independent draws must beat the same draw twice, and the wrong level must lose."""
    torch.manual_seed(0)
    shape, band = (4, 16000), torch.full((4,), 8000.0)
    reference, first, second = torch.randn(shape), torch.randn(shape), torch.randn(shape)

    def loss(one: torch.Tensor, other: torch.Tensor, repulsion: float) -> float:
        return float(energy_distance((one, other), reference, 256, band, 16000, repulsion))

    assert loss(first, second, 1.0) < 0.7 * loss(first, first, 1.0)
    assert loss(first, second, 0.0) == pytest.approx(loss(first, first, 0.0), rel=0.05)
    for level in (0.5, 2.0):
        assert loss(level * first, level * second, 1.0) > 1.2 * loss(first, second, 1.0)


def test_losses_do_not_look_above_the_band() -> None:
    torch.manual_seed(0)
    low = torch.sin(torch.arange(8000) * 0.1).unsqueeze(0)
    high = low + 0.3 * torch.sin(torch.arange(8000) * 2.8)
    near = spectral_distance(high, low, 512, torch.tensor([5000.0]), 16000)
    far = spectral_distance(high, low, 512, torch.tensor([8000.0]), 16000)
    assert near < 0.2 * far


def test_a_graph_may_be_the_first_that_needs_what_follows_from_settings() -> None:
    """What is kept for all must not be of a trace, which has no values; sizes that nothing else here has."""
    mel = dataclasses.replace(SMALL, n_mels=37)
    model = Graph(Analytic(AnalyticConfig(mel, n_fft=256, projections=1)).eval())
    features, f0_hz = torch.full((1, 37, 30), -3.0), torch.full((1, 30), 150.0)
    draws = model.model.randomness(f0_hz, 0, 0, 30)
    given = (features, f0_hz, draws.initial_phase, draws.noise)
    with torch.no_grad():
        traced = torch.export.export(model, given).module()
        found, expected = traced(*given), model(*given)
    assert (found - expected).abs().max() < 1e-4 * expected.std()
