"""What a generator is fed in training: the mel of its contract, or the latent of its own model's encoder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from melisma.errors import MelismaError
from melisma.interop.posterior import PosteriorEncoder, load_posterior
from melisma.noise import counter_normal, derived_seed
from melisma.training.batch import Features, MelFeatures


class LatentFeatures:
    """Latents of so-vits-svc, sampled from its posterior encoder, which does not learn."""

    def __init__(self, encoder: PosteriorEncoder) -> None:
        self.encoder = encoder
        # Not the whole halo: latents of a crop's edge are as good as those of a clip's edge.
        self.margin = -(-encoder.n_fft // (2 * encoder.hop_length))

    @torch.no_grad()
    def __call__(self, audio: Tensor, speaker: Tensor | None, seeds: Sequence[int]) -> Tensor:
        """See :class:`melisma.training.batch.Features`."""
        frames, channels = audio.shape[-1] // self.encoder.hop_length, self.encoder.proj.out_channels // 2
        drawn = [counter_normal(derived_seed(seed, "latent"), 0, frames, channels, audio.device).T for seed in seeds]
        return self.encoder(audio, speaker, torch.stack(drawn))


def features_of(generator: nn.Module, start_from: str | None, device: torch.device) -> Features:
    """What makes the features of a generator.

    Args:
        generator: to be trained.
        start_from: the checkpoint that a run began with: that of a latent decoder holds the encoder.
        device: where to compute.

    Raises:
        MelismaError: a latent decoder without the checkpoint that holds its encoder.
    """
    if generator.mel is not None:
        return MelFeatures(generator.mel)  # type: ignore[arg-type]
    if start_from is None:
        raise MelismaError(
            "a generator without a mel decodes the latent of a voice model; start_from the so-vits-svc G_*.pth whose "
            "latent it is to decode"
        )
    encoder = load_posterior(Path(start_from)).to(device)
    wanted, made = generator.config.in_channels, encoder.proj.out_channels // 2
    if (made, encoder.hop_length) != (wanted, generator.hop_length):
        raise MelismaError(
            f"{start_from}: gives {made} channels every {encoder.hop_length} samples, and the generator takes "
            f"{wanted} every {generator.hop_length}"
        )
    return LatentFeatures(encoder)
