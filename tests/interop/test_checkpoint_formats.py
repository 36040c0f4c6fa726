"""Checkpoint files: recognised by content, refused with a clear line, never run."""

import json
import os
from pathlib import Path
from typing import Any

import golden_cases
import pytest
import torch

from melisma.errors import MelismaError
from melisma.interop import describe, load_checkpoint, save_checkpoint
from melisma.interop.rvc import LIST_NAMES


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


def write(folder: Path, content: object, config: object = None, name: str = "any.bin") -> Path:
    path = folder / name
    torch.save(content, path)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return path


def sovits_files(name: str) -> tuple[dict, dict]:
    case = golden_cases.read(name)
    model = prefixed(case.state(kept=True), "dec.")
    model |= {"emb_g.weight": torch.randn(3, 16), "enc_p.proj.weight": torch.zeros(2), "flow.x": torch.zeros(1)}
    content = {"model": model, "iteration": 5, "optimizer": {"state": {}}, "learning_rate": 1e-4}
    settings = {key: value for key, value in case.config.items() if key != "sampling_rate"}
    settings |= {"ssl_dim": 768, "n_speakers": 3, "vocoder_name": "nsf-hifigan"}
    data = {"sampling_rate": 44100, "hop_length": 512}
    return content, {"train": {}, "data": data, "model": settings, "spk": {"anna": 0, "ben": 2}}


def rvc_content() -> dict:
    case = golden_cases.read("rvc_40k")
    weights = {name: value.half() for name, value in prefixed(case.state(), "dec.").items()}
    weights |= {"emb_g.weight": torch.randn(109, 16).half(), "enc_p.emb_phone.weight": torch.zeros(2).half()}
    values = {"spec_channels": 1025, "segment_size": 32, "spk_embed_dim": 109, **case.config}
    listed = [values.get(name, 0) for name in LIST_NAMES]
    return {"weight": weights, "config": listed, "info": "200epoch", "sr": "40k", "f0": 1, "version": "v2"}


def file_of(folder: Path, what: str) -> tuple[Path, str]:
    """A checkpoint file of a format and the kind that it is."""
    if what.startswith("sovits"):
        content, config = sovits_files(what)
        return write(folder, content, config), golden_cases.read(what).kind
    if what == "rvc":
        return write(folder, rvc_content()), "rvc"
    name = what.removesuffix(":lightning").removesuffix(":bare")
    case = golden_cases.read(name)
    content: dict[str, Any] = {"generator": case.state(kept=True)}
    if what.endswith(":lightning"):
        states = prefixed(case.state(), "generator.") | {"discriminator.mpd.x": torch.zeros(1)}
        content = {"state_dict": states, "global_step": 3, "optimizer_states": []}
    if what.endswith(":bare"):
        content = dict(case.state())
    return write(folder, content, case.config), case.kind


FORMATS = [
    "sovits_hifigan", "sovits_snake", "rvc", "openvpi_nsf_hifigan", "openvpi_mini_nsf_hifigan",
    "openvpi_nsf_hifigan:lightning", "openvpi_nsf_hifigan:bare", "hifigan_v1", "bigvgan_base_24k", "bigvgan_v2_44k",
]  # fmt: skip


@pytest.mark.parametrize("what", FORMATS)
def test_recognised_by_content_described_and_converted(what: str, tmp_path: Path) -> None:
    path, kind = file_of(tmp_path, what)
    loaded = load_checkpoint(path)
    assert loaded.kind == kind
    assert any("no code of it was run" in note for note in loaded.notes)
    text = describe(path)
    for word in (kind, f"{loaded.generator.sample_rate} Hz", "licence", "f0"):
        assert word in text
    save_checkpoint(loaded, tmp_path / "own.safetensors")
    assert f"converted from {kind}" in describe(tmp_path / "own.safetensors")
    again = load_checkpoint(tmp_path / "own.safetensors")
    assert again.generator.config == loaded.generator.config
    for name, value in loaded.generator.state_dict().items():
        assert torch.equal(again.generator.state_dict()[name], value)


def test_what_stands_beside_the_decoder_is_used_or_named(tmp_path: Path) -> None:
    loaded = load_checkpoint(file_of(tmp_path, "sovits_hifigan")[0])
    assert loaded.speakers is not None
    assert loaded.speakers.shape == (3, 16)
    assert loaded.speaker_names == {"anna": 0, "ben": 2}
    assert loaded.mel is None
    assert loaded.f0_contract == "zero"
    assert "enc_p, flow, iteration, optimizer" in " ".join(loaded.notes)
    assert "speakers" in loaded.details
    voice = load_checkpoint(file_of(tmp_path, "rvc")[0])
    assert voice.speakers is not None
    assert voice.speakers.dtype == torch.float32
    assert "RVC v2" in voice.notes


class Runs:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path = write(tmp_path, {"generator": Runs(tmp_path / "made")}, {})
    with pytest.raises(MelismaError, match=r"any\.bin: refused: its pickle asks for .*mkdir.*state dict"):
        load_checkpoint(path)
    assert not (tmp_path / "made").exists()


def test_a_program_is_refused(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Identity()), tmp_path / "program.pt")
    with pytest.raises(MelismaError, match=r"program\.pt: a TorchScript program"):
        load_checkpoint(tmp_path / "program.pt")


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_named(keep: float, tmp_path: Path) -> None:
    path, _ = file_of(tmp_path, "hifigan_v1")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(MelismaError, match=r"any\.bin: (the file is empty|cut short|damaged)"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"\x00" * 500, b"<html>not found</html>", b"RIFF....WAVEfmt ", b"\x80\x02garbage"])
def test_other_files_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(MelismaError, match=r"model\.ckpt: damaged, or not a PyTorch checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds a list"),
        ({"epoch": 3}, r"no model that melisma knows \(it holds epoch\)"),
        ({}, "it holds nothing"),
        ({"mpd": {}, "msd": {}, "steps": 1}, "discriminators of a training run"),
        ({"model": {"discriminators.0.convs.0.bias": torch.zeros(1)}, "iteration": 1}, "discriminators of a training"),
        ({"generator": {"conv_pre.bias": torch.zeros(3)}}, r"config\.json: missing; put the config\.json"),
        ({"model": {"dec.m_source.l_linear.weight": torch.zeros(1, 1)}}, "a training checkpoint of RVC"),
    ],
)
def test_what_cannot_be_a_model_says_why(content: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(MelismaError, match=said):
        load_checkpoint(write(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"config\.json: not readable as JSON"),
        ("[]", r"config\.json: expected a JSON object"),
        ("{}", "'upsample_rates' is missing"),
    ],
)
def test_a_faulty_config_is_named(text: str, said: str, tmp_path: Path) -> None:
    path, _ = file_of(tmp_path, "hifigan_v1")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(MelismaError, match=said):
        load_checkpoint(path)


def test_the_config_of_another_model_is_noticed(tmp_path: Path) -> None:
    path, _ = file_of(tmp_path, "hifigan_v1")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hop_size": 512}))
    with pytest.raises(MelismaError, match="hop of 512 samples is not the product"):
        load_checkpoint(path)
    (tmp_path / "config.json").write_text(json.dumps({"model": {}}))
    with pytest.raises(MelismaError, match="missing"):
        load_checkpoint(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(MelismaError, match="no such file"):
        load_checkpoint(tmp_path / "nothing.pth")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "G_5.pth").write_bytes(b"")
    with pytest.raises(MelismaError, match=r"is a folder; name the checkpoint in it: G_5\.pth"):
        load_checkpoint(tmp_path / "run")


def test_a_voice_without_f0_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MelismaError, match="an RVC voice without F0"):
        load_checkpoint(write(tmp_path, rvc_content() | {"f0": 0}))
