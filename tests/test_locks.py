"""A folder is one run's at a time, whatever became of the run before."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from melisma.errors import MelismaError
from melisma.files import LOCK, locked


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    with locked(folder):
        with (
            pytest.raises(MelismaError, match=rf"run: another run writes here \(process {os.getpid()} on .*wait"),
            locked(folder),
        ):
            pass
        assert (folder / LOCK).exists()
    assert not folder.exists()


def test_a_folder_that_was_there_or_is_filled_stays(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    with locked(tmp_path / "filled"):
        (tmp_path / "filled" / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["filled", "file"]


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    lines = (
        "import os, signal",
        "from pathlib import Path",
        "from melisma.files import locked",
        f"with locked(Path({str(tmp_path)!r})): os.kill(os.getpid(), signal.SIGKILL)",
    )
    code = "\n".join(lines)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert (tmp_path / LOCK).read_text().startswith("process ")
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    assert not (tmp_path / LOCK).exists()


def test_a_lock_that_its_holder_takes_away_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder ends between our opening and locking: we hold a file without a name, which keeps nobody out."""
    import fcntl

    lock = fcntl.flock
    waits = [True]

    def late(handle: int, operation: int) -> None:
        if waits:
            waits.pop()
            (tmp_path / LOCK).unlink()
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path), pytest.raises(MelismaError, match="another run writes here"), locked(tmp_path):
        pass


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(MelismaError, match=r"file: cannot be written: .*; choose another folder"),
        locked(tmp_path / "file"),
    ):
        pass
