"""A page to listen on, whole in one file: versions of a clip side by side, switched in step, with their spectrograms.

Audio and pictures are part of the page, which needs no network and no other file. All versions of a clip run at once
and only one is heard, so that a switch keeps the place to the sample.
"""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melisma.audio.io import encode_audio
from melisma.audio.resample import resample
from melisma.data.loudness import loudness_lufs
from melisma.errors import MelismaError
from melisma.files import replace_on_success
from melisma.inference.plots import RANGE_DB, log_frequency_spectrogram

OPUS_RATE = 48000
MIME = {".flac": "audio/flac", ".opus": "audio/ogg; codecs=opus", ".wav": "audio/wav"}
PICTURE_COLUMNS = 900
PICTURE_QUALITY = 82
# Versions are played equally loud, by at most this.
LARGEST_GAIN_DB = 20.0


@dataclass(frozen=True)
class Version:
    """One version of a clip: who made it, and ``(samples,)``."""

    name: str
    audio: np.ndarray


@dataclass(frozen=True)
class Section:
    """One clip: its title, its versions (the first is the reference for level and colours), and what to say of it."""

    title: str
    versions: Sequence[Version]
    note: str = ""


def section_html(section: Section, sample_rate: int, suffix: str = ".flac") -> str:
    """A clip as HTML.

    Args:
        section: with at least one version, none of them empty.
        sample_rate: Hz of all versions.
        suffix: of the audio inside: ``.flac`` loses nothing, ``.opus`` is a tenth.
    """
    if suffix not in MIME:
        raise MelismaError(f"a page cannot hold {suffix}; known: {', '.join(MIME)}")
    if not section.versions or any(len(version.audio) == 0 for version in section.versions):
        raise MelismaError(f"{section.title}: nothing to hear; give versions with at least one sample")
    reference = section.versions[0].audio
    top = float(np.ceil(max(-60.0, log_frequency_spectrogram(reference, sample_rate)[0].max())))
    loudness = loudness_lufs(np.atleast_2d(reference), sample_rate)
    figures = [_figure(version, sample_rate, suffix, top, loudness) for version in section.versions]
    note = f"<p>{html.escape(section.note)}</p>" if section.note else ""
    return f'<section class="clip"><h2>{html.escape(section.title)}</h2>{note}{"".join(figures)}</section>'


def _figure(version: Version, sample_rate: int, suffix: str, top_db: float, loudness: float) -> str:
    audio = np.nan_to_num(np.asarray(version.audio, dtype=np.float32))
    own = loudness_lufs(np.atleast_2d(audio), sample_rate)
    gain_db = loudness - own if math.isfinite(loudness) and math.isfinite(own) else 0.0
    gain = 10.0 ** (max(-LARGEST_GAIN_DB, min(LARGEST_GAIN_DB, gain_db)) / 20.0)
    name = html.escape(version.name)
    sound = _data(encoded(audio, sample_rate, suffix), MIME[suffix])
    picture = _data(spectrogram_jpeg(audio, sample_rate, top_db), "image/jpeg")
    return (
        f'<figure data-name="{name}" data-gain="{gain:.4f}" data-audio="{sound}">'
        f'<figcaption><button type="button" aria-pressed="false">{name}</button></figcaption>'
        f'<div class="picture"><img src="{picture}" alt="spectrogram of {name}" draggable="false"><i></i></div>'
        "</figure>"
    )


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def encoded(audio: np.ndarray, sample_rate: int, suffix: str) -> bytes:
    """A file in memory; Opus at 48 kHz, which it needs."""
    if suffix == ".opus":
        return encode_audio(resample(audio, sample_rate, OPUS_RATE), OPUS_RATE, suffix)
    return encode_audio(audio, sample_rate, suffix)


def spectrogram_jpeg(audio: np.ndarray, sample_rate: int, top_db: float) -> bytes:
    """The spectrogram on a logarithmic frequency axis without frame or text, ``top_db`` the brightest."""
    from matplotlib.image import imsave

    levels, _ = log_frequency_spectrogram(audio, sample_rate)
    if levels.shape[1] > PICTURE_COLUMNS:
        edges = np.linspace(0, levels.shape[1], PICTURE_COLUMNS + 1).astype(int)[:-1]
        levels = np.maximum.reduceat(levels, edges, axis=1)
    buffer = io.BytesIO()
    low, quality = top_db - RANGE_DB, {"quality": PICTURE_QUALITY}
    imsave(buffer, levels, vmin=low, vmax=top_db, cmap="magma", origin="lower", format="jpg", pil_kwargs=quality)
    return buffer.getvalue()


def write_page(path: Path, title: str, body: str) -> None:
    """Write a page that holds its style and its script; ``body`` is HTML."""
    here = Path(__file__).parent
    style, script = ((here / name).read_text(encoding="utf-8") for name in ("listening.css", "listening.js"))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><h1>{html.escape(title)}</h1>\n{body}\n<script>{script}</script></body></html>\n"
    )
    with replace_on_success(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


CONTROLS = (
    '<p class="controls"><label><input type="checkbox" id="loud" checked> equally loud</label>'
    '<label><input type="checkbox" id="loop"> again and again</label>'
    '<label><input type="checkbox" id="blind"> blind: names and pictures hidden, order shuffled</label>'
    '<span id="now" role="status">Click a picture to hear it from there; click another name to switch at the same '
    "place. Space stops and goes on, 1 to 9 choose, arrows move by a second.</span></p>"
)
