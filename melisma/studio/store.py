"""All open sessions: a bounded number of bounded size, in memory, forgotten when nobody asks for them any more."""

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from melisma.editing import Edits
from melisma.errors import MelismaError
from melisma.inference.vocoder import Vocoder
from melisma.studio.clip import Clip
from melisma.studio.compare import Comparison
from melisma.studio.result import Result


class NotFoundError(MelismaError):
    """No such session: it expired, or never was."""


class FullError(MelismaError):
    """No room for another session."""


@dataclass(frozen=True)
class Limits:
    """Bounds of the studio.

    Attributes:
        sessions: open at the same time.
        seconds: of one recording.
        total_seconds: of all channels of all recordings together; a second takes about 0.8 MB.
        idle_seconds: after which a session that nobody asked for is forgotten.
        grace_seconds: after which it may have to go for a new one.
    """

    sessions: int = 8
    seconds: float = 600.0
    total_seconds: float = 2400.0
    idle_seconds: float = 3600.0
    grace_seconds: float = 120.0


class Session:
    """One open recording.

    Attributes:
        id: unguessable.
        name: of the recording.
        model: the chosen model's name.
        result: None until the recording is analysed.
        loading: share of the analysis that is done, 0 to 1.
        error: why the analysis failed, or None.
        comparison: two models side by side, or None.
    """

    def __init__(self, name: str, model: str, seconds: float) -> None:
        self.id = secrets.token_urlsafe(16)
        self.name, self.model, self.seconds = name, model, seconds
        self.result: Result | None = None
        self.loading = 0.0
        self.error: str | None = None
        self.comparison: Comparison | None = None
        self.touched = time.monotonic()
        self.closed = False

    @property
    def ready(self) -> Result:
        """The result; an error while the recording is analysed, or where that failed."""
        if self.error is not None:
            raise MelismaError(self.error)
        if self.result is None:
            raise MelismaError("the recording is still being analysed; ask again in a moment")
        return self.result


class Store:
    """Sessions and the two threads that serve them: one analyses recordings, one sings.

    Args:
        load: gives a model by name.
        limits: see :class:`Limits`.
    """

    def __init__(self, load: Callable[[str], Vocoder], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._load = load
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._loader = ThreadPoolExecutor(1, "studio-analysis")
        self._singer = threading.Thread(target=self._sing, name="studio-singer", daemon=True)

    def open(
        self,
        native: np.ndarray,
        native_rate: int,
        name: str,
        model: str,
        edits: Edits | None = None,
        everything: bool = False,
        f0_hz: tuple[np.ndarray, float] | None = None,
    ) -> Session:
        """Take a recording ``(channels, samples)``; its analysis goes on behind.

        Raises:
            MelismaError: too long.
            FullError: as many sessions as allowed are in use.
        """
        seconds = native.shape[1] / native_rate
        if seconds > self.limits.seconds:
            raise MelismaError(
                f"the recording has {seconds:.0f} s; the studio takes {self.limits.seconds:.0f} s: cut it, or use "
                "melisma resynth, which takes any length"
            )
        if len(native) > 1 and not np.ptp(native, axis=0).any():
            native = native[:1]  # the same on all channels
        if len(native) > 2:
            raise MelismaError(f"the recording has {len(native)} channels; give one voice, mono or stereo")
        session = Session(name, model, seconds * len(native))
        with self._lock:
            self._make_room(session.seconds)
            if not self._singer.is_alive():
                self._singer.start()
            self._sessions[session.id] = session
        self._loader.submit(self._analyse, session, native, native_rate, edits or Edits(), everything, f0_hz)
        return session

    def _make_room(self, seconds: float) -> None:
        now = time.monotonic()
        by_age = sorted(self._sessions.values(), key=lambda session: session.touched)

        def full() -> bool:
            held = sum(session.seconds for session in self._sessions.values())
            return len(self._sessions) >= self.limits.sessions or held + seconds > self.limits.total_seconds

        for session in by_age:
            idle = now - session.touched
            if idle > self.limits.idle_seconds or (full() and idle > self.limits.grace_seconds):
                self._forget(session)
        if full():
            raise FullError("the studio is full; close a session in another window, or try again in two minutes")

    def _forget(self, session: Session) -> None:
        session.closed = True
        self._sessions.pop(session.id, None)

    def _analyse(
        self,
        session: Session,
        native: np.ndarray,
        native_rate: int,
        edits: Edits,
        everything: bool,
        f0_hz: tuple[np.ndarray, float] | None,
    ) -> None:
        def progress(share: float) -> None:
            session.loading = share
            if session.closed:
                raise MelismaError("closed")

        try:
            clip = Clip(native, native_rate, self._load(session.model), f0_hz, progress)
            result = Result(clip, everything)
            result.set_edits(edits)
            result.warm_up()
            session.result, session.loading = result, 1.0
        except MelismaError as error:
            session.error = str(error)
        except Exception as error:
            session.error = f"the analysis failed ({type(error).__name__}); try another export of the recording"
        self._wake.set()

    def get(self, session_id: str) -> Session:
        """A session by its id, which stays open for another while."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                raise NotFoundError("this session is closed; open the recording or the session file again")
            session.touched = time.monotonic()
            return session

    def close(self, session_id: str) -> None:
        """Forget a session."""
        session = self.get(session_id)
        with self._lock:
            self._forget(session)

    def edit(self, session: Session, edits: Edits, focus_s: float, everything: bool) -> list[tuple[int, int]]:
        """Apply edits; see :meth:`melisma.studio.result.Result.set_edits`."""
        result = session.ready
        if everything != result.everything:
            result = Result(result.clip, everything)
            spans = result.set_edits(edits, focus_s)
            session.result = result
        else:
            spans = result.set_edits(edits, focus_s)
        self._wake.set()
        return spans

    def change_model(self, session: Session, model: str) -> None:
        """Let another model sing; the F0 that was found stays."""
        result = session.ready
        clip = result.clip
        f0_hz = (clip.f0_hz, 1.0 / clip.frame_rate_hz)
        other = Clip(clip.native, clip.native_rate, self._load(model), f0_hz)
        session.result, session.model = result.replace(other), model
        self._wake.set()

    def compare(self, session: Session, models: tuple[str, str]) -> Comparison:
        """Begin to sing the session with two models; what was compared before is forgotten."""
        result = session.ready
        vocoders = (self._load(models[0]), self._load(models[1]))
        session.comparison = Comparison(result.clip, vocoders, models, result.edits)
        self._wake.set()
        return session.comparison

    def _sing(self) -> None:
        while not self._stopped:
            self._wake.wait(timeout=30.0)
            self._wake.clear()
            while not self._stopped and self._sing_once():
                pass
            with self._lock:
                now = time.monotonic()
                for session in list(self._sessions.values()):
                    if now - session.touched > self.limits.idle_seconds:
                        self._forget(session)

    def _sing_once(self) -> bool:
        """Make one piece of the session that was asked for last; comparisons when nothing else waits."""
        with self._lock:
            sessions = sorted(self._sessions.values(), key=lambda session: -session.touched)
        for session in sessions:
            try:
                if session.result is not None and session.result.work():
                    return True
            except Exception as error:
                session.error = f"the model failed ({type(error).__name__}: {error}); choose another model"
        for session in sessions:
            try:
                if session.comparison is not None and session.comparison.work():
                    return True
            except Exception as error:
                session.comparison = None
                session.error = f"the comparison failed ({type(error).__name__}: {error}); choose other models"
        return False

    def stop(self) -> None:
        """End the threads and forget all sessions."""
        self._stopped = True
        self._wake.set()
        self._loader.shutdown(wait=False, cancel_futures=True)
        if self._singer.is_alive():
            self._singer.join(timeout=10.0)
        with self._lock:
            for session in list(self._sessions.values()):
                self._forget(session)
