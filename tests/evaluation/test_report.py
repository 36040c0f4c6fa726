"""The report: clips as the list says, conditions as the model allows, medians over clips, files that can be read."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from melisma.audio.mel import OPENVPI_44K
from melisma.data.manifest import read_list
from melisma.data.singer import Note, sing
from melisma.errors import MelismaError
from melisma.evaluation.clips import EvaluationClip, join, load_clips
from melisma.evaluation.conditions import blur, conditions, prepare
from melisma.evaluation.evaluate import evaluate
from melisma.evaluation.report import Report, Row

RATE = 44100
HELD_OUT = Path(__file__).resolve().parents[2] / "recipes" / "heldout.txt"


class Parrot:
    """A vocoder that gives back what it has been taught, whatever it is asked."""

    mel = OPENVPI_44K

    def __init__(self, audio: np.ndarray, default_projections: int | None) -> None:
        self.audio = audio
        self.generator = SimpleNamespace(default_projections=default_projections)

    def synthesize(self, features: np.ndarray, f0_hz: np.ndarray, **wishes: object) -> np.ndarray:
        return self.audio[: features.shape[1] * 512]

    def resynthesize(self, audio: np.ndarray, sample_rate: int, **wishes: object) -> np.ndarray:
        return self.audio


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    return np.asarray(sing([Note(220.0, 0.6, "a", onset="s"), Note(330.0, 0.6, "i")])[0], dtype=np.float32)


def test_a_perfect_copy_scores_perfectly_and_a_wrong_pitch_does_not(song: np.ndarray) -> None:
    clip = EvaluationClip("song", "singing", song, RATE, RATE / 2)
    report = evaluate(Parrot(song, 2), [clip], "parrot", ("copy", "shift", "back"))
    medians = report.medians("singing")
    assert medians["parrot", "copy"]["pesq"] > 4.5
    assert medians["parrot", "copy"]["f0_cents"] < 0.1
    assert medians["parrot", "copy, projections off"]["log_mel"] < 0.01
    assert medians["parrot", "+4 semitones"]["f0_cents"] == pytest.approx(400.0, abs=1.0)
    assert medians["parrot", "+4 and back"]["pesq"] > 4.5


def test_figures_of_a_copy_are_means_over_three_draws_of_the_noise(song: np.ndarray) -> None:
    clip, parrot = EvaluationClip("song", "singing", song, RATE, RATE / 2), Parrot(song, None)
    worse = song + 0.02 * np.random.default_rng(0).standard_normal(len(song)).astype(np.float32)
    copied = conditions(parrot, ("copy",))["copy"]
    item = prepare(clip, OPENVPI_44K)
    plain, noisy = (copied.judge(item, audio)["log_mel"] for audio in (song, worse))
    seen: list[object] = []

    def synthesize(features: np.ndarray, f0_hz: np.ndarray, **wishes: object) -> np.ndarray:
        seen.append(wishes["seed"])
        return worse if wishes["seed"] == 1 else song

    parrot.synthesize = synthesize  # type: ignore[method-assign]
    assert copied.judged(item, [song])["log_mel"] == plain
    (row,) = evaluate(parrot, [clip], "parrot", ("copy",)).rows
    assert row.values["log_mel"] == pytest.approx((2 * plain + noisy) / 3)
    assert seen == [0, 1, 2]


def test_moved_conditions_move_f0_alone_and_judge_by_it(song: np.ndarray) -> None:
    parrot, item = Parrot(song, 2), prepare(EvaluationClip("song", "singing", song, RATE, RATE / 2), OPENVPI_44K)
    table = conditions(parrot, ("moved",))
    assert "F0 +4 semitones" in table
    assert "F0 -4 semitones, projections off" in table
    given: list[tuple[np.ndarray, np.ndarray]] = []

    def synthesize(features: np.ndarray, f0_hz: np.ndarray, **wishes: object) -> np.ndarray:
        given.append((features, f0_hz))
        return song  # at its own pitch

    parrot.synthesize = synthesize  # type: ignore[method-assign]
    moved = table["F0 +4 semitones, projections off"]
    values = moved.judged(item, moved.results(item))
    for features, f0_hz in given:
        assert np.array_equal(features, item.features)
        np.testing.assert_allclose(f0_hz, item.f0_hz * 2 ** (4 / 12), rtol=1e-6)
    assert values["f0_cents"] == pytest.approx(400.0, abs=10.0)


def test_projections_are_asked_only_of_a_model_that_has_them(song: np.ndarray) -> None:
    assert list(conditions(Parrot(song, None), ("copy",))) == ["copy"]
    assert list(conditions(Parrot(song, 2), ("copy",))) == ["copy", "copy, projections off"]


def test_medians_leave_nan_out_and_files_are_valid(tmp_path: Path) -> None:
    values = [{"pesq": 3.0}, {"pesq": float("nan")}, {"pesq": 4.0}]
    rows = [Row("m", "copy", str(k), kind, v) for k, (kind, v) in enumerate(zip(("speech",) * 3, values, strict=True))]
    report = Report("m", [*rows, Row("m", "copy", "", "", {"speed": 40.0})])
    assert report.medians()["m", "copy"] == {"pesq": 3.5, "speed": 40.0}
    assert report.kinds() == ["speech", "all"]
    report.save(tmp_path / "deep")
    saved = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert saved["rows"][1]["values"]["pesq"] is None
    assert "| m | copy | 3.50 |" in report.markdown()
    report.show()
    again = Report.read(tmp_path / "deep")
    assert (again.medians(), again.document()) == (report.medians(), report.document())


def test_parts_that_were_run_one_by_one_are_one_report(tmp_path: Path) -> None:
    parts = {
        "copy": Report("m", [Row("m", "copy", "a", "speech", {"pesq": 3.0})]),
        "speed": Report("m", [Row("m", "copy", "", "", {"speed": 40.0})]),
        "other": Report("n", [Row("n", "copy", "", "", {"speed": 40.0})]),
    }
    for name, part in parts.items():
        part.save(tmp_path / name)
    joined = Report.read(tmp_path / "copy", tmp_path / "speed")
    assert joined.medians()["m", "copy"] == {"pesq": 3.0, "speed": 40.0}
    for names, message in ((("copy", "other"), "m and n"), (("copy", "copy"), "two of"), (("none",), "no report")):
        with pytest.raises(MelismaError, match=message):
            Report.read(*(tmp_path / name for name in names))
    (tmp_path / "copy" / "report.json").write_text("[]")
    with pytest.raises(MelismaError, match="not a report"):
        Report.read(tmp_path / "copy")


@pytest.mark.parametrize(
    ("parts", "clips", "message"), [(("cpoy",), 1, "known: copy"), (("copy",), 0, "no clips"), (("copy",), 2, "Hz")]
)
def test_wrong_requests_are_clear_errors(song: np.ndarray, parts: tuple[str, ...], clips: int, message: str) -> None:
    given = [EvaluationClip("song", "singing", song, 16000, 8000.0)] * clips
    with pytest.raises(MelismaError, match=message):
        evaluate(Parrot(song, None), given, "parrot", parts)


def test_blur_keeps_the_mean_and_flattens_a_peak() -> None:
    peak = np.zeros((40, 50))
    peak[20, 25] = 1.0
    flat = blur(peak, 2.0, 2.0)
    assert flat.shape == peak.shape
    assert flat.sum() == pytest.approx(1.0, abs=1e-4)
    assert flat.max() == pytest.approx(1 / (2 * np.pi * 4), rel=0.02)


def test_clips_are_cut_and_joined_as_the_list_says(tmp_path: Path) -> None:
    for name in ("F#2.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.full(RATE, 0.25, dtype=np.float32), RATE)
    rows = [
        {"path": name, "kind": "singing", "note": "nothing above 16 kHz", "sample_rate": RATE}
        for name in ("F#2.wav", "b.wav")
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    listed = tmp_path / "list.txt"
    listed.write_text("# a comment\nF#2.wav\nb.wav 0.25 0.75\n\nb.wav\n")
    first, second = load_clips(tmp_path, listed, RATE)
    assert (first.name, first.kind, first.band_hz) == ("F#2.wav", "singing", 16000.0)
    assert len(first.audio) == RATE + RATE // 2 - 441
    assert np.allclose(first.audio, 0.25, atol=1e-3)
    assert len(second.audio) == RATE
    listed.write_text("c.wav\n")
    with pytest.raises(MelismaError, match=r"c\.wav"):
        load_clips(tmp_path, listed, RATE)
    with pytest.raises(MelismaError, match=r"manifest\.json"):
        load_clips(tmp_path / "nowhere", listed, RATE)


@pytest.mark.parametrize("line", ["a.wav 1", "a.wav 2 1", "a.wav x y"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"# first\n{line}\n")
    with pytest.raises(MelismaError, match=r"list\.txt:2"):
        read_list(tmp_path / "list.txt")


def test_the_committed_list_is_readable() -> None:
    groups = read_list(HELD_OUT)
    assert 12 <= len(groups) <= 24
    assert len({entry for group in groups for entry in group}) == sum(len(group) for group in groups)


def test_joining_one_part_is_that_part() -> None:
    assert np.array_equal(join([np.arange(5.0)], RATE), np.arange(5.0))
