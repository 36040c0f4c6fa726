"""Clocks that bring and fetch audio: a sound card, or a virtual one that reads and writes files in real time."""

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from melisma.errors import MelismaError

Take = Callable[[], np.ndarray | None]  # the next block of input, shorter at the end, then None
Give = Callable[[np.ndarray], None]


class Exchange:
    """Where a clock and the work meet: blocks of input one way, samples the other.

    The output begins with ``prefill`` samples of silence, which are the time that latency and uneven work may take.
    When it runs dry, the clock plays silence and a dropout is counted.

    Args:
        block: samples that the clock brings and fetches at a time.
        prefill: samples.
        take: where the input comes from, None for what the clock itself records.
        give: who gets what is played, less the prefill; None for nobody.

    Attributes:
        dropouts: blocks for which there was too little.
        blocks: blocks played.
    """

    def __init__(self, block: int, prefill: int, take: Take | None = None, give: Give | None = None) -> None:
        self.block, self.prefill = block, prefill
        self.dropouts = self.blocks = 0
        self._take, self._give = take, give
        self._input: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._ready = np.zeros(prefill, dtype=np.float32)
        self._unheard = prefill  # of the silence at the beginning
        self._complete = self._ended = False
        self._drained = threading.Event()
        self._failure: BaseException | None = None

    def tick(self, recorded: np.ndarray | None = None) -> np.ndarray:
        """The clock's side: bring what was recorded, get the ``(block,)`` samples to play."""
        try:
            if not self._ended:
                taken = recorded if self._take is None else self._take()
                self._ended = taken is None
                self._input.put(taken)
            return self._next()
        except BaseException as error:  # a clock's thread must not die silently: the work is told
            self._failure, self._ended = error, True
            self._input.put(None)
            self._drained.set()
            return np.zeros(self.block, dtype=np.float32)

    def _next(self) -> np.ndarray:
        with self._lock:
            played, self._ready = self._ready[: self.block], self._ready[self.block :]
            finished = self._complete and len(self._ready) == 0
            if len(played) < self.block and not self._complete:
                self.dropouts += 1
                played = np.pad(played, (0, self.block - len(played)))
        if self._drained.is_set():
            return np.zeros(self.block, dtype=np.float32)
        self.blocks += 1
        silent = min(self._unheard, len(played))
        self._unheard -= silent
        if self._give is not None and len(played) > silent:
            self._give(played[silent:])
        if finished:
            self._drained.set()
        return np.pad(played, (0, self.block - len(played)))

    def read(self) -> np.ndarray | None:
        """The work's side: wait for the next block of input; None at its end."""
        block = self._input.get()
        self._check()
        return block

    def write(self, samples: np.ndarray) -> None:
        """The work's side: append ``(n,)`` samples to what will be played."""
        with self._lock:
            self._ready = np.concatenate([self._ready, samples])

    def stop(self) -> None:
        """End the input; what was read before is still worked off."""
        self._ended = True
        self._input.put(None)

    def drain(self) -> None:
        """Wait until all that was written has been played."""
        with self._lock:
            self._complete = True
        self._drained.wait()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure


class Clock(Protocol):
    """Calls :meth:`Exchange.tick` every block, from entering to leaving."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class VirtualClock:
    """A sound card that is none: ticks in real time from a thread of its own.

    Args:
        exchange: what it ticks.
        sample_rate: Hz.
    """

    def __init__(self, exchange: Exchange, sample_rate: int) -> None:
        self._exchange, self._period = exchange, exchange.block / sample_rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="melisma-clock", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _tick(self) -> None:
        due = time.perf_counter() + self._period
        while not self._stopped.wait(max(0.0, due - time.perf_counter())):
            self._exchange.tick()
            due += self._period


class SoundCard:
    """The default sound card, through the package ``sounddevice``.

    Args:
        exchange: what it ticks.
        sample_rate: Hz.
        records: whether a microphone is needed.
        plays: whether a speaker is needed.

    Raises:
        MelismaError: the package, the PortAudio library or a device is missing; the line says the cure.
    """

    def __init__(self, exchange: Exchange, sample_rate: int, records: bool, plays: bool) -> None:
        sounddevice = _sounddevice()
        common = {"samplerate": sample_rate, "blocksize": exchange.block, "channels": 1, "dtype": "float32"}

        def both(recorded: np.ndarray, played: np.ndarray, *_: object) -> None:
            played[:, 0] = exchange.tick(recorded[:, 0].copy())

        def record(recorded: np.ndarray, *_: object) -> None:
            exchange.tick(recorded[:, 0].copy())

        def play(played: np.ndarray, *_: object) -> None:
            played[:, 0] = exchange.tick()

        try:
            if records and plays:
                self._card = sounddevice.Stream(callback=both, **common)
            elif records:
                self._card = sounddevice.InputStream(callback=record, **common)
            else:
                self._card = sounddevice.OutputStream(callback=play, **common)
        except (sounddevice.PortAudioError, ValueError) as error:
            what = " and ".join(name for name, used in (("a microphone", records), ("a speaker", plays)) if used)
            raise MelismaError(
                f"no sound card with {what} at {sample_rate} Hz ({error}); connect one, or give files: --in and --out"
            ) from error

    def __enter__(self) -> Self:
        self._card.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._card.stop()
        self._card.close()

    @property
    def latency_seconds(self) -> float:
        """The card's own latency as it reports it."""
        latency = self._card.latency
        return float(sum(latency)) if isinstance(latency, tuple) else float(latency)


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise MelismaError(
            "live sound needs the package sounddevice: install melisma with its extra '.[live]', or give --in and --out"
        ) from error
    except OSError as error:
        raise MelismaError(
            f"live sound needs the PortAudio library ({error}): install libportaudio2, or give --in and --out"
        ) from error
    return sounddevice
