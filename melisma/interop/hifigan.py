"""HiFi-GAN V1, V2 and V3 (jik876): vocoders of a mel without F0."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop.settings import Settings, mel_contract, network
from melisma.interop.state import load_foreign

# Settings of training.
IGNORED = (
    "num_gpus", "batch_size", "learning_rate", "adam_b1", "adam_b2", "lr_decay", "seed", "segment_size", "num_freq",
    "hop_size", "fmax_for_loss", "num_workers", "dist_config", "n_fft", "win_size", "fmin", "fmax", "fine_tuning",
    "sampling_rate", "num_mels",
)  # fmt: skip
MEL_EPSILON = 1e-9


def build(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[NsfHifigan, list[str]]:
    """Generator from ``config.json`` and the names of the reference; also returns the settings that were not read."""
    settings = Settings(config, "HiFi-GAN configuration", IGNORED)
    shared = network(settings, state)
    draft = NsfHifiganConfig(**shared, sample_rate=1, in_channels=1)
    own = NsfHifiganConfig(
        **shared,
        sample_rate=settings.integer("sampling_rate"),
        in_channels=settings.integer("num_mels"),
        source="none",
        mel=mel_contract(settings, draft.hop_length, MEL_EPSILON, padding="nvstft"),
    )
    ignored = settings.unread()
    return load_foreign(partial(NsfHifigan, own), state, "HiFi-GAN generator"), ignored
