"""F0 curves: gaps, grids, shifts, checks, files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from melisma.audio.f0_curve import (
    check_f0,
    interpolate_unvoiced,
    load_f0,
    resample_curve,
    shift_semitones,
)
from melisma.errors import MelismaError

CURVES = arrays(np.float64, st.integers(1, 60), elements=st.one_of(st.just(0.0), st.floats(60.0, 1600.0)))


def test_gaps_are_filled_on_a_line_in_log_frequency() -> None:
    filled = interpolate_unvoiced(np.array([0, 0, 100, 0, 0, 0, 400, 0], dtype=np.float32))
    expected = [100, 100, 100, 100 * 2**0.5, 200, 200 * 2**0.5, 400, 400]
    np.testing.assert_allclose(filled, expected, rtol=1e-6)
    assert filled.dtype == np.float32
    both = interpolate_unvoiced(np.array([[0.0, 50.0], [0.0, 0.0]]))
    np.testing.assert_allclose(both, [[50, 50], [0, 0]])


@given(curve=CURVES)
@settings(deadline=None)
def test_filling_keeps_voiced_frames_and_stays_between_them(curve: np.ndarray) -> None:
    filled = interpolate_unvoiced(curve)
    voiced = curve > 0
    np.testing.assert_array_equal(filled[voiced], curve[voiced])
    if voiced.any():
        assert filled.min() >= curve[voiced].min() * (1 - 1e-12)
        assert filled.max() <= curve[voiced].max() * (1 + 1e-12)


@given(curve=CURVES, ratio=st.floats(0.3, 3.0), frames=st.integers(1, 100))
@settings(deadline=None)
def test_resampling_in_time_invents_no_pitch(curve: np.ndarray, ratio: float, frames: int) -> None:
    moved = resample_curve(curve, 1.0, ratio, frames)
    assert moved.shape == (frames,)
    voiced = curve[curve > 0]
    assert not len(voiced) or moved.max() <= voiced.max() * (1 + 1e-12)
    assert all(value == 0 or value >= voiced.min() * (1 - 1e-12) for value in moved)
    nearest = np.minimum(np.floor((np.arange(frames) + 0.5) * ratio), len(curve) - 1).astype(int)
    clear = np.abs(((np.arange(frames) + 0.5) * ratio) % 1 - 0.5) < 0.49
    np.testing.assert_array_equal((moved > 0)[clear], (curve[nearest] > 0)[clear])


def test_same_grid_is_identity_and_offsets_count() -> None:
    curve = np.array([0, 100, 200, 0, 300.0])
    np.testing.assert_allclose(resample_curve(curve, 0.01, 0.01, 5), curve)
    glide = 100 * 2 ** np.linspace(0, 1, 101)
    centred = resample_curve(glide, 0.01, 0.01, 100, source_offset=0.0)
    np.testing.assert_allclose(centred, 100 * 2 ** ((np.arange(100) + 0.5) / 100), rtol=1e-6)


def test_borders_are_not_smeared() -> None:
    moved = resample_curve(np.array([0, 0, 200, 200, 0, 0.0]), 2.0, 1.0, 12)
    np.testing.assert_allclose(moved, [0] * 4 + [200] * 4 + [0] * 4)


def test_shift() -> None:
    np.testing.assert_allclose(shift_semitones(np.array([0, 220.0]), 12), [0, 440])
    np.testing.assert_allclose(shift_semitones(np.array([100.0, 100.0]), np.array([0, -12])), [100, 50])


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        ([100, np.nan, 100], "NaN or Inf at frame 1"),
        ([100, np.inf, 100], "NaN or Inf at frame 1"),
        ([100, 100, -5], "-5 Hz at frame 2 is negative"),
        ([100, 9000, 100], "9000 Hz at frame 1 is above half the sample rate"),
        ([100, 100], "has 2 frames, the features have 3"),
        (np.ones((3, 2)), "shape"),
        ([], "shape"),
        (["a", "b"], "not numbers"),
    ],
)
def test_bad_curves_are_named(curve: object, words: str) -> None:
    with pytest.raises(MelismaError, match=words) as caught:
        check_f0(np.array(curve), 16000, 3, "song.npy")
    assert str(caught.value).startswith("song.npy: ")
    assert "\n" not in str(caught.value)


def test_good_curves_pass() -> None:
    assert check_f0(np.array([[100, 0, 200]]), 16000, 3).tolist() == [100, 0, 200]
    assert check_f0(np.array([[440.0]]), 16000).shape == (1,)


def test_every_kind_of_file_gives_the_same_curve(tmp_path: Path) -> None:
    curve = np.array([0, 110.5, 220, 0, 330], dtype=np.float32)
    np.save(tmp_path / "a.npy", curve)
    np.savez(tmp_path / "b.npz", f0=curve, mel=np.zeros((3, 3)))
    np.savez(tmp_path / "c.npz", curve)
    torch.save(torch.tensor(curve), tmp_path / "d.pt")
    torch.save({"f0": torch.tensor(curve), "x": torch.zeros(1)}, tmp_path / "e.pt")
    (tmp_path / "f.txt").write_text("# Hz\n" + "\n".join(map(str, curve)) + "\n")
    rows = [f"{(t + 0.5) * 0.01:.4f};{value}" for t, value in enumerate(curve)]
    (tmp_path / "g.csv").write_text("time;frequency\n" + "\n".join(rows))
    (tmp_path / "h.csv").write_text("time,frequency\n" + "\n".join(row.replace(";", ", ") for row in rows))
    (tmp_path / "i.CSV").write_text("\n".join(row for row in rows if not row.endswith(";0.0")))
    for path in sorted(tmp_path.iterdir()):
        if path.name != "i.CSV":
            np.testing.assert_allclose(load_f0(path, 0.01), curve, rtol=1e-6, err_msg=path.name)
    sparse = load_f0(tmp_path / "i.CSV", 0.01, 7)
    assert sparse.shape == (7,)
    np.testing.assert_allclose(sparse[[1, 2, 4]], curve[[1, 2, 4]], rtol=1e-6)


def test_a_table_with_holes_is_unvoiced_there(tmp_path: Path) -> None:
    times = np.concatenate([np.arange(0, 0.5, 0.01), np.arange(1.0, 1.5, 0.01)])
    (tmp_path / "a.csv").write_text("\n".join(f"{time},200" for time in times))
    curve = load_f0(tmp_path / "a.csv", 0.005)
    centres = (np.arange(len(curve)) + 0.5) * 0.005
    assert (curve[(centres > 0.52) & (centres < 0.98)] == 0).all()
    np.testing.assert_allclose(curve[centres < 0.48], 200, rtol=1e-6)


class Evil:
    def __reduce__(self) -> tuple:
        return (print, ("this must never run",))


def test_bad_files_are_named_with_the_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder.npy").mkdir()
    np.save(tmp_path / "objects.npy", np.array([Evil(), None], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.zeros(2))
    torch.save(Evil(), tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "words.txt").write_text("100\nhigh\n")
    (tmp_path / "ragged.csv").write_text("1,2\n3\n")
    (tmp_path / "wide.csv").write_text("1,2,3\n")
    (tmp_path / "back.csv").write_text("1,200\n0.5,200\n")
    (tmp_path / "minus.csv").write_text("1,200\n2,-1\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "curve.xlsx").touch()
    for name, words in [
        ("missing.npy", "no such file"),
        ("folder.npy", "is a folder"),
        ("objects.npy", "numpy.save"),
        ("two.npz", "which of a, b"),
        ("evil.pt", "refused"),
        ("list.pt", "holds a list"),
        ("text.npy", "numpy.save"),
        ("text.npz", "numpy.savez"),
        ("words.txt", "line 2"),
        ("ragged.csv", "line 2"),
        ("wide.csv", "one column"),
        ("back.csv", "grow"),
        ("minus.csv", "-1 Hz at 2 s"),
        ("binary.csv", "not a text file"),
        ("empty.txt", "one column"),
        ("curve.xlsx", "known: .npy"),
    ]:
        with pytest.raises(MelismaError, match=words) as caught:
            load_f0(tmp_path / name, 0.01)
        assert str(tmp_path / name) in str(caught.value)
    assert "never run" not in capsys.readouterr().out
    (tmp_path / "ok.csv").write_text("0,200\n1,200\n")
    with pytest.raises(MelismaError, match="frame step"):
        load_f0(tmp_path / "ok.csv")
