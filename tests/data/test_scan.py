"""Folders are searched to the bottom, in a fixed order, and a manifest beside the recordings is believed."""

import json
from pathlib import Path

import pytest

from melisma.data.scan import Defaults, Recording, Skipped, scan
from melisma.errors import MelismaError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_recordings_of_a_tree_in_order_with_keys(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.wav",
        "a b/Übung.1.FLAC",
        "a b/Übung_1.mp3",
        "a b/.hidden.wav",
        ".trash/x.wav",
        "notes.txt",
        "b.ogg",
    )
    touch(tmp_path, "out/shard.wav")
    found, skipped = scan([tmp_path], but=tmp_path / "out")
    assert [one.name for one in found] == ["a b/Übung.1.FLAC", "a b/Übung_1.mp3", "b.ogg", "b.wav"]
    assert [one.key for one in found] == ["a b/Übung_1", "a b/Übung_1-2", "b", "b-2"]
    assert [one.speaker for one in found] == ["a b", "a b", tmp_path.name, tmp_path.name]
    assert {one.kind for one in found} == {"singing"}
    assert not skipped


def test_a_manifest_says_more_than_the_defaults(tmp_path: Path) -> None:
    touch(tmp_path, "in.wav", "other.wav", "out.wav", "odd.name")
    rows = [
        {"path": "in.wav", "kind": "speech", "speaker": "anna", "licence": "CC0", "credit": "Anna", "seconds": 3},
        {"path": "out.wav"},
        {"path": "odd.name"},
        {"path": "gone.wav"},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    found, skipped = scan([tmp_path], Defaults("singing", "someone", "MIT"), {"out.wav"})
    first, other, odd = found
    assert (first.kind, first.speaker, first.facts["licence"], first.facts["credit"]) == (
        "speech",
        "anna",
        "CC0",
        "Anna",
    )
    assert (other.kind, other.speaker, other.facts["licence"]) == ("singing", "someone", "MIT")
    assert odd.name == "odd.name"
    assert skipped == [Skipped("gone.wav", "named in manifest.json but not there")]


def test_files_and_several_folders(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.wav", "two/a.wav", "three.wav")
    found, _ = scan([tmp_path / "two", tmp_path / "three.wav", tmp_path / "one"])
    assert [(one.key, one.path) for one in found] == [
        ("a", tmp_path / "two" / "a.wav"),
        ("three", tmp_path / "three.wav"),
        ("a-2", tmp_path / "one" / "a.wav"),
    ]
    assert isinstance(found[0], Recording)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "holds no recording to use"),
        ("not json", "needs to be a JSON list"),
        ('{"path": "a"}', "needs to be a JSON list"),
        ('[{"path": "a.wav"}, {"path": "b.wav"}]', "none of its 2 paths is there; 'a.wav', for one"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(tmp_path: Path, manifest: str | None, message: str) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(MelismaError, match=message):
        scan([tmp_path])


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MelismaError, match="nowhere: no such file or folder"):
        scan([tmp_path / "nowhere"])
