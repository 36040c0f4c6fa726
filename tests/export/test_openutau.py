"""OpenUtau packages: what is in them, and what OpenUtau would do with them."""

import dataclasses
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from kinds import CONFIGS, loaded

from melisma.audio.mel import OPENVPI_44K
from melisma.cli import main
from melisma.errors import MelismaError
from melisma.export.diffsinger import write_checkpoint
from melisma.export.openutau import check_suitable, package_id, read_package, render_as_openutau, settings
from melisma.generators.analytic import analytic
from melisma.inference.vocoder import load
from melisma.interop.loaded import LoadedModel


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package made from a checkpoint, as a user makes it."""
    folder = tmp_path_factory.mktemp("openutau")
    write_checkpoint(loaded("openvpi"), folder / "voc")
    assert main(["export", "openutau", str(folder / "voc" / "model.ckpt"), "-o", str(folder / "v.oudep")]) == 0
    return folder / "v.oudep"


def test_a_package_is_what_openutau_reads(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        assert {"oudep.yaml", "vocoder.yaml", "model.onnx"} <= set(archive.namelist())
        about = yaml.safe_load(archive.read("oudep.yaml"))
        vocoder = yaml.safe_load(archive.read("vocoder.yaml"))
        content = archive.read(vocoder["model"])
    assert {"id", "version", "description", "class"} <= set(about)
    assert vocoder == {
        "name": "model", "model": "model.onnx", "sample_rate": 44100, "hop_size": 512, "win_size": 2048,
        "fft_size": 2048, "num_mel_bins": 8, "mel_fmin": 40.0, "mel_fmax": 16000.0, "mel_base": "e",
        "mel_scale": "slaney", "pitch_controllable": False,
    }  # fmt: skip
    assert isinstance(vocoder["mel_base"], str)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    mel, f0 = np.full((1, 20, 8), -3.0, np.float32), np.full((1, 20), 220.0, np.float32)
    f0[:, 5:9] = 0.0
    (audio,) = session.run(None, {"mel": mel, "f0": f0})
    assert session.get_outputs()[0].name == "waveform"
    assert audio.shape == (1, 20 * 512)
    wanted = load(package.parent / "voc" / "model.ckpt", precision="float32").synthesize(mel[0].T, f0[0])
    assert np.abs(audio[0] - wanted).max() <= 1e-4 * wanted.std()


def test_f0_of_zero_is_a_note_carried_on_and_no_constant(package: Path) -> None:
    audio = render_as_openutau(read_package(package))
    assert audio.std() > 0
    assert np.abs(audio[512:]).max() < 1.0


def test_info_says_what_a_package_is(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(package)]) == 0
    said = capsys.readouterr().out
    for words in ("OpenUtau vocoder model", "44100 Hz, hop 512, 8 bins", "F0 must be the mel's pitch", "waveform"):
        assert words in said


@pytest.mark.parametrize(("kind", "truth"), [("openvpi", False), ("openvpi-mini", True)])
def test_pitch_controllable_is_what_the_model_was_trained_for(kind: str, truth: bool) -> None:
    assert settings(loaded(kind), "x")[1]["pitch_controllable"] is truth


def test_the_spectral_family_follows_f0() -> None:
    model = LoadedModel(analytic(OPENVPI_44K), "analytic", "analytic", "")
    assert settings(model, "x")[1]["pitch_controllable"] is True


@pytest.mark.parametrize(("name", "identity"), [("My Voice_2.0", "my-voice-2.0"), ("melisma-44k", "melisma-44k")])
def test_package_ids(name: str, identity: str) -> None:
    assert package_id(name) == identity


def test_names_without_letters_are_refused() -> None:
    with pytest.raises(MelismaError, match="choose one of letters and digits"):
        package_id("声")


@pytest.mark.parametrize(
    ("kind", "said"),
    [("so-vits-svc", "a latent decoder"), ("spectral", "its rate is 16000 Hz")],
)
def test_what_openutau_cannot_use_is_refused(kind: str, said: str) -> None:
    with pytest.raises(MelismaError, match=said):
        check_suitable(loaded(kind))


def test_too_many_bins_are_refused() -> None:
    mel = dataclasses.replace(OPENVPI_44K, n_mels=256)
    config = dataclasses.replace(CONFIGS["openvpi"], mel=mel, in_channels=256)
    model = loaded("openvpi")
    model.generator.config, model.generator.mel = config, mel
    with pytest.raises(MelismaError, match="256 mel bins, OpenUtau allows 255"):
        check_suitable(model)


def changed(package: Path, **parts: Any) -> bytes:
    """The package with other files; None leaves a file out."""
    held = io.BytesIO()
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(held, "w") as new:
        for name in old.namelist():
            key = name.replace(".", "_")
            if parts.get(key, "") is not None:
                new.writestr(name, parts.get(key) or old.read(name))
    return held.getvalue()


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"oudep_yaml": None}, "no item named 'oudep.yaml'"),
        ({"model_onnx": None}, "no item named 'model.onnx'"),
        ({"vocoder_yaml": "sample_rate: fast"}, "lacks sample_rate, or it is no number"),
        ({"vocoder_yaml": "- 1"}, "holds no settings"),
        ({"vocoder_yaml": "a: ["}, "cannot be read as YAML"),
        ({"oudep_yaml": "version: '1'"}, "neither id nor name"),
    ],
)
def test_broken_packages_are_named(package: Path, parts: dict[str, Any], said: str) -> None:
    with pytest.raises(MelismaError, match=said):
        read_package(changed(package, **parts), "broken.oudep")


def test_a_file_that_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.oudep").write_bytes(b"nothing")
    with pytest.raises(MelismaError, match=r"x\.oudep: cannot be read as an \.oudep"):
        read_package(tmp_path / "x.oudep")
