"""RVC: the decoder within a voice model, fed by a latent; its configuration is a list of 18."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from melisma.errors import MelismaError
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop.settings import Settings, network
from melisma.interop.state import load_foreign

PREFIX = "dec."
SPEAKERS = "emb_g.weight"

# The 18 values of a voice model's `config`, under the names of the decoder's constructor where it has one.
LIST_NAMES = (
    "spec_channels", "segment_size", "initial_channel", "hidden_channels", "filter_channels", "n_heads", "n_layers",
    "kernel_size", "p_dropout", "resblock", "resblock_kernel_sizes", "resblock_dilation_sizes", "upsample_rates",
    "upsample_initial_channel", "upsample_kernel_sizes", "spk_embed_dim", "gin_channels", "sr",
)  # fmt: skip
IGNORED = (
    "spec_channels", "segment_size", "hidden_channels", "filter_channels", "n_heads", "n_layers", "kernel_size",
    "p_dropout", "spk_embed_dim", "is_half", "use_f0", "version",
)  # fmt: skip
NAMED_RATES = {"32k": 32000, "40k": 40000, "48k": 48000}


def named(config: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """The configuration as a mapping with the names of the decoder's constructor; the list of 18 is accepted."""
    if isinstance(config, Mapping):
        mapping = dict(config)
    elif isinstance(config, list | tuple) and len(config) == len(LIST_NAMES):
        mapping = dict(zip(LIST_NAMES, config, strict=True))
    else:
        raise MelismaError(
            f"RVC configuration: expected the constructor's names or a list of {len(LIST_NAMES)} values, not "
            f"{len(config) if isinstance(config, list | tuple) else type(config).__name__}"
        )
    if "inter_channels" in mapping:
        mapping.setdefault("initial_channel", mapping["inter_channels"])
        del mapping["inter_channels"]
    mapping["sr"] = NAMED_RATES.get(mapping.get("sr"), mapping.get("sr"))  # type: ignore[arg-type]
    return mapping


def build(config: Mapping[str, Any] | Sequence[Any], state: Mapping[str, Tensor]) -> tuple[NsfHifigan, list[str]]:
    """Generator from either form of configuration and the names of ``GeneratorNSF``; also the settings not read."""
    settings = Settings(named(config), "RVC configuration", IGNORED)
    speaker_channels = settings.integer("gin_channels", 0)
    own = NsfHifiganConfig(
        **network(settings, state),
        sample_rate=settings.integer("sr"),
        in_channels=settings.integer("initial_channel"),
        overtones=0,
        speaker_channels=speaker_channels,
        speaker_required=False,
        final_bias=False,
    )
    ignored = settings.unread()
    return load_foreign(partial(NsfHifigan, own), state, "RVC decoder"), ignored
