"""Nobody waits for LLVM: until the kernels are compiled, the plain code sings."""

import subprocess
import sys
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


_ASK = """
import sys
import types
import torch
from numba.core.dispatcher import Dispatcher
from melisma.benchmarking.subjects import material, subject
from melisma.inference.compiling import compile_all

def compiled():
    parts = [part for name, part in sys.modules.items() if name.startswith("melisma.kernels.")]
    kernels = {id(it): it for part in parts for it in vars(part).values() if isinstance(it, Dispatcher)}
    return {(it.__module__, it.__name__, str(args)) for it in kernels.values() for args in it.signatures}

compile_all()
before = compiled()
for name in ("nsf-hifigan", "snake", "mini-nsf", "melisma-44k", "melisma-44k-live", "analytic"):
    vocoder = subject(name)
    given = material(vocoder, .2, 1)
    vocoder.synthesize(**given)
    speaker = given.pop("speaker", None)
    stream = vocoder.stream(speaker=speaker)
    for frame in range(0, given["features"].shape[2], 4):
        part = given["features"][0, :, frame : frame + 4], given["f0_hz"][0, frame : frame + 4]
        stream.push(*part)
    stream.finish()
tone = torch.sin(torch.arange(22050) * 0.03).numpy()
melisma_44k = subject("melisma-44k")
melisma_44k.resynthesize(tone, 44100, shift_semitones=2)
print(sorted(compiled() - before))
"""


def test_what_sings_has_been_compiled() -> None:
    done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stderr


_FIRST = """
import sys
import melisma
from melisma.benchmarking.subjects import material
from melisma.kernels import ready

ready.force()
vocoder = melisma.load("melisma-44k")
vocoder.synthesize(**material(vocoder, 0.2, 1))
print("numba" in sys.modules, "numba.np.linalg" in sys.modules)
"""


def test_machine_code_is_loaded_without_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", _FIRST], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "True False", done.stderr
