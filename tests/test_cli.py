"""The command line from end to end: what it writes, prints and returns."""

import json
import pkgutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from melisma.audio.io import read_audio, write_audio
from melisma.audio.mel import OPENVPI_44K, log_mel
from melisma.cli import COMMANDS, main
from melisma.commands import demo
from melisma.commands.show import f0_summary, note_name
from melisma.commands.usage import in_one_line
from melisma.data.singer import Note, sing
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, its log-mel and F0 in every saved form, and a small model."""
    folder = tmp_path_factory.mktemp("cli")
    audio, f0_hz = sing([Note(220.0, 0.6, "a"), Note(330.0, 0.6, "i", "s")], seed=1)
    write_audio(folder / "voice.wav", np.stack([audio, audio]), 44100)
    mel = log_mel(audio, OPENVPI_44K)[0].numpy()
    np.save(folder / "f0.npy", f0_hz)
    np.save(folder / "mel.npy", mel)
    np.save(folder / "mel_frames_first.npy", mel.T)
    np.savez(folder / "clip.npz", mel=mel[None], f0=f0_hz)
    np.save(folder / "mel10.npy", mel / np.log(10.0))
    torch.save({"mel": torch.tensor(mel), "f0": torch.tensor(f0_hz)}, folder / "clip.pt")
    torch.manual_seed(0)
    config = NsfHifiganConfig(
        sample_rate=44100, in_channels=128, upsample_initial_channel=32, mel=OPENVPI_44K, speaker_channels=0
    )
    save_model(
        folder / "small.safetensors", NsfHifigan(config), name="small", licence="MIT", f0_range_hz=(60.0, 1200.0)
    )
    return folder


def test_resynth_writes_and_says_what_it_did(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = folder / "shifted.wav", folder / "shifted.png"
    code = main(
        [
            "resynth",
            str(folder / "voice.wav"),
            "-o",
            str(out),
            "--shift",
            "2",
            "--model",
            "analytic",
            "--plot",
            str(picture),
        ]
    )
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    before, after = read_audio(folder / "voice.wav"), read_audio(out)
    assert before[0].shape == after[0].shape
    assert before[1] == after[1]
    assert picture.read_bytes().startswith(b"\x89PNG")
    for part in ("44100 Hz, 2 channels", "(A3)", "(B3)", "voiced", "x real time", "level: "):
        assert part in said.out


@pytest.mark.parametrize(
    "options",
    [
        ["--speed", "1.5"],
        ["--f0", "f0.npy", "--shift", "-3.5"],
        ["--f0", "f0.csv", "--projections", "0"],
        ["--f0-method", "dio", "--seed", "3"],
        ["--model", "small.safetensors"],
        ["--model", "small.safetensors", "--precision", "bfloat16"],
    ],
)
def test_resynth_options(folder: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "f0.csv").write_text("seconds,hz\n0,220\n0.6,220\n0.61,330\n1.2,330\n")
    options = [str(folder / option) if (folder / option).is_file() else option for option in options]
    model = [] if "--model" in options else ["--model", "analytic"]
    assert main(["resynth", str(folder / "voice.wav"), "--out", str(folder / "out.flac"), *model, *options]) == 0
    made, _ = read_audio(folder / "out.flac")
    expected = round(52920 / 1.5) if "--speed" in options else 52920
    assert made.shape == (2, expected)
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("features", "f0", "options"),
    [
        ("mel.npy", "f0.npy", []),
        ("mel_frames_first.npy", "f0.npy", []),
        ("clip.npz", "clip.npz", []),
        ("clip.pt", "clip.pt", []),
        ("mel10.npy", "f0.npy", ["--mel-base", "10"]),
        ("mel.npy", "f0.npy", ["--layout", "bins-frames"]),
    ],
)
def test_every_saved_form_gives_the_same_audio(folder: Path, features: str, f0: str, options: list[str]) -> None:
    out = folder / "sung.wav"
    arguments = ["synth", str(folder / features), str(folder / f0), "-o", str(out), "--model", "analytic", *options]
    assert main(arguments) == 0
    made, sample_rate = read_audio(out)
    assert sample_rate == 44100
    reference = folder / "reference.npy"
    if not reference.exists():
        np.save(reference, made)
    assert np.abs(made - np.load(reference)).max() < 2e-3


def test_a_square_of_features_needs_its_layout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "square.npy", np.full((128, 128), -5.5, dtype=np.float32))
    np.save(folder / "f128.npy", np.full(128, 200.0))
    arguments = ["synth", str(folder / "square.npy"), str(folder / "f128.npy"), "-o", str(folder / "x.wav")]
    arguments += ["--model", "analytic"]
    assert main(arguments) == 1
    assert "--layout bins-frames or --layout frames-bins" in capsys.readouterr().err
    assert main([*arguments, "--layout", "frames-bins"]) == 0


def test_a_mel_that_names_its_contract_is_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mel = np.load(folder / "mel.npy")
    fields = json.loads(json.dumps({**OPENVPI_44K.__dict__}))
    for name, change in (("right", {}), ("log10", {"log_base": "10"}), ("wrong", {"fmin": 0.0}), ("typo", {"fmim": 1})):
        values = mel / np.log(10.0) if name == "log10" else mel
        np.savez(folder / f"{name}.npz", mel=values, mel_contract=json.dumps({**fields, **change}))
    codes = {}
    for name in ("right", "log10", "wrong", "typo"):
        arguments = ["synth", str(folder / f"{name}.npz"), str(folder / "f0.npy"), "-o", str(folder / "x.wav")]
        codes[name] = (main([*arguments, "--model", "analytic"]), capsys.readouterr().err)
    assert codes["right"][0] == codes["log10"][0] == 0
    assert codes["wrong"][0] == codes["typo"][0] == 1
    assert "fmin: 0.0 != 40.0" in codes["wrong"][1]
    assert "did you mean 'fmin'" in codes["typo"][1]


def test_info_and_convert(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(folder / "small.safetensors")]) == 0
    said = capsys.readouterr().out
    for part in ("melisma/nsf-hifigan", "no code", "licence", "MIT", "60 to 1200 Hz", "128 bins"):
        assert part in said
    assert main(["info", "analytic"]) == 0
    assert main(["convert", str(folder / "small.safetensors"), str(folder / "again.safetensors")]) == 0
    capsys.readouterr()
    assert main(["info", str(folder / "again.safetensors")]) == 0
    assert main(["convert", str(folder / "small.safetensors"), str(folder / "again.pth")]) == 1
    assert ".safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("speak", [True, False])
def test_the_demo_works_with_and_without_a_speech_synthesiser(tmp_path: Path, speak: bool) -> None:
    demo.run(tmp_path / "demo", speak)
    made = {path.name for path in (tmp_path / "demo").iterdir()}
    assert made == {"example.wav", "example_+0.wav", "example_+3.wav", "example.png"}
    lengths = {read_audio(path)[0].shape for path in (tmp_path / "demo").glob("*.wav")}
    assert len(lengths) == 1


def test_the_demo_survives_a_broken_speech_synthesiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo.example(tmp_path / "example.wav") == "sung by the built-in singer"
    program.write_text("#!/bin/sh\nexit 0\n")
    assert demo.example(tmp_path / "example.wav") == "sung by the built-in singer"


def test_a_speech_synthesiser_is_used_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio, _ = sing([Note(120.0, 0.5)], 22050)
    write_audio(tmp_path / "words.wav", audio, 22050)
    program = tmp_path / "espeak-ng"
    program.write_text(f'#!/bin/sh\nexec /bin/cp "{tmp_path}/words.wav" "$6"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo.example(tmp_path / "example.wav") == "spoken by espeak-ng"
    assert read_audio(tmp_path / "example.wav")[1] == 22050


@pytest.mark.parametrize("arguments", [[], ["--help"], *[[name, "--help"] for name in COMMANDS]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "melisma" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("resynt", "unknown: resynt; available subcommands: resynth, synth, "),
        ("resynth", "missing: IN; see melisma resynth --help"),
        ("train", "missing: RECIPE, FOLDER; see melisma train --help"),
        ("resynth a -o b --shift up", "--shift: could not convert string to float: 'up'; see melisma resynth --help"),
        ("resynth a -o b --shft 2", "unknown: --shft, 2; did you mean --shift FLOAT? See melisma resynth --help"),
        (
            "resynth a -o b --precision half",
            "invalid choice 'half' for argument '--precision'. Expected one of ('auto'",
        ),
        ("stream --block-ms", "Missing value for argument '--block-ms'. Expected 1 values; see melisma stream --help"),
    ],
)
def test_wrong_usage_is_two_and_one_line(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


DRAWN = """\
╭─ Required options ───────────────────╮
│ Missing from melisma train:          │
│     RECIPE                           │
│         a .yaml file. (required)     │
│     FOLDER                           │
│         where the log goes.          │
│         (required)                   │
│ ──────────────────────────────────── │
│ For full helptext, run:              │
│     melisma train --help             │
╰──────────────────────────────────────╯
"""
PLAIN = """\
Required options
--------------------------------------
Missing from melisma train:
    RECIPE
        a .yaml file. (required)
    FOLDER
        where the log goes. (required)
--------------------------------------
For full helptext, run:
    melisma train --help
"""


@pytest.mark.parametrize("box", [DRAWN, PLAIN, DRAWN.replace("Required options", "\x1b[1mRequired options\x1b[0m")])
def test_a_box_is_read_as_any_terminal_has_it(box: str) -> None:
    assert in_one_line(box, "melisma train") == "missing: RECIPE, FOLDER; see melisma train --help"


def test_what_is_no_box_is_said_as_it_is() -> None:
    assert in_one_line("something else", "melisma") == "something else"


def test_unexpected_errors_are_one_line_unless_debugging(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("melisma.commands.models.info", broken)
    assert main(["info", "analytic"]) == 1
    assert (
        capsys.readouterr().err == "error: unexpected RuntimeError: first line; run again with --debug and report it\n"
    )
    with pytest.raises(RuntimeError):
        main(["info", "analytic", "--debug"])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("melisma.commands.models.info", interrupted)
    assert main(["info", "analytic"]) == 1
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, kind: signal.Signals) -> None:
    audio, _ = sing([Note(220.0, 1.0, "a")], seed=1)
    write_audio(tmp_path / "voice.wav", np.tile(audio, 300), 44100)
    command = [sys.executable, "-m", "melisma", "resynth", "voice.wav", "-o", "out.wav", "--model", "analytic"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*.wav")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(kind)
    _, line = process.communicate(timeout=60)
    assert process.returncode == 1
    assert line == "error: interrupted; nothing was written\n"
    assert [path.name for path in tmp_path.iterdir()] == ["voice.wav"]


@pytest.mark.parametrize("place", ["pathlib.Path.open", "soundfile.SoundFile", "melisma.audio.io.put_in_place"])
def test_an_interruption_at_the_worst_moment_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """While a file is being opened nobody's ``with`` block takes it away yet."""
    whole = pkgutil.resolve_name(place)

    def interrupted(*arguments: object, **settings: object) -> object:
        if not any(".part" in str(argument) for argument in arguments):
            return whole(*arguments, **settings)
        if place == "pathlib.Path.open":
            whole(*arguments, **settings).close()  # the file is there when the signal comes
        raise KeyboardInterrupt

    write_audio(tmp_path / "voice.wav", sing([Note(220.0, 0.2, "a")], seed=1)[0], 44100)
    monkeypatch.setattr(place, interrupted)
    assert main(["resynth", str(tmp_path / "voice.wav"), "-o", str(tmp_path / "out.wav"), "--model", "analytic"]) == 1
    assert "interrupted" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["voice.wav"]


def test_pitches_have_names() -> None:
    assert [note_name(hz) for hz in (440.0, 261.63, 1600.0, 55.0, 27.5)] == ["A4", "C4", "G6", "A1", "A0"]
    assert f0_summary(np.zeros(3)) == "F0: nothing voiced"
    assert f0_summary(np.array([0.0, 220.0, 440.0, 440.0])).endswith("voiced 75%")
