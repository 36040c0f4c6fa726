"""so-vits-svc's posterior encoder: the latent that its decoder was trained on, from audio alone.

To train the decoder on needs the latent of recordings, and the encoder that makes it stands in the same ``G_*.pth``
(VITS, Kim et al. 2021: a WaveNet without causality on a linear spectrogram, then mean and deviation of the latent).
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from melisma.audio.stft import pad_signal, spectra
from melisma.errors import MelismaError
from melisma.interop.pickles import read_pickle
from melisma.interop.settings import Settings
from melisma.interop.state import load_foreign, strip_prefix

PREFIX = "enc_q."
KERNEL, LAYERS = 5, 16  # the reference has no setting for them
EPSILON = 1e-6  # of the spectrogram, under the root


class GatedLayers(nn.Module):
    """WaveNet layers with a speaker: tanh times sigmoid, a part to the next layer, a part to the sum."""

    def __init__(self, channels: int, speaker_channels: int, layers: int = LAYERS) -> None:
        super().__init__()
        self.channels = channels
        if speaker_channels:
            self.cond_layer = nn.Conv1d(speaker_channels, 2 * channels * layers, 1)
        self.in_layers = nn.ModuleList(
            nn.Conv1d(channels, 2 * channels, KERNEL, padding=KERNEL // 2) for _ in range(layers)
        )
        self.res_skip_layers = nn.ModuleList(
            nn.Conv1d(channels, channels if number + 1 == layers else 2 * channels, 1) for number in range(layers)
        )

    def forward(self, x: Tensor, speaker: Tensor | None) -> Tensor:
        """``(batch, channels, frames)``, speaker ``(batch, speaker_channels, 1)`` -> as ``x``."""
        layers = len(self.in_layers)
        shares = [None] * layers if speaker is None else self.cond_layer(speaker).chunk(layers, dim=1)
        total = torch.zeros_like(x)
        for number, (entry, leave) in enumerate(zip(self.in_layers, self.res_skip_layers, strict=True)):
            inner = entry(x) if shares[number] is None else entry(x) + shares[number]
            wave, gate = inner.chunk(2, dim=1)
            out = leave(wave.tanh() * gate.sigmoid())
            if number + 1 < layers:
                onward, out = out.chunk(2, dim=1)
                x = x + onward
            total = total + out
        return total


class PosteriorEncoder(nn.Module):
    """Audio to the latent of a voice.

    Args:
        n_fft: of the spectrogram.
        hop_length: samples a frame.
        hidden_channels: inside.
        latent_channels: of the result.
        speaker_channels: of the speaker vector, 0 without.
    """

    def __init__(
        self, n_fft: int, hop_length: int, hidden_channels: int, latent_channels: int, speaker_channels: int
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.pre = nn.Conv1d(n_fft // 2 + 1, hidden_channels, 1)
        self.enc = GatedLayers(hidden_channels, speaker_channels)
        self.proj = nn.Conv1d(hidden_channels, 2 * latent_channels, 1)

    @property
    def halo_frames(self) -> int:
        """Frames on each side beyond which the latent does not change."""
        return LAYERS * (KERNEL // 2) + -(-self.n_fft // self.hop_length)

    def forward(self, audio: Tensor, speaker: Tensor | None, noise: Tensor | None = None) -> Tensor:
        """Sample the latent.

        Args:
            audio: ``(batch, frames * hop_length)``.
            speaker: ``(batch, speaker_channels, 1)``.
            noise: standard normal, as the result; None gives the mean.

        Returns:
            ``(batch, latent_channels, frames)``.
        """
        side = (self.n_fft - self.hop_length) // 2
        spectrum = spectra(pad_signal(audio, side, side), self.n_fft, self.hop_length)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + EPSILON).sqrt().transpose(1, 2)
        mean, log_deviation = self.proj(self.enc(self.pre(magnitude), speaker)).chunk(2, dim=1)
        return mean if noise is None else mean + noise * log_deviation.exp()


def load_posterior(path: Path) -> PosteriorEncoder:
    """The encoder of a so-vits-svc ``G_*.pth`` with its ``config.json`` beside it, frozen.

    Raises:
        MelismaError: the file has none (a release that was stripped for inference), or settings that are not read.
    """
    if not path.is_file():
        raise MelismaError(f"{path}: no such file; the latent comes from the so-vits-svc model that the run began with")
    model = read_pickle(path).get("model")
    state = strip_prefix(model, PREFIX) if isinstance(model, Mapping) else {}
    if not state:
        raise MelismaError(
            f"{path}: has no posterior encoder (enc_q), which gives the latent; take a training checkpoint "
            "of so-vits-svc, not one that was stripped for inference"
        )
    beside = path.with_name("config.json")
    try:
        config: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8-sig"))
        model_settings, data = config["model"], config["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MelismaError(f"{beside}: not a configuration of so-vits-svc ({error}); fetch it again") from error
    if model_settings.get("use_depthwise_conv"):
        raise MelismaError(f"{beside}: use_depthwise_conv is not read; train on a model without it")
    settings = Settings(
        {key: model_settings.get(key) for key in ("hidden_channels", "inter_channels", "gin_channels")}
        | {key: data.get(key) for key in ("filter_length", "hop_length")},
        "so-vits-svc configuration",
        (),
    )
    make = partial(
        PosteriorEncoder,
        settings.integer("filter_length"),
        settings.integer("hop_length"),
        settings.integer("hidden_channels"),
        settings.integer("inter_channels"),
        settings.integer("gin_channels", 0),
    )
    return load_foreign(make, state, "so-vits-svc posterior encoder", ())
