"""``melisma export`` as it is typed."""

import os
from pathlib import Path

import pytest
from kinds import exported, loaded

from melisma import load
from melisma.cli import main
from melisma.commands import export as command
from melisma.export.check import DisagreementError
from melisma.export.graph import GraphOptions
from melisma.export.onnx_file import Exported, write
from melisma.interop import save_checkpoint
from melisma.interop.loaded import LoadedModel


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(loaded("so-vits-svc"), path)
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["export", *map(str, arguments)]) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line


def test_a_graph_is_written_and_described(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "v.onnx"
    arguments = [str(checkpoint), "-o", str(out), "--precision", "int8", "--seed", "5", "--speaker", "anna"]
    assert main(["export", "onnx", *arguments]) == 0
    said = capsys.readouterr().out
    for words in ("inputs: features, f0_hz", "agrees with torch within", "dB signal to noise"):
        assert words in said
    assert main(["info", str(out)]) == 0
    said = capsys.readouterr().out
    for words in ("int8, opset 18", "seed 5", "dB SNR", "features [batch, 6, frames], f0_hz [batch, frames] -> audio"):
        assert words in said
    assert [path.name for path in tmp_path.iterdir()] == ["v.onnx"]


def test_where_onnxruntime_disagrees_fewer_rounds_are_taken_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def disagreeing(model: LoadedModel, options: GraphOptions, *rest: object) -> Exported:
        tried.append(options.projections)
        if options.projections:
            raise DisagreementError("the graph differs from torch")
        return Exported(b"graph", ("features", "f0_hz"), 1e-6, None)

    monkeypatch.setattr(command, "export_onnx", disagreeing)
    monkeypatch.setattr(command, "rounding", lambda graph: 0.0)
    out = tmp_path / "v.onnx"
    assert "differs from torch" in fails(capsys, "onnx", "melisma-44k", "-o", out, "--projections", 2)
    assert not out.exists()
    tried.clear()
    assert main(["export", "onnx", "melisma-44k", "-o", str(out)]) == 0
    own = load("melisma-44k").generator.default_projections
    assert tried == list(range(own, -1, -1))
    assert f"trying {own - 1} of {own} rounds of projection" in capsys.readouterr().out
    assert out.read_bytes() == b"graph"
    # What would not agree is not traced: that takes minutes.
    tried.clear()
    monkeypatch.setattr(command, "rounding", lambda graph: 1e-5 if graph.options.projections == 1 else 2e-4)
    assert main(["export", "onnx", "melisma-44k", "-o", str(tmp_path / "w.onnx")]) == 0
    assert tried == [1, 0]
    assert f"with {own} audio moves by 2.0e-04" in capsys.readouterr().out


def test_a_checkpoint_in_openvpis_layout(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.safetensors"
    save_checkpoint(loaded("openvpi"), checkpoint)
    assert main(["export", "diffsinger", str(checkpoint), "-o", str(tmp_path / "again")]) == 0
    assert main(["info", str(tmp_path / "again" / "model.ckpt")]) == 0


def test_wrong_use_is_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "v.onnx"
    assert "opset 12 is not supported" in fails(capsys, "onnx", checkpoint, "-o", out, "--opset", 12)
    assert "name it with the suffix .onnx" in fails(capsys, "onnx", checkpoint, "-o", tmp_path / "v.bin")
    assert "name it with the suffix .oudep" in fails(capsys, "openutau", checkpoint, "-o", out)
    assert "does not exist" in fails(capsys, "onnx", checkpoint, "-o", tmp_path / "no" / "v.onnx")
    assert "no such model" in fails(capsys, "onnx", "nothing.pth", "-o", out)
    assert "of models with mel projections only" in fails(capsys, "onnx", checkpoint, "-o", out, "--projections", 2)
    assert "unknown speaker 'eva'" in fails(capsys, "onnx", checkpoint, "-o", out, "--speaker", "eva")
    assert "leave out all options" in fails(capsys, "diffsinger", checkpoint, "-o", tmp_path, "--precision", "int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_write_permission_is_told_before_the_work(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    assert "cannot write in" in fails(capsys, "onnx", checkpoint, "-o", tmp_path / "v.onnx")


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "v.onnx"
    out.write_bytes(b"earlier")

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Exception, match=r"v\.onnx: could not be written"):
        write(exported("hifi-gan"), out)
    assert out.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["v.onnx"]
