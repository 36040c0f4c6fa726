"""The listening page: whole in one file, and a real browser switches versions at the same place."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from melisma.cli import main
from melisma.data.singer import Note, sing
from melisma.errors import MelismaError
from melisma.evaluation.page import CONTROLS, MIME, Section, Version, encoded, section_html, write_page

RATE = 44100
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--autoplay-policy=no-user-gesture-required")
# What sounds: the loudness of every version's own gain, and the place.
STATE = "document.body.dataset.state"


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return np.asarray(sing([Note(220.0, 1.5, "a"), Note(330.0, 1.5, "i")])[0], dtype=np.float32)


@pytest.mark.parametrize("suffix", MIME)
def test_audio_inside_is_the_audio_given(voice: np.ndarray, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(encoded(voice, RATE, suffix))
    audio, rate = soundfile.read(tmp_path / f"a{suffix}")
    assert len(audio) / rate == pytest.approx(len(voice) / RATE, abs=1e-3)
    if suffix != ".opus":
        assert np.abs(audio - voice).max() < 1e-4


def test_names_are_text_and_versions_equally_loud(voice: np.ndarray) -> None:
    section = Section("<b>", [Version("original", voice), Version('a "quiet" & <one>', 0.25 * voice)], "1 < 2")
    text = section_html(section, RATE)
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert 'data-name="a &quot;quiet&quot; &amp; &lt;one&gt;"' in text
    gains = [float(gain) for gain in re.findall(r'data-gain="([\d.]+)"', text)]
    assert gains == pytest.approx([1.0, 4.0], rel=0.01)


def test_what_cannot_be_heard_is_refused(voice: np.ndarray) -> None:
    with pytest.raises(MelismaError, match="nothing to hear"):
        section_html(Section("a", [Version("x", voice[:0])]), RATE)
    with pytest.raises(MelismaError, match=r"cannot hold \.mp3"):
        section_html(Section("a", [Version("x", voice)]), RATE, ".mp3")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install '.[dev]'")
    if CHROMIUM is None:
        pytest.skip("Chromium is missing: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        profile = os.environ | {"HOME": str(tmp_path_factory.mktemp("home"))}
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), env=profile)
        yield one
        one.close()


@pytest.fixture
def page(browser: Any, voice: np.ndarray, tmp_path: Path) -> Iterator[Any]:
    clips = [
        section_html(Section(title, [Version(name, voice) for name in ("original", "WORLD", "model")]), RATE, suffix)
        for title, suffix in (("one", ".flac"), ("two", ".opus"))
    ]
    write_page(tmp_path / "page.html", "Listen", CONTROLS + "".join(clips))
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    elsewhere: list[str] = []
    page.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else elsewhere.append(one.url))
    page.goto((tmp_path / "page.html").as_uri())
    yield page
    context.close()
    assert not faults
    assert not elsewhere


def playhead(page: Any, section: int = 0) -> float:
    return float(page.locator("section").nth(section).locator("i").first.evaluate("e => parseFloat(e.style.left) || 0"))


def test_versions_are_switched_at_the_same_place(page: Any) -> None:
    picture = page.locator("section").nth(0).locator(".picture").nth(0)
    box = picture.bounding_box()
    picture.click(position={"x": 0.5 * box["width"], "y": 20})
    page.wait_for_function(f"{STATE} === 'playing'")
    page.wait_for_timeout(200)
    before = playhead(page)
    assert 50 < before < 75
    page.locator("section").nth(0).locator("button").nth(2).click()
    page.wait_for_timeout(100)
    assert before < playhead(page) < before + 25
    assert page.locator("figure.on").count() == 1
    assert page.locator("figure.on button").inner_text() == "model"
    assert "model" in page.locator("#now").inner_text()
    page.keyboard.press("1")
    assert page.locator("figure.on button").inner_text() == "original"
    page.keyboard.press("Space")
    assert page.evaluate(STATE) == "stopped"


def test_the_other_clip_stops_the_first_and_opus_plays(page: Any) -> None:
    page.locator("section").nth(0).locator("button").nth(0).click()
    page.wait_for_function(f"{STATE} === 'playing'")
    page.locator("section").nth(1).locator("button").nth(1).click()
    page.wait_for_function("document.querySelectorAll('section.active')[0] === document.querySelectorAll('section')[1]")
    page.wait_for_function(f"{STATE} === 'playing'")
    page.wait_for_timeout(150)
    assert playhead(page, 1) > 0
    page.wait_for_function(f"{STATE} === 'stopped'", timeout=8000)  # at its end


def test_blind_hides_who_is_who(page: Any) -> None:
    page.locator("#blind").check()
    names = page.locator("section").nth(0).locator("button").all_inner_texts()
    assert names == ["A", "B", "C"]
    assert page.locator("img").first.evaluate("e => getComputedStyle(e).visibility") == "hidden"
    page.locator("#blind").uncheck()
    assert page.locator("section").nth(0).locator("button").all_inner_texts() == ["original", "WORLD", "model"]


def test_the_command_makes_a_page(voice: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "song ä.wav", voice[: RATE // 2], RATE)
    words = ["listen", str(tmp_path), "-o", str(tmp_path / "page.html"), "--models", "analytic", "--shift", "0", "4"]
    assert main([*words, "--small"]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall(r'data-name="([^"]+)"', page) == ["original", "WORLD", "analytic"] * 2
    assert "+4 semitones" in page
    assert "2 parts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "page.txt"], "the page is one .html file"),
        (["-o", "nowhere/page.html"], "does not exist"),
        (["-o", "page.html", "--models", "nothing.pth"], "nothing.pth"),
    ],
)
def test_wrong_requests_are_one_clear_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.zeros(100), RATE)
    assert main(["listen", "a.wav", *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
