"""BigVGAN v1 and v2 (NVIDIA): anti-aliased vocoders of a mel without F0."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop import hifigan
from melisma.interop.settings import Settings, mel_contract, network
from melisma.interop.state import load_foreign

# Settings of training and of the discriminators.
IGNORED = (
    *hifigan.IGNORED, "resolutions", "mpd_reshapes", "use_spectral_norm", "discriminator_channel_mult",
    "lambda_melloss", "use_cqtd_instead_of_mrd", "cqtd_filters", "cqtd_max_filters", "cqtd_filters_scale",
    "cqtd_dilations", "cqtd_hop_lengths", "cqtd_n_octaves", "cqtd_bins_per_octaves", "use_multiscale_melloss",
    "clip_grad_norm", "use_mbd_instead_of_mrd", "freeze_step", "use_cuda_kernel", "fft_sizes", "hop_sizes",
    "win_lengths",
)  # fmt: skip

_RENAMES = ((r"^ups\.(\d+)\.", r"ups.\1.0."), (r"^post_activation\.", "activation_post."))


def build(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[NsfHifigan, list[str]]:
    """Generator from ``config.json`` and the names of the reference; also the settings not read."""
    settings = Settings(config, "BigVGAN configuration", IGNORED)
    shared = network(settings, state)
    draft = NsfHifiganConfig(**shared, sample_rate=1, in_channels=1)
    own = NsfHifiganConfig(
        **shared,
        sample_rate=settings.integer("sampling_rate"),
        in_channels=settings.integer("num_mels"),
        activation=settings.choice("activation", ("snake", "snakebeta")),  # type: ignore[arg-type]
        snake_log_scale=settings.flag("snake_logscale"),
        activation_before_upsampling=False,
        source="none",
        final_activation="tanh" if settings.flag("use_tanh_at_final", True) else "clamp",
        final_bias=settings.flag("use_bias_at_final", True),
        mel=mel_contract(settings, draft.hop_length, hifigan.MEL_EPSILON, padding="nvstft"),
    )
    ignored = settings.unread()
    return load_foreign(partial(NsfHifigan, own), state, "BigVGAN generator", _RENAMES), ignored
