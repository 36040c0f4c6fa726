"""What stands in deploy/ is true: its commands are those of the command line, its files exist."""

import re
import shlex
from pathlib import Path

import pytest

from melisma.cli import main

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
UNIT = (ROOT / "deploy" / "melisma.service").read_text(encoding="utf-8")


def test_the_image_copies_what_is_there_and_installs_extras_that_are_declared() -> None:
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, flags=re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for text in (DOCKERFILE, UNIT):
        for extra in re.findall(r"\[([a-z0-9,]+)\]'", text)[0].split(","):
            assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE), extra


@pytest.mark.parametrize(
    "words",
    [
        shlex.split(re.search(r"^ENTRYPOINT \[(.*)\]$", DOCKERFILE, flags=re.MULTILINE)[1].replace(",", "")),  # type: ignore[index]
        shlex.split(re.search(r"^ExecStart=(.*)$", UNIT, flags=re.MULTILINE)[1]),  # type: ignore[index]
    ],
    ids=["docker", "systemd"],
)
def test_the_commands_are_understood(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MELISMA_TOKEN", raising=False)
    assert Path(words[0]).name == "melisma"
    # A model that is not there ends the command after its options were read.
    assert main([*words[1:], "--model", "no-such-model"]) == 1
    assert re.search("no such model|needs? a --token|give a --token", capsys.readouterr().err)
