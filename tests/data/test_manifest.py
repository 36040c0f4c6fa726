"""The manifest and the held-out list are read strictly."""

from pathlib import Path

import pytest

from melisma.data.manifest import Entry, held_out, read_list, read_manifest, real_band_hz
from melisma.errors import MelismaError

COMMITTED = Path(__file__).parents[2] / "recipes" / "heldout.txt"


def test_a_list_names_files_in_whole_or_in_part(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# comment\nout.wav\n\n part.wav\t0.1 0.2\no#t.wav 0 1\n")
    assert read_list(path) == [[Entry("out.wav")], [Entry("part.wav", 0.1, 0.2), Entry("o#t.wav", 0.0, 1.0)]]
    assert held_out(path) == {"out.wav", "part.wav", "o#t.wav"}


def test_the_committed_list_leaves_out_what_the_report_measures() -> None:
    assert held_out(COMMITTED) == {entry.path for group in read_list(COMMITTED) for entry in group}
    assert "nit_song070/007.flac" in held_out(COMMITTED)


@pytest.mark.parametrize("text", ["not json", "[1]", '[{"path": "a.wav"}]'])
def test_a_bad_manifest_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(MelismaError, match=r"manifest\.json: needs a list of rows"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("note", "rate", "band_hz"),
    [
        ("", 44100, 20947.5),
        ("from MP3: nothing reliable above 16 kHz", 48000, 16000.0),
        ("24 kHz: nothing above 11.6 kHz", 24000, 11600.0),
        ("from Opus, nothing above 20.3 kHz", 48000, 20300.0),
    ],
)
def test_a_note_says_where_the_band_ends(note: str, rate: int, band_hz: float) -> None:
    assert real_band_hz(note, rate) == pytest.approx(band_hz)
