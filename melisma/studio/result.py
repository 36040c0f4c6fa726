"""What is heard: the recording, with the zones that edits reach sung again by the model, piece by piece."""

import itertools
import threading
from dataclasses import dataclass

import numpy as np
import torch

from melisma.audio.f0_curve import check_f0
from melisma.audio.io import resample
from melisma.editing import Edits, apply
from melisma.editing.edits import Step
from melisma.inference.pieces import Piece, Request, device_of, forward, halo_frames, within
from melisma.studio.clip import Clip
from melisma.studio.features import ResultMel
from melisma.studio.zones import FIRST_FRAMES, Zone, cut_zone, fade_gain, find_zones, in_listening_order

# Context that a piece is made with. What a spectral model's output depends on reaches several times as far on paper;
# 32 frames give it to within -110 dB, and a third of the work until the first sound.
HALO_FRAMES = 32
_AS_RECORDED = -1.0
_UNKNOWN = np.nan
_GENERATIONS = itertools.count(1)


@dataclass(frozen=True)
class Task:
    """Frames ``start`` to ``stop`` of a zone that wait for the model; ``last`` in its zone when ``ends_zone``."""

    zone: Zone
    start: int
    stop: int
    ends_zone: bool


class Result:
    """The sound of a clip under edits; it is brought up to date in small steps and can be heard meanwhile.

    Args:
        clip: the recording.
        everything: sing all of it through the model, edited or not; otherwise what no edit reaches stays as recorded.
        seed: of the noise.

    Attributes:
        edits: what is applied.
        f0_hz: ``(clip.frames,)``: the curve that is sung, at the frames of the recording.
        audio: ``(channels, frames * hop)`` at the model's rate; :attr:`Edits.speed` decides its frames.
        news: ``(first, last)`` frames in the order in which they became ready, since the last change of length.
        generation: another number with every change of length, in all results; ``news`` and ``audio`` begin anew then.
    """

    def __init__(self, clip: Clip, everything: bool = False, seed: int = 0) -> None:
        self.clip, self.everything, self.seed = clip, everything, seed
        self.changed = threading.Condition()
        self.generation = 0
        self.news: list[tuple[int, int]] = []
        self._tasks: list[Task] = []
        self._planned = 0
        self._steps: list[tuple[Step, np.ndarray]] = []
        self.edits = Edits()
        self.f0_hz = clip.f0_hz
        self._begin_anew()
        self.set_edits(self.edits)

    @property
    def frames(self) -> int:
        """Frames of the result."""
        return len(self._shown)

    @property
    def seconds(self) -> float:
        """Length of the result."""
        return self.clip.seconds / self.edits.speed

    @property
    def progress(self) -> float:
        """Share of the work that the last change of the edits asked for, 0 to 1."""
        return 1.0 - len(self._tasks) / self._planned if self._planned else 1.0

    @property
    def busy(self) -> bool:
        """Whether anything waits for the model."""
        return bool(self._tasks)

    def set_edits(self, edits: Edits, focus_s: float = 0.0) -> list[tuple[int, int]]:
        """Take other edits; what they change waits to be made by :meth:`work`.

        Args:
            edits: all edits, not only new ones.
            focus_s: seconds of the result that will be heard first.

        Returns:
            ``(first, last)`` frames that will change or have changed.

        Raises:
            MelismaError: edits that cannot be applied; the result is then as it was.
        """
        f0_hz = check_f0(self._curve(edits), self.clip.mel.sample_rate, what="the edited F0")
        with self.changed:
            before, self.edits, self.f0_hz = self.edits, edits, f0_hz
            if edits.speed != before.speed:
                self._begin_anew()
            elif edits.formant_semitones != before.formant_semitones:
                self._shown[self._shown >= 0] = _UNKNOWN
            spans = self._plan(max(0, int(focus_s * self.clip.frame_rate_hz)))
            self.changed.notify_all()
            return spans

    def _curve(self, edits: Edits) -> np.ndarray:
        """Apply the steps, from the first that is new: those before it are remembered."""
        curve = self.clip.f0_hz
        remembered: list[tuple[Step, np.ndarray]] = []
        for index, step in enumerate(edits.steps):
            if index < len(self._steps) and self._steps[index][0] == step and len(remembered) == index:
                curve = self._steps[index][1]
            else:
                self._steps = self._steps[:index]
                curve = apply(Edits((step,)), curve, self.clip.frame_rate_hz)
            remembered.append((step, curve))
        self._steps = remembered
        return curve

    @property
    def _mixes(self) -> bool:
        """Whether the recording itself is heard where no edit reaches."""
        return not self.everything and self.edits.speed == 1.0

    def _begin_anew(self) -> None:
        """Another length: nothing of what was made fits any more."""
        frames = len(self.clip.at_speed(self.clip.f0_hz, self.edits.speed))
        hop = self.clip.mel.hop_length
        if self._mixes:
            self.audio = np.array(self.clip.audio)
            self._shown = np.full(frames, _AS_RECORDED, dtype=np.float32)
        else:
            self.audio = np.zeros((len(self.clip.audio), frames * hop), dtype=np.float32)
            self._shown = np.full(frames, _UNKNOWN, dtype=np.float32)
        self.news = []
        self.generation = next(_GENERATIONS)

    def _plan(self, focus: int) -> list[tuple[int, int]]:
        speed = self.edits.speed
        self._request: Request | None = None
        self._sung = self.clip.at_speed(self.f0_hz, speed)
        recorded = self.clip.at_speed(self.clip.f0_hz, speed)
        wanted = np.array(self._sung, dtype=np.float32)
        zones = find_zones(recorded > 0, everything=not self._mixes)
        if self._mixes:
            wanted[:] = _AS_RECORDED
            for zone in zones:
                part = slice(zone.start, zone.stop)
                if self.edits.formant_semitones != 0 or not np.array_equal(self._sung[part], recorded[part]):
                    wanted[part] = self._sung[part]
        self._wanted = wanted
        dirty = [
            zone
            for zone in zones
            if not np.array_equal(wanted[zone.start : zone.stop], self._shown[zone.start : zone.stop])
        ]
        self._tasks = []
        for zone in in_listening_order(dirty, focus):
            if wanted[zone.start] == _AS_RECORDED:
                self._restore(zone)
                continue
            self._shown[zone.start : zone.stop] = _UNKNOWN
            pieces = cut_zone(zone, max(0, focus))
            self._tasks += [
                Task(zone, start, stop, index == len(pieces) - 1) for index, (start, stop) in enumerate(pieces)
            ]
        self._planned = len(self._tasks)
        return [(zone.start, zone.stop) for zone in dirty]

    def _restore(self, zone: Zone) -> None:
        hop = self.clip.mel.hop_length
        samples = slice(zone.start * hop, zone.stop * hop)
        self.audio[:, samples] = self.clip.audio[:, samples]
        self._shown[zone.start : zone.stop] = _AS_RECORDED
        self.news.append((zone.start, zone.stop))

    def work(self) -> bool:
        """Make the next piece; False when there is nothing to do. Called by one thread at a time."""
        with self.changed:
            if not self._tasks:
                return False
            if self._request is None:
                self._request = self._new_request()
            task, request = self._tasks[0], self._request
        made = self._make(task, request)
        with self.changed:
            # Other edits may have come meanwhile; what was made for the old ones is then dropped.
            if self._tasks and self._tasks[0] is task:
                self._put(task, made)
                self._tasks.pop(0)
                self.news.append((task.start, task.stop))
                self.changed.notify_all()
        return True

    def _new_request(self) -> Request:
        clip = self.clip
        f0_hz = clip.vocoder.f0_for_model(self._sung[None])
        features = ResultMel(clip, self._sung, self.edits.speed, self.edits.formant_semitones)
        return Request(
            frames=self.frames,
            features=features,
            f0_hz=None if f0_hz is None else f0_hz.expand(clip.source.channels, -1),
            seed=self.seed,
            trust=features.trust.expand(clip.source.channels, -1),
        )

    def _make(self, task: Task, request: Request) -> np.ndarray:
        generator = self.clip.vocoder.generator
        halo = min(HALO_FRAMES, halo_frames(generator, None))
        piece = Piece(task.start, task.stop, max(0, task.start - halo), min(request.frames, task.stop + halo))
        device, hop = device_of(generator), generator.hop_length
        f0_hz = None if request.f0_hz is None else request.f0_hz.to(device)
        with torch.inference_mode(), within(self.clip.vocoder.precision, generator, device):
            audio = forward(generator, request, piece, f0_hz, device)
        first = (task.start - piece.first) * hop
        return audio[:, 0, first : first + (task.stop - task.start) * hop].float().cpu().numpy()

    def _put(self, task: Task, made: np.ndarray) -> None:
        hop = self.clip.mel.hop_length
        samples = slice(task.start * hop, task.stop * hop)
        if self._mixes:
            gain = fade_gain(task.zone, task.start, task.stop, hop)
            made = gain * made + np.sqrt(1.0 - gain * gain) * self.clip.audio[:, samples]
        self.audio[:, samples] = made
        if task.ends_zone:
            zone = slice(task.zone.start, task.zone.stop)
            self._shown[zone] = self._wanted[zone]

    def warm_up(self) -> None:
        """Let the model sing a moment for nothing: the first call of a model is much slower than those after it."""
        stop = min(self.frames, FIRST_FRAMES)
        self._make(Task(Zone(0, stop, 0, 0), 0, stop, True), self._new_request())

    def wait(self, generation: int, seen: int, seconds: float) -> None:
        """Wait until there is news beyond the first ``seen`` of a generation, or another generation, or time is up."""
        with self.changed:
            self.changed.wait_for(
                lambda: self.generation != generation or len(self.news) > seen or not self._tasks, seconds
            )

    def native_audio(self) -> np.ndarray:
        """The result ``(channels, samples)`` at the rate of the recording; where no edit reaches, its very samples."""
        clip, rate = self.clip, self.clip.mel.sample_rate
        length = round(clip.native.shape[1] / self.edits.speed)
        with self.changed:
            audio = np.array(self.audio)
        if self._mixes:
            change = audio - clip.audio
            if not change.any():
                return clip.native
            return clip.native + _of_length(resample(change, rate, clip.native_rate), length)
        return _of_length(resample(audio, rate, clip.native_rate), length)

    def replace(self, clip: Clip) -> "Result":
        """The same edits on another clip, that of another model say."""
        other = Result(clip, self.everything, self.seed)
        other.set_edits(self.edits)
        return other


def _of_length(samples: np.ndarray, length: int) -> np.ndarray:
    return np.pad(samples, ((0, 0), (0, max(0, length - samples.shape[1]))))[:, :length]
