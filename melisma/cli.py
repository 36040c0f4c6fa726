"""The command line: parse, call, report; what the commands do stands in ``melisma.commands``.

Exit codes: 0 done, 1 failed (one line on stderr with the cure), 2 wrong usage. ``--debug`` shows the traceback.
"""

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from melisma.commands.datasets import evaluate, listen, prepare
from melisma.commands.usage import parse
from melisma.errors import MelismaError
from melisma.files import remove_unfinished

Out = Annotated[Path, arg(aliases=["-o"], metavar="OUT")]
DESCRIPTION = (
    "melisma: a neural vocoder for singing. A recording in, the same voice at another pitch, key or speed out. "
    "Any command takes --debug, which shows the traceback of an error."
)


def resynth(
    source: Annotated[Positional[Path], arg(metavar="IN")],
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="OUT")] = None,
    shift: float = 0.0,
    f0: Path | None = None,
    midi: Path | None = None,
    scale: str | None = None,
    strength: float = 1.0,
    vibrato: Annotated[tuple[float, ...] | None, arg(metavar="[CENTS [HZ]]")] = None,
    formant: float = 0.0,
    edits: Path | None = None,
    notes: bool = False,
    speed: float = 1.0,
    model: str = "melisma-44k",
    projections: int | None = None,
    seed: int = 0,
    f0_method: str | None = None,
    plot: Path | None = None,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> None:
    """Sing a recording again: same rate, channels, length and level, at another pitch, tune or speed where wanted.

    Args:
        source: wav, flac, ogg, opus or mp3; any rate from 8 to 192 kHz, any length.
        out: file to write; its suffix decides the format. Only --notes does without.
        shift: semitones, may be fractional.
        f0: F0 of the recording from a file (.npy, .npz, .pt, .csv or .txt) instead of estimating it.
        midi: let the voice sing the melody of a .mid file, in its own time and with its own vibrato.
        scale: draw the notes to a scale: C:maj, F#:min, Bb:dorian, chromatic.
        strength: of --scale, 0 to 1.
        vibrato: sing with a vibrato of that many cents (50) and Hz (5.5) instead of the voice's own; 0 is none.
        formant: semitones by which the formants move, -12 to 12; the pitch stays.
        edits: edits as the service and the studio write them, from a .json file.
        notes: print the notes that are found.
        speed: 2 is twice as fast; the pitch stays.
        model: melisma-44k, analytic (no weights), or a checkpoint of any format that melisma reads.
        projections: rounds of mel projection; more is closer to the recording and slower, 0 is off.
        seed: of the noise; the same seed gives the same audio.
        f0_method: swift-f0, harvest or dio.
        plot: draw spectrograms of input and output with their F0 into this .png.
        device: auto, cpu or cuda.
        precision: of layers with weights; bfloat16 is faster where info --system says so, and rounds.
    """
    if out is None and not notes:
        print("error: where to? name the file to write with -o OUT (or print the notes with --notes)", file=sys.stderr)
        raise SystemExit(2)
    from melisma.commands import resynth as command
    from melisma.inference.resynthesis import Settings

    wishes = command.Wishes(edits, midi, scale, strength, vibrato, formant)
    settings = Settings(shift, speed, seed, projections, f0_method)
    command.run(source, out, settings, wishes, f0, model, plot, notes, device, precision)


def synth(
    features: Annotated[Positional[Path], arg(metavar="FEATURES")],
    f0: Annotated[Positional[Path], arg(metavar="F0")],
    out: Out,
    model: str = "melisma-44k",
    layout: Literal["auto", "bins-frames", "frames-bins"] = "auto",
    mel_base: Literal["auto", "e", "10"] = "auto",
    speaker: str | None = None,
    projections: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> None:
    """Sing saved features (log-mel or latent) and F0, as acoustic models give them.

    Args:
        features: .npy, .npz (one array, or one named mel or features) or .pt (tensors only).
        f0: F0 in Hz, one value a frame, 0 where unvoiced: .npy, .npz, .pt, .csv or .txt.
        out: file to write; its suffix decides the format.
        model: melisma-44k, analytic (no weights), or a checkpoint of any format that melisma reads.
        layout: which axis is which; auto goes by the number of bins that the model needs.
        mel_base: logarithm of the mel; auto takes the model's own.
        speaker: of models that have several: number or name, see melisma info.
        projections: rounds of mel projection, 0 is off.
        seed: of the noise.
        device: auto, cpu or cuda.
        precision: of layers with weights; bfloat16 is faster where info --system says so, and rounds.
    """
    from melisma.commands import synth as command

    command.run(features, f0, out, model, layout, mel_base, speaker, projections, seed, device, precision)


def stream(
    source: Annotated[Path | None, arg(name="in", metavar="IN")] = None,
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="OUT")] = None,
    shift: float = 0.0,
    model: str | None = None,
    projections: int | None = None,
    seed: int = 0,
    block_ms: float = 10.0,
    margin_ms: float | None = None,
    realtime: bool = False,
    seconds: float | None = None,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> None:
    """Sing live: from microphone or file to speaker or file, one channel; latency and dropouts are said.

    Args:
        source: audio file instead of the microphone; its channels are averaged.
        out: audio file instead of the speaker.
        shift: semitones, may be fractional.
        model: melisma-44k-live, melisma-44k (better and later), analytic (no weights), or a checkpoint of a mel
            vocoder; melisma-44k-live where none is named, and melisma-44k where projections are asked for.
        projections: rounds of mel projection; they look seconds ahead, so live the default is none.
        seed: of the noise.
        block_ms: milliseconds that the sound card brings and fetches at a time.
        margin_ms: milliseconds of audio kept ready for work that takes longer than a block; measured where not given.
        realtime: from file to file at the pace of a sound card instead of as fast as it goes.
        seconds: stop after so many; else at the end of the file, or on Ctrl-C.
        device: auto, cpu or cuda.
        precision: of layers with weights; bfloat16 is faster where info --system says so, and rounds.
    """
    from melisma.commands import stream as command

    command.run(source, out, shift, model, projections, seed, block_ms, margin_ms, realtime, seconds, device, precision)


def info(model: Annotated[Positional[str], arg(metavar="MODEL")] = "", system: bool = False) -> None:
    """Say what a checkpoint is and whether it can be trusted.

    Args:
        model: a file, or the name of a shipped model.
        system: say what this machine is and which kernels it takes, and why.
    """
    from melisma.commands import models as command

    if not (model or system):
        print("error: info: name a model, or ask for --system", file=sys.stderr)
        raise SystemExit(2)
    if system:
        command.system()
    if model:
        command.info(model)


def convert(
    source: Annotated[Positional[Path], arg(metavar="SRC")],
    target: Annotated[Positional[Path], arg(metavar="DST")],
) -> None:
    """Write any checkpoint that melisma reads as one of its own: a safetensors file that says everything about itself.

    Args:
        source: the checkpoint; its config.json is looked for beside it.
        target: the .safetensors file to write.
    """
    from melisma.commands import models as command

    command.convert(source, target)


def export(
    target: Annotated[
        Positional[Literal["onnx", "openutau", "diffsinger", "model"]], arg(metavar="onnx|openutau|diffsinger|model")
    ],
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    out: Out,
    precision: Literal["float32", "float16", "int8"] = "float32",
    seed: int = 0,
    noise_inputs: bool = False,
    speaker: str | None = None,
    projections: int | None = None,
    opset: int = 18,
    name: str | None = None,
) -> None:
    """Write a model for other programs; a graph is written only if onnxruntime agrees with torch.

    Args:
        target: onnx (a graph in one file), openutau (a vocoder package, .oudep) or diffsinger (a folder with model.ckpt
            and config.json in openvpi's layout; NSF-HiFi-GAN of a mel only); or model: a run of melisma train as one
            safetensors file.
        model: melisma-44k, analytic, or a checkpoint of any format that melisma reads; for model the folder of a run.
        out: the file, or the folder for diffsinger.
        precision: of the weights in the graph; what a smaller one costs is measured and printed.
        seed: of phase and noise, which the graph makes itself: the same audio as melisma synth --seed.
        noise_inputs: make phase and noise inputs of the graph instead (onnx only).
        speaker: settle this speaker (number or name) in the graph; otherwise it is an input where the model has one.
        projections: rounds of mel projection of the spectral models; by default none for openutau, and for onnx the
            model's own or, where onnxruntime does not agree with torch, as many of them as it does with.
        opset: of the ONNX operators.
        name: of the package (openutau) or the model; its own by default.
    """
    from melisma.commands import export as command

    command.run(target, model, out, precision, seed, noise_inputs, speaker, projections, opset, name)


def train(
    recipe: Annotated[Positional[Path], arg(metavar="RECIPE")],
    folder: Annotated[Positional[Path], arg(metavar="FOLDER")],
    tensorboard: bool = False,
    setting: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE")] = (),
) -> None:
    """Train a recipe; a run that is found in the folder goes on.

    Settings of the recipe may follow as --key VALUE or --part.key VALUE: --steps 2000 --batch 4 --start_from CHECKPOINT
    --data.folders '[my-dataset]' --validation.every 0.

    Args:
        recipe: a .yaml file, see recipes/.
        folder: where checkpoints and the log go.
        tensorboard: write TensorBoard's files too, into the folder.
        setting: another way to write --key VALUE.
    """
    from melisma.training.launch import train as run

    run(recipe, folder, setting, tensorboard)


def demo(folder: Annotated[Positional[Path], arg(metavar="FOLDER")] = Path("demo"), singer: bool = False) -> None:
    """Make an example recording and sing it again at 0 and +3 semitones, with a picture.

    Args:
        folder: where the files go.
        singer: let the built-in singer sing, even where espeak-ng could speak.
    """
    from melisma.commands.demo import run

    run(folder, speak=not singer)


def bench(
    models: tuple[str, ...] = (),
    threads: tuple[int, ...] = (),
    precisions: tuple[Literal["float32", "bfloat16"], ...] = (),
    batches: tuple[int, ...] = (),
    chunks: tuple[float, ...] = (),
    seconds: float = 2.0,
    rounds: int = 5,
    quick: bool = False,
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="OUT")] = None,
) -> None:
    """Measure the generators on this machine: times real time, share of the machine's peak, memory, first call.

    Plain and fast paths take turns in one process; ratios are to the plain path in float32.

    Args:
        models: which; all where none is named.
        threads: 1 and as many as there are cores where none is given.
        precisions: those that are fast on this CPU where none is given.
        batches: clips at once, 1 and 4 where none is given.
        chunks: seconds of the pieces in which a clip is made, 0 is in one; 0 and 0.25 where none is given.
        seconds: length of a clip.
        rounds: how often every variant has its turn.
        quick: one second, two rounds, all cores, no batches, chunks or first calls: a look, not a measurement.
        out: also write it to a .json or .md file.
    """
    from melisma.commands import bench as command

    command.run(models, threads, precisions, batches, chunks, seconds, rounds, quick, out)


def serve(
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str | None = None,
    model: tuple[str, ...] = ("melisma-44k", "analytic"),
    workers: int | None = None,
    queue: int = 16,
    max_seconds: float = 900.0,
    device: str = "cpu",
    browser: bool = True,
) -> None:
    """Serve the studio and the vocoder on this machine, and open the browser.

    Args:
        host: address to listen on; any but this machine's own needs a token.
        port: 0 takes a free one.
        token: what requests must carry; better given as MELISMA_TOKEN, where other users do not see it.
        model: shipped models and checkpoints that requests may name; the first is the default.
        workers: requests worked on at once, each on one thread; one a core.
        queue: requests that may wait; more are told to come back.
        max_seconds: of a recording.
        device: auto, cpu or cuda.
        browser: open the page.
    """
    from melisma.commands import serve as command

    command.run(host, port, token, model, workers, queue, max_seconds, device, browser)


COMMANDS: dict[str, Callable[..., None]] = {
    "resynth": resynth,
    "synth": synth,
    "stream": stream,
    "info": info,
    "convert": convert,
    "export": export,
    "prepare": prepare,
    "evaluate": evaluate,
    "listen": listen,
    "train": train,
    "bench": bench,
    "serve": serve,
    "demo": demo,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    try:
        with warnings.catch_warnings(), _termination_as_interruption():
            warnings.showwarning = _show_warning
            if given[0] == "train":
                given = _with_settings(given)
            parse(COMMANDS, "melisma", DESCRIPTION, given)()
    except SystemExit as stop:  # 0 after --help, 2 for wrong usage
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        remove_unfinished()
        return _failed("interrupted; nothing was written", debug)
    except MelismaError as error:
        return _failed(str(error), debug)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _failed(
            f"{error.filename or 'melisma'}: {error.strerror or error}; check the disk and its permissions", debug
        )
    except ModuleNotFoundError as error:
        return _failed(f"the package {error.name!r} is missing; install melisma with its extras: '.[evaluate]'", debug)
    except Exception as error:
        kind = type(error).__name__
        return _failed(f"unexpected {kind}: {_one_line(error)}; run again with --debug and report it", debug)
    return 0


def _with_settings(given: list[str]) -> list[str]:
    """Let settings of a recipe, --key VALUE, reach the command as --setting key=VALUE."""
    from melisma.training.launch import split_overrides

    rest, settings = split_overrides(given, ("--tensorboard", "--no-tensorboard", "--setting", "--help"))
    return [*rest, *(word for setting in settings for word in ("--setting", setting))]


@contextmanager
def _termination_as_interruption() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C: what is half-written is removed."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failed(line: str, debug: bool) -> int:
    if debug:
        raise
    print(f"error: {line}", file=sys.stderr)
    return 1


def _one_line(error: object) -> str:
    return (str(error).splitlines() or [""])[0]


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {_one_line(message)}", file=sys.stderr)
