"""Pictures: spectrograms with the F0 on them, as files and as arrays.

Figures are made through matplotlib's objects; nothing global is touched, so that this is safe in threads and notebooks.
Colours are readable with every kind of colour vision: ``magma`` rises evenly in lightness, F0 is cyan on a dark edge.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from melisma.audio.stft import spectra
from melisma.errors import MelismaError
from melisma.files import replace_on_success

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 1600  # of a picture at most: a long file is thinned out
ROWS = 360
RANGE_DB = 80.0
LOWEST_HZ = 50.0
N_FFT = 2048
TICKS_HZ = (50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200)
F0_COLOUR, EDGE_COLOUR = "#35e0ff", "#101020"
KINDS = (".png", ".pdf", ".svg", ".jpg")

Panel = tuple[str, np.ndarray, np.ndarray | None]


def log_frequency_spectrogram(audio: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Levels in dB on a logarithmic frequency axis.

    Args:
        audio: ``(samples,)`` or ``(channels, samples)``, which are averaged.
        sample_rate: Hz.

    Returns:
        ``(ROWS, columns)`` from :data:`LOWEST_HZ` to half the sample rate (at most 20 kHz), and that upper edge in Hz.
        A full-scale sine is at 0 dB.
    """
    mono = torch.tensor(np.atleast_2d(audio).mean(axis=0), dtype=torch.float32)
    # Low voices need resolution, quick consonants time: windows of about 45 ms do for both.
    n_fft = max(256, 2 ** round(np.log2(N_FFT * sample_rate / 44100)))
    hop = max(1, n_fft // 8, -(-len(mono) // COLUMNS))
    padded = torch.nn.functional.pad(mono, (n_fft // 2, n_fft // 2 + hop))
    magnitude = spectra(padded.unsqueeze(0), n_fft, hop)[0].abs().T.numpy() * (4 / n_fft)
    highest = min(20000.0, sample_rate / 2)
    levels = 20 * np.log10(np.maximum(magnitude, 1e-7))
    wanted = np.geomspace(LOWEST_HZ, highest, ROWS) * n_fft / sample_rate
    below = np.minimum(wanted.astype(int), len(levels) - 2)
    share = (wanted - below)[:, None]
    between = (1 - share) * levels[below] + share * levels[below + 1]
    # Up high a row holds several bins: the loudest shows, so that no line falls between rows.
    wide = np.gradient(wanted) > 1.0
    loudest = np.maximum.reduceat(levels[: below[-1] + 2], below)
    return np.where(wide[:, None], loudest, between), highest


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_f0(axes: "Axes", f0_hz: np.ndarray, frame_seconds: float) -> None:
    from matplotlib.patheffects import Normal, Stroke

    voiced = f0_hz > 0
    curve = np.where(voiced, f0_hz, np.nan)
    axes.plot(
        (np.arange(len(f0_hz)) + 0.5) * frame_seconds,
        np.log2(curve),
        color=F0_COLOUR,
        linewidth=1.6,
        path_effects=[Stroke(linewidth=3.4, foreground=EDGE_COLOUR), Normal()],
        label=f"F0, {f0_hz[voiced].min():.0f} to {f0_hz[voiced].max():.0f} Hz",
    )
    axes.legend(loc="upper right", fontsize=8, labelcolor="white", facecolor=EDGE_COLOUR, edgecolor="none")


def _draw_panel(axes: "Axes", panel: Panel, sample_rate: int, hop_length: int, top_db: float) -> object:
    title, audio, f0_hz = panel
    levels, highest = log_frequency_spectrogram(audio, sample_rate)
    low, high = np.log2(LOWEST_HZ), np.log2(highest)
    image = axes.imshow(
        levels,
        aspect="auto",
        origin="lower",
        cmap="magma",
        vmin=top_db - RANGE_DB,
        vmax=top_db,
        extent=(0.0, np.shape(audio)[-1] / sample_rate, low, high),
        interpolation="nearest",
    )
    if f0_hz is not None and (np.asarray(f0_hz) > 0).any():
        _draw_f0(axes, np.asarray(f0_hz, dtype=np.float64), hop_length / sample_rate)
    axes.set_xlim(0.0, np.shape(audio)[-1] / sample_rate)
    axes.set_ylim(low, high)
    ticks = [hz for hz in TICKS_HZ if LOWEST_HZ <= hz <= highest]
    axes.set_yticks(
        [float(np.log2(hz)) for hz in ticks], [f"{hz / 1000:g} k" if hz >= 1000 else str(hz) for hz in ticks]
    )
    axes.set_ylabel("frequency, Hz")
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)
    return image


def plot_spectrograms(path: str | Path, panels: Sequence[Panel], sample_rate: int, hop_length: int) -> None:
    """Draw spectrograms under each other, with the F0 on them, on one level scale.

    Args:
        path: .png, .pdf, .svg or .jpg; it appears by rename.
        panels: ``(title, audio, f0_hz)`` each; audio ``(samples,)`` or ``(channels, samples)``, f0_hz ``(frames,)``
            with 0 where unvoiced, frame ``t`` at ``(t + 1/2) * hop_length``, or ``None``.
        sample_rate: Hz, of all panels.
        hop_length: samples between F0 frames.

    Raises:
        MelismaError: unknown suffix, no panels, no samples, or a folder that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in KINDS:
        raise MelismaError(f"{path}: cannot draw {path.suffix or 'a name without suffix'!r}; use {', '.join(KINDS)}")
    if not panels or any(np.size(audio) == 0 for _, audio, _ in panels):
        raise MelismaError(f"{path}: nothing to draw; give audio with at least one sample")
    figure = _figure(11.0, 0.7 + 3.0 * len(panels))
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    peaks = [log_frequency_spectrogram(audio, sample_rate)[0].max() for _, audio, _ in panels]
    top_db = float(np.ceil(max(-60.0, *peaks)))
    for axis, panel in zip(axes, panels, strict=True):
        image = _draw_panel(axis, panel, sample_rate, hop_length, top_db)
    axes[-1].set_xlabel("time, s")
    figure.colorbar(image, ax=list(axes), label="level, dB re full-scale sine", pad=0.01, aspect=40)  # type: ignore[arg-type]
    with replace_on_success(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a title in a script that the font lacks
        figure.savefig(temporary)


def _pixels(figure: "Figure") -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def spectrogram_image(values: np.ndarray) -> np.ndarray:
    """Draw ``(bins, frames)`` (a log-mel, say) as an RGB picture ``(height, width, 3)`` of uint8, for training logs."""
    figure = _figure(10.0, 3.0)
    axes = figure.subplots()
    image = axes.imshow(np.asarray(values), aspect="auto", origin="lower", cmap="magma", interpolation="nearest")
    axes.set_xlabel("frame")
    axes.set_ylabel("bin")
    figure.colorbar(image, ax=axes, pad=0.01)
    return _pixels(figure)


def f0_image(curves: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draw named F0 curves ``(frames,)`` in Hz over each other as an RGB picture ``(height, width, 3)`` of uint8."""
    figure = _figure(10.0, 3.0)
    axes = figure.subplots()
    for (name, curve), colour in zip(curves.items(), ("#0072b2", "#d55e00", "#009e73", "#cc79a7") * 8, strict=False):
        hz = np.asarray(curve, dtype=np.float64)
        axes.plot(np.where(hz > 0, hz, np.nan), label=name, color=colour, linewidth=1.4)
    axes.set_xlabel("frame")
    axes.set_ylabel("F0, Hz")
    if curves:
        axes.legend(loc="upper right", fontsize=8)
    return _pixels(figure)
