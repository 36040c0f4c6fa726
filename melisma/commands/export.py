"""``melisma export``: models for other programs."""

import dataclasses
import time
from pathlib import Path
from typing import Literal

from torch import Tensor

from melisma.audio.mel import OPENVPI_44K
from melisma.commands.show import progress_bar
from melisma.config import lookup
from melisma.errors import MelismaError
from melisma.export.check import TOLERANCE, DisagreementError, rounding
from melisma.export.diffsinger import write_checkpoint
from melisma.export.graph import OPENUTAU, PLAIN, ExportGraph, GraphOptions
from melisma.export.onnx_file import Exported, export_onnx, write
from melisma.export.openutau import SUFFIX, check_suitable, package_id, write_package
from melisma.export.precision import Precision
from melisma.export.trace import check_opset
from melisma.files import remove_temporary, temporary_beside
from melisma.inference.features import as_speaker
from melisma.inference.vocoder import ANALYTIC, model_path
from melisma.interop.checkpoint import load_checkpoint
from melisma.interop.loaded import LoadedModel

Target = Literal["onnx", "openutau", "diffsinger", "model"]


def run(
    target: Target,
    model: str,
    out: Path,
    precision: Precision,
    seed: int,
    noise_inputs: bool,
    speaker: str | None,
    projections: int | None,
    opset: int,
    name: str | None,
) -> None:
    """Export and say what came of it; see :func:`melisma.cli.export` for the arguments."""
    check_opset(opset)
    if target == "diffsinger":
        changed = precision != "float32" or noise_inputs or speaker is not None or projections is not None
        if changed or seed or name:
            raise MelismaError("a DiffSinger checkpoint has weights alone; leave out all options but -o")
        for path in write_checkpoint(_load(model), out):
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
        return
    if target == "model":
        if precision == "int8" or noise_inputs or speaker is not None or projections is not None or seed:
            raise MelismaError("a model file has weights alone; leave out all options but -o, --name and --precision")
        _publish(Path(model), out, name, precision == "float16")
        return
    suffix = ".onnx" if target == "onnx" else SUFFIX
    if out.suffix != suffix:
        raise MelismaError(f"{out}: name it with the suffix {suffix}")
    remove_temporary(temporary_beside(out))  # whether the folder can be written, before minutes of work
    loaded = _load(model)
    settled = _speaker(loaded, speaker)
    default = getattr(loaded.generator, "default_projections", None)
    if projections is not None and (default is None or projections < 0):
        raise MelismaError("--projections is a number from 0 on, of models with mel projections only")
    if target == "openutau":
        if projections is None and default is not None:
            projections = 0  # acoustic models predict smooth mels, which are not projected onto
        _export_package(loaded, out, GraphOptions(OPENUTAU, seed, settled, projections), precision, opset, name)
        return
    options = GraphOptions(PLAIN, None if noise_inputs else seed, settled, projections)
    exported = _export_agreeing(loaded, options, precision, opset)
    write(exported, out)
    print(f"{out}: {len(exported.content) / 1e6:.1f} MB, {precision}, opset {opset}")
    print(f"inputs: {', '.join(exported.inputs)}")
    _say_agreement(exported)


def _publish(run: Path, out: Path, name: str | None, half: bool) -> None:
    from melisma.training.publish import publish

    if out.suffix != ".safetensors":
        raise MelismaError(f"{out}: name it with the suffix .safetensors")
    published = publish(run, out, name, half)
    why = "the best of the run's validations" if published.best else "not chosen by validation"
    if published.best and published.step == 0:
        why = "the beginning: no validation was better"
    print(f"{out}: {published.name}, {out.stat().st_size / 1e6:.1f} MB, of {published.checkpoint.name} ({why})")


def _export_package(
    loaded: LoadedModel, out: Path, options: GraphOptions, precision: Precision, opset: int, name: str | None
) -> None:
    check_suitable(loaded)
    identity = package_id(name or loaded.name)
    if getattr(loaded.generator.config, "speaker_channels", 0) and options.speaker is None:
        raise MelismaError("OpenUtau feeds no speaker; settle one with --speaker")
    exported = _export(loaded, options, precision, opset)
    write_package(loaded, exported, out, identity)
    print(f"{out}: OpenUtau vocoder {identity}, {out.stat().st_size / 1e6:.1f} MB, {precision}")
    print(
        f"install it by dropping it on OpenUtau's window, then write 'vocoder: {identity}' in a singer's dsconfig.yaml"
    )
    _say_agreement(exported)


def _export(loaded: LoadedModel, options: GraphOptions, precision: Precision, opset: int) -> Exported:
    began = time.perf_counter()
    with progress_bar(f"export {loaded.name}") as report:
        exported = export_onnx(loaded, options, precision, opset, report)
    print(f"exported in {time.perf_counter() - began:.0f} s")
    return exported


def _export_agreeing(loaded: LoadedModel, options: GraphOptions, precision: Precision, opset: int) -> Exported:
    """With as many rounds of projection as were asked for; else the model's own, or as many of them as agree."""
    default = getattr(loaded.generator, "default_projections", 0)
    if options.projections is not None or not default:
        return _export(loaded, options, precision, opset)
    for rounds in range(default, 0, -1):
        fewer = f"trying {rounds - 1} of {default} rounds of projection"
        tried = dataclasses.replace(options, projections=rounds)
        apart = rounding(ExportGraph(loaded.generator, tried))
        if apart > TOLERANCE:  # nor will onnxruntime agree, which rounds in yet another
            told = f"audio moves by {apart:.1e} of its standard deviation when it is rounded in another order"
            print(f"with {rounds} {told}, {TOLERANCE:g} is allowed\n{fewer}")
            continue
        try:
            return _export(loaded, tried, precision, opset)
        except DisagreementError as error:
            print(f"with {rounds} {error}\n{fewer}, because every round amplifies what is rounded differently")
    return _export(loaded, dataclasses.replace(options, projections=0), precision, opset)


def _say_agreement(exported: Exported) -> None:
    print(f"onnxruntime agrees with torch within {exported.worst:.1e} of the output's standard deviation")
    if exported.loss is not None:
        print(
            f"loss against float32: {exported.loss.snr_db:.1f} dB signal to noise, log-mel {exported.loss.log_mel:.4f}"
        )


def _load(model: str) -> LoadedModel:
    if model == ANALYTIC:
        from melisma.generators.analytic import analytic

        return LoadedModel(analytic(OPENVPI_44K).eval(), ANALYTIC, ANALYTIC, "no file", licence="MIT")
    return load_checkpoint(model_path(model))


def _speaker(loaded: LoadedModel, speaker: str | None) -> Tensor | None:
    """A speaker's vector ``(1, channels, 1)`` by its number or name."""
    if speaker is None:
        return None
    row = int(speaker) if speaker.isdecimal() else lookup(loaded.speaker_names, speaker, "speaker")
    return as_speaker(row, loaded.generator, loaded.speakers, 1, 1)
