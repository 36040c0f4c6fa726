"""Pictures: written whole, right places, right sizes."""

from pathlib import Path

import numpy as np
import pytest

from melisma.errors import MelismaError
from melisma.inference.plots import (
    LOWEST_HZ,
    ROWS,
    f0_image,
    log_frequency_spectrogram,
    plot_spectrograms,
    spectrogram_image,
)


def tone(hz: float, seconds: float, rate: int) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize(("rate", "hz"), [(44100, 440.0), (44100, 5000.0), (8000, 1000.0), (192000, 300.0)])
def test_a_full_scale_tone_is_at_0_db_in_its_row(rate: int, hz: float) -> None:
    levels, highest = log_frequency_spectrogram(tone(hz, 0.5, rate), rate)
    row = int(levels[:, levels.shape[1] // 2].argmax())
    frequency = LOWEST_HZ * (highest / LOWEST_HZ) ** (row / (ROWS - 1))
    assert abs(1200 * np.log2(frequency / hz)) < 120
    assert abs(levels.max()) < 3.0


def test_pictures_are_written(tmp_path: Path) -> None:
    audio = tone(220, 0.3, 44100)
    f0_hz = np.where(np.arange(26) < 10, 0.0, 220.0)
    stereo = np.stack([audio, audio])
    for suffix in (".png", ".svg"):
        path = tmp_path / f"picture{suffix}"
        plot_spectrograms(path, [("$in 歌_1", audio, f0_hz), ("out", stereo, f0_hz), ("x", audio, None)], 44100, 512)
        assert path.stat().st_size > 5000
    assert {entry.name for entry in tmp_path.iterdir()} == {"picture.png", "picture.svg"}


def test_silence_one_sample_and_hours_can_be_drawn(tmp_path: Path) -> None:
    for name, audio in {"silence": np.zeros(5000), "one": np.ones(1), "long": np.zeros(4_000_000)}.items():
        plot_spectrograms(tmp_path / f"{name}.png", [(name, audio.astype(np.float32), np.zeros(10))], 16000, 160)
    assert log_frequency_spectrogram(np.zeros(4_000_000), 16000)[0].shape[1] <= 1602


def test_bad_targets_are_refused(tmp_path: Path) -> None:
    audio = np.zeros(1000, dtype=np.float32)
    for path, panels, words in [
        (tmp_path / "x.bmp", [("a", audio, None)], "use .png"),
        (tmp_path / "x.png", [], "nothing to draw"),
        (tmp_path / "x.png", [("a", audio[:0], None)], "nothing to draw"),
        (tmp_path / "no" / "x.png", [("a", audio, None)], "does not exist"),
    ]:
        with pytest.raises(MelismaError, match=words):
            plot_spectrograms(path, panels, 44100, 512)
    assert list(tmp_path.iterdir()) == []


def test_images_for_logs() -> None:
    for image in (
        spectrogram_image(np.random.default_rng(0).standard_normal((80, 50))),
        f0_image({"asked": np.array([0, 100, 110.0]), "got": np.array([100, 0, 110.0])}),
        f0_image({}),
    ):
        assert image.dtype == np.uint8
        assert image.shape == (300, 1000, 3)
        assert image.std() > 0
