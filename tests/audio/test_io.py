"""Audio files: round trips, exact positions, bad input, writes that break off."""

import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melisma.audio.io import (
    WRITABLE,
    AudioReader,
    AudioWriter,
    ResampleStream,
    load_training_audio,
    output_length,
    read_audio,
    resample,
    write_audio,
)
from melisma.errors import MelismaError

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000)


def tones(channels: int, samples: int, rate: int) -> np.ndarray:
    time = np.arange(samples) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * 220.0 * (k + 1) * time) for k in range(channels)]).astype(np.float32)


def knows_rate(suffix: str, rate: int) -> bool:
    if suffix == ".opus":
        return rate in (8000, 16000, 24000, 48000)
    return suffix != ".mp3" or rate <= 48000


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", WRITABLE)
def test_round_trip_keeps_length_rate_and_sound(tmp_path: Path, suffix: str, channels: int) -> None:
    for rate in RATES:
        path = tmp_path / f"Mélisme 歌 {rate} {channels}{suffix}"
        audio = tones(channels, 9001, rate)
        if not knows_rate(suffix, rate):
            with pytest.raises(MelismaError, match="another rate"):
                write_audio(path, audio, rate)
            continue
        write_audio(path, audio, rate)
        back, back_rate = read_audio(path)
        assert back_rate == rate
        assert back.shape == audio.shape
        assert back.dtype == np.float32
        tolerance = 2.0**-16 if suffix in (".wav", ".flac") else 0.12
        assert np.sqrt(np.mean((back - audio) ** 2)) < tolerance, (suffix, rate)
    assert not list(tmp_path.glob(".*")), "temporary files are left"


@pytest.mark.parametrize(("sample_format", "bits"), [("pcm16", 16), ("pcm24", 24), ("float", 25)])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_lossless_formats_come_back_bit_by_bit(tmp_path: Path, suffix: str, sample_format: str, bits: int) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_audio(first, np.random.default_rng(0).uniform(-1, 1, (2, 5000)).astype(np.float32), 44100, sample_format)
    with AudioReader(first) as reader:
        expected = "pcm24" if (suffix, sample_format) == (".flac", "float") else sample_format
        assert reader.sample_format == expected
        audio = reader.read(0, reader.frames)
    write_audio(second, audio, 44100, expected)
    np.testing.assert_array_equal(read_audio(second)[0], audio)


@pytest.mark.parametrize("suffix", WRITABLE)
def test_reads_land_on_the_exact_sample(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long{suffix}"
    rng = np.random.default_rng(1)
    rate, samples = (48000, 1_500_000)
    write_audio(path, (0.3 * rng.standard_normal(samples)).astype(np.float32), rate)
    whole, _ = read_audio(path)
    with AudioReader(path) as reader:
        starts = [0, 70_000, 60_000, 1_400_000, 1_300_000, 10, 1_499_999, 1_500_000, 300_000]
        for start in starts:
            np.testing.assert_array_equal(reader.read(start, 50_001), whole[:, start : start + 50_001], str(start))


def test_long_vorbis_in_one_call(tmp_path: Path) -> None:
    path = tmp_path / "long.ogg"
    write_audio(path, np.zeros((2, 3_000_000), dtype=np.float32), 48000)
    assert read_audio(path)[0].shape == (2, 3_000_000)


@pytest.mark.parametrize(("factor", "divisor"), [(1.0, 1.0), (1.6, 1.0), (20000.0, 2.0**15 + 1), (1.5e9, 2.0**31 + 1)])
def test_integer_ranges_in_float_files_are_scaled_down(tmp_path: Path, factor: float, divisor: float) -> None:
    path = tmp_path / "range.wav"
    audio = np.sin(np.arange(3000) * 0.1) * factor
    soundfile.write(path, audio.astype(np.float32), 44100, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path)[0][0], audio / divisor, rtol=1e-5, atol=1e-6)


def test_training_audio_takes_the_first_channel_or_the_mean(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    audio = tones(2, 44100, 44100)
    write_audio(path, audio, 44100, "float")
    np.testing.assert_array_equal(load_training_audio(path, 44100), audio[0])
    np.testing.assert_allclose(load_training_audio(path, 44100, "mean"), audio.mean(axis=0), atol=1e-7)
    resampled = load_training_audio(path, 16000)
    assert resampled.shape == (16000,)
    np.testing.assert_allclose(resampled[200:-200], tones(1, 16000, 16000)[0, 200:-200], atol=1e-4)


def test_overshoot_is_limited_and_counted(tmp_path: Path) -> None:
    audio = np.array([[0.5, 1.0, -1.0, 1.5, -7.0, 0.0]], dtype=np.float32)
    for suffix, sample_format in [(".wav", "pcm16"), (".wav", "pcm24"), (".flac", "pcm16")]:
        path = tmp_path / f"loud{suffix}"
        assert write_audio(path, audio, 44100, sample_format) == 2
        np.testing.assert_allclose(read_audio(path)[0], np.clip(audio, -1, 1), atol=2.0**-15)
    assert write_audio(tmp_path / "float.wav", audio, 44100, "float") == 0
    np.testing.assert_array_equal(read_audio(tmp_path / "float.wav")[0], audio)


def corrupt(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("these are not the sounds you are looking for\n" * 20)
    elif kind == "empty":
        path.touch()
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), 44100)
    elif kind in ("nan", "inf"):
        audio = np.zeros(5000, dtype=np.float32)
        audio[4000] = np.nan if kind == "nan" else -np.inf
        soundfile.write(path, audio, 44100, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder"),
        ("text", "not an audio file"),
        ("empty", "0 bytes"),
        ("no samples", "holds no samples"),
        ("nan", "NaN or Inf"),
        ("inf", "NaN or Inf"),
    ],
)
def test_bad_input_is_one_line_with_the_file_and_the_cure(tmp_path: Path, kind: str, words: str) -> None:
    path = corrupt(tmp_path, kind)
    with pytest.raises(MelismaError, match=words) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("kept", [0.6, 0.97])
def test_truncated_audio_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"cut{suffix}"
    write_audio(path, tones(1, 150_000, 48000), 48000)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(MelismaError, match="truncated") as caught:
        read_audio(path)
    assert str(path) in str(caught.value)


def test_wav_from_a_pipe_has_no_length_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    write_audio(path, tones(1, 3000, 44100), 44100)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[4:8] = content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert read_audio(path)[0].shape == (1, 3000)


def test_one_sample_is_audio(tmp_path: Path) -> None:
    path = tmp_path / "one.wav"
    write_audio(path, np.array([0.25], dtype=np.float32), 44100)
    assert read_audio(path)[0].tolist() == [[0.25]]


@contextmanager
def room_for(size: int):  # type: ignore[no-untyped-def]
    """Let no file grow beyond ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", WRITABLE)
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"song{suffix}"
    path.write_bytes(b"the earlier take")
    noise = np.random.default_rng(2).uniform(-1, 1, (2, 200_000)).astype(np.float32)
    with room_for(20_000), pytest.raises(MelismaError, match=r"free|choose another folder") as caught:
        write_audio(path, noise, 48000)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"the earlier take"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    audio = np.zeros((1, 10), dtype=np.float32)
    (tmp_path / "file").touch()
    (tmp_path / "folder.wav").mkdir()
    for target, words in [
        (tmp_path / "nowhere" / "x.wav", "does not exist"),
        (tmp_path / "file" / "x.wav", "does not exist"),
        (tmp_path / "folder.wav", "is a folder"),
        (tmp_path / "x.xyz", "cannot write"),
        (tmp_path / "x", "cannot write"),
    ]:
        with pytest.raises(MelismaError, match=words):
            write_audio(target, audio, 44100)


def test_exception_and_nan_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"

    def interrupted() -> None:
        with AudioWriter(path, 44100, 1) as writer:
            writer.write(np.zeros((1, 100), dtype=np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(MelismaError, match="NaN"):
        write_audio(path, np.array([np.nan], dtype=np.float32), 44100)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("source", "target"), [(44100, 16000), (8000, 44100), (192000, 44100), (48000, 48000)])
def test_resampling_in_pieces_equals_the_whole(source: int, target: int) -> None:
    rng = np.random.default_rng(3)
    audio = rng.standard_normal((2, 30_011)).astype(np.float32)
    whole = resample(audio, source, target)
    stream = ResampleStream(source, target, 2)
    pieces, start = [], 0
    while start < audio.shape[1]:
        size = int(rng.integers(1, 5000))
        pieces.append(stream.push(audio[:, start : start + size]))
        start += size
    pieces.append(stream.finish())
    together = np.concatenate(pieces, axis=1)
    assert together.shape == (2, output_length(30_011, source, target)) == whole.shape
    np.testing.assert_allclose(together, whole, atol=1e-6)


def test_resampling_tiny_clips() -> None:
    assert resample(np.ones(1, dtype=np.float32), 8000, 48000).shape == (6,)
    assert resample(np.ones(1, dtype=np.float32), 48000, 8000).shape == (0,)
    assert resample(np.ones((2, 3), dtype=np.float32), 48000, 44100).shape == (2, 3)
