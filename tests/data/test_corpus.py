"""A corpus gives crops whose audio, F0 and mismatched twin belong together, and never a held-out clip."""

import json
from pathlib import Path

import numpy as np
import pytest

from melisma.audio.io import write_audio
from melisma.audio.mel import OPENVPI_44K, log_mel
from melisma.data.corpus import Corpus, Source, build_corpus, manifest_sources
from melisma.data.manifest import held_out, read_list, read_manifest
from melisma.data.singer import Note, sing
from melisma.data.twins import shifted_by_world
from melisma.errors import MelismaError
from melisma.f0 import estimate_f0

RATE, HOP = 16000, 128
FRAMES = 48


def tone(f0_hz: float, seconds: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """A sine with its F0 at every frame."""
    samples = round(seconds * RATE) // HOP * HOP
    audio = 0.3 * np.sin(2 * np.pi * f0_hz / RATE * np.arange(samples))
    return audio.astype(np.float32), np.full(samples // HOP, f0_hz, dtype=np.float32)


def sung(f0_hz: float = 200.0) -> tuple[np.ndarray, np.ndarray]:
    notes = [Note(f0_hz, 0.5, "a"), Note(0.0, 0.3), Note(f0_hz * 1.2, 0.4, "i", loudness=0.4), Note(0.0, 0.2)]
    return sing(notes, RATE, hop_length=HOP)


def build(folder: Path, *clips: tuple[np.ndarray, np.ndarray], kind: str = "made", seed: int = 0) -> Corpus:
    sources = (Source(f"clip-{number}", kind, *(audio, 8000.0, f0)) for number, (audio, f0) in enumerate(clips))
    build_corpus(folder, sources, RATE, HOP, seed)
    return Corpus([folder], {kind: 1.0})


def peak_hz(audio: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 16 * len(audio)))
    return float(spectrum.argmax()) * RATE / (16 * len(audio))


def hop_energy(audio: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(audio[: len(audio) // HOP * HOP].reshape(-1, HOP).astype(np.float64)).mean(axis=1))


@pytest.mark.parametrize("resample", [0.0, 1.0])
def test_a_crop_has_its_length_and_the_f0_that_sounds_in_it(tmp_path: Path, resample: float) -> None:
    corpus = build(tmp_path, tone(150.0), tone(611.0))
    heard = set()
    for seed in range(12):
        crop = corpus.crop(np.random.default_rng(seed), FRAMES, mismatch=0.0, resample=resample)
        assert crop.reference.shape == crop.source.shape == (FRAMES * HOP,)
        assert crop.f0_hz.shape == (FRAMES,)
        assert {array.dtype for array in (crop.reference, crop.source, crop.f0_hz)} == {np.dtype(np.float32)}
        assert np.array_equal(crop.reference, crop.source)
        assert np.abs(crop.reference).max() <= 1.0
        assert np.ptp(crop.f0_hz) < 1e-3 * crop.f0_hz[0]
        assert peak_hz(crop.reference) == pytest.approx(crop.f0_hz[0], rel=0.01)
        assert 0 < crop.band_hz <= RATE / 2
        heard.add(round(float(crop.f0_hz[0])))
    assert (heard == {150, 611}) if resample == 0.0 else (len(heard) > 8 and min(heard) < 150 and max(heard) > 611)


def test_a_glide_keeps_step_with_its_f0_when_it_is_resampled(tmp_path: Path) -> None:
    samples = 3 * RATE // HOP * HOP
    curve = 150.0 * 2.0 ** (np.arange(samples) / RATE)
    audio = (0.3 * np.sin(2 * np.pi * np.cumsum(curve) / RATE)).astype(np.float32)
    corpus = build(tmp_path, (audio, curve[HOP // 2 :: HOP].astype(np.float32)))
    for seed in range(6):
        crop = corpus.crop(np.random.default_rng(seed), 64, mismatch=0.0, resample=1.0)
        for first in (8, 40):
            piece = crop.reference[first * HOP : (first + 16) * HOP]
            assert peak_hz(piece) == pytest.approx(crop.f0_hz[first : first + 16].mean(), rel=0.01)


def test_what_resampling_takes_away_is_not_in_the_band(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 3 * RATE).astype(np.float32)
    corpus = build(tmp_path, (noise, np.zeros(len(noise) // HOP, dtype=np.float32)))
    for seed in range(8):
        crop = corpus.crop(np.random.default_rng(seed), 64, mismatch=1.0, resample=1.0)
        power = np.abs(np.fft.rfft(crop.reference)) ** 2
        hz = np.fft.rfftfreq(len(crop.reference), 1 / RATE)
        below, above = power[(hz > 0.9 * crop.band_hz) & (hz < crop.band_hz)], power[hz > crop.band_hz / 0.92]
        assert not crop.f0_hz.any()
        assert below.mean() > 0.5 * power[hz < 0.5 * crop.band_hz].mean()
        assert above.size < 3 or above.mean() < 1e-2 * below.mean()


def test_behind_the_end_of_a_short_clip_is_silence_without_pitch(tmp_path: Path) -> None:
    corpus = build(tmp_path, tone(300.0, 0.25))
    for seed, resample in ((0, 0.0), (1, 1.0), (2, 1.0)):
        crop = corpus.crop(np.random.default_rng(seed), 100, mismatch=0.0, resample=resample)
        ends = int(np.flatnonzero(hop_energy(crop.reference) > 1e-3)[-1]) + 1
        assert ends < 60
        assert (crop.f0_hz[: ends - 1] > 0).all()
        assert not crop.f0_hz[ends + 1 :].any()


def test_the_same_seed_draws_the_same_crop(tmp_path: Path) -> None:
    corpus = build(tmp_path, sung(), tone(300.0))
    first, second = (corpus.crop(np.random.default_rng(5), FRAMES, 0.5, 0.5) for _ in range(2))
    assert np.array_equal(first.source, second.source)
    assert np.array_equal(first.f0_hz, second.f0_hz)


@pytest.mark.parametrize(("f0_hz", "semitones"), [(200.0, 5.0), (200.0, -7.0), (60.0, 4.0)])
def test_the_mismatched_twin_is_in_time_at_the_shifted_pitch(f0_hz: float, semitones: float) -> None:
    audio, curve = sung(f0_hz)
    twin = shifted_by_world(audio, curve, RATE, HOP, semitones)
    assert twin.shape == audio.shape
    assert twin.dtype == np.float32
    loud, other = (np.convolve(hop_energy(signal), np.ones(5) / 5, "same") for signal in (audio, twin))
    by_lag = {lag: np.corrcoef(loud[8:-8], np.roll(other, lag)[8:-8])[0, 1] for lag in range(-6, 7)}
    assert by_lag[0] > 0.9
    assert abs(max(by_lag, key=by_lag.__getitem__)) <= 1
    found = estimate_f0(twin, RATE, HOP, "harvest")[: len(curve)]
    both = (found > 0) & (curve > 0)
    assert both.sum() > 0.7 * (curve > 0).sum()
    assert np.median(12 * np.log2(found[both] / curve[both])) == pytest.approx(semitones, abs=0.1)


def test_the_twin_of_a_bass_keeps_his_timbre() -> None:
    audio, curve = sing([Note(52.0, 0.8, "a")], OPENVPI_44K.sample_rate, hop_length=OPENVPI_44K.hop_length)
    twin = shifted_by_world(audio, curve, OPENVPI_44K.sample_rate, OPENVPI_44K.hop_length, 3.0)
    difference = (log_mel(twin, OPENVPI_44K) - log_mel(audio, OPENVPI_44K)).abs()
    assert difference[..., curve[: difference.shape[-1]] > 0].mean() < 0.25


def test_a_mismatched_crop_keeps_reference_and_f0(tmp_path: Path) -> None:
    corpus = build(tmp_path, sung(), seed=1)
    clip = corpus.index[0][1]
    assert clip.mismatch != 0.0
    drawn = (corpus.crop(np.random.default_rng(seed), FRAMES, 1.0, 0.0) for seed in range(20))
    crop = next(crop for crop in drawn if (crop.f0_hz > 0).all())
    assert not np.array_equal(crop.reference, crop.source)
    found = estimate_f0(crop.reference, RATE, HOP, "harvest")
    assert np.abs(1200 * np.log2(found[8:-8] / crop.f0_hz[8:-8])).max() < 30
    moved = estimate_f0(crop.source, RATE, HOP, "harvest")
    assert np.median(12 * np.log2(moved[8:-8] / crop.f0_hz[8:-8])) == pytest.approx(clip.mismatch, abs=0.2)


def test_held_out_clips_are_never_read(tmp_path: Path) -> None:
    for name in ("in.wav", "out.wav", "part.wav", "o#t.wav"):
        write_audio(tmp_path / name, tone(200.0, 0.3)[0], RATE)
    rows = [{"path": path.name, "kind": "singing", "sample_rate": RATE} for path in sorted(tmp_path.glob("*.wav"))]
    rows[0]["note"] = "from MP3: nothing reliable above 16 kHz"
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    (tmp_path / "heldout.txt").write_text("# comment\nout.wav\n\n part.wav\t0.1 0.2\no#t.wav 0 1\n")
    excluded = held_out(tmp_path / "heldout.txt")
    sources = list(manifest_sources(tmp_path, excluded, RATE))
    assert excluded == {"out.wav", "part.wav", "o#t.wav"}
    assert [source.name for source in sources] == ["in.wav"]
    assert sources[0].band_hz == 16000.0


def test_the_committed_list_leaves_out_what_the_report_measures() -> None:
    path = Path(__file__).parents[2] / "recipes" / "heldout.txt"
    assert held_out(path) == {entry.path for group in read_list(path) for entry in group}
    assert "nit_song070/007.flac" in held_out(path)


@pytest.mark.parametrize("text", ["not json", "[1]", '[{"path": "a.wav"}]'])
def test_a_bad_manifest_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(MelismaError, match=r"manifest\.json: needs a list of rows"):
        read_manifest(tmp_path)


def test_kinds_are_drawn_by_their_shares(tmp_path: Path) -> None:
    build(tmp_path / "speech", tone(100.0, 1.0), tone(110.0, 1.0), kind="speech")
    build(tmp_path / "made", tone(400.0, 0.5))
    corpus = Corpus([tmp_path / "speech", tmp_path / "made"], {"speech": 0.25, "made": 0.75, "singing": 1.0})
    made = sum(corpus.crop(np.random.default_rng(seed), 16, 0.0, 0.0).f0_hz[0] > 200 for seed in range(400))
    assert 0.68 < made / 400 < 0.82


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MelismaError, match=r"holds no corpus .*recipes/corpus\.py"):
        Corpus([tmp_path], {"made": 1.0})
    corpus = build(tmp_path / "made", tone(200.0))
    assert corpus.sample_rate == RATE
    with pytest.raises(MelismaError, match="no clip of the kinds singing"):
        Corpus([tmp_path / "made"], {"singing": 1.0})
    build_corpus(tmp_path / "other", iter([Source("a", "made", tone(200.0)[0], 8000.0)]), RATE, 2 * HOP)
    with pytest.raises(MelismaError, match="different rates"):
        Corpus([tmp_path / "made", tmp_path / "other"], {"made": 1.0})
    with (tmp_path / "made" / "audio.i16").open("ab") as file:
        file.truncate(1000)
    with pytest.raises(MelismaError, match=r"audio\.i16: missing or not the size"):
        Corpus([tmp_path / "made"], {"made": 1.0})


def test_an_interrupted_or_empty_build_leaves_no_corpus(tmp_path: Path) -> None:
    build(tmp_path, tone(200.0))
    with pytest.raises(MelismaError, match="no clip of 16 frames"):
        build_corpus(tmp_path, iter([Source("short", "made", np.zeros(HOP), 8000.0)]), RATE, HOP)
    with pytest.raises(MelismaError, match="holds no corpus"):
        Corpus([tmp_path], {"made": 1.0})
    audio, f0_hz = tone(200.0)
    with pytest.raises(MelismaError, match="short-f0: 20 values of F0"):
        build_corpus(tmp_path, iter([Source("short-f0", "made", audio, 8000.0, f0_hz[:20])]), RATE, HOP)
