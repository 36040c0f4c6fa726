"""F0 curves as numpy arrays: fill gaps, move between frame grids, shift, check, load.

A curve is ``(frames,)`` in Hz with 0 where unvoiced. Frame ``t`` stands for the instant ``(t + 1/2) * hop``, as the
frames of :func:`melisma.audio.mel.log_mel` under ``same`` padding do.
"""

import re
from pathlib import Path

import numpy as np

from melisma.audio.arrays import choose, read_tensor
from melisma.errors import MelismaError

KEYS = ("f0_hz", "f0")  # where .npz and .pt files with several arrays keep the curve
GAP = 1.5  # a file with times has no F0 farther than so many of its steps from a row

NEUTRAL_HZ = 200.0  # for models that expect an F0 everywhere, where a curve has none at all


def interpolate_unvoiced(f0_hz: np.ndarray) -> np.ndarray:
    """Fill unvoiced frames on a straight line in log frequency; the first and last voiced values hold at the edges.

    Args:
        f0_hz: ``(..., frames)``, 0 where unvoiced.

    Returns:
        The same shape and type without zeros; a curve that is unvoiced throughout stays as it is.
    """
    curve = np.asarray(f0_hz)
    filled = np.array(curve, dtype=np.float64).reshape(-1, curve.shape[-1])
    for row in filled:
        voiced = np.flatnonzero(row > 0)
        gaps = np.flatnonzero(row <= 0)
        if len(voiced) and len(gaps):
            row[gaps] = np.exp2(np.interp(gaps, voiced, np.log2(row[voiced])))
    return filled.reshape(curve.shape).astype(curve.dtype if curve.dtype.kind == "f" else np.float64)


def sample_curve(times: np.ndarray, f0_hz: np.ndarray, wanted: np.ndarray, gap: float = np.inf) -> np.ndarray:
    """Read a curve at other instants without smearing the borders of voiced stretches.

    Whether an instant is voiced is decided by the nearest frame; between two voiced frames the value lies on a straight
    line in log frequency, beside an unvoiced one it is that of the voiced frame. Beyond the ends the last frame holds.

    Args:
        times: ``(frames,)``, increasing, in any unit.
        f0_hz: ``(frames,)``, 0 where unvoiced.
        wanted: ``(n,)`` instants in the same unit.
        gap: an instant farther than this from every frame is unvoiced, and no line is drawn across such a gap.

    Returns:
        ``(n,)`` float64.
    """
    if len(times) == 0:
        return np.zeros(len(wanted))
    after = np.clip(np.searchsorted(times, wanted), 0, len(times) - 1)
    before = np.where(times[after] > wanted, np.maximum(after - 1, 0), after)
    nearest = np.where(wanted - times[before] <= times[after] - wanted, before, after)
    span = times[after] - times[before]
    share = np.clip(np.divide(wanted - times[before], span, out=np.zeros(len(wanted)), where=span > 0), 0.0, 1.0)
    logs = np.log2(np.where(f0_hz > 0, f0_hz, 1.0))
    line = np.exp2((1.0 - share) * logs[before] + share * logs[after])
    both = (f0_hz[before] > 0) & (f0_hz[after] > 0) & (span > 0) & (span <= gap)
    values = np.where(both, line, f0_hz[nearest].astype(np.float64))
    return np.where(np.abs(wanted - times[nearest]) <= gap, values, 0.0)


def resample_curve(
    f0_hz: np.ndarray,
    source_hop: float,
    target_hop: float,
    frames: int,
    source_offset: float = 0.5,
    target_offset: float = 0.5,
) -> np.ndarray:
    """Move a curve to another frame grid (see :func:`sample_curve` for how voiced borders are kept).

    Args:
        f0_hz: ``(frames,)``, 0 where unvoiced.
        source_hop: its frame step, in seconds or any unit.
        target_hop: the wanted step in the same unit.
        frames: the wanted number of frames.
        source_offset: source frame ``t`` stands for ``(t + source_offset) * source_hop``; 0 for centred transforms.
        target_offset: the same for the wanted grid.

    Returns:
        ``(frames,)`` in the type of ``f0_hz``.
    """
    curve = np.asarray(f0_hz)
    times = (np.arange(len(curve)) + source_offset) * source_hop
    wanted = (np.arange(frames) + target_offset) * target_hop
    return sample_curve(times, curve, wanted).astype(curve.dtype if curve.dtype.kind == "f" else np.float64)


def shift_semitones(f0_hz: np.ndarray, semitones: float | np.ndarray) -> np.ndarray:
    """Shift a curve by semitones (a number, or one for each frame); unvoiced frames stay 0."""
    curve = np.asarray(f0_hz)
    factor = np.exp2(np.asarray(semitones, dtype=np.float64) / 12.0)
    return (curve * factor).astype(curve.dtype if curve.dtype.kind == "f" else np.float64)


def check_f0(f0_hz: np.ndarray, sample_rate: int, frames: int | None = None, what: str = "the F0 curve") -> np.ndarray:
    """Return the curve as float32 ``(frames,)`` or raise.

    Args:
        f0_hz: Hz, 0 where unvoiced; axes of length one are dropped.
        sample_rate: Hz; F0 must stay below its half.
        frames: the number of frames that the features have, if known.
        what: names the curve in errors, a file for instance.

    Raises:
        MelismaError: not one curve, not numbers, NaN, Inf, negative, too high, of another length.
    """
    curve = np.asarray(f0_hz)
    if curve.dtype.kind not in "fiu":
        raise MelismaError(f"{what}: holds {curve.dtype}, not numbers; save the F0 in Hz as floats")
    curve = curve.squeeze() if curve.size != 1 else curve.reshape(1)
    if curve.ndim != 1 or curve.size == 0:
        raise MelismaError(f"{what}: has the shape {np.shape(f0_hz)}; one F0 value in Hz for each frame is needed")
    bad = np.flatnonzero(~np.isfinite(curve))
    if len(bad):
        raise MelismaError(f"{what}: NaN or Inf at frame {bad[0]} ({len(bad)} in all); write 0 where it is unvoiced")
    bad = np.flatnonzero(curve < 0)
    if len(bad):
        raise MelismaError(f"{what}: {curve[bad[0]]:g} Hz at frame {bad[0]} is negative; write 0 where it is unvoiced")
    bad = np.flatnonzero(curve > sample_rate / 2)
    if len(bad):
        raise MelismaError(
            f"{what}: {curve[bad[0]]:g} Hz at frame {bad[0]} is above half the sample rate ({sample_rate / 2:g} Hz); "
            "give the F0 in Hz, or lower the shift"
        )
    if frames is not None and len(curve) != frames:
        raise MelismaError(
            f"{what}: has {len(curve)} frames, the features have {frames}; "
            "estimate it at the same hop, or resample it to that many frames"
        )
    return curve.astype(np.float32)


def load_f0(path: str | Path, hop_seconds: float | None = None, frames: int | None = None) -> np.ndarray:
    """Load a curve from a file.

    ``.npy``; ``.npz`` (one array, or one named ``f0`` or ``f0_hz``); ``.pt`` (a tensor, or a mapping with such a key);
    ``.csv`` and ``.txt`` with one column (Hz of each frame) or two (seconds, Hz), any of comma, semicolon and blanks
    between, a heading and ``#`` comments allowed. Two columns are read at the instants ``(t + 1/2) * hop_seconds``;
    stretches without rows are unvoiced.

    Args:
        path: the file.
        hop_seconds: step of the wanted frames; needed for two columns only.
        frames: number of wanted frames for two columns; ``None`` goes to the last row. One column is never
            resampled: :func:`check_f0` tells when its length is wrong.

    Returns:
        float32, usually ``(frames,)``; pass it to :func:`check_f0`.

    Raises:
        MelismaError: missing, unknown suffix, not readable, a pickle that wants more than tensors.
    """
    path = Path(path)
    loaders = {".npy": _load_npy, ".npz": _load_npz, ".pt": _load_pt}
    if not path.is_file():
        raise MelismaError(
            f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; name a file with an F0 curve"
        )
    suffix = path.suffix.lower()
    if suffix in (".csv", ".txt"):
        return _from_table(path, hop_seconds, frames)
    if suffix not in loaders:
        raise MelismaError(f"{path}: unknown kind of F0 file {suffix!r}; known: .npy, .npz, .pt, .csv, .txt")
    curve = loaders[suffix](path)
    return curve.astype(np.float32) if curve.dtype.kind in "fiu" else curve


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise MelismaError(
            f"{path}: cannot be read as a plain array (files that hold Python objects are refused); "
            "save the F0 in Hz with numpy.save(path, f0.astype('float32'))"
        ) from error


def _load_npz(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[choose(path, arrays, KEYS, "F0")])
    except (ValueError, OSError, EOFError, TypeError, AttributeError) as error:
        raise MelismaError(f"{path}: cannot be read as .npz; save it with numpy.savez(path, f0=f0)") from error


def _load_pt(path: Path) -> np.ndarray:
    return read_tensor(path, lambda names: choose(path, names, KEYS, "F0"), "F0")


def _from_table(path: Path, hop_seconds: float | None, frames: int | None) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise MelismaError(f"{path}: not a text file; give one F0 value in Hz a line") from error
    return parse_table(text, str(path), hop_seconds, frames)


def format_table(f0_hz: np.ndarray, hop_seconds: float) -> str:
    """A curve as ``.csv`` with a heading, seconds and Hz; :func:`parse_table` reads it back."""
    rows = [f"{(frame + 0.5) * hop_seconds:.6f},{value:.4f}" for frame, value in enumerate(f0_hz)]
    return "\n".join(["seconds,hz", *rows, ""])


def parse_table(text: str, path: str, hop_seconds: float | None, frames: int | None = None) -> np.ndarray:
    """The text of a ``.csv`` or ``.txt`` as a curve; ``path`` names it in the errors of :func:`load_f0`."""
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = [cell for cell in re.split(r"[,;\s]+", line.partition("#")[0].strip()) if cell]
        try:
            values = [float(cell) for cell in cells]
        except ValueError as error:
            if not rows:
                continue  # a heading
            raise MelismaError(
                f"{path}: line {number}: {line.strip()!r} is not a number; write 0 for unvoiced"
            ) from error
        if values and len(values) != len(rows[0] if rows else values):
            raise MelismaError(f"{path}: line {number} has {len(values)} columns, the lines before {len(rows[0])}")
        if values:
            rows.append(values)
    if not rows or len(rows[0]) > 2:
        raise MelismaError(f"{path}: needs one column (Hz of each frame) or two (seconds, Hz)")
    table = np.array(rows, dtype=np.float64)
    if table.shape[1] == 1:
        return table[:, 0].astype(np.float32)
    if hop_seconds is None:
        raise MelismaError(f"{path}: has times and the wanted frame step is unknown; give one column, Hz of each frame")
    times, f0_hz = table.T
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise MelismaError(f"{path}: the first of two columns must be seconds that grow from line to line")
    step = float(np.median(np.diff(times))) if len(times) > 1 else hop_seconds
    if frames is None:
        frames = max(1, round((times[-1] + step / 2) / hop_seconds))
    wanted = (np.arange(frames) + 0.5) * hop_seconds
    if (~np.isfinite(f0_hz) | (f0_hz < 0)).any():
        at = int(np.flatnonzero(~np.isfinite(f0_hz) | (f0_hz < 0))[0])
        raise MelismaError(f"{path}: {f0_hz[at]:g} Hz at {times[at]:g} s; write 0 where it is unvoiced")
    return sample_curve(times, f0_hz, wanted, GAP * max(step, hop_seconds)).astype(np.float32)
