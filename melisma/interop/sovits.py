"""so-vits-svc 4.x: the decoder within ``G_*.pth``, fed by a latent of 192 channels."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop.settings import Settings, network
from melisma.interop.state import COMMON, load_foreign

PREFIX = "dec."
SPEAKERS = "emb_g.weight"
VOCODERS = {"nsf-hifigan": "so-vits-svc", "nsf-snake-hifigan": "so-vits-svc-snake"}

# The settings of `model` that concern other parts than the decoder.
IGNORED = (
    "hidden_channels", "filter_channels", "n_heads", "n_layers", "kernel_size", "p_dropout", "n_layers_q",
    "n_layers_trans_flow", "n_flow_layer", "use_spectral_norm", "ssl_dim", "n_speakers", "vocoder_name",
    "speech_encoder", "speaker_embedding", "vol_embedding", "unit_interpolate_mode", "use_depthwise_conv",
    "flow_share_parameter", "use_automatic_f0_prediction", "use_transformer_flow", "spec_channels",
    "segment_size", "sampling_rate", "type_", "hop_length",
)  # fmt: skip

_SNAKE_RENAMES = (*COMMON, (r"^post_activation\.", "snake_post."))


def _build(config: Mapping[str, Any], state: Mapping[str, Tensor], activation: str) -> tuple[NsfHifigan, list[str]]:
    settings = Settings(config, "so-vits-svc configuration", IGNORED)
    settings.choice("vocoder_name", VOCODERS, default="nsf-hifigan")
    own = NsfHifiganConfig(
        **network(settings, state),
        sample_rate=settings.integer("sampling_rate"),
        in_channels=settings.integer("inter_channels"),
        activation=activation,  # type: ignore[arg-type]
        speaker_channels=settings.integer("gin_channels", 0),
        padding="up",
    )
    ignored = settings.unread()
    return load_foreign(partial(NsfHifigan, own), state, "so-vits-svc decoder", _SNAKE_RENAMES), ignored


def build(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[NsfHifigan, list[str]]:
    """Leaky ReLU decoder from the names of so-vits-svc's ``Generator``; also the settings not read."""
    return _build(config, state, "leaky-relu")


def build_snake(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[NsfHifigan, list[str]]:
    """Its snake twin (``vocoder_name`` ``nsf-snake-hifigan``)."""
    return _build(config, state, "snakebeta")
