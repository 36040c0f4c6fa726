"""What to do with a recording, as a description: the same for the command line, the service and the studio.

As JSON::

    {"steps": [{"kind": "snap", "scale": "C:maj", "strength": 0.8},
               {"kind": "move", "start_s": 1.2, "stop_s": 1.7, "semitones": 2}],
     "formant_semitones": 1, "speed": 0.9}

Steps apply one after the other. Times are seconds of the recording before it is stretched.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from melisma.editing import curves
from melisma.editing.midi import MelodyNote, Seconds, in_order
from melisma.editing.notes import Note, find_notes
from melisma.editing.pitch import pitch_of
from melisma.editing.scales import Scale
from melisma.errors import MelismaError

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
MOST_STEPS, MOST_POINTS = 10_000, 100_000

Semitones = Annotated[float, Field(ge=-48, le=48)]
Hz = Annotated[float, Field(gt=0, le=20_000)]


@dataclass(frozen=True)
class Transpose:
    """Move everything by semitones."""

    semitones: Semitones
    kind: Literal["transpose"] = "transpose"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Move:
    """Move what is sung between two times by semitones; where the voice goes on at a border, it glides."""

    start_s: Seconds
    stop_s: Seconds
    semitones: Semitones
    kind: Literal["move"] = "move"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Snap:
    """Draw notes to a scale, all of them or those whose middle lies between two times.

    Attributes:
        scale: as :meth:`melisma.editing.scales.Scale.parse` reads it, ``C:maj``.
        strength: 0 leaves everything, 1 lands on the pitch.
        speed_ms: what changes more slowly than this is corrected; 0 is the robot, 400 moves notes as a whole.
    """

    scale: Annotated[str, Field(max_length=40)]
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    speed_ms: Annotated[float, Field(ge=0, le=10_000)] = 100.0
    start_s: Seconds | None = None
    stop_s: Seconds | None = None
    kind: Literal["snap"] = "snap"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Vibrato:
    """Scale the vibrato that is there (``keep``), and add one of a depth and a rate."""

    depth_cents: Annotated[float, Field(ge=0, le=400)] = 0.0
    rate_hz: Annotated[float, Field(ge=0.1, le=15)] = 5.5
    keep: Annotated[float, Field(ge=0, le=4)] = 1.0
    start_s: Seconds | None = None
    stop_s: Seconds | None = None
    kind: Literal["vibrato"] = "vibrato"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Draw:
    """Put the curve on a line through ``(seconds, Hz)`` points, where it is voiced."""

    points: Annotated[tuple[tuple[Seconds, Hz], ...], Field(min_length=2, max_length=MOST_POINTS)]
    kind: Literal["draw"] = "draw"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Smooth:
    """Make the way from a note to the next longer where the voice does not pause."""

    glide_ms: Annotated[float, Field(gt=0, le=2_000)] = 120.0
    start_s: Seconds | None = None
    stop_s: Seconds | None = None
    kind: Literal["smooth"] = "smooth"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@dataclass(frozen=True)
class Follow:
    """Let the voice sing a melody, moved in time and pitch as a whole where wanted."""

    melody: Annotated[tuple[MelodyNote, ...], Field(min_length=1, max_length=MOST_POINTS)]
    delay_s: Annotated[float, Field(ge=-86_400, le=86_400)] = 0.0
    semitones: Semitones = 0.0
    kind: Literal["follow"] = "follow"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT


Step = Transpose | Move | Snap | Vibrato | Draw | Smooth | Follow


@dataclass(frozen=True)
class Edits:
    """All that is done to a recording.

    Attributes:
        steps: what is done to its F0 curve, in this order.
        formant_semitones: by how much the formants move (the size of the singer); the pitch stays.
        speed: 2 is twice as fast; the pitch stays.
    """

    steps: Annotated[tuple[Annotated[Step, Field(discriminator="kind")], ...], Field(max_length=MOST_STEPS)] = ()
    formant_semitones: Annotated[float, Field(ge=-12, le=12)] = 0.0
    speed: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    __pydantic_config__: ClassVar[ConfigDict] = STRICT


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Edits]:
    return TypeAdapter(Edits)


def read_edits(text: str | bytes, what: str = "edits") -> Edits:
    """Read edits from JSON.

    Raises:
        MelismaError: not JSON, an unknown key, a wrong type or a value out of its range; the line says where.
    """
    try:
        edits = _adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MelismaError(f"{what}: {where + ': ' if where else ''}{first['msg']}") from error
    for step in edits.steps:
        check_step(step)
    return edits


def write_edits(edits: Edits) -> str:
    """Edits as JSON; the inverse of :func:`read_edits`."""
    return _adapter().dump_json(edits).decode()


def edits_schema() -> dict[str, Any]:
    """The JSON schema of edits."""
    return _adapter().json_schema()


def check_step(step: Step) -> None:
    """Refuse what no field alone can refuse: an unknown scale, times that run backwards, an overlapping melody."""
    if isinstance(step, Snap):
        Scale.parse(step.scale)
    if isinstance(step, Follow):
        in_order(step.melody, "the melody")
    if isinstance(step, Draw) and (np.diff([seconds for seconds, _ in step.points]) <= 0).any():
        raise MelismaError("draw: the times of the points must grow; sort them and drop doubles")
    start_s, stop_s = getattr(step, "start_s", None), getattr(step, "stop_s", None)
    if start_s is not None and stop_s is not None and not start_s < stop_s:
        raise MelismaError(f"{step.kind}: start_s {start_s:g} is not before stop_s {stop_s:g}; exchange them")


def apply(edits: Edits, f0_hz: np.ndarray, frame_rate_hz: float) -> np.ndarray:
    """The curve to sing.

    Args:
        edits: what to do. Formants and speed are not the curve's: pass them to the vocoder.
        f0_hz: ``(frames,)`` Hz of the recording, 0 where unvoiced.
        frame_rate_hz: frames a second.

    Returns:
        ``(frames,)`` float32, 0 at the same frames.

    Raises:
        MelismaError: a step that cannot be done; the line says why.
    """
    curve = np.asarray(f0_hz, dtype=np.float64)
    for step in edits.steps:
        check_step(step)
        curve = _DO[type(step)](step, curve, frame_rate_hz)
    return curve.astype(np.float32)


def _notes(step: Any, curve: np.ndarray, rate: float) -> list[Note]:
    """The notes whose middle lies in the step's span."""
    low = -np.inf if step.start_s is None else step.start_s * rate
    high = np.inf if step.stop_s is None else step.stop_s * rate
    return [note for note in find_notes(curve, rate) if low <= 0.5 * (note.start + note.stop) <= high]


def _frame(seconds: float, curve: np.ndarray, rate: float) -> int:
    return int(np.clip(round(seconds * rate), 0, len(curve)))


def _move(step: Move, curve: np.ndarray, rate: float) -> np.ndarray:
    return curves.move(curve, rate, _frame(step.start_s, curve, rate), _frame(step.stop_s, curve, rate), step.semitones)


def _snap(step: Snap, curve: np.ndarray, rate: float) -> np.ndarray:
    scale = Scale.parse(step.scale)
    return curves.snap(curve, rate, _notes(step, curve, rate), scale, step.strength, step.speed_ms / 1000.0)


def _vibrato(step: Vibrato, curve: np.ndarray, rate: float) -> np.ndarray:
    notes = _notes(step, curve, rate)
    return curves.vibrato(curve, rate, notes, step.keep, step.depth_cents, step.rate_hz)


def _draw(step: Draw, curve: np.ndarray, rate: float) -> np.ndarray:
    frames = [seconds * rate for seconds, _ in step.points]
    pitches = pitch_of(np.array([hz for _, hz in step.points]))
    return curves.draw(curve, rate, frames, list(pitches))


def _smooth(step: Smooth, curve: np.ndarray, rate: float) -> np.ndarray:
    return curves.smooth(curve, rate, _notes(step, curve, rate), step.glide_ms / 1000.0)


def _follow(step: Follow, curve: np.ndarray, rate: float) -> np.ndarray:
    melody = in_order(step.melody, "the melody")
    starts = [(note.start_s + step.delay_s) * rate for note in melody]
    stops = [(note.stop_s + step.delay_s) * rate for note in melody]
    pitches = [note.pitch + step.semitones for note in melody]
    return curves.follow(curve, rate, find_notes(curve, rate), starts, stops, pitches)


_DO: dict[type, Callable[[Any, np.ndarray, float], np.ndarray]] = {
    Transpose: lambda step, curve, rate: curves.transpose(curve, step.semitones),
    Move: _move,
    Snap: _snap,
    Vibrato: _vibrato,
    Draw: _draw,
    Smooth: _smooth,
    Follow: _follow,
}
