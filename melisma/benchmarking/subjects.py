"""What is measured: every kind of generator at its usual size, with random weights where none are ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from melisma.config import lookup
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.inference.vocoder import Info, Vocoder, load
from melisma.interop import save_model
from melisma.layers.weight_norm import fold

_V1: dict[str, Any] = {"upsample_rates": (8, 8, 2, 2), "upsample_kernel_sizes": (16, 16, 4, 4)}

CONVOLUTIONAL: dict[str, NsfHifiganConfig] = {
    "nsf-hifigan": NsfHifiganConfig(44100, 128, framed_phase=True, unvoiced="interpolated"),
    "snake": NsfHifiganConfig(44100, 192, activation="snakebeta", padding="up", speaker_channels=768),
    "mini-nsf": NsfHifiganConfig(44100, 128, source="mini", unvoiced="interpolated"),
    "rvc-40k": NsfHifiganConfig(
        40000, 192, (10, 10, 2, 2), (16, 16, 4, 4), overtones=0, final_bias=False, speaker_channels=256, padding="up"
    ),
    "hifi-gan-v1": NsfHifiganConfig(22050, 80, source="none", **_V1),
    "bigvgan-base-24k": NsfHifiganConfig(
        24000, 100, source="none", activation="snakebeta", activation_before_upsampling=False, **_V1
    ),
}
TRAINED = ("melisma-44k", "melisma-44k-live")
SHIPPED = (*TRAINED, "analytic")
SUBJECTS: tuple[str, ...] = (*CONVOLUTIONAL, *SHIPPED)


def _random(config: NsfHifiganConfig) -> Vocoder:
    torch.manual_seed(0)
    generator = fold(NsfHifigan(config)).eval().requires_grad_(False)
    for part in generator.modules():
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
            # As loud inside as a trained model: the initial weights of training would fade to denormal numbers.
            nn.init.normal_(part.weight, std=0.7 * part.weight[0].numel() ** -0.5)
    return Vocoder(generator, Info("random", "nsf-hifigan"))


_BUILDERS: dict[str, Callable[[], Vocoder]] = {
    **{name: lambda config=config: _random(config) for name, config in CONVOLUTIONAL.items()},  # type: ignore[misc]
    **{name: lambda name=name: load(name, device="cpu", precision="float32") for name in SHIPPED},  # type: ignore[misc]
}


def subject(name: str) -> Vocoder:
    """The generator of that name on the CPU in float32, ready to sing; an unknown name is an error."""
    return lookup(_BUILDERS, name, "model to measure")()


def stored(name: str, folder: Path) -> str:
    """What ``melisma.load`` takes for the generator of that name: one that is not shipped is a file in the folder."""
    if name in SHIPPED:
        return name
    path = folder / f"{name}.safetensors"
    save_model(path, subject(name).generator, name=name)
    return str(path)


def material(vocoder: Vocoder, seconds: float, batch: int) -> dict[str, Any]:
    """Arguments of ``vocoder.synthesize``: made-up features of that length with a gliding, sometimes unvoiced F0."""
    frames = max(1, round(seconds * vocoder.sample_rate / vocoder.hop_length))
    drawing = np.random.default_rng(0)
    if vocoder.mel is None:
        bins = getattr(vocoder.generator.config, "in_channels", 0)
        features = drawing.standard_normal((batch, bins, frames))
    else:
        slope = np.linspace(-2.0, -7.0, vocoder.mel.n_mels)[:, None]
        features = slope + 0.5 * drawing.standard_normal((batch, vocoder.mel.n_mels, frames))
    time = np.arange(frames) / frames
    f0_hz = np.where((time * 10 % 5) < 4, 220.0 * 2.0 ** (time / 2), 0.0)
    given: dict[str, Any] = {"features": features.astype(np.float32)}
    if vocoder.uses_f0:
        given["f0_hz"] = np.tile(f0_hz.astype(np.float32), (batch, 1))
    channels = getattr(vocoder.generator.config, "speaker_channels", 0)
    if channels:
        given["speaker"] = np.zeros(channels, dtype=np.float32)
    return given


def check(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, all of them where none is given; an unknown one is an error."""
    for name in names:
        lookup(_BUILDERS, name, "model to measure")
    return names or SUBJECTS
