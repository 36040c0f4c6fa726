"""``melisma export openutau``: a vocoder package for OpenUtau's DiffSinger renderer, written and read.

An ``.oudep`` is a zip with ``oudep.yaml`` (what it is), ``vocoder.yaml`` (which mel it wants) and the graph. OpenUtau
unpacks it to ``Dependencies/<id>/``, loads the graph from memory, and feeds ``mel`` ``[1, frames, bins]`` and ``f0``
``[1, frames]`` in Hz, nothing else; it takes the first output, ``[1, samples]``, for 44.1 kHz.
"""

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from melisma.audio.mel import MelContract
from melisma.errors import MelismaError
from melisma.export.diffsinger import NOTICE, notice
from melisma.export.graph import OPENUTAU
from melisma.export.onnx_file import Exported, open_session
from melisma.export.reader import OnnxModel
from melisma.files import replace_on_success
from melisma.interop.loaded import LoadedModel

SUFFIX = ".oudep"
PACKAGE, VOCODER, MODEL = "oudep.yaml", "vocoder.yaml", "model.onnx"
_RATE = 44100  # OpenUtau takes every vocoder's output for this
_MOST_BINS = 255  # OpenUtau refuses more
_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LARGEST_TEXT = 1 << 20  # bytes of a settings file in a package that are read at most


def check_suitable(loaded: LoadedModel) -> MelContract:
    """The mel contract of a model that OpenUtau can use.

    Raises:
        MelismaError: what of the model OpenUtau cannot be told or does not support.
    """
    mel = loaded.mel
    if mel is None:
        raise MelismaError("a latent decoder cannot be a DiffSinger vocoder; choose a model that takes a mel")
    problems = []
    if mel.sample_rate != _RATE:
        problems.append(f"its rate is {mel.sample_rate} Hz, OpenUtau takes every output for {_RATE} Hz")
    if mel.n_mels > _MOST_BINS:
        problems.append(f"it has {mel.n_mels} mel bins, OpenUtau allows {_MOST_BINS}")
    if mel.norm != "slaney" or mel.power != 1.0:
        problems.append(f"its mel (norm {mel.norm}, power {mel.power:g}) cannot be written in vocoder.yaml")
    if mel.padding == "centre":
        problems.append("its frames lie on samples (padding centre), DiffSinger's between them")
    if problems:
        raise MelismaError(f"no OpenUtau package of {loaded.name}: {'; '.join(problems)}")
    return mel


def package_id(name: str) -> str:
    """A name as OpenUtau allows it: lowercase letters, digits, ``-`` and ``.``."""
    word = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
    if not _ID.fullmatch(word):
        raise MelismaError(f"{name!r} gives no package name; choose one of letters and digits with --name")
    return word


def settings(loaded: LoadedModel, identity: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What goes into ``oudep.yaml`` and ``vocoder.yaml``."""
    mel = check_suitable(loaded)
    about = [f"vocoder {loaded.name} ({loaded.kind})", f"licence: {loaded.licence or 'not stated'}"]
    package = {
        "id": identity,
        "name": identity,  # what OpenUtau read before packages had ids
        "version": loaded.version or "1.0",
        "description": "; ".join(about),
        "class": "Vocoder",
    }
    vocoder = {
        "name": identity,
        "model": MODEL,
        "sample_rate": mel.sample_rate,
        "hop_size": mel.hop_length,
        "win_size": mel.win_length,
        "fft_size": mel.n_fft,
        "num_mel_bins": mel.n_mels,
        "mel_fmin": float(mel.fmin),
        "mel_fmax": float(mel.highest_hz),
        "mel_base": mel.log_base,
        "mel_scale": mel.scale,
        "pitch_controllable": bool(getattr(loaded.generator, "pitch_controllable", False)),
    }
    return package, vocoder


def write_package(loaded: LoadedModel, exported: Exported, path: Path, identity: str) -> None:
    """Write a package that appears whole or not at all, and only if our reader and a renderer's run accept it.

    Args:
        loaded: the model.
        exported: its graph with the layout :data:`melisma.export.graph.OPENUTAU`.
        path: the ``.oudep`` file.
        identity: see :func:`package_id`.
    """
    package, vocoder = settings(loaded, identity)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in ((PACKAGE, package), (VOCODER, vocoder)):
            archive.writestr(name, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        archive.writestr(MODEL, exported.content)
        if text := notice(loaded):
            archive.writestr(NOTICE, text + "\n")
    content = held.getvalue()
    render_as_openutau(read_package(content, str(path)))
    with replace_on_success(path) as temporary:
        temporary.write_bytes(content)


@dataclass(frozen=True)
class Package:
    """An ``.oudep``, read.

    Attributes:
        what: names it in errors.
        package: ``oudep.yaml``.
        vocoder: ``vocoder.yaml``.
        content: bytes of the graph.
    """

    what: str
    package: dict[str, Any]
    vocoder: dict[str, Any]
    content: bytes


def read_package(source: Path | bytes, what: str = "") -> Package:
    """Read a package from a file or from memory.

    Raises:
        MelismaError: no zip, a missing or damaged part, or settings that OpenUtau would refuse or misread.
    """
    what = what or str(source)
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            package, vocoder = (_mapping(archive, name, what) for name in (PACKAGE, VOCODER))
            model = str(vocoder.get("model", MODEL))
            content = archive.read(model)
    except KeyError as error:
        raise MelismaError(f"{what}: {error.args[0]!s}; it is no whole vocoder package") from error
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise MelismaError(f"{what}: cannot be read as an .oudep (a zip): {error}") from error
    for name, kind in (("sample_rate", int), ("hop_size", int), ("num_mel_bins", int), ("mel_fmin", (int, float))):
        if not isinstance(vocoder.get(name), kind):
            raise MelismaError(f"{what}: {VOCODER} lacks {name}, or it is no number")
    if not package.get("id") and not package.get("name"):
        raise MelismaError(f"{what}: {PACKAGE} has neither id nor name; OpenUtau cannot install it")
    return Package(what, package, vocoder, content)


def _mapping(archive: zipfile.ZipFile, name: str, what: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > _LARGEST_TEXT:
        raise MelismaError(f"{what}: {name} is no settings file, it is too large")
    try:
        values = yaml.safe_load(archive.read(name).decode("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MelismaError(f"{what}: {name} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise MelismaError(f"{what}: {name} holds no settings")
    return values


def render_as_openutau(package: Package, frames: int = 64) -> np.ndarray:
    """Run a package's graph as OpenUtau's renderer does and check what comes out.

    The graph is loaded from memory; ``mel`` and ``f0`` are fed, nothing else; F0 is 0 in some frames and in all.

    Returns:
        ``(samples,)`` of the last run.

    Raises:
        MelismaError: the graph wants another input, or gives another shape, NaN, or values beyond full scale by far.
    """
    session = open_session(package.content)
    bins, hop = package.vocoder["num_mel_bins"], package.vocoder["hop_size"]
    names = [value.name for value in session.get_inputs()]
    if sorted(names) != sorted([OPENUTAU.features, OPENUTAU.f0]):
        raise MelismaError(f"{package.what}: OpenUtau feeds mel and f0; the graph wants {', '.join(names)}")
    scale = 1.0 if package.vocoder.get("mel_base", "10") == "e" else 1.0 / np.log(10.0)
    tilt = np.linspace(-2.0, -7.0, bins) * scale
    mel = np.broadcast_to(tilt, (1, frames, bins)).astype(np.float32)
    part = np.where(np.arange(frames) % 24 < 16, 330.0, 0.0)
    for curve in (part, np.zeros(frames)):
        try:
            (audio, *_) = session.run(None, {OPENUTAU.features: mel, OPENUTAU.f0: curve[None].astype(np.float32)})
        except Exception as error:  # onnxruntime raises many kinds
            raise MelismaError(f"{package.what}: {str(error).splitlines()[0][:200]}") from error
        if audio.shape != (1, frames * hop) or audio.dtype != np.float32:
            raise MelismaError(
                f"{package.what}: the graph gives {audio.dtype} {audio.shape}; "
                f"OpenUtau needs float32 {(1, frames * hop)}"
            )
        if not np.isfinite(audio).all():
            raise MelismaError(f"{package.what}: the graph gives NaN or Inf")
    flat: np.ndarray = audio[0]
    return flat


def describe_package(package: Package) -> dict[str, str]:
    """Label and value of what a package says about itself, in order; a graph of ours adds its own lines."""
    from melisma.export.reader import describe_graph

    about, vocoder = package.package, package.vocoder
    base = vocoder.get("mel_base", "10")
    lines = {
        "package": f"OpenUtau vocoder {about.get('id') or about.get('name')} {about.get('version', '')}".rstrip(),
        "about": str(about.get("description", "")),
        "vocoder.yaml": (
            f"{vocoder['sample_rate']} Hz, hop {vocoder['hop_size']}, {vocoder['num_mel_bins']} bins, "
            f"{vocoder['mel_fmin']:g} to {vocoder.get('mel_fmax', 0):g} Hz, "
            f"{'natural log' if base == 'e' else 'log10'}, {vocoder.get('mel_scale', 'slaney')} scale"
        ),
        "pitch": "controllable: F0 may differ from the mel's pitch"
        if vocoder.get("pitch_controllable")
        else "F0 must be the mel's pitch",
    }
    try:
        own = describe_graph(OnnxModel(package.content, package.what))
    except MelismaError as error:
        return {**lines, "graph": str(error).removeprefix(f"{package.what}: ")}
    return lines | own
