"""openvpi's NSF-HiFiGAN (DiffSinger, DDSP-SVC, SingingVocoders): plain and mini-NSF vocoders of a mel."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop.settings import Settings, mel_contract, network
from melisma.interop.state import load_foreign

# Settings of training and of the discriminators.
IGNORED = (
    "discriminator_periods", "hop_size", "segment_size", "num_gpus", "batch_size", "learning_rate", "adam_b1",
    "adam_b2", "lr_decay", "seed", "num_freq", "num_workers", "dist_config", "fmax_for_loss", "n_fft",
    "win_size", "fmin", "fmax", "pc_aug_key", "pc_aug_rate", "lab_aux_melloss", "lab_aux_stftloss",
    "use_stftloss",
)  # fmt: skip


def build(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[NsfHifigan, list[str]]:
    """Generator from the names of ``config.json`` and of the reference; also the settings not read."""
    settings = Settings(config, "openvpi configuration", IGNORED)
    shared = network(settings, state)
    draft = NsfHifiganConfig(**shared, sample_rate=1, in_channels=1)
    own = NsfHifiganConfig(
        **shared,
        sample_rate=settings.integer("sampling_rate"),
        in_channels=settings.integer("num_mels"),
        source="mini" if settings.flag("mini_nsf") else "harmonic",
        framed_phase=True,
        unvoiced="interpolated",
        feature_noise=settings.number("noise_sigma", 0.0),
        pitch_controllable=settings.flag("pc_aug"),
        mel=mel_contract(settings, draft.hop_length, magnitude_epsilon=0.0, padding="same"),
    )
    ignored = settings.unread()
    return load_foreign(partial(NsfHifigan, own), state, "openvpi generator"), ignored
