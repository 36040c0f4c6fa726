"""Times: the variants of a generator take turns in one process, so that their ratios hold on a busy machine too."""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from melisma.benchmarking.subjects import material, stored, subject
from melisma.errors import MelismaError
from melisma.generators.analytic import Analytic
from melisma.inference.pieces import Precision
from melisma.inference.vocoder import Vocoder, load
from melisma.kernels import choice

_PEAK_SIZE, _PEAK_SECONDS = 2048, 0.25
# What comes before a turn leaves the caches full of other things, so that short clips are made more than once.
_TURN_SECONDS = 0.1


@dataclass(frozen=True)
class Setting:
    """Under which one measurement is made.

    Attributes:
        threads: of torch.
        batch: clips at once.
        chunk_seconds: length of the pieces in which a clip is made; 0 is in one piece.
        seconds: length of a clip.
    """

    threads: int
    batch: int = 1
    chunk_seconds: float = 0.0
    seconds: float = 2.0


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        model: its name.
        path: ``plain`` (operators of torch) or ``fast`` (kernels of melisma).
        precision: of the layers with weights.
        threads: see :class:`Setting`.
        batch: likewise.
        chunk_seconds: likewise.
        times_real_time: seconds of audio a second, of the quickest round.
        ratio: to the plain path in float32: median over the rounds.
        gflops: 10^9 operations of convolutions and matrix products a second, counted on the plain path.
    """

    model: str
    path: str
    precision: str
    threads: int
    batch: int
    chunk_seconds: float
    times_real_time: float
    ratio: float
    gflops: float


@dataclass(frozen=True)
class Fresh:
    """What a new process needs for a first clip.

    Attributes:
        import_seconds: ``import melisma`` and what a synthesis needs of it, torch aside.
        first_seconds: loading the model from its file and its first two seconds of audio.
        second_seconds: the same audio again.
        peak_mb: largest memory of the process, torch included, 10^6 bytes.
    """

    import_seconds: float
    first_seconds: float
    second_seconds: float
    peak_mb: float


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let torch have ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_gflops(precision: str) -> float:
    """What a large matrix product reaches at this moment, 10^9 operations a second."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    size, best = _PEAK_SIZE // 8, 0.0
    while True:  # a CPU that cannot do it takes a minute over the largest
        square = torch.ones(size, size, dtype=dtype)
        seconds = _seconds(lambda square=square: square @ square)  # type: ignore[misc]
        best = max(best, 2e-9 * size**3 / seconds)
        size *= 2
        if size > _PEAK_SIZE or 8 * seconds > _PEAK_SECONDS:
            return best


def gflop(vocoder: Vocoder, seconds: float = 0.5) -> float:
    """10^9 operations of convolutions and matrix products for one second of audio."""
    given = material(vocoder, seconds, 1)
    with FlopCounterMode(display=False) as counter, choice.plain():
        audio = vocoder.synthesize(**given)
    return 1e-9 * counter.get_total_flops() * vocoder.sample_rate / audio.shape[-1]


def _seconds(function: Callable[[], Any], at_least: float = 0.0) -> float:
    """Seconds that a call takes: the mean of as many as fill ``at_least``, less the first where there are several."""
    taken: list[float] = []
    while not taken or sum(taken) < at_least:
        begin = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begin)
    return statistics.mean(taken[1:] or taken)


def variants(precisions: tuple[str, ...], spectral: bool = False) -> list[tuple[str, str]]:
    """Path and precision of what takes turns; the first is what the others are compared with.

    The plain path of spectral generators has float32 only. That of the others is left out in bfloat16 where oneDNN
    refuses it: what torch does instead makes a second of audio in half a minute.
    """
    others = [(path, precision) for precision in precisions for path in ("plain", "fast")]
    if spectral or not choice.bfloat16_convolutions().fast:
        others = [other for other in others if other != ("plain", "bfloat16")]
    return [("plain", "float32"), *(other for other in others if other != ("plain", "float32"))]


def rows(
    name: str, setting: Setting, precisions: tuple[str, ...], rounds: int, peaks: dict[tuple[int, str], float]
) -> list[Row]:
    """Measure all variants of a generator under one setting.

    ``peaks`` keeps the quickest matrix product for every number of threads and precision; they take their turns too.
    """
    vocoder = subject(name)
    spectral = isinstance(vocoder.generator, Analytic)
    given = material(vocoder, setting.seconds, setting.batch)
    pieces = setting.chunk_seconds or 2 * setting.seconds
    taken: dict[tuple[str, str], list[float]] = {variant: [] for variant in variants(precisions, spectral)}
    audio_seconds = 0.0

    def sing(variant: tuple[str, str]) -> None:
        nonlocal audio_seconds
        path, precision = variant
        vocoder.precision = _precision(precision)
        with choice.plain(path == "plain"):
            audio = vocoder.synthesize(**given, piece_seconds=pieces)
        audio_seconds = audio.size / vocoder.sample_rate

    with on_threads(setting.threads):
        for number in range(rounds + 1):
            for variant, times in taken.items():
                seconds = _seconds(lambda variant=variant: sing(variant), _TURN_SECONDS)  # type: ignore[misc]
                if number:  # the first round warms up
                    times.append(seconds)
            for precision in {precision for _, precision in taken}:
                key = (setting.threads, precision)
                peaks[key] = max(peaks.get(key, 0.0), peak_gflops(precision))
    work = gflop(vocoder)
    baseline = taken["plain", "float32"]
    made = []
    for (path, precision), times in taken.items():
        speed = audio_seconds / min(times)
        ratio = statistics.median(plain / own for plain, own in zip(baseline, times, strict=True))
        made.append(
            Row(
                name, path, precision, setting.threads, setting.batch, setting.chunk_seconds,
                speed, ratio, speed * work,
            )
        )  # fmt: skip
    return made


def _precision(name: str) -> Precision:
    return "bfloat16" if name == "bfloat16" else "float32"


def fresh(name: str, path: str, threads: int) -> Fresh:
    """Measure a first clip in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _CHILD, stored(name, Path(folder)), path, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.splitlines() or ["no reason given"])[-1]
        raise MelismaError(f"bench: the process that measured {name} ({path}) failed: {last}")
    return Fresh(**json.loads(done.stdout.splitlines()[-1]))


_CHILD = """
import sys, time
import torch
begin = time.perf_counter()
import melisma.inference.vocoder
imported = time.perf_counter() - begin
from melisma.benchmarking.measure import first_clip
first_clip(sys.argv[1], sys.argv[2], int(sys.argv[3]), imported)
"""


def first_clip(model: str, path: str, threads: int, import_seconds: float) -> None:
    """What the new process does: print its :class:`Fresh` as JSON. ``model`` is what ``melisma.load`` takes."""
    torch.set_num_threads(threads)
    with choice.plain(path == "plain"):
        begin = time.perf_counter()
        vocoder = load(model, device="cpu", precision="float32")
        given = material(vocoder, 2.0, 1)
        vocoder.synthesize(**given)
        first = time.perf_counter() - begin
        second = _seconds(lambda: vocoder.synthesize(**given))
    print(json.dumps(asdict(Fresh(import_seconds, first, second, _peak_bytes() / 1e6))))


def _peak_bytes() -> int:
    """Largest memory of this process so far. On Linux ``getrusage`` begins with that of the process that started it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
