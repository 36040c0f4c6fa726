"""A recording at another pitch: the harmonics move, the formants and the consonants stay, pieces are the whole."""

import numpy as np
import pytest
import torch

from melisma.audio.f0_curve import shift_semitones
from melisma.audio.formant_filter import envelope, missed_in_mel, steady
from melisma.audio.mel import OPENVPI_44K, MelContract, log_mel
from melisma.audio.transpose import REACH_FRAMES, PhaseCurve, frame_ratios, read_between
from melisma.data.singer import Note, Voice, random_phrase, sing
from melisma.evaluation.envelope import envelope_distance
from melisma.evaluation.metrics import f0_agreement
from melisma.f0 import estimate_f0
from melisma.inference.recording import Recording
from melisma.inference.recording_mel import RecordingMel
from melisma.inference.sources import ArraySource
from melisma.inference.transposed import Transposed

RATE, HOP = 16000, 128
MEL = MelContract(sample_rate=RATE, n_fft=512, win_length=512, hop_length=HOP, n_mels=40, fmin=40.0, fmax=8000.0)
WIDE = OPENVPI_44K

Sung = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def voice() -> Sung:
    return random_phrase(np.random.default_rng(4), 3.0, 120.0, 400.0, RATE, HOP)


def moved(
    audio: np.ndarray, f0_hz: np.ndarray, target_hz: np.ndarray, speed: float = 1.0, mel: MelContract = MEL
) -> np.ndarray:
    source = ArraySource(audio[None], mel.sample_rate, mel.sample_rate)
    transposed = Transposed(mel, f0_hz, target_hz, speed)
    samples = len(target_hz) * mel.hop_length
    edge = transposed.context
    whole = Recording(source, -edge, round(samples * speed) + edge)
    return transposed.read(whole, 0, samples)[0].numpy()


def test_phase_and_position_are_inverse_even_outside_the_clip(voice: Sung) -> None:
    curve = PhaseCurve(voice[1], RATE, HOP)
    positions = np.linspace(-5000.0, 60000.0, 997)
    assert np.abs(curve.position(curve.at(positions)) - positions).max() < 1e-6
    steady = PhaseCurve(np.full(50, 200.0), RATE, HOP)
    assert steady.at(np.array([RATE + 64.0]))[0] - steady.at(np.array([64.0]))[0] == pytest.approx(200.0)


def test_reading_between_samples_is_reading_a_tone() -> None:
    tone = np.sin(2 * np.pi * 0.05 * np.arange(8000)).astype(np.float32)
    positions = 3000.37 + 0.731 * np.arange(2000)
    assert np.abs(read_between(tone[None], positions)[0] - np.sin(2 * np.pi * 0.05 * positions)).max() < 2e-3


@pytest.mark.parametrize("semitones", [-7.0, -0.5, 0.2, 4.0, 12.0])
def test_the_pitch_is_the_one_asked_for(voice: Sung, semitones: float) -> None:
    audio, f0_hz = voice
    target = shift_semitones(f0_hz, semitones)
    cents, voiced = f0_agreement(target, estimate_f0(moved(audio, f0_hz, target), RATE, HOP))
    assert cents < 6
    assert voiced > 0.9


def test_there_and_back_is_where_it_began(voice: Sung) -> None:
    audio, f0_hz = voice
    target = shift_semitones(f0_hz, 4.0)
    back = moved(moved(audio, f0_hz, target), target, f0_hz)
    before, after = (log_mel(signal[: len(back)], MEL)[0, 3:28] for signal in (audio, back))
    voiced = torch.from_numpy(f0_hz[: before.shape[1]] > 0)
    assert (before - after)[:, voiced].abs().median() < 0.25


def test_formants_stay(voice: Sung) -> None:
    """A resonance of noise-like harmonics: its centre does not follow the pitch."""
    frames = 250
    f0_hz = np.full(frames, 110.0, dtype=np.float32)
    time = np.arange(frames * HOP) / RATE
    orders = np.arange(1, 70)[:, None]
    level = np.exp(-0.5 * ((orders * 110.0 - 2000.0) / 400.0) ** 2) + 1e-3
    audio = (0.05 * level * np.cos(2 * np.pi * orders * 110.0 * time)).sum(0).astype(np.float32)

    def centre(signal: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(signal)) ** 2
        return float((power * np.fft.rfftfreq(len(signal), 1 / RATE)).sum() / power.sum())

    for semitones in (-5.0, 5.0):
        shifted = moved(audio, f0_hz, shift_semitones(f0_hz, semitones))
        assert centre(shifted) == pytest.approx(centre(audio), rel=0.06)


def test_what_a_mel_lacks_is_its_envelope_alone() -> None:
    """Formants that were moved come back; harmonics, the level, edges and what is low stay as they are."""
    bands = torch.arange(WIDE.n_mels)
    formant = 0.4 * torch.exp(-0.5 * ((bands - 70.0) / 8.0) ** 2)
    harmonics = 0.4 * torch.cos(2 * torch.pi * bands / 5.0)
    flat, near = torch.zeros(1, WIDE.n_mels, 1), torch.tensor([100.0])

    def missed(wanted: torch.Tensor, width_hz: torch.Tensor = near) -> torch.Tensor:
        return missed_in_mel(flat + wanted[:, None], flat, width_hz, WIDE)[0, 0]

    found = missed(formant)
    assert (found - (formant - formant.mean()))[30:-5].abs().max() < 0.03
    assert missed(harmonics)[5:-5].abs().max() < 0.02
    assert missed(torch.full((WIDE.n_mels,), 0.5)).abs().max() < 1e-5
    assert missed(torch.where(bands < 8, 0.5, 0.0))[:8].abs().max() < 0.02
    assert missed(torch.where(bands < 100, 0.0, -8.0)).abs()[:90].max() < 0.35
    waves = 0.4 * torch.cos(2 * torch.pi * bands / 16.0)
    assert missed(waves)[40:90].abs().max() > 0.3
    assert missed(waves, torch.tensor([600.0]))[40:90].abs().max() < 0.05


@pytest.mark.parametrize(("semitones", "most"), [(-12, 0.25), (-4, 0.16), (-1, 0.1), (1, 0.1), (4, 0.2), (7, 0.3)])
def test_a_sung_vowel_keeps_its_envelope(semitones: float, most: float) -> None:
    """Two vowels in a low voice, whose harmonics 30 quefrencies blur; what remains is mostly harmonics that moved."""
    notes = [Note(110.0, 0.6, "a"), Note(120.0, 0.6, "i")]
    audio, f0_hz = sing(notes, 44100, 3, Voice(vibrato_cents=30.0), WIDE.hop_length)
    shifted = moved(audio, f0_hz, shift_semitones(f0_hz, semitones), mel=WIDE)
    assert envelope_distance(audio, shifted, WIDE, f0_hz > 0) < most


def test_an_octave_up_leaves_nothing_at_the_old_fundamental() -> None:
    audio, f0_hz = sing([Note(200.0, 1.0, "a")], RATE, 3, Voice(vibrato_cents=0.0, drift_cents=0.0), HOP)
    shifted = moved(audio, f0_hz, shift_semitones(f0_hz, 12.0))
    power = np.abs(np.fft.rfft(shifted * np.hanning(len(shifted)))) ** 2
    hz = np.fft.rfftfreq(len(shifted), 1 / RATE)
    old, new = (power[np.abs(hz - centre) < 20.0].sum() for centre in (200.0, 400.0))
    assert old < 1e-4 * new


def test_moved_down_the_top_of_a_narrow_recording_stays(voice: Sung) -> None:
    """A recording that ends at 5 kHz of 8 is moved to end at 3.3 kHz: what is missing is the recording's own."""
    audio, f0_hz = voice
    spectrum = np.fft.rfft(audio)
    spectrum[np.fft.rfftfreq(len(audio), 1 / RATE) > 5000.0] = 0.0
    narrow = np.fft.irfft(spectrum, len(audio)).astype(np.float32)
    shifted = moved(narrow, f0_hz, shift_semitones(f0_hz, -7.0))

    def level(signal: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(signal)) ** 2
        hz = np.fft.rfftfreq(len(signal), 1 / RATE)
        return 10.0 * np.log10(power[(hz > 3500.0) & (hz < 4800.0)].sum())

    assert abs(level(shifted) - level(narrow[: len(shifted)])) < 3.0


@pytest.mark.parametrize("semitones", [-12.0, 4.0, 12.0])
def test_the_level_stays(semitones: float) -> None:
    audio, f0_hz = sing([Note(300.0, 1.0, "a")], 44100, 3, hop_length=WIDE.hop_length)
    shifted = moved(audio, f0_hz, shift_semitones(f0_hz, semitones), mel=WIDE)
    before, after = (np.mean(np.square(signal[4096:-8192])) for signal in (audio, shifted))
    assert abs(10.0 * np.log10(after / before)) < 3.0


@pytest.mark.parametrize("semitones", [-12.0, 5.0])
def test_silence_stays_silence(semitones: float) -> None:
    f0_hz = np.full(100, 200.0, dtype=np.float32)
    silence = np.zeros(100 * HOP, dtype=np.float32)
    assert not moved(silence, f0_hz, shift_semitones(f0_hz, semitones)).any()


@pytest.mark.parametrize("semitones", [-12.0, -7.0, 7.0])
def test_a_voice_that_sets_in_and_ends_at_once_does_so_at_its_level(semitones: float) -> None:
    """A frame that holds little of an onset must not be raised to the level of the recording's."""
    sung, _ = sing([Note(94.0, 0.4, "e")], 44100, 3, Voice(vibrato_cents=0.0), WIDE.hop_length)
    first, stop = 12288, 24576
    quiet = np.zeros(36864, dtype=np.float32)
    audio = quiet.copy()
    audio[first:stop] = sung[2048 : 2048 + stop - first]
    voiced = np.where((np.arange(72) >= 24) & (np.arange(72) < 48), 94.0, 0.0)
    shifted = moved(audio, voiced, shift_semitones(voiced, semitones), mel=WIDE)
    inside = slice(first + 2048, stop - 2048)
    loudest = np.abs(shifted[inside]).max()
    assert np.abs(shifted).max() < 1.1 * loudest
    for outside in (slice(first - 1024), slice(stop + 1024, None)):
        assert np.abs(shifted[outside]).max() < 1e-3 * loudest


def test_an_envelope_is_that_of_the_formants_not_of_the_harmonics() -> None:
    bins = torch.arange(513)
    formants = torch.exp(-0.5 * ((bins - 120.0) / 60.0) ** 2) + 0.1
    harmonics = (bins % 4 == 0).float() + 1e-4
    found = envelope((formants**2 * harmonics)[None, None], torch.tensor([4 * RATE / 1024]), RATE)[0, 0]
    away = (found - torch.log(formants))[20:-20]
    assert (away - away.mean()).abs().max() < 0.05


def test_gains_are_steadied_beside_neighbours_only() -> None:
    present = np.array([True, True, False, True])
    values = torch.tensor([1.0, 4.0, 7.0])[None, :, None]
    assert steady(values, present)[0, :, 0].tolist() == [2.0, 3.0, 7.0]


def test_unvoiced_sound_stays_as_it_was(voice: Sung) -> None:
    audio, f0_hz = voice
    f0_hz = f0_hz.copy()
    f0_hz[100:200] = 0.0
    shifted = moved(audio, f0_hz, shift_semitones(f0_hz, 5.0))
    assert np.abs(shifted - audio[: len(shifted)])[110 * HOP : 190 * HOP].max() < 1e-5


def test_frames_close_to_a_note_follow_it() -> None:
    far, near = [0] * 2, [0] * REACH_FRAMES
    f0_hz = np.array([*far, *near, 200, 200, *near, *far], dtype=np.float64)
    moved_up = [0, 0, *[1.25] * (2 * REACH_FRAMES + 2), 0, 0]
    assert frame_ratios(f0_hz, 1.25 * f0_hz).tolist() == moved_up
    assert frame_ratios(f0_hz, 2 * f0_hz).tolist() == (f0_hz / 100).tolist()


def test_a_mel_moved_far_down_is_trusted_only_where_harmonics_stand_apart() -> None:
    source = ArraySource(np.zeros((1, 100 * HOP), dtype=np.float32), RATE, RATE)
    f0_hz = np.where(np.arange(100) < 50, 220.0, 880.0).astype(np.float32)
    for semitones, low, high in ((0.0, 1, 1), (-4.0, 1, 1), (-12.0, 0, 1), (12.0, 1, 1)):
        target = shift_semitones(f0_hz, semitones)
        trust = RecordingMel(source, MEL, 1.0, f0_hz, target).trust(target)
        assert (trust[:50] == low).all()
        assert (trust[50:] == high).all()


@pytest.mark.parametrize("speed", [1.0, 0.8, 1.3, 4.0])
def test_pieces_are_the_whole(voice: Sung, speed: float) -> None:
    audio, f0_hz = voice
    frames = int(len(f0_hz) / speed)
    target = np.interp(np.arange(frames) * speed, np.arange(len(f0_hz)), shift_semitones(f0_hz, 3.0))
    stereo = np.stack([audio, 0.3 * audio])
    whole = RecordingMel(ArraySource(stereo, RATE, RATE), MEL, speed, f0_hz, target)(0, frames)
    pieces = RecordingMel(ArraySource(stereo, RATE, RATE), MEL, speed, f0_hz, target)
    joined = torch.cat([pieces(a, min(frames, a + 37)) for a in range(0, frames, 37)], dim=-1)
    assert whole.shape == joined.shape == (2, 40, frames)
    assert (whole - joined).abs().max() < 2e-3


def test_without_a_move_it_is_the_recordings_own_mel(voice: Sung) -> None:
    audio, f0_hz = voice
    own = RecordingMel(ArraySource(audio[None], RATE, RATE), MEL, 1.0, f0_hz, f0_hz.copy())(0, 100)
    assert torch.allclose(own, log_mel(audio, MEL)[..., :100], atol=1e-5)
