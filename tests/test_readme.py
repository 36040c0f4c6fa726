"""The README's words are true: its commands run, its files exist, its options are those of the command line."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from melisma.cli import COMMANDS, main
from melisma.inference.vocoder import SHIPPED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
SHELL = [
    shlex.split(line, comments=True)
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    if line.strip()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo in it, as the README's first command leaves it."""
    folder = tmp_path_factory.mktemp("readme")
    assert main(["demo", str(folder / "my-demo"), "--singer"]) == 0
    return folder


@pytest.mark.parametrize("words", [words for words in SHELL if words[0] == "melisma"], ids=" ".join)
def test_commands_run(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    model = [] if SHIPPED["melisma-44k"].exists() or words[1] != "resynth" else ["--model", "analytic"]
    assert main([*words[1:], *model]) == 0
    if "-o" in words:
        assert Path(words[words.index("-o") + 1]).stat().st_size > 1000


def test_python_runs(folder: Path) -> None:
    for language, text in BLOCKS:
        if language == "python":
            subprocess.run([sys.executable, "-W", "error", "-c", text], cwd=folder, check=True)


def test_make_knows_the_commands() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [words[1] for words in SHELL if words[0] == "make"]
    assert targets == ["demo", "test"]
    for target in [*targets, *re.findall(r"`make (\w+)`", README)]:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_files_and_links_exist() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_commands_and_options_are_those_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"melisma (\w+) [A-Z]", README)) | {words[1] for words in SHELL if words[0] == "melisma"}
    assert named <= set(COMMANDS)
    helps = ""
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        helps += capsys.readouterr().out
    for option in set(re.findall(r"`(--[\w-]+)", README)) - {"--debug"}:
        assert option in helps, option
