"""Nobody waits for LLVM: until the kernels are compiled, the plain code sings."""

from pathlib import Path

import pytest
import torch

from melisma.kernels import projection, ready

pytest.importorskip("numba")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """A machine on which nothing is compiled; gives the commands that are started."""
    started: list[list[str]] = []
    monkeypatch.setattr(ready, "marker", lambda: tmp_path / "melisma" / "kernels-0")
    monkeypatch.setattr(ready, "_known", {"ready": False, "started": False})
    monkeypatch.setattr(ready.subprocess, "Popen", lambda command, **_: started.append(command))
    return started


def test_the_first_question_starts_one_compiler(fresh: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    audio = torch.zeros(1, 512)
    assert not projection.fused(audio)
    assert not projection.fused(audio)
    assert [command[1:] for command in fresh] == [["-m", "melisma.inference.compiling"]]
    monkeypatch.setattr(ready, "_known", {"ready": False, "started": False})  # another process meanwhile
    assert not ready.ready()
    assert len(fresh) == 1
    ready.declare()
    monkeypatch.setattr(ready, "_known", {"ready": False, "started": False})
    assert projection.fused(audio)
    assert len(fresh) == 1


def test_a_dead_compiler_is_replaced(fresh: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    ready.ready()
    monkeypatch.setattr(ready, "_known", {"ready": False, "started": False})
    monkeypatch.setattr(ready, "_LONGEST_SECONDS", -1.0)
    assert not ready.ready()
    assert len(fresh) == 2


def test_where_nothing_may_be_written_the_plain_code_sings(
    fresh: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(ready, "marker", lambda: tmp_path / "file" / "kernels-0")
    assert not ready.ready()
    assert fresh == []
    ready.declare()
    assert ready.ready()
