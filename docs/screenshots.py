"""Draw the pictures of the studio again: ``python docs/screenshots.py`` (needs Chromium and the extra ``dev``)."""

import io
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from melisma.audio.io import encode_audio
from melisma.data.singer import Note, Voice, sing
from melisma.web import Settings, create_app

IMAGES = Path(__file__).parent / "images"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
SONG = (
    Note(220.0, 0.45, "a", "m"),
    Note(246.9, 0.45, "e"),
    Note(0.0, 0.2, "e"),
    Note(261.6, 0.4, "o", "s"),
    Note(0.0, 0.2, "o"),
    Note(293.7, 0.45, "a", "n"),
    Note(329.6, 0.35, "i"),
    Note(293.7, 0.3, "i"),
    Note(261.6, 0.55, "e"),
    Note(0.0, 0.25, "e"),
    Note(246.9, 0.4, "o", "t"),
    Note(220.0, 1.6, "a"),
)
LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
SHOTS = (
    ("laptop-light", LAPTOP, "light", "en"),
    ("laptop-dark", LAPTOP, "dark", "en"),
    ("laptop-zh", LAPTOP, "light", "zh-CN"),
    ("phone-light", PHONE, "light", "en"),
    ("phone-dark", PHONE, "dark", "en"),
)


def save(page: Any, name: str) -> None:
    """A screenshot as a small PNG."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(IMAGES / f"studio-{name}.png", optimize=True)


def move(page: Any, index: int, semitones: int) -> None:
    """Drag a note."""
    box = page.locator(".note").nth(index).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - semitones * box["height"], steps=4)
    page.mouse.up()


def draw(page: Any, index: int) -> None:
    """Draw a curve over a note."""
    box = page.locator(".note").nth(index).bounding_box()
    page.click("#tool-draw")
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 6)
    page.mouse.down()
    for share, high in ((0.4, 12), (0.55, 40), (0.7, 44), (0.85, 20), (0.97, 6)):
        page.mouse.move(box["x"] + share * box["width"], box["y"] - high, steps=4)
    page.mouse.up()
    page.click("#tool-select")


def shoot(browser: Any, url: str, wav: bytes, shot: tuple[str, dict[str, int], str, str]) -> None:
    """All pictures of one width, theme and language."""
    name, size, scheme, language = shot
    context = browser.new_context(viewport=size, color_scheme=scheme, locale=language)
    page = context.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(url)
    page.wait_for_timeout(400)
    if name in ("laptop-light", "phone-dark"):
        save(page, f"{name}-empty")
    page.set_input_files("#file", {"name": "melody.wav", "mimeType": "audio/wav", "buffer": wav})
    page.wait_for_selector("body[data-stage=editing]", timeout=60_000)
    page.evaluate("document.getElementById('audition').checked = false")
    page.wait_for_timeout(500)
    move(page, 3, 2)
    page.wait_for_timeout(300)
    if size is LAPTOP:
        draw(page, page.locator(".note").count() - 1)
    page.wait_for_timeout(3000)
    page.locator(".note").nth(3).focus()
    page.mouse.move(5, 5)
    save(page, name)
    if name == "phone-light":
        page.click("#panel-open")
        page.wait_for_timeout(500)
        save(page, f"{name}-panel")
    if name == "laptop-light":
        page.click("#compare-open")
        page.click("#compare-start")
        page.wait_for_selector("#compare-players:not([hidden])", timeout=60_000)
        page.wait_for_timeout(300)
        save(page, "compare")
    context.close()


def main() -> None:
    """Serve, drive, write."""
    audio, _ = sing(SONG, 44100, seed=2, voice=Voice(tract=1.1, vibrato_cents=45.0))
    wav = encode_audio(audio, 44100, ".wav")
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(Settings()), log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        for shot in SHOTS:
            shoot(browser, f"http://127.0.0.1:{listener.getsockname()[1]}", wav, shot)
        browser.close()
    server.should_exit = True


if __name__ == "__main__":
    main()
