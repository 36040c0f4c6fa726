"""What is exported: a generator's forward between named inputs and one output.

The forward is the one that trains and sings. Around it stand only what a caller outside Python cannot do: the layout
that the caller has, the draws of a seed, and F0 carried through unvoiced frames where the model wants it so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from melisma.audio.f0_curve import NEUTRAL_HZ
from melisma.audio.stft import odd_split
from melisma.errors import MelismaError
from melisma.inference.features import feature_channels
from melisma.source import Randomness

LONGEST = 1 << 17  # frames
MOST = 64  # clips of a batch
_EXAMPLE = (2, 19)  # clips and frames to trace with; sizes of one would be taken for constants


@dataclass(frozen=True)
class Layout:
    """Names and axes of a graph's ends.

    Attributes:
        features: name of the log-mel or latent.
        f0: name of F0 in Hz.
        audio: name of the output.
        frames_first: features are ``(batch, frames, channels)`` instead of ``(batch, channels, frames)``.
        flat: the output is ``(batch, samples)`` instead of ``(batch, 1, samples)``.
        always_f0: F0 is an input even where the model has no use for it.
    """

    features: str = "features"
    f0: str = "f0_hz"
    audio: str = "audio"
    frames_first: bool = False
    flat: bool = False
    always_f0: bool = False


PLAIN = Layout()
OPENUTAU = Layout("mel", "f0", "waveform", frames_first=True, flat=True, always_f0=True)


@dataclass(frozen=True)
class GraphOptions:
    """What is settled in the graph and what its caller gives.

    Attributes:
        layout: names and axes.
        seed: of phase and noise, which are then made in the graph; ``None`` makes every draw an input.
        speaker: ``(1, speaker_channels, 1)`` settled in the graph; ``None`` makes it an input where the model has one.
        projections: rounds of mel projection of the spectral family; ``None`` is the model's default.
    """

    layout: Layout = PLAIN
    seed: int | None = 0
    speaker: Tensor | None = None
    projections: int | None = None


def filled_f0(f0_hz: Tensor) -> Tensor:
    """F0 carried through unvoiced frames, :func:`melisma.audio.f0_curve.interpolate_unvoiced` in operators that export.

    ``(batch, frames)`` in Hz -> the same without zeros; a curve that is unvoiced throughout gets a neutral pitch.
    """
    frames = f0_hz.shape[1]
    voiced = f0_hz > 0
    rank = voiced.long().cumsum(dim=1)
    position = torch.arange(frames, device=f0_hz.device).expand_as(rank)
    # Positions of the first, second, ... voiced frame; unvoiced ones go to a last slot that nobody reads.
    slots = torch.full((f0_hz.shape[0], frames + 2), -1, dtype=torch.int64, device=f0_hz.device)
    slots = slots.scatter(1, torch.where(voiced, rank, frames + 1), position)
    slots = torch.cat([slots[:, :-1], torch.full_like(slots[:, :1], -1)], dim=1)
    before, after = slots.gather(1, rank), slots.gather(1, rank + 1)
    after = torch.where(voiced, position, after)
    left, right = torch.where(before < 0, after, before), torch.where(after < 0, before, after)
    logs = torch.where(voiced, f0_hz, torch.full_like(f0_hz, NEUTRAL_HZ)).double().log()
    share = (position - left).double() / (right - left).clamp(min=1).double()
    low, high = logs.gather(1, left.clamp(min=0)), logs.gather(1, right.clamp(min=0))
    line = torch.exp(low + (high - low) * share).to(f0_hz.dtype)
    return torch.where(voiced, f0_hz, line)


class ExportGraph(nn.Module):
    """A generator between the inputs and the output of a graph.

    Args:
        generator: with weight norm folded.
        options: what is settled.

    Attributes:
        names: the inputs in their order.
    """

    def __init__(self, generator: Any, options: GraphOptions) -> None:
        super().__init__()
        self.generator = generator
        self.options = options
        self.uses_f0 = getattr(generator, "f0_contract", None) not in (None, "none")
        self.draws = self._draws() if options.seed is None else {}
        layout = options.layout
        self.names = [layout.features]
        self.names += [layout.f0] if self.uses_f0 or layout.always_f0 else []
        channels = getattr(generator.config, "speaker_channels", 0)
        if options.speaker is not None and not channels:
            raise MelismaError("this model has no speakers; leave the speaker out")
        self.names += ["speaker"] if channels and options.speaker is None else []
        self.names += list(self.draws)
        if options.speaker is not None:
            self.register_buffer("speaker", options.speaker.float())

    def _draws(self) -> dict[str, list[tuple[str, int]]]:
        """Name -> axes of every draw: ``batch``, ``frames`` times a number, or fixed."""
        given = [self._randomness(torch.zeros(batch, frames), 0) for batch, frames in ((2, 5), (3, 7))]
        axes = {}
        for field in fields(Randomness):
            one, other = (getattr(drawn, field.name) for drawn in given)
            if one is not None:
                axes[field.name] = [_axis(*sizes) for sizes in zip(one.shape, other.shape, strict=True)]
        return axes

    def _randomness(self, f0_hz: Tensor, seed: int) -> Randomness:
        return self.generator.randomness(f0_hz, seed, 0, f0_hz.shape[1])

    def forward(self, *values: Tensor) -> Tensor:
        """Values of the inputs in the order of :attr:`names` -> audio."""
        given = dict(zip(self.names, values, strict=True))
        layout = self.options.layout
        features = given[layout.features]
        if layout.frames_first:
            features = features.transpose(1, 2)
        batch, frames = features.shape[0], features.shape[2]
        f0_hz = given[layout.f0] if self.uses_f0 else features.new_zeros(batch, frames)
        if self.uses_f0 and self.generator.f0_contract == "interpolated":
            f0_hz = filled_f0(f0_hz)
        if self.options.seed is None:
            randomness = Randomness(**{name: given[name] for name in self.draws})
        else:
            randomness = self._randomness(f0_hz, self.options.seed)
        more = {} if self.options.projections is None else {"projections": self.options.projections}
        speaker = given.get("speaker")
        if self.options.speaker is not None:
            speaker = self.speaker.expand(batch, -1, -1)  # type: ignore[operator]
        audio: Tensor = self.generator(features, f0_hz if self.uses_f0 else None, speaker, randomness, **more)
        return audio.squeeze(1) if layout.flat else audio

    def inputs(self, features: Tensor, f0_hz: Tensor, speaker: Tensor | None, seed: int) -> tuple[Tensor, ...]:
        """Values for the inputs from what a generator takes: ``(batch, channels, frames)`` and so on."""
        layout = self.options.layout
        values = {layout.features: features.transpose(1, 2).contiguous() if layout.frames_first else features}
        values[layout.f0] = f0_hz
        if speaker is not None:
            values["speaker"] = speaker
        if self.draws:
            filled = filled_f0(f0_hz) if getattr(self.generator, "f0_contract", None) == "interpolated" else f0_hz
            drawn = self._randomness(filled, seed)
            values |= {name: getattr(drawn, name).contiguous() for name in self.draws}
        return tuple(values[name] for name in self.names)

    def example(self) -> tuple[Tensor, ...]:
        """Inputs to trace with."""
        batch, frames = _EXAMPLE
        channels = channels_of(self.generator)
        drawing = torch.Generator().manual_seed(0)
        f0_hz = torch.full((batch, frames), 200.0)
        f0_hz[:, 5:8] = 0.0
        width = getattr(self.generator.config, "speaker_channels", 0)
        speaker = torch.zeros(batch, width, 1) if "speaker" in self.names else None
        features = torch.randn(batch, channels, frames, generator=drawing) * 0.3 - 2.0
        return self.inputs(features, f0_hz, speaker, 0)

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """Which axes of which input may have any size, for ``torch.export``."""
        batch = torch.export.Dim("batch", min=1, max=MOST)
        frames = torch.export.Dim("frames", min=shortest(self.generator, self.options.projections), max=LONGEST)
        known = {"batch": batch, "frames": frames}
        layout = self.options.layout
        shapes: dict[str, Mapping[int, Any]] = {
            layout.features: {0: batch, (1 if layout.frames_first else 2): frames},
            layout.f0: {0: batch, 1: frames},
            "speaker": {0: batch},
        }
        for name, axes in self.draws.items():
            sizes = [(axis, known[what] * factor) for axis, (what, factor) in enumerate(axes) if what in known]
            shapes[name] = {axis: known[axes[axis][0]] if axes[axis][1] == 1 else size for axis, size in sizes}
        return tuple(dict(shapes[name]) for name in self.names)


def channels_of(generator: Any) -> int:
    """Channels of the features that a generator takes."""
    channels = feature_channels(generator)
    assert channels is not None, "every generator has a mel contract or in_channels"
    return channels


def _axis(size: int, other: int) -> tuple[str, int]:
    if size == other:
        return "fixed", size
    if (size, other) == (2, 3):
        return "batch", 1
    return "frames", size // 5


def shortest(generator: Any, projections: int | None) -> int:
    """Frames that a graph needs at least: a reflected border must be shorter than the clip."""
    default = getattr(generator, "default_projections", 0)
    if not (default if projections is None else projections) or generator.mel.pad_mode != "reflect":
        return 1
    mel = generator.mel
    return max(odd_split(mel.n_fft - mel.hop_length)) // mel.hop_length + 1
