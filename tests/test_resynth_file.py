"""From file to file: equal to the work in memory, at flat memory, whole or not at all."""

import errno
import io
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melisma.audio.io import SampleFormat, read_audio, write_audio
from melisma.audio.limiter import limited
from melisma.audio.mel import MelContract
from melisma.data.singer import random_phrase
from melisma.errors import MelismaError
from melisma.generators.analytic import analytic
from melisma.inference import files
from melisma.inference.files import resynth_file
from melisma.inference.resynthesis import Settings
from melisma.inference.sources import ArraySource, FileSource
from melisma.inference.vocoder import Info, Vocoder

MEL = MelContract(sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=40, fmin=40.0, fmax=8000.0)


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return Vocoder(analytic(MEL), Info("analytic", "analytic"))


@pytest.fixture(scope="module")
def phrase() -> np.ndarray:
    """A stereo phrase of 50 seconds at 16 kHz: more than one block of everything."""
    audio, _ = random_phrase(np.random.default_rng(11), 50.0, 120.0, 500.0, 16000, 128)
    return np.stack([audio, 0.5 * np.roll(audio, 40)])


@pytest.mark.parametrize(
    ("name", "sample_rate", "settings"),
    [
        ("voice.wav", 16000, Settings()),
        ("voice.wav", 22050, Settings(shift_semitones=3.0, speed=1.25, seed=7)),
        ("voice.flac", 48000, Settings(speed=0.8, projections=0)),
    ],
)
def test_it_equals_the_work_in_memory(
    tmp_path: Path, vocoder: Vocoder, phrase: np.ndarray, name: str, sample_rate: int, settings: Settings
) -> None:
    sample_format = "float" if name.endswith(".wav") else "pcm24"
    write_audio(tmp_path / name, phrase[:, : 16000 * 40], sample_rate, sample_format)
    audio, _ = read_audio(tmp_path / name)
    shares: list[float] = []
    report = resynth_file(vocoder, tmp_path / name, tmp_path / f"out_{name}", settings, progress=shares.append)
    made, made_rate = read_audio(tmp_path / f"out_{name}")
    expected = vocoder.resynthesize(
        audio,
        sample_rate,
        settings.shift_semitones,
        speed=settings.speed,
        seed=settings.seed,
        projections=settings.projections,
    )
    assert made_rate == sample_rate
    assert made.shape == expected.shape == (2, round(audio.shape[1] / settings.speed))
    assert np.abs(made - np.clip(expected, -1, 1) if name.endswith(".flac") else made - expected).max() < 1e-4
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert abs(report.level_db[0] - report.level_db[1]) < 0.5
    assert report.seconds == pytest.approx(made.shape[1] / sample_rate)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"out_{name}"])


@pytest.mark.parametrize("sample_format", ["pcm16", "float"])
def test_what_passes_full_scale_is_lowered_where_the_file_cannot_hold_it(
    tmp_path: Path, vocoder: Vocoder, phrase: np.ndarray, sample_format: SampleFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "voice.wav", tmp_path / "out.wav"
    write_audio(source, phrase[:, : 16000 * 10], 16000, sample_format)
    gain = 2.0 / np.abs(vocoder.resynthesize(read_audio(source)[0], 16000)).max()
    gains = files.level_gains
    monkeypatch.setattr(files, "level_gains", lambda *levels: gain * gains(*levels))
    report = resynth_file(vocoder, source, target)
    made, expected = read_audio(target)[0], gain * vocoder.resynthesize(read_audio(source)[0], 16000)
    if sample_format == "float":
        np.testing.assert_allclose(made, expected, atol=1e-5)
        assert report.limited == 0
        return
    assert report.limited == np.count_nonzero(np.abs(expected) > 1.0 + 2.0**-16) > 0
    np.testing.assert_allclose(made, limited(expected, 16000), atol=2.0**-15)
    assert not np.allclose(made, np.clip(expected, -1.0, 1.0), atol=1e-2)


@pytest.mark.parametrize("name", ["voice.ogg", "voice.mp3", "voice.opus"])
def test_compressed_files_keep_rate_channels_and_length(
    tmp_path: Path, vocoder: Vocoder, phrase: np.ndarray, name: str
) -> None:
    write_audio(tmp_path / name, 0.5 * phrase[:, : 16000 * 3], 16000)
    audio, sample_rate = read_audio(tmp_path / name)
    report = resynth_file(vocoder, tmp_path / name, tmp_path / "out.wav")
    made, made_rate = read_audio(tmp_path / "out.wav")
    assert made_rate == sample_rate
    assert made.shape == audio.shape
    assert report.channels == 2


def test_both_sources_read_the_same(tmp_path: Path, phrase: np.ndarray) -> None:
    write_audio(tmp_path / "voice.wav", phrase[:, :300_000], 16000, "float")
    memory = ArraySource(phrase[:, :300_000], 16000, 22050)
    file = FileSource(tmp_path / "voice.wav", 22050)
    assert file.samples == memory.samples
    for start, stop in [(0, 10), (-5, 70_000), (60_000, 200_000), (100, 400), (399_000, 420_000), (500_000, 500_010)]:
        assert np.array_equal(file.read(start, stop), memory.read(start, stop)), (start, stop)
    file.read(0, file.samples)
    assert file.level.rms() == pytest.approx(memory.level.rms(), rel=1e-6)
    file.close()


def test_silence_is_written_as_silence(tmp_path: Path, vocoder: Vocoder) -> None:
    write_audio(tmp_path / "silence.wav", np.zeros((2, 50_001)), 44100)
    resynth_file(vocoder, tmp_path / "silence.wav", tmp_path / "out.wav", Settings(shift_semitones=5))
    made, _ = read_audio(tmp_path / "out.wav")
    assert made.shape == (2, 50_001)
    assert not made.any()


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), MelismaError("broken")])
def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, vocoder: Vocoder, phrase: np.ndarray, reason: BaseException
) -> None:
    write_audio(tmp_path / "voice.wav", phrase[:, :64000], 16000)
    write_audio(tmp_path / "out.wav", np.zeros(10), 16000)
    before = (tmp_path / "out.wav").read_bytes()

    def stop(share: float) -> None:
        if share > 0.5:
            raise reason

    with pytest.raises(type(reason)):
        resynth_file(vocoder, tmp_path / "voice.wav", tmp_path / "out.wav", progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.wav", "voice.wav"]
    assert (tmp_path / "out.wav").read_bytes() == before


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, vocoder: Vocoder, phrase: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_audio(tmp_path / "voice.wav", phrase[:, :64000], 16000)

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_spool", lambda target: Full())
    with pytest.raises(MelismaError, match=r"out\.wav: could not be written: No space left"):
        resynth_file(vocoder, tmp_path / "voice.wav", tmp_path / "out.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["voice.wav"]


def test_a_file_size_limit_is_a_full_disk_too(tmp_path: Path, vocoder: Vocoder, phrase: np.ndarray) -> None:
    write_audio(tmp_path / "voice.wav", phrase, 16000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(MelismaError, match="could not be written"):
            resynth_file(vocoder, tmp_path / "voice.wav", tmp_path / "out.wav")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["voice.wav"]


def test_memory_does_not_grow_with_the_length(tmp_path: Path, vocoder: Vocoder, phrase: np.ndarray) -> None:
    peaks = []
    for minutes in (2, 8):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 16000, 1) as file:
            for _ in range(minutes * 60 // 50):
                file.write(phrase[0])
        curve = np.full(-(-soundfile.info(path).frames // 128), 200.0, dtype=np.float32)
        tracemalloc.start()
        resynth_file(vocoder, path, tmp_path / "out.wav", Settings(projections=0), curve)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    growth = 6 * 60 * 16000 * 4
    assert peaks[1] - peaks[0] < 0.25 * growth
