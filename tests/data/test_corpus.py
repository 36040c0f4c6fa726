"""``recipes/corpus.py`` makes the datasets that the recipes of the shipped models train on."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from melisma.audio.io import write_audio
from melisma.data.dataset import Dataset
from melisma.data.engines import ENGINES, here
from melisma.data.made import Phrase
from melisma.data.singer import Note, sing

RECIPES = Path(__file__).parents[2] / "recipes"
RATE, HOP = 44100, 512


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which works in this process and speaks one sentence in two voices."""
    spec = importlib.util.spec_from_file_location("corpus_recipe", RECIPES / "corpus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SENTENCES", {"en-us": "Home."})
    monkeypatch.setattr(module, "VARIANTS", ("m1", "f2"))
    monkeypatch.setitem(ENGINES, "local", here)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two recordings, one of which is held out."""
    folder = tmp_path / "data"
    rows = []
    for name, f0_hz in (("nit_song070/004.flac", 200.0), ("nit_song070/007.flac", 300.0)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        audio, _ = sing([Note(f0_hz, 0.8, "a")], 48000, hop_length=HOP)
        write_audio(folder / name, audio, 48000)
        rows.append({"path": name, "kind": "speech", "speaker": "anna", "licence": "CC0", "sample_rate": 48000})
    (folder / "manifest.json").write_text(json.dumps(rows))
    return folder


def test_recordings_are_in_it_with_twins_but_for_what_is_held_out(corpus: ModuleType, data: Path) -> None:
    out = data.parent / "corpus"
    assert corpus.main([str(data), str(out), "--only", "recorded"]) == 0
    dataset = Dataset.open(out / corpus.RECORDED)
    assert (dataset.sample_rate, dataset.hop_length) == (RATE, HOP)
    (clip,) = dataset.clips
    assert (clip.key, clip.kind, clip.speaker) == ("nit_song070/004", "speech", "anna")
    assert clip.twin_semitones != 0.0
    assert dataset.median_f0_hz(0) == pytest.approx(200.0, rel=0.01)
    assert not (out / corpus.MADE).exists()


def test_the_built_in_singer_is_in_it_with_exact_f0(
    corpus: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    out = data.parent / "corpus"
    assert corpus.main([str(data), str(out), "--only", "made", "--sung", "1"]) == 0
    assert "espeak-ng is not installed" in capsys.readouterr().out
    dataset = Dataset.open(out / corpus.MADE)
    (clip,) = dataset.clips
    assert clip.kind == "made"
    assert clip.twin_semitones != 0.0
    f0_hz = Phrase(0, 1).sing(RATE, HOP)[1]
    assert np.array_equal(dataset.f0_hz(0, 0, clip.frames), f0_hz.astype(np.float32))


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is a program of its own")
def test_spoken_voices_are_in_it(corpus: ModuleType, data: Path) -> None:
    out = data.parent / "corpus"
    assert corpus.main([str(data), str(out), "--only", "made", "--sung", "0"]) == 0
    dataset = Dataset.open(out / corpus.MADE)
    assert [(clip.key, clip.kind) for clip in dataset.clips] == [
        ("made/espeak-en-us-m1", "made"),
        ("made/espeak-en-us-f2", "made"),
    ]
    assert all(clip.band_hz < 11025 for clip in dataset.clips)


def test_what_cannot_be_made_is_one_clear_line(
    corpus: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for more, message in (("recorded", "no such file or folder"), ("made", "nothing to make a dataset from")):
        assert corpus.main([str(tmp_path / "no"), str(tmp_path / "out"), "--only", more, "--sung", "0"]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["melisma-44k", "melisma-44k-live", "melisma-44k-causal"])
def test_the_recipes_train_on_what_it_writes(corpus: ModuleType, name: str) -> None:
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    assert recipe["data"]["folders"] == [f"runs/corpus/{corpus.RECORDED}", f"runs/corpus/{corpus.MADE}"]
    mel = recipe["generator"]["mel"]
    assert (corpus.SETTINGS.sample_rate, corpus.SETTINGS.hop_length) == (mel["sample_rate"], mel["hop_length"])
