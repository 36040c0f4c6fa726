"""Evaluating: any folder of recordings, parts, published audio, probes, and the report in every form."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from melisma.audio.mel import OPENVPI_44K, log_mel
from melisma.cli import main
from melisma.data.dataset import Dataset
from melisma.data.shards import DatasetWriter, NewClip
from melisma.data.singer import Note, sing
from melisma.errors import MelismaError
from melisma.evaluation import probes as probes_module
from melisma.evaluation.clips import find_clips, loudest_stretch
from melisma.evaluation.conditions import prepare
from melisma.evaluation.evaluate import evaluate
from melisma.evaluation.published import best_delay, read_published
from melisma.evaluation.report import FAULTS, PROBE

RATE, HOP = 44100, 512


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    (folder / "deep").mkdir()
    audio = np.asarray(sing([Note(220.0, 0.6, "a", onset="s"), Note(330.0, 0.6, "i")])[0], dtype=np.float32)
    soundfile.write(folder / "first.wav", audio, RATE, subtype="FLOAT")
    soundfile.write(folder / "deep" / "zweite ä.flac", np.stack([audio[:40000], audio[:40000]], axis=1), 22050)
    (folder / "broken.wav").write_text("no audio")
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    return folder


class Copyist:
    """A vocoder that sings any of the clips it knows without a fault, by their mel; of others it makes silence."""

    mel = OPENVPI_44K
    generator = SimpleNamespace(default_projections=None)

    def __init__(self, *known: np.ndarray, otherwise: float = 0.0) -> None:
        self.known = [(log_mel(audio, OPENVPI_44K)[0].numpy(), audio) for audio in known]
        self.otherwise = otherwise

    def synthesize(self, features: np.ndarray, f0_hz: np.ndarray, **wishes: object) -> np.ndarray:
        for mel, audio in self.known:
            if mel.shape == features.shape and np.allclose(mel, features):
                return audio
        return self.otherwise * np.sin(2 * np.pi * 1000 / RATE * np.arange(features.shape[1] * HOP))

    def resynthesize(self, audio: np.ndarray, sample_rate: int, **wishes: object) -> np.ndarray:
        return audio


def test_any_folder_will_do(songs: Path) -> None:
    clips, skipped = find_clips(songs, RATE, 15.0)
    assert [(clip.name, clip.stem, clip.kind) for clip in clips] == [
        ("deep/zweite ä.flac", "zweite ä", "singing"),
        ("first.wav", "first", "singing"),
    ]
    assert len(clips[0].audio) == 80000
    assert {clip.sample_rate for clip in clips} == {RATE}
    assert clips[0].band_hz < 11025
    assert {one.name: one.reason[:6] for one in skipped} == {"broken.wav": "not an", "silent.wav": "silent"}
    alone, _ = find_clips(songs / "first.wav", RATE, 0.5)
    assert (len(alone[0].audio), alone[0].name) == (22050, f"first.wav@{alone[0].start_s:g}")
    with pytest.raises(MelismaError, match="none of its 1 recordings can be used"):
        find_clips(songs / "silent.wav", RATE, 15.0)


def test_a_dataset_will_do_too(tmp_path: Path) -> None:
    audio, f0_hz = sing([Note(220.0, 0.5, "a")], 22050, hop_length=256)
    with DatasetWriter(tmp_path, 22050, 256) as writer:
        writer.add(NewClip("anna/a", "singing", audio[: len(f0_hz) * 256], f0_hz, 9000.0))
    clips, skipped = find_clips(tmp_path, RATE, 15.0)
    assert not skipped
    assert (clips[0].name, clips[0].stem, clips[0].band_hz) == ("anna/a", "a", 9000.0)
    assert len(clips[0].audio) == 2 * Dataset.open(tmp_path).clips[0].samples


def test_of_a_long_recording_the_loudest_part_is_taken() -> None:
    audio = np.full(10 * RATE, 0.01)
    audio[6 * RATE : 8 * RATE] = 0.5
    assert loudest_stretch(audio, RATE, 2.0) == (6 * RATE, 8 * RATE)
    assert loudest_stretch(audio, RATE, 0.0) == loudest_stretch(audio, RATE, 10.0) == (0, 10 * RATE)


def test_a_perfect_copy_has_no_faults_in_any_octave(songs: Path) -> None:
    clip = find_clips(songs / "first.wav", RATE, 15.0)[0][0]
    report = evaluate(Copyist(clip.audio), [clip], "copyist", ("copy", "octaves"))
    values = report.medians()["copyist", "copy"]
    assert abs(values["hnr_5k_db"]) + abs(values["above_16k_db"]) + values.get("line_breath_db", 0.0) < 1e-6
    assert values["pesq"] > 4.6
    assert report.octaves() == ["110-220 Hz", "220-440 Hz"] or report.octaves() == ["220-440 Hz"]
    for octave in report.octaves():
        assert report.medians("all", octave)["copyist", "copy"]["log_mel"] < 1e-3
    assert "pesq" in report.medians("all", "220-440 Hz")["copyist", "copy"]


def test_speed_is_that_of_copies_and_of_a_shift_with_what_it_hears(songs: Path) -> None:
    class Slow(Copyist):
        def resynthesize(self, audio: np.ndarray, sample_rate: int, **wishes: object) -> np.ndarray:
            time.sleep(0.08)
            assert (len(audio), wishes) == (8 * RATE, {"shift_semitones": 4})
            return audio

    clip = find_clips(songs / "first.wav", RATE, 15.0)[0][0]
    rows = {row.condition: row.values["speed"] for row in evaluate(Slow(), [clip], "slow", ("speed",)).rows}
    assert list(rows) == ["copy", "+4 semitones"]
    assert rows["copy"] > rows["+4 semitones"]
    assert 5 < rows["+4 semitones"] <= 100  # eight seconds in a twelfth of one


def test_published_audio_is_found_by_name_and_moved_into_step(songs: Path, tmp_path: Path) -> None:
    clips, _ = find_clips(songs, RATE, 15.0)
    theirs = tmp_path / "theirs"
    (theirs / "sub").mkdir(parents=True)
    audio, _ = soundfile.read(songs / "first.wav", dtype="float32")
    soundfile.write(theirs / "sub" / "first.flac", np.pad(audio, (700, 0)), RATE)
    published = read_published((f"theirs={theirs}",), clips)
    found = published[0].audio_for(prepare(clips[1], OPENVPI_44K))
    assert found is not None
    assert np.abs(found - clips[1].audio).max() < 1e-4
    assert published[0].audio_for(prepare(clips[0], OPENVPI_44K)) is None
    report = evaluate(Copyist(), clips, "none", ("copy",), published=published)
    assert [row.clip for row in report.rows if row.system == "theirs"] == ["first.wav"]
    assert report.medians()["theirs", "copy"]["pesq"] > 4.5
    for word, message in (("theirs", "write NAME=FOLDER"), (f"x={songs / 'deep'}/no", "no such file or folder")):
        with pytest.raises(MelismaError, match=message):
            read_published((word,), clips)
    with pytest.raises(MelismaError, match="no file is called as one of the clips, first"):
        read_published((f"x={songs / 'deep'}",), clips[1:])


def test_the_delay_is_found_to_the_sample() -> None:
    audio = np.random.default_rng(0).standard_normal(5000)
    assert best_delay(audio, np.pad(audio, (123, 877))) == 123


@pytest.fixture
def short_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes_module, "HELD_SECONDS", 2.0)
    monkeypatch.setattr(probes_module, "OCTAVE_SECONDS", 1.5)
    monkeypatch.setattr(probes_module, "SEMITONES", (-12, 1, 3))


@pytest.mark.usefixtures("short_notes")
def test_probes_show_each_fault_where_it_is() -> None:
    items: dict[str, Any] = {name: item for item, name, _ in probes_module.probes(Copyist(), OPENVPI_44K, ("probes",))}
    assert [name.split()[0] for name in items] == ["silence", "breath", *["octave"] * 5, "110", "440"]
    perfect = Copyist(*(item.clip.audio for name, item in items.items() if name != "silence"))
    clip = items["octave 220-440 Hz"].clip
    report = evaluate(perfect, [clip], "copyist", ("probes", "semitones"))
    found = {condition: values for (_, condition), values in report.medians(PROBE).items()}
    assert found["silence"] == {"dc_db": -120.0, "line_silence_db": -120.0, "level_db": -120.0}
    assert found["breath"]["line_breath_db"] == 0.0
    assert found["breath"]["log_mel"] == 0.0
    assert found["110 Hz for a minute"]["jitter_ratio"] == found["440 Hz for a minute"]["shimmer_ratio"] == 1.0
    # Whoever sings every shift at the old pitch is off by it.
    assert found["+1 to +4 semitones"]["f0_cents"] == pytest.approx(200.0, abs=30.0)
    assert found["-9 to -12 semitones"]["f0_cents"] == pytest.approx(1200.0, abs=30.0)
    assert found["-9 to -12 semitones"]["formants"] == 0.0
    humming = evaluate(Copyist(otherwise=0.001), [clip], "humming", ("probes",))
    assert humming.medians(PROBE)["humming", "silence"]["line_silence_db"] == pytest.approx(-60.0, abs=0.5)
    assert not any(set(values) & set(FAULTS) for values in humming.medians().values())


@pytest.mark.slow
def test_visqol_falls_with_noise(songs: Path) -> None:
    pytest.importorskip("visqol", reason="ViSQOL is an extra")
    from melisma.evaluation.visqol import visqol_mos

    audio = soundfile.read(songs / "first.wav", dtype="float32")[0][: round(1.1 * RATE)]
    noise = np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
    scores = [visqol_mos(audio, audio + level * noise, RATE) for level in (0.0, 0.01, 0.1)]
    assert scores[0] > 4.5
    assert scores == sorted(scores, reverse=True)
    assert np.isnan(visqol_mos(audio, 0 * audio, RATE))


def test_the_command_writes_report_and_page(songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["evaluate", "analytic", str(songs), "-o", str(out), "--parts", "copy", "baselines", "octaves"]
    assert main([*words, "--heard", "1", "--longest", "1", "--audio", f"me={songs}"]) == 0
    text = capsys.readouterr().out
    assert "skipped: broken.wav" in text
    saved = json.loads((out / "report.json").read_text(encoding="utf-8"))
    systems = {row["system"] for row in saved["rows"]}
    assert systems == {"analytic", "me", "WORLD", "Griffin-Lim"}
    assert "220-440 Hz" in saved["octaves"]
    assert all(np.isfinite(v) for row in saved["rows"] for v in row["values"].values() if v is not None)
    written = (out / "report.md").read_text(encoding="utf-8")
    assert "### singing\n" in written
    assert "### faults" in written
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<section") == 1
    assert page.count("<figure data-name") == 6
    assert len(page) < 3_000_000
    assert "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--parts", "cpoy"], "unknown part 'cpoy'; known: copy"),
        (["--audio", "x"], "write NAME=FOLDER"),
        (["--clips", "nothing.txt"], "cannot read the list"),
    ],
)
def test_wrong_requests_are_one_clear_line(songs: Path, capsys, words: list[str], message: str) -> None:
    assert main(["evaluate", "analytic", str(songs), *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
