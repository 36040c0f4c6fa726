"""Live: mel and F0 while it sounds, the exchange with a clock, and the command."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_vocoder import MODELS, SMALL_MEL

from melisma.audio.io import read_audio, write_audio
from melisma.audio.mel import MelContract
from melisma.cli import main
from melisma.data.singer import random_phrase
from melisma.errors import MelismaError
from melisma.f0 import estimate_f0
from melisma.inference import devices
from melisma.inference import live as live_module
from melisma.inference.devices import Exchange, SoundCard, VirtualClock
from melisma.inference.listening import AHEAD_SECONDS, FRAMES_AT_ONCE, MANY_AT_ONCE, F0Stream, MelStream
from melisma.inference.live import Live, Yielding, _Ear, urgent, work_off
from melisma.inference.recording_mel import RecordingMel
from melisma.inference.resynthesis import Settings
from melisma.inference.sources import ArraySource
from melisma.inference.vocoder import Info, Vocoder, load


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return random_phrase(np.random.default_rng(4), 1.8, 150.0, 400.0, 16000, 128)[0][:25_950]


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return Vocoder(MODELS["nsf-hifigan"](), Info("small", "small"))


def blocks(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


@pytest.mark.parametrize("size", [1000, 160, 37])
@pytest.mark.parametrize("padding", ["same", "nvstft", "centre"])
def test_mel_while_it_sounds_is_that_of_the_recording(voice: np.ndarray, size: int, padding: str) -> None:
    mel = MelContract(16000, 512, 512, 128, 40, 40.0, 8000.0, padding=padding)  # type: ignore[arg-type]
    for length in (len(voice), 600, 250, 40):
        heard = voice[:length]
        stream = MelStream(mel)
        frames, count = [], 0
        for number, block in enumerate(blocks(heard, size)):
            frames.append(stream.push(block))
            count += frames[-1].shape[1]
            sounded = min(length, (number + 1) * size)
            assert count * 128 >= sounded - stream.lookahead_samples
        found = torch.cat([*frames, stream.finish()], dim=1)
        whole = RecordingMel(ArraySource(heard[None], 16000, 16000), mel)(0, -(-length // 128))[0]
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-4)


def test_f0_while_it_sounds_is_near_that_of_the_recording_and_not_late(voice: np.ndarray) -> None:
    stream = F0Stream(16000, 128)
    curve, count = [], 0
    for number, block in enumerate(blocks(voice, 160)):
        curve.append(stream.push(block))
        count += len(curve[-1])
        assert count * 128 >= min(len(voice), (number + 1) * 160) - stream.lookahead_samples
    curve.append(stream.finish())
    found, whole = np.concatenate(curve), estimate_f0(voice, 16000, 128)
    assert len(found) == -(-len(voice) // 128)
    found = found[: len(whole)]
    assert np.mean((found > 0) == (whole > 0)) > 0.97
    both = (found > 0) & (whole > 0)
    assert both.mean() > 0.5
    assert np.percentile(np.abs(1200 * np.log2(found[both] / whole[both])), 90) < 10
    assert not F0Stream(16000, 128).push(np.zeros(16000, dtype=np.float32)).any()


@pytest.mark.parametrize("name", MODELS)
def test_live_is_the_stream_of_what_is_heard(name: str, voice: np.ndarray) -> None:
    vocoder = Vocoder(MODELS[name](), Info(name, name))
    live = Live(vocoder, 16000, Settings(shift_semitones=2.0, seed=3))
    out, given = [], 0
    for number, block in enumerate(blocks(voice, 160)):
        out.append(live.push(block))
        given += len(out[-1])
        sounded = min(len(voice), (number + 1) * 160)
        assert given >= sounded - live.latency_seconds * 16000 - 1
    out.append(live.finish())
    sung = np.concatenate(out)
    assert sung.shape == voice.shape
    curve = F0Stream(16000, 128, live.frames_at_once)
    f0_hz = np.concatenate([*(curve.push(block) for block in blocks(voice, 160)), curve.finish()]) * 2.0 ** (2 / 12)
    if vocoder.uses_f0 and vocoder.generator.f0_contract == "interpolated":
        first = np.flatnonzero(f0_hz > 0)[0]
        f0_hz[:first] = 200.0
        for frame in range(first, len(f0_hz)):
            f0_hz[frame] = f0_hz[frame] or f0_hz[frame - 1]
    mel = RecordingMel(ArraySource(voice[None], 16000, 16000), SMALL_MEL)(0, len(f0_hz))[0]
    rounds = 0 if hasattr(vocoder.generator, "default_projections") else None  # none live, unless asked for
    whole = vocoder.synthesize(mel, f0_hz, seed=3, projections=rounds)
    assert np.abs(whole[: len(sung)] - sung).max() <= 1e-4


def test_live_at_another_rate_has_the_stated_latency(vocoder: Vocoder, voice: np.ndarray) -> None:
    live = Live(vocoder, 22050)
    assert live.resampling_seconds > 0
    given = 0
    for number, block in enumerate(blocks(voice, 220)):
        given += len(live.push(block))
        assert given >= min(len(voice), (number + 1) * 220) - live.latency_seconds * 22050 - 2
    assert given + len(live.finish()) == len(voice)


def feed(samples: np.ndarray, size: int) -> Callable[[], np.ndarray | None]:
    left = blocks(samples, size)
    return lambda: left.pop(0) if left else None


@pytest.mark.parametrize("size", [160, 301])
def test_the_stated_latency_and_a_block_are_prefill_enough(vocoder: Vocoder, voice: np.ndarray, size: int) -> None:
    """If work took no time, not one sample less would do than latency and block say, and none would be missing."""
    live = Live(vocoder, 16000)
    exchange = Exchange(size, round(live.latency_seconds * 16000) + size, feed(voice[:9000], size), None)
    exchange.tick()
    while (block := exchange.read()) is not None:
        exchange.write(live.push(block))
        exchange.tick()
    exchange.write(live.finish())
    assert exchange.dropouts == 0


def test_a_virtual_clock_keeps_time() -> None:
    played: list[np.ndarray] = []
    samples = np.arange(1, 2001, dtype=np.float32)
    exchange = Exchange(20, 4000, feed(samples, 20), played.append)
    began = time.monotonic()
    with VirtualClock(exchange, 8000):
        while (block := exchange.read()) is not None:
            exchange.write(block)
        assert time.monotonic() - began >= 0.25
        exchange.drain()
    assert time.monotonic() - began >= 0.74
    assert exchange.dropouts == 0
    assert exchange.blocks == 300
    assert np.array_equal(np.concatenate(played), samples)


def test_late_work_is_counted_and_heard_as_silence() -> None:
    played: list[np.ndarray] = []
    exchange = Exchange(4, 4, feed(np.ones(12, dtype=np.float32), 4), played.append)
    for _ in range(3):
        exchange.tick()  # the first has the prefill to play, the others nothing
    assert exchange.dropouts == 2
    for _ in range(3):
        block = exchange.read()
        assert block is not None
        exchange.write(block)
    assert np.array_equal(exchange.tick(), np.ones(4))
    assert np.array_equal(np.concatenate(played), [0.0] * 8 + [1.0] * 4)


def test_a_failing_output_ends_the_work_with_its_error(vocoder: Vocoder, voice: np.ndarray) -> None:
    def full(_: np.ndarray) -> None:
        raise MelismaError("the disk is full")

    exchange = Exchange(160, 0, feed(voice, 160), full)
    with VirtualClock(exchange, 16000), pytest.raises(MelismaError, match="disk is full"):
        work_off(Live(vocoder, 16000), exchange)


class FakeCard(types.SimpleNamespace):
    """A sound card of a test: calls back from a thread, records a constant."""

    latency = (0.01, 0.02)

    def start(self) -> None:
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.stopped.wait(0.001):
            buffers = [np.full((self.blocksize, 1), 0.1, dtype=np.float32) for _ in range(self.ways)]
            self.callback(*buffers, self.blocksize, None, None)
            self.heard.append(buffers[-1][:, 0].copy())

    def stop(self) -> None:
        self.stopped.set()
        self.thread.join()

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("records", "plays"), [(True, True), (True, False), (False, True)])
def test_a_sound_card_brings_and_fetches(records: bool, plays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[np.ndarray] = []

    def card(ways: int) -> Callable[..., FakeCard]:
        return lambda **options: FakeCard(ways=ways, heard=heard, **options)

    module = types.SimpleNamespace(
        Stream=card(2), InputStream=card(1), OutputStream=card(1), PortAudioError=RuntimeError
    )
    monkeypatch.setattr(devices, "_sounddevice", lambda: module)
    given: list[np.ndarray] = []
    take = None if records else feed(np.full(64, 0.1, dtype=np.float32), 8)
    exchange = Exchange(8, 80, take, None if plays else given.append)
    sound_card = SoundCard(exchange, 8000, records, plays)
    assert sound_card.latency_seconds == pytest.approx(0.03)
    with sound_card:
        for _ in range(8):
            block = exchange.read()
            assert block is not None
            exchange.write(2.0 * block)
        exchange.stop()
        exchange.drain()
    out = np.concatenate(heard if plays else given)
    assert np.count_nonzero(np.isclose(out, 0.2)) == 64


def test_without_a_card_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> None:
        raise RuntimeError("no default device")

    module = types.SimpleNamespace(Stream=none, InputStream=none, OutputStream=none, PortAudioError=RuntimeError)
    monkeypatch.setattr(devices, "_sounddevice", lambda: module)
    with pytest.raises(MelismaError, match="no sound card with a microphone and a speaker at 8000 Hz"):
        SoundCard(Exchange(8, 8), 8000, records=True, plays=True)


@pytest.mark.parametrize("realtime", [False, True])
def test_the_command_sings_files(
    realtime: bool, voice: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_audio(tmp_path / "in.wav", np.stack([voice, voice]), 16000)
    out = tmp_path / "out.wav"
    options = ["--realtime", "--margin-ms", "2000"] if realtime else []
    arguments = ["stream", "--in", str(tmp_path / "in.wav"), "-o", str(out), "--shift", "4", "--model", "analytic"]
    began = time.monotonic()
    assert main([*arguments, "--projections", "0", "--seconds", "1.2", *options]) == 0
    said = capsys.readouterr()
    audio, rate = read_audio(out)
    assert (audio.shape, rate) == ((1, 19200), 16000)
    if realtime:
        assert time.monotonic() - began >= 1.2
        assert "latency: " in said.out
        assert "dropouts: 0 of " in said.out
    before, after = (estimate_f0(samples, 16000, 128) for samples in (voice[:19200], audio[0]))
    both = (before > 0) & (after > 0)
    assert np.median(1200 * np.log2(after[both] / before[both])) == pytest.approx(400, abs=20)


def test_where_no_model_is_named_the_one_that_waits_least_sings(
    voice: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_audio(tmp_path / "in.wav", voice[None], 16000)
    arguments = ["stream", "--in", str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"), "--shift", "3"]
    assert main([*arguments, "--realtime", "--seconds", "0.2"]) == 0
    said = capsys.readouterr().out
    waits = load("melisma-44k-live").generator.lookahead_samples / 44.1
    assert f"model {waits:.0f}," in said
    assert waits < 60
    assert main(arguments) == 0
    capsys.readouterr()
    audio, _ = read_audio(tmp_path / "out.wav")
    assert audio.shape == (1, len(voice))
    before, after = (estimate_f0(samples, 16000, 128) for samples in (voice, audio[0]))
    both = (before > 0) & (after > 0)
    assert np.mean(both[before > 0]) > 0.9
    assert np.median(1200 * np.log2(after[both] / before[both])) == pytest.approx(300, abs=20)
    # It cannot project; where that is asked for, the one that can is taken.
    assert main([*arguments, "--model", "melisma-44k-live", "--projections", "1"]) == 1
    assert "makes no projections; leave projections 1 out" in capsys.readouterr().err
    assert main([*arguments, "--projections", "1", "--seconds", "0.5"]) == 0


def test_an_interruption_ends_the_song_and_keeps_it(voice: np.ndarray, tmp_path: Path) -> None:
    write_audio(tmp_path / "in.wav", np.tile(voice, 30)[None], 16000)
    options = ["--in", str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"), "--model", "analytic", "--realtime"]
    process = subprocess.Popen(
        [sys.executable, "-m", "melisma", "stream", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("latency: ")
    time.sleep(1.5)  # a little of the song
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "dropouts: " in said
    audio, _ = read_audio(tmp_path / "out.wav")
    assert 160 <= audio.shape[1] < 30 * len(voice)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--in", "none.wav", "-o", "x.wav"], "none.wav: no such file"),
        (["--realtime", "-o", "x.wav"], "--realtime is for files"),
        (["--block-ms", "0"], "block-ms 0 is not above 0"),
        (["--margin-ms", "-1"], "margin-ms -1 is outside"),
        (["--seconds", "0"], "seconds 0: give a time above 0"),
        (["--shift", "99"], "shift 99 is outside"),
        (["-o", "no/folder/x.wav"], "does not exist"),
    ],
)
def test_bad_options_get_one_line(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["stream", *options]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_all_that_waits_is_sung_at_once_and_errors_come_after_it() -> None:
    class Heard:
        """Listening that gives one frame a block, and fails on the last."""

        sample_rate = 100

        def listen(self, block: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
            if block[0] == 5:
                raise MelismaError("no more")
            return torch.full((3, 1), float(block[0])), block[:1]

    class Blocks:
        """An input whose blocks are all there already."""

        def __init__(self) -> None:
            self.left = iter([np.full(1, number, np.float32) for number in range(6)])

        def read(self) -> np.ndarray | None:
            return next(self.left, None)

    ear = _Ear(Heard(), Blocks(), math.inf)  # type: ignore[arg-type]
    ear.start()
    ear.join()
    parts = ear.heard()
    mel, f0_hz = next(parts)
    assert mel.shape == (3, 5)
    assert f0_hz.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(MelismaError, match="no more"):
        next(parts)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no scheduling classes")
def test_who_leaves_no_time_to_others_no_longer_goes_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(live_module, "urgent", asked.append)
    watch, now = Yielding(), 0.0

    def work(share: float, seconds: float) -> None:
        nonlocal now
        for _ in range(round(seconds / 0.01)):
            watch.note(now, now + 0.01 * share)
            now += 0.01

    work(0.85, 3.0)
    assert asked == []
    work(1.0, 3.0)  # all there is: others would starve, or the system stalls it
    assert asked == [False]
    work(0.85, 3.0)  # it might well be too much again
    assert asked == [False]
    work(0.5, 3.0)
    assert asked == [False, True]
    assert watch.busy == pytest.approx(0.85 * 3 + 3 + 0.85 * 3 + 0.5 * 3)
    assert watch.slowest == pytest.approx(0.01)


def test_work_is_urgent_where_the_system_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda _, kind, priority: asked.append(kind))
    urgent()
    urgent(False)
    assert asked == [os.SCHED_RR, os.SCHED_OTHER]

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    urgent()  # as most users: then it goes on as it is


@pytest.mark.parametrize(("waits", "at_once"), [(16000, MANY_AT_ONCE), (160, FRAMES_AT_ONCE)])
def test_models_that_wait_long_anyway_hear_more_frames_at_once(
    vocoder: Vocoder, monkeypatch: pytest.MonkeyPatch, waits: int, at_once: int
) -> None:
    monkeypatch.setattr(Live, "model_seconds", waits / 16000)
    live = Live(vocoder, 16000)
    assert live.frames_at_once == at_once
    assert live.listening_seconds == pytest.approx((64 + AHEAD_SECONDS * 16000 + (at_once - 1) * 128) / 16000)
