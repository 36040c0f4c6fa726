"""The vocoder's promises: length, rate, channels, level, silence, pieces, seeds, and clear refusals."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import melisma
from melisma.audio.f0_curve import shift_semitones
from melisma.audio.io import resample
from melisma.audio.mel import OPENVPI_44K, MelContract, log_mel
from melisma.data.singer import Note, random_phrase, sing
from melisma.errors import MelismaError
from melisma.evaluation.metrics import f0_agreement
from melisma.f0 import estimate_f0
from melisma.generators.analytic import analytic
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.generators.spectral import Spectral, SpectralConfig
from melisma.inference.pieces import cut
from melisma.inference.pitch import f0_of_source
from melisma.inference.recording_mel import RecordingMel
from melisma.inference.sources import ArraySource, Level
from melisma.inference.vocoder import Info, Vocoder

SMALL_MEL = MelContract(sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=40, fmin=40.0, fmax=8000.0)
_SMALL = {"upsample_rates": (8, 4, 4), "upsample_kernel_sizes": (16, 8, 8), "upsample_initial_channel": 16}


def _nsf(**changes: object) -> NsfHifigan:
    torch.manual_seed(0)
    settings = {"sample_rate": 16000, "in_channels": 40, "mel": SMALL_MEL, **_SMALL, **changes}
    return NsfHifigan(NsfHifiganConfig(**settings))  # type: ignore[arg-type]


def _spectral() -> Spectral:
    torch.manual_seed(0)
    return Spectral(SpectralConfig(mel=SMALL_MEL, n_fft=256, channels=16, blocks=2, projections=2))


MODELS = {
    "analytic": lambda: analytic(SMALL_MEL),
    "spectral": _spectral,
    "nsf-hifigan": lambda: _nsf(),
    "mini-nsf": lambda: _nsf(source="mini", unvoiced="interpolated", feature_noise=0.1),
    "hifi-gan": lambda: _nsf(source="none"),
}


@pytest.fixture(scope="module", params=MODELS)
def vocoder(request: pytest.FixtureRequest) -> Vocoder:
    return Vocoder(MODELS[request.param](), Info(request.param, request.param))


@pytest.fixture(scope="module")
def plain() -> Vocoder:
    return Vocoder(analytic(SMALL_MEL), Info("analytic", "analytic"))


@pytest.fixture(scope="module")
def phrase() -> tuple[np.ndarray, np.ndarray]:
    return random_phrase(np.random.default_rng(4), 2.0, 120.0, 500.0, 16000, 128)


def decibel(audio: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(audio.astype(np.float64)))) + 1e-12))


def test_synthesis_has_the_length_of_its_frames_and_is_decided_by_the_seed(vocoder: Vocoder, phrase) -> None:
    audio, f0_hz = phrase
    mel = log_mel(audio, SMALL_MEL)
    one = vocoder.synthesize(mel[0], f0_hz, seed=1)
    assert one.dtype == np.float32
    assert one.shape == (mel.shape[-1] * 128,)
    assert np.isfinite(one).all()
    assert np.array_equal(one, vocoder.synthesize(mel[0].numpy(), torch.tensor(f0_hz), seed=1))
    other = vocoder.synthesize(mel[0], f0_hz, seed=2)
    assert np.array_equal(one, other) == (vocoder.info.name == "hifi-gan")
    batch = vocoder.synthesize(torch.cat([mel, mel]), f0_hz, seed=1)
    assert np.allclose(batch, np.stack([one, one]), atol=1e-5)


def test_pieces_equal_the_whole(vocoder: Vocoder, phrase) -> None:
    audio, f0_hz = phrase
    mel = log_mel(audio, SMALL_MEL)
    whole = vocoder.synthesize(mel[0], f0_hz, piece_seconds=100.0)
    for seconds in (0.05, 0.4, 1.0):
        pieces = vocoder.synthesize(mel[0], f0_hz, piece_seconds=seconds)
        assert np.abs(pieces - whole).max() <= 1e-5 * max(1.0, np.abs(whole).max())


def test_more_projections_than_the_default_still_make_pieces_equal_the_whole(plain: Vocoder, phrase) -> None:
    audio, f0_hz = phrase
    mel = log_mel(audio, SMALL_MEL)
    whole = plain.synthesize(mel[0], f0_hz, projections=9)
    assert np.allclose(plain.synthesize(mel[0], f0_hz, projections=9, piece_seconds=0.3), whole, atol=1e-5)
    assert not np.allclose(plain.synthesize(mel[0], f0_hz, projections=0), whole, atol=1e-3)


@pytest.mark.parametrize(("frames", "size", "halo"), [(1, 10, 3), (10, 10, 3), (100, 7, 0), (100, 7, 9), (101, 50, 2)])
def test_cut_covers_every_frame_once_with_context(frames: int, size: int, halo: int) -> None:
    pieces = list(cut(frames, size, halo))
    assert [frame for piece in pieces for frame in range(piece.start, piece.stop)] == list(range(frames))
    for piece in pieces:
        assert piece.first == max(0, piece.start - halo)
        assert piece.last == min(frames, piece.stop + halo)


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
def test_resynthesis_keeps_length_channels_and_level(plain: Vocoder, phrase, sample_rate: int) -> None:
    audio = resample(phrase[0], 16000, sample_rate)[: int(1.37 * sample_rate)]
    stereo = np.stack([audio, 0.3 * np.roll(audio, 50)])
    made = plain.resynthesize(stereo, sample_rate)
    assert made.shape == stereo.shape
    assert made.dtype == np.float32
    for before, after in zip(stereo, made, strict=True):
        assert abs(decibel(before) - decibel(after)) < 0.5
    mono = plain.resynthesize(stereo[0], sample_rate)
    assert mono.shape == stereo[0].shape


def test_every_mel_model_resynthesises(vocoder: Vocoder, phrase) -> None:
    audio = phrase[0][:16001]
    made = vocoder.resynthesize(audio, 16000)
    assert made.shape == audio.shape
    assert np.array_equal(made, vocoder.resynthesize(audio, 16000))


@pytest.mark.parametrize("semitones", [-5.0, -0.5, 4.0, 12.0])
def test_a_shift_moves_the_pitch_and_keeps_the_level(semitones: float) -> None:
    full = melisma.load("analytic")
    audio, truth = sing([Note(220.0, 0.8, "a"), Note(247.0, 0.8, "e")], 44100, seed=2)
    made = full.resynthesize(audio, 44100, shift_semitones=semitones)
    assert abs(decibel(audio) - decibel(made)) < 0.5
    found = estimate_f0(made, 44100, 512)
    both = (found > 0) & (truth > 0)
    assert both.mean() > 0.8
    cents = 1200 * np.log2(found[both] / truth[both]) - 100 * semitones
    assert abs(np.median(cents)) < 6


@pytest.mark.parametrize("speed", [0.5, 0.93, 1.1, 2.0])
def test_speed_changes_the_length_and_not_the_pitch(speed: float) -> None:
    full = melisma.load("analytic")
    audio, _ = sing([Note(220.0, 1.5, "a")], 48000, seed=2)
    made = full.resynthesize(audio, 48000, speed=speed)
    assert made.shape == (round(len(audio) / speed),)
    assert abs(decibel(audio) - decibel(made)) < 0.5
    found = estimate_f0(made, 48000, 512)
    assert abs(1200 * np.log2(np.median(found[found > 0]) / 220.0)) < 25


def test_a_given_f0_is_sung(plain: Vocoder, phrase) -> None:
    audio, f0_hz = phrase
    for given, shift in ((f0_hz, 1.0), (shift_semitones(f0_hz, 1.0), 0.0)):  # the mel's own, and another than the mel's
        made = plain.resynthesize(audio, 16000, f0_hz=given, shift_semitones=shift)
        cents, _ = f0_agreement(shift_semitones(f0_hz, 1.0), estimate_f0(made, 16000, 128))
        assert cents < 6


def test_silence_stays_silence(vocoder: Vocoder) -> None:
    made = vocoder.resynthesize(np.zeros((2, 12345), dtype=np.float32), 16000)
    assert made.shape == (2, 12345)
    assert not made.any()


def test_digital_silence_inside_a_recording_stays_and_is_not_turned_up(plain: Vocoder, phrase) -> None:
    audio = phrase[0][:16000].copy()
    audio[4000:12000] = 0.0
    made = plain.resynthesize(np.stack([audio, np.zeros_like(audio)]), 16000)
    assert not made[0, 4600:11400].any()
    assert made[0, :3000].any()
    assert not made[1].any()
    whisper = 1e-5 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert decibel(plain.resynthesize(whisper, 16000)) < -85


def test_a_low_rate_recording_gets_no_hiss_above_its_band(phrase) -> None:
    audio = resample(phrase[0], 16000, 8000)
    up = melisma.load("analytic").resynthesize(resample(audio, 8000, 44100), 44100)
    spectrum = np.abs(np.fft.rfft(up)) ** 2
    edge = int(4300 / 22050 * len(spectrum))
    assert 10 * np.log10(spectrum[edge:].sum() / spectrum.sum()) < -40


def test_channels_that_cancel_each_other_still_have_a_pitch(phrase) -> None:
    audio, _ = sing([Note(220.0, 0.7, "a")], 16000)
    source = ArraySource(np.stack([audio, -audio]), 16000, 16000)
    found = f0_of_source(source, SMALL_MEL, None, False, lambda done: None)
    assert np.mean(found > 0) > 0.5


def test_the_block_wise_mel_and_f0_are_those_of_the_whole() -> None:
    audio, _ = random_phrase(np.random.default_rng(8), 66.0, 150.0, 400.0, 16000)
    audio[: 16000 * 20] *= 1e-3
    source = ArraySource(audio[None], 16000, 16000)
    whole = log_mel(audio, SMALL_MEL)
    part = RecordingMel(source, SMALL_MEL)(1000, 1100)
    assert torch.allclose(part, whole[..., 1000:1100], atol=1e-5)
    assert torch.allclose(RecordingMel(source, SMALL_MEL)(0, 50), whole[..., :50], atol=1e-5)
    expected = estimate_f0(audio, 16000, 128)
    assert np.array_equal(f0_of_source(source, SMALL_MEL, None, True, lambda done: None)[: len(expected)], expected)


def test_level_does_not_hear_an_offset() -> None:
    rng = np.random.default_rng(0)
    tone = np.stack([rng.standard_normal(20000), rng.standard_normal(20000)]).astype(np.float32) * 0.1
    level = Level(2, 16000)
    for start in range(0, 20000, 777):
        level.add(tone[:, start : start + 777] + np.array([[0.0], [0.5]], dtype=np.float32))
    assert level.rms() == pytest.approx(tone.std(axis=1), rel=1e-2)
    constant = Level(1, 16000)
    constant.add(np.full((1, 5000), 0.3, dtype=np.float32))
    assert constant.rms()[0] == 0.0


def test_speakers_by_number_and_vector() -> None:
    generator = _nsf(speaker_channels=6)
    table = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    vocoder = Vocoder(generator, Info("x", "so-vits-svc", details={"speakers": {"ann": 1}}), table)
    mel, f0_hz = np.full((40, 30), -5.5, dtype=np.float32), np.full(30, 200.0)
    by_number = vocoder.synthesize(mel, f0_hz, speaker=1)
    assert np.array_equal(by_number, vocoder.synthesize(mel, f0_hz, speaker=table[1]))
    assert np.array_equal(by_number, vocoder.synthesize(mel, f0_hz, speaker="ann"))
    assert not np.array_equal(by_number, vocoder.synthesize(mel, f0_hz, speaker=2))
    with pytest.raises(MelismaError, match="unknown speaker 'anne'"):
        vocoder.synthesize(mel, f0_hz, speaker="anne")
    moving = table[1][:, None].expand(-1, 30)[None]
    assert np.allclose(by_number, vocoder.synthesize(mel, f0_hz, speaker=moving, piece_seconds=0.05), atol=1e-5)
    with pytest.raises(MelismaError, match="numbered 0 to 2"):
        vocoder.synthesize(mel, f0_hz, speaker=3)
    with pytest.raises(MelismaError, match=r"needs \(6,\)"):
        vocoder.synthesize(mel, f0_hz, speaker=np.zeros(5))


def test_f0_is_brought_under_the_contract_of_the_model() -> None:
    zero, interpolated = Vocoder(_nsf(), Info("a", "a")), Vocoder(MODELS["mini-nsf"](), Info("b", "b"))
    curve = np.array([[0.0, 100.0, 0.0, 400.0], [0.0, 0.0, 0.0, 0.0]])
    assert np.array_equal(zero.f0_for_model(curve), curve)
    filled = interpolated.f0_for_model(curve)
    assert filled[0].tolist() == pytest.approx([100.0, 100.0, 200.0, 400.0])
    assert (filled[1] > 0).all()
    assert Vocoder(MODELS["hifi-gan"](), Info("c", "c")).f0_for_model(curve) is None


def test_an_f0_outside_the_trained_range_warns_once() -> None:
    vocoder = Vocoder(_nsf(), Info("small", "nsf-hifigan", f0_range_hz=(80.0, 800.0)))
    mel = np.full((40, 20), -5.5, dtype=np.float32)
    with pytest.warns(UserWarning, match="trained on 80 to 800 Hz"):
        vocoder.synthesize(mel, np.full(20, 1500.0))
    vocoder.synthesize(mel, np.full(20, 1500.0))


def test_bfloat16_stays_near_float32(phrase) -> None:
    audio, f0_hz = phrase
    mel = log_mel(audio, SMALL_MEL)[0, :, :60]
    for name in ("spectral", "nsf-hifigan"):
        exact = Vocoder(MODELS[name](), Info(name, name)).synthesize(mel, f0_hz[:60])
        rough = Vocoder(MODELS[name](), Info(name, name), precision="bfloat16").synthesize(mel, f0_hz[:60])
        assert np.abs(exact - rough).max() < 0.1 * np.abs(exact).max() + 1e-3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"features": np.zeros((39, 10)) - 5.5}, "39 channels, the model needs 40"),
        ({"features": np.zeros((10, 40)) - 5.5}, "transpose"),
        ({"features": np.zeros(40)}, "must be"),
        ({"features": np.full((40, 10), np.nan)}, "NaN"),
        ({"features": np.zeros((40, 0))}, "holds nothing"),
        ({"features": np.full((40, 10), 0.5)}, "take the logarithm"),
        ({"features": np.linspace(-80, 0, 400).reshape(40, 10)}, "decibel"),
        ({"features": np.linspace(-9, 0, 400).reshape(40, 10).clip(-5)}, "log10"),
        ({"f0_hz": np.full(9, 100.0)}, "9 frames, the features have 10"),
        ({"f0_hz": np.full(10, -100.0)}, "negative"),
        ({"f0_hz": np.full(10, np.nan)}, "NaN"),
        ({"f0_hz": np.full(10, 8001.0)}, "half the sample rate"),
        ({"f0_hz": None}, "needs F0"),
        ({"f0_hz": np.full((3, 10), 100.0)}, "3 curves for a batch of 1"),
        ({"speaker": 0}, "no speakers"),
        ({"projections": -1}, "negative"),
    ],
)
def test_wrong_input_is_refused_with_the_cure(plain: Vocoder, arguments: dict, said: str) -> None:
    good = {"features": np.full((40, 10), -5.5, dtype=np.float32), "f0_hz": np.full(10, 100.0)}
    with pytest.raises(MelismaError, match=said):
        plain.synthesize(**{**good, **arguments})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"audio": np.zeros(0)}, "no samples"),
        ({"audio": np.zeros(1)}, "too short"),
        ({"audio": np.zeros((3, 2, 100))}, "must be"),
        ({"audio": np.zeros((1000, 20))}, "transpose"),
        ({"audio": np.zeros(1000, dtype=np.int16)}, "divide"),
        ({"audio": np.full(1000, np.inf)}, "NaN or Inf"),
        ({"sample_rate": 4000}, "8000 to 192000"),
        ({"shift_semitones": float("nan")}, "shift"),
        ({"speed": 0.0}, "speed"),
        ({"f0_hz": np.full(20, 100.0)}, "20 frames, the recording 32"),
        ({"f0_hz": np.full(32, 5000.0), "shift_semitones": 12}, "half the sample rate"),
        ({"f0_method": "swift"}, "unknown F0 estimator"),
    ],
)
def test_wrong_recordings_are_refused_with_the_cure(plain: Vocoder, arguments: dict, said: str) -> None:
    good = {"audio": np.sin(np.arange(4096) * 0.1).astype(np.float32), "sample_rate": 16000}
    with pytest.raises(MelismaError, match=said):
        plain.resynthesize(**{**good, **arguments})


def test_latent_decoders_and_models_without_projections_say_so() -> None:
    latent = Vocoder(_nsf(mel=None), Info("G_0.pth", "so-vits-svc"))
    with pytest.raises(MelismaError, match="latents"):
        latent.resynthesize(np.zeros(1000, dtype=np.float32), 16000)
    with pytest.raises(MelismaError, match="no mel projections"):
        latent.synthesize(np.zeros((40, 5)), np.zeros(5), projections=2)


def test_load_says_what_it_knows() -> None:
    with pytest.raises(
        MelismaError, match="known models: melisma-44k, melisma-44k-live, analytic; did you mean 'analytic'"
    ):
        melisma.load("analitic")
    with pytest.raises(MelismaError, match="unknown precision"):
        melisma.load("analytic", precision="float16")  # type: ignore[arg-type]
    with pytest.raises(MelismaError, match="unknown device"):
        melisma.load("analytic", device="abacus")
    assert melisma.load("analytic").mel == OPENVPI_44K


def test_public_names_are_reached_lazily() -> None:
    code = (
        "import melisma; assert melisma.losses and melisma.source.SineSource and melisma.discriminators and "
        "melisma.interop and melisma.Randomness and melisma.estimate_f0 and melisma.MelContract and melisma.log_mel; "
        "assert set(melisma.__all__) <= set(dir(melisma)); print(melisma.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == melisma.__version__
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = melisma.lode
