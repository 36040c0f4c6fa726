"""A real browser drives the real page: drop a clip, drag a note, hear it through the API, undo, export, open again."""

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from web_service import Running

from melisma.audio.io import encode_audio
from melisma.data.singer import Note, Voice, sing
from melisma.f0 import estimate_f0

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install '.[dev]'")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt install chromium")
SONG = (
    Note(220.0, 0.4, "a", "m"),
    Note(0.0, 0.25, "a"),
    Note(261.6, 0.45, "a", "s"),
    Note(0.0, 0.25, "a"),
    Note(220.0, 0.5, "o", "t"),
)
DROP = """([name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name));
  document.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def wav() -> bytes:
    audio, _ = sing(SONG, 44100, seed=1, voice=Voice(tract=1.1, vibrato_cents=30.0))
    return encode_audio(audio, 44100, ".wav")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        profile = os.environ | {"HOME": str(tmp_path_factory.mktemp("home"))}
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), env=profile)
        yield one
        one.close()


def _is_fault(message: Any) -> bool:
    return message.type == "error" and "Failed to load resource" not in message.text  # a refused upload


@pytest.fixture
def page(browser: Any, server: Running) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if _is_fault(message) else None)
    elsewhere: list[str] = []
    page.on("request", lambda one: elsewhere.append(one.url) if not one.url.startswith((server.url, "blob:")) else None)
    page.goto(server.url)
    yield page
    session = page.evaluate("document.body.dataset.session")
    context.close()
    server.client.delete(f"/studio/api/sessions/{session}")
    assert not faults
    assert not elsewhere


def drop(page: Any, name: str, content: bytes) -> str:
    """Drop a file on the page; gives the session's id."""
    before = page.evaluate("document.body.dataset.session")
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])
    page.wait_for_selector(f"body[data-stage=editing][data-session]:not([data-session='{before}'])", timeout=30_000)
    return str(page.evaluate("document.body.dataset.session"))


def drag(page: Any, index: int, semitones: int) -> None:
    box = page.locator(".note").nth(index).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 0.5 * semitones * box["height"])
    page.mouse.move(x, y - semitones * box["height"])
    page.mouse.up()


def until(page: Any, expression: str, seconds: float = 30.0) -> None:
    """Wait for an expression; playwright's own way needs eval, which the page's policy forbids to all."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


def sung(page: Any) -> None:
    """Wait until nothing is left to sing."""
    until(
        page,
        "fetch(`/studio/api/sessions/${document.body.dataset.session}`).then((a) => a.json()).then((s) => !s.busy)",
    )


def sounds(server: Running, session: str) -> tuple[np.ndarray, np.ndarray]:
    address = f"/studio/api/sessions/{session}/audio"
    original, result = (
        np.frombuffer(server.client.get(address, params={"which": which}).content, "<i2").astype(np.float32) / 32767
        for which in ("original", "result")
    )
    return original, result


def download(page: Any, kind: str, folder: Path) -> Path:
    page.click("#export")
    with page.expect_download() as waiting:
        page.click(f"[data-export={kind}]")
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def test_drag_a_note_undo_export_and_open_again(page: Any, server: Running, wav: bytes, tmp_path: Path) -> None:
    session = drop(page, "voice.wav", wav)
    assert page.locator(".note").count() == 3
    drag(page, 1, 2)
    page.wait_for_selector(".note.moved")
    until(page, "document.body.dataset.firstSoundMs")
    sung(page)
    original, result = sounds(server, session)
    before, after = (estimate_f0(audio, 44100, 512) for audio in (original, result))
    cents = 1200 * np.log2(np.where(after > 0, after, np.nan) / np.where(before > 0, before, np.nan))
    seconds = (np.arange(len(cents)) + 0.5) * 512 / 44100
    assert np.nanmedian(cents[(seconds > 0.85) & (seconds < 1.0)]) == pytest.approx(200, abs=6)
    assert np.nanmax(np.abs(cents[(seconds < 0.5) | (seconds > 1.4)])) < 1
    changed = np.flatnonzero(original != result) / 44100
    assert 0.5 < changed.min() < changed.max() < 1.4

    page.keyboard.press("Control+z")
    page.wait_for_selector(".note.moved", state="detached")
    sung(page)
    assert (sounds(server, session)[1] == original).all()
    page.keyboard.press("Control+Shift+z")
    page.wait_for_selector(".note.moved")
    sung(page)

    saved = download(page, "session", tmp_path)
    assert saved.name == "voice.melisma.zip"
    assert download(page, "wav", tmp_path).read_bytes().startswith(b"RIFF")
    again = drop(page, saved.name, saved.read_bytes())
    assert again != session
    page.wait_for_selector(".note.moved")
    sung(page)
    np.testing.assert_allclose(sounds(server, again)[1], result, atol=2e-3)


def test_keyboard_alone(page: Any, wav: bytes) -> None:
    drop(page, "voice.wav", wav)
    page.locator("#audition").uncheck()  # what plays is what this test plays
    note = page.locator(".note").nth(1)
    page.locator(".note").nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert note.evaluate("(each) => each === document.activeElement")
    was = float(note.get_attribute("aria-valuenow"))
    note.evaluate(
        """(each) => {
            window.shown = [];
            const observer = new MutationObserver(() => window.shown.push(Number(each.getAttribute("aria-valuenow"))));
            observer.observe(each, { attributes: true, attributeFilter: ["aria-valuenow"] });
        }"""
    )
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowUp")
    page.wait_for_selector(".note.moved")
    until(page, f"Math.abs(window.shown.at(-1) - {was} - 1.1) < 0.06")
    sung(page)
    shown = np.array(page.evaluate("window.shown")) - was
    assert shown[-1] == pytest.approx(1.1, abs=0.06)
    assert (np.diff(shown) > -0.05).all(), "an answer to the first press must not take the second one back"
    assert "semitones" in note.get_attribute("aria-valuetext")
    page.keyboard.press("Delete")
    page.wait_for_selector(".note.moved", state="detached")
    page.keyboard.press("Control+a")
    assert page.locator(".note.selected").count() == 3
    page.keyboard.press("?")
    assert page.locator("#help-dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    assert page.get_attribute("#side-original", "aria-checked") == "true"
    page.keyboard.press("Space")
    until(page, "document.getElementById('play').title === 'Pause'")
    until(page, "document.getElementById('now').textContent !== '0:00.0'")


def test_draw_tune_and_stretch(page: Any, server: Running, wav: bytes) -> None:
    session = drop(page, "voice.wav", wav)
    box = page.locator(".note").nth(2).bounding_box()
    page.click("#tool-draw")
    page.mouse.move(box["x"] + 4, box["y"] - 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] - 20, steps=5)
    page.mouse.up()
    page.wait_for_selector(".note.moved")
    page.click("#tool-select")
    page.click("text=Tune to a scale")
    page.select_option("#tune-root", "D")
    page.locator("#speed").fill("0.8")
    page.locator("#speed").dispatch_event("change")
    until(page, "document.querySelector('#singing').hidden")
    sung(page)
    told = server.client.get(f"/studio/api/sessions/{session}").json()
    assert [step["kind"] for step in told["edits"]["steps"]] == ["snap", "draw"]
    assert told["edits"]["steps"][0]["scale"] == "D:maj"
    assert told["result_seconds"] == pytest.approx(told["seconds"] / 0.8)
    for _ in range(4):
        page.click("#undo")
    assert page.is_disabled("#undo")
    assert not page.is_checked("#tune-on")


def test_record(page: Any) -> None:
    page.click("#record")
    page.wait_for_selector("#record-dialog[open]")
    until(page, "!['0:00.0', '0:00.1'].includes(document.getElementById('record-time').textContent)")
    page.click("#record-stop")
    page.wait_for_selector("body[data-stage=editing]", timeout=30_000)
    assert page.inner_text("#clip-name") == "Record.wav"


def test_compare(page: Any, wav: bytes, tmp_path: Path) -> None:
    drop(page, "voice.wav", wav)
    page.click("#compare-open")
    page.click("#compare-start")
    page.wait_for_selector("#compare-players:not([hidden])", timeout=30_000)
    with page.expect_download() as waiting:
        page.click("#compare-download")
    assert waiting.value.suggested_filename == "voice-comparison.zip"


def test_a_file_that_is_no_voice(page: Any) -> None:
    page.evaluate(DROP, ["notes.txt", base64.b64encode(b"not audio").decode()])
    page.wait_for_selector("#alert:not([hidden])")
    assert "not an audio file" in page.inner_text("#alert")
    assert page.get_attribute("body", "data-stage") == "empty"


def test_languages_and_themes(page: Any, wav: bytes) -> None:
    drop(page, "voice.wav", wav)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    page.click("#language")
    assert page.inner_text("#side-result") == "结果"
    assert page.get_attribute("html", "lang") == "zh-Hans"
    assert "秒" in page.locator(".note").nth(0).get_attribute("aria-valuetext")
    page.reload()
    assert page.inner_text("#choose") == "选择文件"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen(page: Any, wav: bytes, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 760})
    page.reload()
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = page.evaluate(
            """() => [...document.querySelectorAll("header *, footer *")]
              .filter((each) => each.offsetParent && !each.closest("[role=menu]"))
              .filter((each) => each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.id)"""
        )
        assert not cut
        if page.get_attribute("body", "data-stage") == "empty":
            drop(page, "voice.wav", wav)


def test_everything_has_a_name(page: Any, wav: bytes) -> None:
    """Buttons, inputs and notes are named for those who do not see them, in both states of the page."""
    nameless = """() => [...document.querySelectorAll("button, input:not([type=file]), select, [role]")]
      .filter((each) => !["presentation", "status", "alert", "menu"].includes(each.getAttribute("role")))
      .filter((each) => !each.getAttribute("aria-label") && !each.getAttribute("aria-labelledby"))
      .filter((each) => !each.textContent.trim() && !each.closest("label")?.textContent.trim())
      .map((each) => each.outerHTML)"""
    assert json.dumps(page.evaluate(nameless)) == "[]"
    drop(page, "voice.wav", wav)
    assert json.dumps(page.evaluate(nameless)) == "[]"
