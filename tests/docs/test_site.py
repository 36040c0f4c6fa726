"""The documentation's words are true: its commands and code run, its links lead somewhere, its notebook runs."""

import asyncio
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from melisma.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def test_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in "".join(blocks(PAGES["index.md"], "sh")).splitlines():
        assert main([*shlex.split(line, comments=True)[1:], *(["--singer"] if " demo " in line else [])]) == 0, line
    for code in blocks(PAGES["index.md"], "python"):
        subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)


def test_commands_and_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    helps = {}
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        helps[name] = capsys.readouterr().out
    for page, text in PAGES.items():
        lines = [line for block in blocks(text, r"(?:sh)?") for line in block.replace("\\\n", " ").splitlines()]
        lines += re.findall(r"`([^`\n]+)`", text)
        for line in lines:
            found = re.match(r"(?:\w+=\S+ )?melisma ([a-z]+)\b([^#]*)", line)
            if found:
                assert found[1] in helps, f"{page}: {line}"
                for option in re.findall(r"(?<!\S)--[a-z][\w-]*", found[2]):
                    assert option in helps[found[1]], f"{page}: {line}"


def test_links_lead_somewhere() -> None:
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)", text):
            assert ((DOCS / page).parent / link).exists(), f"{page}: {link}"


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(PAGES)


def test_nothing_is_fetched_from_elsewhere() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False
    assert not any("://" in str(entry) for entry in config.get("extra_css", []) + config.get("extra_javascript", []))


def test_the_notebook_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is missing: pip install '.[dev]'")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is missing: pip install '.[dev]'")
    notebook = nbformat.read(DOCS / "notebooks" / "first-steps.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before committing"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's own machinery
        client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
        asyncio.run(client.async_execute())
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "\n".join(output.get("text", "") for output in shown)
    moved = re.search(r"moved by (\S+) semitones", said)
    assert moved is not None
    assert float(moved[1]) == pytest.approx(4.0, abs=0.03)
    assert sum("audio" in str(output.get("data", {})) for output in shown) == 4
