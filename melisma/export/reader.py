"""Reading and running the graphs that melisma exports, and saying what they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from melisma.errors import MelismaError
from melisma.export.graph import Layout
from melisma.export.onnx_file import open_session
from melisma.interop.describe import F0_IN_WORDS, mel_in_words
from melisma.interop.own import KEY


class OnnxModel:
    """An exported graph that is ready to sing.

    Args:
        content: the file's bytes.
        what: names it in errors.
        threads: of onnxruntime; 0 leaves the choice to it.

    Attributes:
        facts: its metadata: the header of our model files, and ``graph``.
    """

    def __init__(self, content: bytes, what: str, threads: int = 0) -> None:
        self.what = what
        try:
            self.session = open_session(content, threads)
        except MelismaError as error:
            raise MelismaError(f"{what}: {error}; is it a whole ONNX file?") from error
        stated = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        if stated is None:
            raise MelismaError(f"{what}: an ONNX file that melisma did not export; it says nothing about its inputs")
        try:
            self.facts: dict[str, Any] = json.loads(stated)
            self.graph: dict[str, Any] = self.facts["graph"]
            self.layout = Layout(**self.graph["layout"])
        except (ValueError, KeyError, TypeError) as error:
            raise MelismaError(f"{what}: its metadata is damaged ({error}); export it again") from error

    @classmethod
    def open(cls, path: str | Path, threads: int = 0) -> "OnnxModel":
        """Read a file."""
        path = Path(path)
        if not path.is_file():
            raise MelismaError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; name an .onnx file")
        return cls(path.read_bytes(), str(path), threads)

    def run(self, features: np.ndarray, f0_hz: np.ndarray | None = None, **more: np.ndarray) -> np.ndarray:
        """Sing.

        Args:
            features: ``(batch, channels, frames)``, whatever the graph's own layout is.
            f0_hz: ``(batch, frames)``, Hz, 0 where unvoiced; ``None`` for models without F0.
            more: ``speaker`` and draws, where the graph has them as inputs.

        Returns:
            float32 ``(batch, samples)``.

        Raises:
            MelismaError: an input is missing or not known, lengths differ, or are outside the exported range.
        """
        if features.ndim != 3:
            raise MelismaError(f"features must be (batch, channels, frames), not {features.shape}")
        self._check_lengths(features, f0_hz)
        given: dict[str, Any] = dict(more)
        given[self.layout.features] = features.transpose(0, 2, 1) if self.layout.frames_first else features
        if f0_hz is not None:
            given[self.layout.f0] = f0_hz
        elif self.layout.always_f0:
            given[self.layout.f0] = np.zeros((features.shape[0], features.shape[2]))
        feeds = {}
        for wanted in self.session.get_inputs():
            if wanted.name not in given:
                raise MelismaError(f"{self.what}: the input {wanted.name!r} {wanted.shape} is missing")
            kind = np.float64 if wanted.type == "tensor(double)" else np.float32
            feeds[wanted.name] = np.ascontiguousarray(given.pop(wanted.name), dtype=kind)
        if given:
            raise MelismaError(f"{self.what}: has no input {', '.join(given)}; it has {', '.join(feeds)}")
        try:
            audio: np.ndarray = self.session.run(None, feeds)[0]
        except Exception as error:  # onnxruntime raises many kinds
            raise MelismaError(f"{self.what}: {str(error).splitlines()[0][:200]}") from error
        return audio.reshape(len(audio), -1)

    def _check_lengths(self, features: np.ndarray, f0_hz: np.ndarray | None) -> None:
        frames, (low, high) = features.shape[2], self.graph["frames"]
        if not low <= frames <= high:
            raise MelismaError(
                f"{self.what}: {frames} frames are outside the exported range of {low} to {high}; "
                f"{'repeat the last frame' if frames < low else 'sing it in pieces'}"
            )
        if f0_hz is not None and f0_hz.shape != (features.shape[0], frames):
            raise MelismaError(
                f"{self.what}: F0 {f0_hz.shape} must be (batch, frames) of the features, "
                f"{(features.shape[0], frames)}; estimate it at the same hop"
            )


def describe_graph(model: OnnxModel) -> dict[str, str]:
    """Label and value of everything worth showing about a graph, in order."""
    from melisma.audio.mel import MelContract
    from melisma.config import from_mapping

    facts, graph = model.facts, model.graph
    mel = None if facts["mel"] is None else from_mapping(MelContract, facts["mel"], f"{model.what}: mel")
    f0 = F0_IN_WORDS[facts["f0"]["contract"]].replace("melisma converts", "the graph does that")
    if facts["f0"]["range_hz"]:
        f0 += f"; trained on {facts['f0']['range_hz'][0]:.0f} to {facts['f0']['range_hz'][1]:.0f} Hz"
    shapes = [f"{value.name} {_shape(value)}" for value in ends(model)]
    lines = {
        "kind": f"ONNX graph of melisma/{facts['generator']}, {graph['precision']}, opset {graph['opset']}",
        "name": " ".join(part for part in (facts["name"], facts["version"]) if part),
        "file": "onnx: a graph of operators, no code",
        "audio": f"{graph['sample_rate']} Hz, {graph['hop_length']} samples a frame",
        "input": mel_in_words(mel, facts["config"].get("in_channels")),
        "f0": f0,
        "graph": f"{', '.join(shapes[:-1])} -> {shapes[-1]}; {graph['frames'][0]} to {graph['frames'][1]} frames",
        "noise": "inputs" if graph["seed"] is None else f"made in the graph from seed {graph['seed']}",
        "agreement": f"within {graph['agreement']['worst']:.1e} of torch (standard deviations of the output)",
    }
    if graph["loss"]:
        lines["loss"] = f"{graph['loss']['snr_db']:.1f} dB SNR, log-mel {graph['loss']['log_mel']:.4f} against float32"
    lines["licence"] = facts["licence"] or "not stated in the file; ask whoever made it"
    lines["trained on"] = facts["provenance"] or "not stated in the file"
    return lines


def ends(model: OnnxModel) -> list[Any]:
    """Inputs and, last, the output of a graph."""
    return [*model.session.get_inputs(), *model.session.get_outputs()]


def _shape(value: Any) -> str:
    return "[" + ", ".join(str(axis) for axis in value.shape) + "]"
