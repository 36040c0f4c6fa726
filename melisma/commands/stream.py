"""``melisma stream``: live, from microphone or file to speaker or file."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from melisma.audio.io import AudioReader, AudioWriter
from melisma.commands.show import progress_bar
from melisma.errors import MelismaError
from melisma.inference.devices import Clock, Exchange, Give, SoundCard, Take, VirtualClock
from melisma.inference.files import check_output
from melisma.inference.live import Live, Work, work_off
from melisma.inference.resynthesis import Settings, check_recording, check_settings
from melisma.inference.vocoder import WantedPrecision, load

_FILE_BLOCK_SECONDS = 0.5  # from file to file there is no clock to follow
_LONGEST_BLOCK_MS, _LONGEST_MARGIN_MS = 1000.0, 10000.0
# The margin that is not given: as long as some of the slowest blocks of the warm-up take, one after the other.
# With 53 ms seven of 40,000 blocks came too late, on two cores that had nothing else to do.
_LEAST_MARGIN_MS, _MOST_MARGIN_MS, _SLOW_BLOCKS = 80.0, 400.0, 3.0
# And at least this share of what the model waits for anyway: in ten minutes something slower comes than in a warm-up
# (93 ms where the warm-up said 58), and who hears himself half a second late does not mind another tenth.
_SHARE_OF_LATENCY = 0.25


def run(
    source: Path | None,
    out: Path | None,
    shift: float,
    model: str | None,
    projections: int | None,
    seed: int,
    block_ms: float,
    margin_ms: float | None,
    realtime: bool,
    seconds: float | None,
    device: str,
    precision: WantedPrecision,
) -> None:
    """Sing live and say how it went; see :func:`melisma.cli.stream` for the arguments."""
    settings = Settings(shift, seed=seed, projections=projections)
    check_settings(settings)
    _check_times(block_ms, margin_ms, seconds)
    if realtime and (source is None or out is None):
        raise MelismaError("--realtime is for files: give --in and --out; a sound card is in real time anyway")
    if out is not None:
        check_output(out)
    with ExitStack() as stack:
        reader = None if source is None else AudioReader(source)
        if reader is not None:
            stack.callback(reader.close)
            check_recording(reader.channels, reader.frames, reader.sample_rate, str(source))
        vocoder = load(model or _usual_model(projections), device=device, precision=precision)
        rate = vocoder.sample_rate if reader is None else reader.sample_rate
        live = Live(vocoder, rate, settings)
        frames = None if reader is None else min(reader.frames, _samples(seconds, rate, reader.frames))
        writer = None if out is None else stack.enter_context(AudioWriter(out, rate, 1, frames=frames))
        if reader is not None and writer is not None and not realtime:
            _from_file_to_file(live, reader, writer, frames or 0)
            return
        slowest = live.warm_up()
        if margin_ms is None:
            least = max(_LEAST_MARGIN_MS, _SHARE_OF_LATENCY * 1000.0 * live.latency_seconds)
            margin_ms = min(max(least, _SLOW_BLOCKS * 1000.0 * slowest), _MOST_MARGIN_MS)
        block, margin = max(1, round(block_ms * rate / 1000.0)), round(margin_ms * rate / 1000.0)
        take = None if reader is None else _blocks(reader, block, frames or 0)
        give = None if writer is None else _into(writer)
        exchange = Exchange(block, math.ceil(live.latency_seconds * rate) + block + margin, take, give)
        clock: Clock
        if realtime:
            clock = VirtualClock(exchange, rate)
        else:
            clock = SoundCard(exchange, rate, records=reader is None, plays=writer is None)
        _say_latency(live, block / rate, margin / rate, clock)
        with clock, _interruption_ends(exchange):
            work = work_off(live, exchange, math.inf if seconds is None else seconds)
    _say_work(work, out)


def _usual_model(projections: int | None) -> str:
    """The model where none is named: that with the least latency, but it makes no projections."""
    return "melisma-44k" if projections else "melisma-44k-live"


@contextmanager
def _interruption_ends(exchange: Exchange) -> Iterator[None]:
    """Let Ctrl-C end the input, not the work: what was sung is played and written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: exchange.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_times(block_ms: float, margin_ms: float | None, seconds: float | None) -> None:
    if not 0 < block_ms <= _LONGEST_BLOCK_MS:
        raise MelismaError(f"block-ms {block_ms:g} is not above 0 and at most {_LONGEST_BLOCK_MS:g}; 10 is usual")
    if margin_ms is not None and not 0 <= margin_ms <= _LONGEST_MARGIN_MS:
        raise MelismaError(
            f"margin-ms {margin_ms:g} is outside 0 to {_LONGEST_MARGIN_MS:g}; leave it out to have it measured"
        )
    if seconds is not None and not 0 < seconds < math.inf:
        raise MelismaError(f"seconds {seconds:g}: give a time above 0, or leave it out")


def _samples(seconds: float | None, rate: int, without: int) -> int:
    return without if seconds is None else max(1, round(seconds * rate))


def _blocks(reader: AudioReader, block: int, frames: int) -> Take:
    """Blocks of a file's channels' mean, from its beginning."""
    position = 0

    def take() -> np.ndarray | None:
        nonlocal position
        count = min(block, frames - position)
        if count <= 0:
            return None
        samples = reader.read(position, count).mean(axis=0, dtype=np.float32)
        position += count
        return samples

    return take


def _into(writer: AudioWriter) -> Give:
    return lambda played: writer.write(played[None])


def _from_file_to_file(live: Live, reader: AudioReader, writer: AudioWriter, frames: int) -> None:
    rate = live.sample_rate
    began = time.perf_counter()
    take = _blocks(reader, round(_FILE_BLOCK_SECONDS * rate), frames)
    with progress_bar(reader.path.name) as progress:
        while (block := take()) is not None:
            writer.write(live.push(block)[None])
            progress(writer.written / frames)
        writer.write(live.finish()[None])
    spent = time.perf_counter() - began
    print(f"{writer.path}: {frames / rate:.2f} s, {frames / rate / spent:.1f} x real time; as it would sound live")


def _say_latency(live: Live, block_seconds: float, margin_seconds: float, clock: Clock) -> None:
    parts = {
        "mel and F0": live.listening_seconds,
        "model": live.model_seconds,
        "resampling": live.resampling_seconds,
        "two blocks": 2 * block_seconds,
        "margin": margin_seconds,
    }
    if isinstance(clock, SoundCard):
        parts["sound card"] = clock.latency_seconds
    said = ", ".join(f"{name} {1000 * value:.0f}" for name, value in parts.items() if value > 0)
    print(f"latency: {1000 * sum(parts.values()):.0f} ms ({said})", flush=True)


def _say_work(work: Work, out: Path | None) -> None:
    where = "" if out is None else f"{out}: "
    share = work.busy_seconds / max(work.seconds, 1e-9)
    print(
        f"{where}{work.seconds:.2f} s; busy {share:.0%} of the time, longest block {1000 * work.slowest_seconds:.1f} ms"
    )
    print(f"dropouts: {work.dropouts} of {work.blocks} blocks")
