"""Bad input: one clear line that names the file and the cure, exit code 1, and nothing half-written."""

import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from melisma.audio.io import read_audio, write_audio
from melisma.audio.mel import OPENVPI_44K, log_mel
from melisma.cli import main
from melisma.data.singer import Note, sing
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop import save_model

CONFIG = {
    "sampling_rate": 44100,
    "num_mels": 128,
    "n_fft": 2048,
    "win_size": 2048,
    "hop_size": 512,
    "fmin": 40,
    "fmax": 16000,
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4, 4],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
}


@pytest.fixture(scope="module")
def voice() -> tuple[np.ndarray, np.ndarray]:
    return sing([Note(220.0, 0.5, "a")], seed=1)


def fails(capsys: pytest.CaptureFixture[str], arguments: list[object], *said: str) -> str:
    """Run a command that must fail in the promised way, and return its line."""
    folder = Path(str(arguments[-1])).parent
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    code = main([str(argument) for argument in arguments])
    line = capsys.readouterr().err
    assert code == 1
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    assert "Traceback" not in line
    for part in said:
        assert part in line
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    return line


def _text(path: Path) -> None:
    path.write_text("this is not audio\n" * 100)


def _truncated(path: Path) -> None:
    write_audio(path, np.sin(np.arange(44100) * 0.05), 44100)
    path.write_bytes(path.read_bytes()[:30_000])


def _float_with(value: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        samples = np.sin(np.arange(44100) * 0.05).astype(np.float32)
        samples[1000] = value
        soundfile.write(path, samples, 44100, subtype="FLOAT")

    return write


BAD_AUDIO: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing file": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "text named .wav": (_text, "not an audio file"),
    "empty file": (lambda path: path.write_bytes(b""), "0 bytes"),
    "truncated audio": (_truncated, "truncated"),
    "zero samples": (lambda path: soundfile.write(path, np.zeros(0), 44100), "no samples"),
    "one sample": (lambda path: soundfile.write(path, np.zeros(1), 44100), "too short (1 sample)"),
    "NaN": (_float_with(np.nan), "NaN or Inf"),
    "Inf": (_float_with(np.inf), "NaN or Inf"),
    "rate too low": (lambda path: soundfile.write(path, np.zeros(4000), 4000), "8000 to 192000 Hz"),
}


@pytest.mark.parametrize("case", BAD_AUDIO)
def test_bad_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    path = tmp_path / "voice.wav"
    make, said = BAD_AUDIO[case]
    make(path)
    fails(capsys, ["resynth", path, "--model", "analytic", "-o", tmp_path / "out.wav"], str(path), said)


def test_silence_is_not_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_audio(tmp_path / "silence.wav", np.zeros(30_000), 44100)
    out = tmp_path / "out.wav"
    assert main(["resynth", str(tmp_path / "silence.wav"), "--model", "analytic", "--shift", "3", "-o", str(out)]) == 0
    assert not read_audio(out)[0].any()
    assert "nothing voiced" in capsys.readouterr().out


BAD_F0: dict[str, tuple[np.ndarray, str]] = {
    "another length": (np.full(30, 200.0), "frames"),
    "negative": (np.full(43, -200.0), "negative"),
    "NaN": (np.full(43, np.nan), "NaN"),
    "above half the rate": (np.full(43, 23000.0), "half the sample rate"),
    "two curves": (np.full((2, 43), 200.0), "shape"),
    "words": (np.array(["a"] * 43), "not numbers"),
}


@pytest.mark.parametrize("command", ["resynth", "synth"])
@pytest.mark.parametrize("case", BAD_F0)
def test_bad_f0(tmp_path: Path, capsys: pytest.CaptureFixture[str], voice, command: str, case: str) -> None:
    f0_hz, said = BAD_F0[case]
    np.save(tmp_path / "curve.npy", f0_hz)
    write_audio(tmp_path / "voice.wav", voice[0], 44100)
    np.save(tmp_path / "mel.npy", log_mel(voice[0], OPENVPI_44K)[0].numpy())
    inputs = {
        "resynth": [tmp_path / "voice.wav", "--f0", tmp_path / "curve.npy"],
        "synth": [tmp_path / "mel.npy", tmp_path / "curve.npy"],
    }[command]
    fails(capsys, [command, *inputs, "--model", "analytic", "-o", tmp_path / "out.wav"], "curve.npy", said)


BAD_FEATURES: dict[str, tuple[np.ndarray, str]] = {
    "wrong bins": (np.full((80, 43), -5.5), "the model needs 128 bins"),
    "in decibel": (np.linspace(-80.0, 0.0, 128 * 43).reshape(128, 43), "decibel"),
    "linear": (np.full((128, 43), 0.3), "logarithm first"),
    "log10": (np.linspace(-8.0, 0.0, 128 * 43).clip(-5.0).reshape(128, 43), "log10"),
    "NaN": (np.full((128, 43), np.nan), "NaN"),
    "one axis": (np.zeros(128), "one clip"),
    "no frames": (np.zeros((128, 0)), "one clip"),
    "objects": (np.array([{"a": 1}], dtype=object), "refused"),
}


@pytest.mark.parametrize("case", BAD_FEATURES)
def test_bad_features(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    features, said = BAD_FEATURES[case]
    np.save(tmp_path / "mel.npy", features)
    np.save(tmp_path / "f0.npy", np.full(43, 200.0))
    arguments = ["synth", tmp_path / "mel.npy", tmp_path / "f0.npy", "--model", "analytic", "-o", tmp_path / "out.wav"]
    fails(capsys, arguments, "mel.npy", said)


class Bomb:
    """A pickle that would leave a trace if it were run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


def _resynth_with(model: Path, tmp_path: Path, voice: tuple[np.ndarray, np.ndarray]) -> list[object]:
    write_audio(tmp_path / "voice.wav", voice[0], 44100)
    return ["resynth", tmp_path / "voice.wav", "--model", model, "-o", tmp_path / "out.wav"]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], voice: tuple[np.ndarray, np.ndarray], zipped: bool
) -> None:
    trace, model = tmp_path / "trace", tmp_path / "model.ckpt"
    if zipped:
        torch.save({"generator": Bomb(trace)}, model)
    else:
        model.write_bytes(pickle.dumps({"generator": Bomb(trace)}))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    fails(capsys, _resynth_with(model, tmp_path, voice), "model.ckpt")
    fails(capsys, ["info", model], "model.ckpt")
    fails(capsys, ["convert", model, tmp_path / "own.safetensors"], "model.ckpt")
    torch.save(Bomb(trace), tmp_path / "mel.pt")
    np.save(tmp_path / "f0.npy", np.zeros(4))
    arguments = ["synth", tmp_path / "mel.pt", tmp_path / "f0.npy", "--model", "analytic", "-o", tmp_path / "out.wav"]
    fails(capsys, arguments, "mel.pt", "refused")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config.pop("upsample_rates"), "upsample_rates"),
        (lambda config: config.update(upsample_rates="fast"), "upsample_rates"),
        (lambda config: config.update(noise_sgma=0.1), "did you mean 'noise_sigma'"),
    ],
)
def test_bad_configs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict], object], said: str
) -> None:
    state = {"conv_pre.weight": torch.zeros(32, 128, 7), "m_source.l_linear.weight": torch.zeros(1, 9)}
    config = dict(CONFIG)
    change(config)
    torch.save({"generator": state}, tmp_path / "model.ckpt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    fails(capsys, ["info", tmp_path / "model.ckpt"], said)


def test_checkpoints_with_missing_or_extra_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"conv_pre.weight": torch.zeros(32, 128, 7), "m_source.l_linear.weight": torch.zeros(1, 9)}
    torch.save({"generator": state}, tmp_path / "model.ckpt")
    fails(capsys, ["info", tmp_path / "model.ckpt"], "config.json: missing")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    line = fails(capsys, ["info", tmp_path / "model.ckpt"], "model.ckpt")
    assert "missing" in line
    assert "conv_pre.bias" in line
    (tmp_path / "config.json").write_text("{broken")
    fails(capsys, ["info", tmp_path / "model.ckpt"], "config.json", "JSON")


def test_our_own_file_with_missing_extra_or_damaged_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    config = NsfHifiganConfig(sample_rate=44100, in_channels=128, upsample_initial_channel=32, mel=OPENVPI_44K)
    save_model(tmp_path / "own.safetensors", NsfHifigan(config), name="x")
    with safe_open(tmp_path / "own.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        header = file.metadata()
    bias = tensors.pop("conv_post.bias")
    save_file({**tensors, "conv_past.bias": bias}, tmp_path / "own.safetensors", header)
    fails(capsys, ["info", tmp_path / "own.safetensors"], "missing conv_post.bias", "unknown conv_past.bias")
    whole = (tmp_path / "own.safetensors").read_bytes()
    (tmp_path / "own.safetensors").write_bytes(whole[: len(whole) // 2])
    fails(capsys, ["info", tmp_path / "own.safetensors"], "own.safetensors", "again")


@pytest.mark.parametrize("model", ["nothing.pth", "melisma-44", "."])
def test_models_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], voice: tuple[np.ndarray, np.ndarray], model: str
) -> None:
    fails(capsys, _resynth_with(Path(model), tmp_path, voice), model)


BAD_OUTPUTS = {
    "folder is missing": ("nowhere/out.wav", "does not exist"),
    "no such format": ("out.xyz", "use .wav, .flac"),
    "rate that the format lacks": ("out.opus", "Opus"),
}


@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_bad_outputs_are_told_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], voice: tuple[np.ndarray, np.ndarray], case: str
) -> None:
    name, said = BAD_OUTPUTS[case]
    write_audio(tmp_path / "voice.wav", voice[0], 44100)
    before = set(tmp_path.iterdir())
    assert main(["resynth", str(tmp_path / "voice.wav"), "--model", "analytic", "-o", str(tmp_path / name)]) == 1
    line = capsys.readouterr().err
    assert said in line
    assert Path(name).name in line
    assert set(tmp_path.iterdir()) == before


def test_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str], voice) -> None:
    write_audio(tmp_path / "voice.wav", np.tile(voice[0], 20), 44100)
    np.save(tmp_path / "mel.npy", np.full((128, 2000), -6.0, dtype=np.float32))
    np.save(tmp_path / "f0.npy", np.full(2000, 200.0))
    model = ["--model", "analytic", "--projections", "0", "-o", tmp_path / "out.wav"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        fails(capsys, ["resynth", tmp_path / "voice.wav", *model], "out.wav", "could not be written", "free some space")
        fails(capsys, ["synth", tmp_path / "mel.npy", tmp_path / "f0.npy", *model], "out.wav", "free some space")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_process_itself_says_one_line_and_one() -> None:
    command = [sys.executable, "-m", "melisma", "resynth", "nothing.wav", "-o", "out.wav"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: nothing.wav: no such file; check the name and the folder\n"
    assert done.stdout == ""
    debugged = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr
