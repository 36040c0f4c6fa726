"""Prepared datasets: whole, the same for any engine and number of workers, resumable, and not stopped by bad files."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melisma.cli import main
from melisma.data import parts as parts_module
from melisma.data.dataset import Dataset
from melisma.data.engines import local
from melisma.data.parts import PrepareSettings, run_job
from melisma.data.prepare import Prepared, prepare
from melisma.data.scan import Recording, scan
from melisma.data.singer import Note, sing
from melisma.errors import MelismaError
from melisma.f0 import estimate_f0
from melisma.files import locked

SETTINGS = PrepareSettings(16000, 160, "dio", twins=True)
FILES = ("index.json", "shard-00000.tar", "manifest.csv", "skipped.csv", "prepared.json")


def voice(f0_hz: float, rate: int, seconds: float = 0.6) -> np.ndarray:
    return np.asarray(sing([Note(f0_hz, seconds, "a")], rate, seed=round(f0_hz))[0], dtype=np.float32)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good recordings of mixed rates and channels, and every kind of bad one."""
    folder = tmp_path_factory.mktemp("songs")
    (folder / "anna müller").mkdir()
    soundfile.write(folder / "anna müller" / "low 1.wav", voice(120.0, 22050), 22050)
    stereo = np.stack([voice(200.0, 48000), 0.5 * voice(200.0, 48000)], axis=1)
    soundfile.write(folder / "anna müller" / "stereo.flac", stereo, 48000)
    soundfile.write(folder / "clipped.wav", np.clip(6.0 * voice(300.0, 44100), -1.0, 1.0), 44100)
    soundfile.write(folder / "same.wav", voice(120.0, 22050), 22050)
    soundfile.write(folder / "short.wav", voice(220.0, 16000, 0.1), 16000)
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "cancels.wav", np.stack([voice(200.0, 16000), -voice(200.0, 16000)], axis=1), 16000)
    soundfile.write(folder / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    (folder / "text.wav").write_text("this is no audio")
    (folder / "empty.mp3").touch()
    whole = (folder / "clipped.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    return folder


def make(songs: Path, out: Path, **more: object) -> Prepared:
    recordings, missing = scan([songs])
    return prepare(recordings, out, SETTINGS, 8.0, missing, **{"engine": "here", **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prepared(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make(songs, tmp_path_factory.mktemp("dataset") / "out")


def test_good_recordings_are_in_it_with_their_facts(prepared: Prepared) -> None:
    dataset = prepared.dataset
    keys = ["anna müller/low 1", "anna müller/stereo", "clipped", "made/singer-00000"]
    assert [clip.key for clip in dataset.clips] == keys
    assert (dataset.sample_rate, dataset.hop_length) == (16000, 160)
    with (dataset.folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert list(rows) == keys
    stereo = rows["anna müller/stereo"]
    assert (stereo["source"], stereo["source_rate"], stereo["source_channels"]) == (
        "anna müller/stereo.flac",
        "48000",
        "2",
    )
    assert stereo["speaker"] == "anna müller"
    assert float(rows["clipped"]["clipped_samples"]) > 1000
    assert float(stereo["clipped_samples"]) == 0
    for index, wanted in enumerate((120.0, 200.0, 300.0)):
        clip = dataset.clips[index]
        assert clip.samples == clip.frames * 160
        assert abs(clip.samples - 0.6 * 16000) < 160
        assert dataset.median_f0_hz(index) == pytest.approx(wanted, rel=0.03)
        assert float(rows[clip.key]["f0_median_hz"]) == pytest.approx(wanted, rel=0.03)
    # The mean of both channels, at the level of the recording.
    heard = dataset.audio(1, 0, dataset.clips[1].samples)
    assert np.abs(heard).max() == pytest.approx(0.75 * 0.5, rel=0.05)


def test_twins_sing_at_their_pitch(prepared: Prepared) -> None:
    dataset = prepared.dataset
    for index, clip in enumerate(dataset.clips[:3]):
        twin = dataset.twin(index, 0, clip.samples)
        assert twin is not None
        curve, found = dataset.f0_hz(index, 0, clip.frames), estimate_f0(twin, 16000, 160, "dio")
        both = (curve > 0) & (found > 0)
        assert both.sum() > 0.5 * (curve > 0).sum()
        assert np.median(12 * np.log2(found[both] / curve[both])) == pytest.approx(clip.twin_semitones, abs=0.2)


def test_bad_recordings_are_listed_with_their_reasons(prepared: Prepared) -> None:
    reasons = {one.name: one.reason for one in prepared.skipped}
    told = {
        "same.wav": "the same bytes as anna müller/low 1.wav",
        "short.wav": "shorter than 16 frames",
        "silent.wav": "silent",
        "cancels.wav": "its channels cancel each other",
        "nan.wav": "NaN",
        "text.wav": "not an audio file",
        "empty.mp3": "0 bytes",
        "truncated.wav": "truncated",
    }
    assert set(reasons) == set(told)
    for name, words in told.items():
        assert words in reasons[name]
        assert "\n" not in reasons[name]
        assert "/" not in reasons[name].replace("müller/low", "")


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes(
    songs: Path, prepared: Prepared, tmp_path: Path, workers: int
) -> None:
    make(songs, tmp_path / "out", engine="local", workers=workers)
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (prepared.dataset.folder / name).read_bytes(), name
    assert not (tmp_path / "out" / ".parts").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra")
def test_ray_gives_the_same_bytes_on_a_cluster_of_two_workers(songs: Path, prepared: Prepared, tmp_path: Path) -> None:
    script = (
        "import ray, sys; from pathlib import Path; from melisma.cli import main;"
        "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='ERROR');"
        "code = main(sys.argv[1:]); ray.shutdown(); sys.exit(code)"
    )
    words = [
        "prepare",
        str(songs),
        "-o",
        str(tmp_path / "out"),
        *["--rate", "16000", "--hop", "160", "--f0-method", "dio"],
    ]
    words += ["--f0-method", "dio", "--twins", "--made", "8", "--jobs", "2", "--engine", "ray"]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run([sys.executable, "-c", script, *words], env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (prepared.dataset.folder / name).read_bytes(), name


def test_killed_and_run_again_it_goes_on(songs: Path, prepared: Prepared, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    words = ["prepare", str(songs), "-o", str(out), "--rate", "16000", "--hop", "160", "--f0-method", "dio", "--twins"]
    command = [sys.executable, "-m", "melisma", *words, "--made", "8", "--jobs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob(".parts/*.npz")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (out / "index.json").exists()
    done = len(list(out.glob(".parts/[!.]*.npz")))
    made = []
    monkeypatch.setattr(
        parts_module, "save_part", lambda *given, real=parts_module.save_part: (made.append(1), real(*given))
    )
    again = make(songs, out)
    assert len(made) < len(list(songs.rglob("*.*"))) + 1 - done
    assert done >= 1
    assert [clip.key for clip in again.dataset.clips] == [clip.key for clip in prepared.dataset.clips]
    assert (out / "shard-00000.tar").read_bytes() == (prepared.dataset.folder / "shard-00000.tar").read_bytes()


def test_what_is_there_is_not_made_again_until_something_changes(songs: Path, tmp_path: Path, monkeypatch) -> None:
    recordings = [one for one in scan([songs])[0] if one.key == "clipped"]
    first = prepare(recordings, tmp_path, SETTINGS, engine="here")
    monkeypatch.setattr(parts_module, "save_part", lambda *_: pytest.fail("made again"))
    again = prepare(recordings, tmp_path, SETTINGS, engine="here")
    assert (first.was_there, again.was_there) == (False, True)
    assert [row["key"] for row in again.rows] == ["clipped"]
    monkeypatch.undo()
    other = prepare(recordings, tmp_path, PrepareSettings(16000, 320, "dio"), engine="here")
    assert not other.was_there
    assert Dataset.open(tmp_path).hop_length == 320


def test_a_song_more_costs_the_work_of_a_song(songs: Path, prepared: Prepared, tmp_path: Path, monkeypatch) -> None:
    recordings, missing = scan([songs])
    usable = {row["source"] for row in prepared.rows}
    out = tmp_path / "out"
    prepare([one for one in recordings if one.key != "clipped"], out, SETTINGS, 8.0, missing, engine="here")
    made = []
    real = parts_module._clips
    monkeypatch.setattr(parts_module, "_clips", lambda job, settings: (made.append(job), real(job, settings))[1])
    again = make(songs, out)
    new = [job.name for job in made if isinstance(job, Recording) and job.name in usable]
    assert [Path(name).stem for name in new] == ["clipped"]
    assert not again.was_there
    for name in FILES:
        assert (out / name).read_bytes() == (prepared.dataset.folder / name).read_bytes(), name


def test_a_damaged_dataset_is_made_anew(songs: Path, tmp_path: Path) -> None:
    recordings = [one for one in scan([songs])[0] if one.key in ("clipped", "same")]
    whole = prepare(recordings, tmp_path, SETTINGS, engine="here")
    expected = (tmp_path / "shard-00000.tar").read_bytes()
    (tmp_path / "shard-00000.tar").write_bytes(expected[: len(expected) // 2])
    prepare(recordings[:1], tmp_path, SETTINGS, engine="here")
    prepare(recordings, tmp_path, SETTINGS, engine="here")
    assert (tmp_path / "shard-00000.tar").read_bytes() == expected
    assert [clip.key for clip in whole.dataset.clips] == [clip.key for clip in Dataset.open(tmp_path).clips]


def test_a_long_recording_is_cut_and_its_pieces_make_the_whole(tmp_path: Path) -> None:
    audio = np.concatenate([voice(200.0, 16000, 1.5), np.zeros(4800, np.float32), voice(250.0, 16000, 1.5)])
    soundfile.write(tmp_path / "long.wav", audio, 16000, subtype="FLOAT")
    settings = PrepareSettings(16000, 160, "dio", longest_s=2.0)
    dataset = prepare(scan([tmp_path])[0], tmp_path / "out", settings, engine="here", sample_format="float").dataset
    assert [clip.key for clip in dataset.clips] == ["long+000", "long+001"]
    joined = np.concatenate([dataset.audio(i, 0, clip.samples) for i, clip in enumerate(dataset.clips)])
    assert np.array_equal(joined, audio[: len(joined)])
    assert len(audio) - len(joined) < 160
    trimmed = PrepareSettings(16000, 160, "dio", trim=True)
    dataset = prepare(scan([tmp_path / "long.wav"])[0], tmp_path / "out", trimmed, engine="here").dataset
    assert [clip.key for clip in dataset.clips] == ["long"]


def test_sections_of_a_very_long_recording_join_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "SECTION_SECONDS", 1)
    audio = voice(200.0, 16000, 2.5)
    soundfile.write(tmp_path / "long.wav", audio, 16000, subtype="FLOAT")
    result = prepare(scan([tmp_path])[0], tmp_path / "out", SETTINGS, engine="here", sample_format="float")
    assert [float(row["start_s"]) for row in result.rows] == [0.0, 1.0, 2.0]
    joined = np.concatenate([result.dataset.audio(i, 0, clip.samples) for i, clip in enumerate(result.dataset.clips)])
    assert np.abs(joined - audio[: len(joined)]).max() < 1e-6


def deadly(number: int, job: Recording, settings: PrepareSettings, folder: Path) -> object:
    if job.key == "deadly":
        os._exit(3)
    return run_job(number, job, settings, folder)


def test_a_file_that_kills_its_reader_is_skipped(songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melisma.data.engines.run_job", deadly)
    good = next(one for one in scan([songs])[0] if one.key == "clipped")
    jobs = {0: good, 1: Recording("deadly", good.path, "deadly.wav", "singing", "")}
    outcomes = {one.job: one for one in local(jobs, SETTINGS, tmp_path, 2)}
    assert outcomes[0].fingerprint
    assert not outcomes[0].reason
    assert "died" in outcomes[1].reason


def test_two_runs_do_not_write_the_same_folder(songs: Path, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(MelismaError, match=rf"another run writes here \(process {os.getpid()} on"):
        make(songs, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{empty}"], "holds no recording to use"),
        (["{songs}/nowhere"], "no such file or folder"),
        (["{songs}/text.wav"], "none of 1 recordings can be used; text.wav: not an audio file"),
        (["{songs}", "--rate", "100"], "a dataset of 100 Hz"),
        (["{songs}", "--hop", "1"], "a hop of 1 samples"),
        (["{songs}", "--longest", "0"], "clips of at most 0 s"),
        (["{songs}", "--jobs", "0"], "0 jobs at once"),
        (["{songs}", "--f0-method", "hravest"], "did you mean 'harvest'"),
        (["{songs}", "--held-out", "{songs}/nothing.txt"], "cannot read the list"),
    ],
)
def test_wrong_requests_are_one_clear_line(songs: Path, tmp_path: Path, capsys, words: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    given = [word.format(songs=songs, empty=tmp_path / "empty") for word in words]
    assert main(["prepare", "-o", str(tmp_path / "out"), *given]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_report_says_what_deserves_a_look(songs: Path, prepared: Prepared, tmp_path: Path, capsys) -> None:
    from melisma.commands.prepare import report

    text = "\n".join(report(prepared))
    assert "4 clips, 10 s (singing 2 s, made 8 s), speakers: 3" in text
    assert "rates mixed" in text
    assert "clipped: 1 of 4 clips: clipped (" in text
    assert "licence unknown for 3 clips" in text
    assert "skipped: 8, listed in skipped.csv" in text
    one = ["prepare", str(songs / "clipped.wav"), "-o", str(tmp_path), "--licence", "CC0", "--rate", "16000"]
    assert main([*one, "--hop", "160", "--f0-method", "dio", "--jobs", "1"]) == 0
    text = capsys.readouterr().out
    assert "licences: CC0 (1)" in text
    assert "one clip only" in text
    assert json.loads((tmp_path / "prepared.json").read_text())["settings"]["sample_rate"] == 16000
