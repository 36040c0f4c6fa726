"""Whether a graph in onnxruntime sings what the generator sings in torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melisma.audio.f0_curve import NEUTRAL_HZ, interpolate_unvoiced
from melisma.audio.mel import log_mel
from melisma.errors import MelismaError
from melisma.export.graph import ExportGraph, channels_of, shortest
from melisma.generators.analytic import analytic
from melisma.kernels.choice import plain
from melisma.source import Randomness

TOLERANCE = 1e-4  # of the output's standard deviation
_LENGTHS = (7, 24, 61, 150)  # frames, beside the shortest that is allowed
_BATCH_FRAMES = 31
_SILENT = 1e-6  # an output below this has no standard deviation to speak of
_DRAWN_SEED = 7  # for graphs whose draws are inputs


@dataclass(frozen=True)
class Case:
    """One thing to sing.

    Attributes:
        name: for errors.
        features: ``(batch, channels, frames)``.
        f0_hz: ``(batch, frames)``, 0 where unvoiced.
        speaker: ``(batch, speaker_channels, 1)`` for graphs that have it as an input.
    """

    name: str
    features: Tensor
    f0_hz: Tensor
    speaker: Tensor | None


def cases(graph: ExportGraph) -> Iterator[Case]:
    """Five lengths, each voiced, with an unvoiced gap and with F0 = 0 throughout; then two different clips at once."""
    for frames in (shortest(graph.generator, graph.options.projections), *_LENGTHS):
        for voicing in ("voiced", "unvoiced in the middle", "f0 = 0") if graph.uses_f0 else ("no f0",):
            yield _case(graph, f"{frames} frames, {voicing}", frames, [voicing])
    yield _case(graph, f"a batch of 2, {_BATCH_FRAMES} frames", _BATCH_FRAMES, ["unvoiced in the middle", "voiced"])


def _case(graph: ExportGraph, name: str, frames: int, voicings: list[str]) -> Case:
    curves = [_curve(frames, voicing, row) for row, voicing in enumerate(voicings)]
    features = [_features(graph.generator, frames, row, curve) for row, curve in enumerate(curves)]
    speaker = None
    if "speaker" in graph.names:
        width, drawing = graph.generator.config.speaker_channels, torch.Generator().manual_seed(3)
        speaker = torch.randn(len(voicings), width, 1, generator=drawing)
    return Case(name, torch.stack(features), torch.stack(curves), speaker)


def _features(generator: Any, frames: int, row: int, f0_hz: Tensor) -> Tensor:
    """A latent of noise, or the mel of a made voice: harmonics of ``f0_hz``, falling towards the top, swelling."""
    rng = np.random.default_rng(frames + row)
    channels, mel = channels_of(generator), generator.mel
    noise = rng.standard_normal((channels, frames))
    if mel is None:
        return torch.tensor(noise, dtype=torch.float32)
    tilt = np.linspace(-1.0, -6.0, channels)[:, None]
    swell = np.sin(np.arange(frames) / 11.0 + row)
    values = (tilt + swell + 0.3 * noise) / (1.0 if mel.log_base == "e" else np.log(10.0))
    envelope = torch.tensor(values, dtype=torch.float32)
    if mel.padding == "centre" or mel.n_fft % mel.hop_length:
        return envelope
    voice = analytic(mel)
    with torch.inference_mode():
        audio = voice(
            envelope[None], f0_hz[None], randomness=voice.randomness(f0_hz[None], row, 0, frames), projections=0
        )
        return log_mel(audio[:, 0], mel)[0]


def _curve(frames: int, voicing: str, row: int) -> Tensor:
    if voicing in ("f0 = 0", "no f0"):
        return torch.zeros(frames)
    curve = 220.0 * 2.0 ** (0.4 * np.sin(np.arange(frames) / 13.0 + row))
    if voicing != "voiced":
        curve[frames // 3 : frames // 3 + max(1, frames // 4)] = 0.0
    return torch.tensor(curve, dtype=torch.float32)


def reference(graph: ExportGraph, case: Case, by_kernels: bool = False) -> np.ndarray:
    """What the generator itself sings, in torch, with F0 prepared as :class:`melisma.Vocoder` does.

    On the plain path, which is what a graph is traced from: kernels round in another order.
    """
    generator, options = graph.generator, graph.options
    curve = case.f0_hz.numpy()
    if getattr(generator, "f0_contract", None) == "interpolated":
        silent = ~(curve > 0).any(axis=-1, keepdims=True)
        curve = interpolate_unvoiced(np.where(silent, np.float32(NEUTRAL_HZ), curve))
    f0_hz = torch.tensor(curve)
    seed = _DRAWN_SEED if options.seed is None else options.seed
    drawn: Randomness = generator.randomness(f0_hz, seed, 0, f0_hz.shape[1])
    speaker = case.speaker
    if options.speaker is not None:
        speaker = options.speaker.expand(f0_hz.shape[0], -1, -1)
    more = {} if options.projections is None else {"projections": options.projections}
    with torch.inference_mode(), plain(not by_kernels):
        audio = generator(case.features, f0_hz if graph.uses_f0 else None, speaker, drawn, **more)
    flat: np.ndarray = (audio.squeeze(1) if options.layout.flat else audio).numpy()
    return flat


def sung(session: Any, graph: ExportGraph, case: Case) -> np.ndarray:
    """What a session of onnxruntime makes of a case."""
    values = graph.inputs(case.features, case.f0_hz, case.speaker, _DRAWN_SEED)
    feeds = {name: value.numpy() for name, value in zip(graph.names, values, strict=True)}
    audio: np.ndarray = session.run(None, feeds)[0]
    return audio


class DisagreementError(MelismaError):
    """onnxruntime sings something else than torch; with fewer rounds of projection it may not."""


def difference(audio: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference as a share of the wanted output's standard deviation."""
    return float(np.abs(audio - wanted).max() / max(float(wanted.std()), _SILENT))


def check(session: Any, graph: ExportGraph, report: Callable[[float], None] = lambda done: None) -> float:
    """Sing every case in both and compare.

    Args:
        session: of onnxruntime, with the graph's model.
        graph: what was exported.
        report: called with the share done.

    Returns:
        The largest difference, in standard deviations of the output.

    Raises:
        DisagreementError: the difference is above :data:`TOLERANCE`; the case is named.
        MelismaError: onnxruntime cannot run a case.
    """
    everything = list(cases(graph))
    worst = 0.0
    for number, case in enumerate(everything):
        try:
            audio = sung(session, graph, case)
        except Exception as error:  # onnxruntime raises many kinds
            raise MelismaError(f"onnxruntime cannot run the graph at {case.name}: {_first_line(error)}") from error
        wanted = reference(graph, case)
        if audio.shape != wanted.shape:
            raise MelismaError(f"the graph gives {audio.shape} where torch gives {wanted.shape}, at {case.name}")
        apart = difference(audio, wanted)
        if not apart <= TOLERANCE:
            cure = "; with fewer --projections it is less" if _projects(graph) else ""
            raise DisagreementError(
                f"the graph differs from torch by {apart:.1e} of the output's standard deviation at {case.name}; "
                f"{TOLERANCE:g} is allowed, so nothing was written{cure}"
            )
        worst = max(worst, apart)
        report((number + 1) / len(everything))
    return worst


def rounding(graph: ExportGraph) -> float:
    """How far audio moves that is rounded in another order: the plain path against the kernels, over the cases.

    It takes seconds, where to trace a graph that onnxruntime will not agree with takes minutes. Nothing more is sung
    once it is above :data:`TOLERANCE`; 0 where there are no kernels.

    Returns:
        The largest difference, in standard deviations of the output.
    """
    worst = 0.0
    for case in cases(graph):
        worst = max(worst, difference(reference(graph, case, by_kernels=True), reference(graph, case)))
        if worst > TOLERANCE:
            break
    return worst


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _projects(graph: ExportGraph) -> bool:
    rounds = graph.options.projections
    return bool(getattr(graph.generator, "default_projections", 0) if rounds is None else rounds)
