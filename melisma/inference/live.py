"""A voice sung again while it sounds: listening, the model's stream, and the work between two ticks of a clock."""

import gc
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from melisma.audio.f0_curve import NEUTRAL_HZ, shift_semitones
from melisma.audio.resample import ResampleStream
from melisma.inference.devices import Exchange
from melisma.inference.listening import FRAMES_AT_ONCE, MANY_AT_ONCE, F0Stream, MelStream
from melisma.inference.resynthesis import Settings, check_settings, required_mel

if TYPE_CHECKING:
    from melisma.inference.vocoder import Vocoder

_LONG_SECONDS = 0.25  # of a model's own latency
# After so long a thread that computes in Python lets another one go on; Python's own is ten times that.
_SWITCH_SECONDS = 0.0005
# A thread that was busy for more than the one share of such a moment no longer goes before all others, until for one
# it is busy for less than the other share.
_MOMENT_SECONDS = 0.5
_MOST_BUSY, _LEAST_BUSY = 0.9, 0.75

Result = TypeVar("Result")
Frames = tuple[Tensor, np.ndarray]


class Live:
    """Resynthesis of one channel with pitch shift, block by block.

    Mel and noise are those of :meth:`~melisma.inference.vocoder.Vocoder.resynthesize`; F0 is found with little of the
    future (:class:`melisma.inference.listening.F0Stream`), and the level is left as the model makes it. Models that
    sing through unvoiced frames hold the last F0 there.

    Args:
        vocoder: a mel model.
        sample_rate: Hz of what comes and goes.
        settings: shift, seed and projections (None is none: they look seconds ahead); the rest is not used.
    """

    def __init__(self, vocoder: "Vocoder", sample_rate: int, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        check_settings(settings)
        mel = required_mel(vocoder)
        self.sample_rate, self._settings = sample_rate, settings
        self._vocoder, self._shift = vocoder, settings.shift_semitones
        rounds = settings.projections
        if rounds is None and getattr(vocoder.generator, "default_projections", None) is not None:
            rounds = 0
        self._stream = vocoder.stream(seed=settings.seed, projections=rounds)
        self._mel = MelStream(mel)
        self._f0 = F0Stream(mel.sample_rate, mel.hop_length, self.frames_at_once)
        self._in = ResampleStream(sample_rate, mel.sample_rate)
        self._out = ResampleStream(mel.sample_rate, sample_rate)
        self._frames = torch.zeros(mel.n_mels, 0)
        self._curve = np.zeros(0, dtype=np.float32)
        self._last_hz = NEUTRAL_HZ
        self._heard = self._given = 0  # samples that came and went

    @property
    def frames_at_once(self) -> int:
        """Frames that are heard and sung together: more where the model waits long for later ones anyway.

        A step over four frames costs little more than one over two.
        """
        return MANY_AT_ONCE if self.model_seconds > _LONG_SECONDS else FRAMES_AT_ONCE

    @property
    def listening_seconds(self) -> float:
        """How long after a sample the mel and F0 of its frame are known."""
        needed = self._f0.lookahead_samples if self._vocoder.uses_f0 else 0
        return max(self._mel.lookahead_samples, needed) / self._vocoder.sample_rate

    @property
    def model_seconds(self) -> float:
        """How much of the audio waits for later frames."""
        return self._stream.lookahead_samples / self._vocoder.sample_rate

    @property
    def resampling_seconds(self) -> float:
        """How much the resamplers hold back."""
        return _held_back(self.sample_rate, self._vocoder.sample_rate)

    @property
    def latency_seconds(self) -> float:
        """How far the output is behind the input at most, apart from the time that the work takes."""
        return self.listening_seconds + self.model_seconds + self.resampling_seconds

    def warm_up(self) -> float:
        """Pay now for what the first blocks would pay: models that are loaded, tables, plans of transforms.

        Returns:
            The longest work on one block of 10 ms, in seconds, when all of that had been paid.
        """
        other, watch = Live(self._vocoder, self.sample_rate, self._settings), _Watch()
        tone = 0.1 * np.sin(2 * np.pi * 200.0 * np.arange(2 * self.sample_rate) / self.sample_rate).astype(np.float32)
        block = max(1, self.sample_rate // 100)
        with _undisturbed():
            for start in range(0, len(tone), block):
                if start >= len(tone) // 2 > start - block:
                    watch = _Watch()
                watch(other.push, tone[start : start + block])
        return watch.slowest

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take ``(n,)`` samples and give what is ready, ``(m,)`` float32."""
        return self.sing(*self.listen(samples))

    def finish(self) -> np.ndarray:
        """The rest; the whole output is as long as the input."""
        return self.end(*self.hear_out())

    def listen(self, samples: np.ndarray) -> Frames:
        """The first half of :meth:`push`: the frames whose mel and F0 are known now, ``(n_mels, n)`` and ``(n,)``."""
        self._heard += len(samples)
        self._hear(self._in.push(samples[None])[0])
        ready = min(self._frames.shape[1], len(self._curve))
        frames, curve = self._frames[:, :ready], self._curve[:ready]
        self._frames, self._curve = self._frames[:, ready:], self._curve[ready:]
        return frames, curve

    def hear_out(self) -> Frames:
        """The first half of :meth:`finish`: the last frames."""
        self._hear(self._in.finish()[0], last=True)
        return self._frames, self._curve

    def sing(self, frames: Tensor, f0_hz: np.ndarray) -> np.ndarray:
        """The second half of :meth:`push`, which may run beside the next first half."""
        made = self._stream.push(frames, self._sung(f0_hz))
        return self._within(self._out.push(made[None])[0])

    def end(self, frames: Tensor, f0_hz: np.ndarray) -> np.ndarray:
        """The second half of :meth:`finish`."""
        made = np.concatenate([self._stream.push(frames, self._sung(f0_hz)), self._stream.finish()])
        given = self._within(np.concatenate([self._out.push(made[None]), self._out.finish()], axis=1)[0])
        return np.pad(given, (0, self._heard - self._given))

    def _hear(self, heard: np.ndarray, last: bool = False) -> None:
        frames, curve = [self._mel.push(heard)], [self._f0.push(heard)] if self._vocoder.uses_f0 else []
        if last:
            frames.append(self._mel.finish())
            curve += [self._f0.finish()] if self._vocoder.uses_f0 else []
        self._frames = torch.cat([self._frames, *frames], dim=1)
        self._curve = np.concatenate([self._curve, *curve])
        if not self._vocoder.uses_f0:
            self._curve = np.zeros(self._frames.shape[1], dtype=np.float32)

    def _sung(self, f0_hz: np.ndarray) -> np.ndarray:
        shifted = np.minimum(shift_semitones(f0_hz, self._shift), self._vocoder.sample_rate / 2)
        if self._vocoder.uses_f0 and self._vocoder.generator.f0_contract == "interpolated":
            for frame, value in enumerate(shifted):
                self._last_hz = float(value) if value > 0 else self._last_hz
                shifted[frame] = self._last_hz
        return shifted

    def _within(self, samples: np.ndarray) -> np.ndarray:
        """No more samples than have been heard."""
        samples = samples[: self._heard - self._given]
        self._given += len(samples)
        return samples


def _held_back(native_rate: int, model_rate: int) -> float:
    """Seconds that resampling there and back holds back."""
    if native_rate == model_rate:
        return 0.0
    there, back = ResampleStream(native_rate, model_rate), ResampleStream(model_rate, native_rate)
    block, worst, balance = native_rate // 100, 0, 0
    for _ in range(100):
        balance += block
        balance -= back.push(there.push(np.zeros((1, block), dtype=np.float32))).shape[1]
        worst = max(worst, balance)
    return worst / native_rate


@dataclass(frozen=True)
class Work:
    """How a live run went.

    Attributes:
        seconds: of audio.
        busy_seconds: of work, of listening or of singing: of what took longer.
        slowest_seconds: the longest work of either on one block.
        dropouts: blocks for which the clock found too little audio.
        blocks: blocks that it asked for.
    """

    seconds: float
    busy_seconds: float
    slowest_seconds: float
    dropouts: int
    blocks: int


class _Watch:
    """How long one of the two threads works."""

    def __init__(self) -> None:
        self.busy = self.slowest = 0.0

    def __call__(self, function: Callable[..., Result], *arguments: object) -> Result:
        began = time.perf_counter()
        result = function(*arguments)
        self.note(began, time.perf_counter())
        return result

    def note(self, began: float, ended: float) -> None:
        """Count work between two times, in seconds."""
        spent = ended - began
        self.busy, self.slowest = self.busy + spent, max(self.slowest, spent)


class Yielding(_Watch):
    """The watch of a thread that goes before ordinary work while it leaves time for it, and only then.

    Where the work is more than the machine can do, Linux stalls threads at real-time priority for a part of every
    second, and what they wait for in other threads never comes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._urgent, self._since, self._worked = True, math.inf, 0.0

    def note(self, began: float, ended: float) -> None:
        """Count work, and take or leave the priority by what the last moments were."""
        super().note(began, ended)
        self._since, self._worked = min(self._since, began), self._worked + ended - began
        if ended - self._since < _MOMENT_SECONDS:
            return
        share = self._worked / (ended - self._since)
        self._since, self._worked = math.inf, 0.0
        wanted = share < (_MOST_BUSY if self._urgent else _LEAST_BUSY)
        if wanted != self._urgent:
            self._urgent = wanted
            urgent(wanted)


class _Ear(threading.Thread):
    """Listens in a thread of its own, so that a block is heard while the one before is sung.

    Frames wait in a queue, and all that wait are sung at once: a step over many frames costs little more than one over
    few, so who has fallen behind catches up. The queue needs no bound: what waits longer than the margin is a dropout,
    and is counted as one.
    """

    def __init__(self, live: Live, exchange: Exchange, limit_seconds: float) -> None:
        super().__init__(name="melisma-ear", daemon=True)
        self._live, self._exchange, self._limit = live, exchange, limit_seconds
        self.watch, self.seconds = Yielding(), 0.0
        self._frames: queue.SimpleQueue[Frames | BaseException | None] = queue.SimpleQueue()

    def heard(self) -> Iterator[Frames]:
        """All that waits, again and again, until the input ends; raises what listening raised."""
        while True:
            waiting = [self._frames.get()]
            while not self._frames.empty():
                waiting.append(self._frames.get())
            parts = [part for part in waiting if isinstance(part, tuple)]
            if parts:
                yield torch.cat([mel for mel, _ in parts], dim=1), np.concatenate([f0_hz for _, f0_hz in parts])
            if isinstance(waiting[-1], BaseException):
                raise waiting[-1]
            if waiting[-1] is None:
                return

    def run(self) -> None:
        torch.set_num_threads(1)
        urgent()
        try:
            while (block := self._exchange.read()) is not None:
                self._frames.put(self.watch(self._live.listen, block))
                self.seconds += len(block) / self._live.sample_rate
                if self.seconds >= self._limit:
                    self._exchange.stop()
                    break
            self._frames.put(None)
        except BaseException as error:  # told to the thread that sings
            self._frames.put(error)


def work_off(live: Live, exchange: Exchange, limit_seconds: float = math.inf) -> Work:
    """Work off the blocks that a running clock brings, until the input ends or is stopped, or the limit is reached."""
    ear, mouth = _Ear(live, exchange, limit_seconds), Yielding()
    with _undisturbed(), _urgently():
        ear.start()
        for frames in ear.heard():
            exchange.write(mouth(live.sing, *frames))
        ear.join()
        exchange.write(live.finish())
        exchange.drain()
    busy, slowest = max(ear.watch.busy, mouth.busy), max(ear.watch.slowest, mouth.slowest)
    return Work(ear.seconds, busy, slowest, exchange.dropouts, exchange.blocks)


def urgent(wanted: bool = True) -> None:
    """Let the calling thread go before all ordinary work of this machine, where the system allows it."""
    if hasattr(os, "sched_setscheduler"):
        with suppress(OSError):
            kind, priority = (os.SCHED_RR, 1) if wanted else (os.SCHED_OTHER, 0)
            os.sched_setscheduler(0, kind, os.sched_param(priority))


@contextmanager
def _urgently() -> Iterator[None]:
    urgent()
    try:
        yield
    finally:
        urgent(False)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No search for garbage among what is there to stay, no waiting for torch's own threads or long for each other.

    The work on one block is less than what waking a second core costs; on a busy machine it would wait for one.
    """
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(1)
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)
        torch.set_num_threads(threads)
