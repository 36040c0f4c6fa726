"""A so-vits-svc training checkpoint of a small voice: decoder, posterior encoder, speakers, discriminators."""

import json
from pathlib import Path

import torch
from small_runs import HOP, RATE
from torch import nn

from melisma.discriminators import MultiPeriod, SingleScale
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop.posterior import PosteriorEncoder
from melisma.interop.state import COMMON, foreign_name
from melisma.layers.weight_norm import fold

LATENT, SPEAKER = 12, 6


def write_sovits(folder: Path, discriminators: bool = False) -> Path:
    """``G_30.pth`` with its ``config.json``, and ``D_30.pth`` where wanted; weights folded, which is one spelling."""
    torch.manual_seed(1)
    model = {
        "resblock": "1", "upsample_rates": [8, 4, 4], "upsample_kernel_sizes": [16, 8, 8],
        "upsample_initial_channel": 16, "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]],
        "inter_channels": LATENT, "hidden_channels": 8, "gin_channels": SPEAKER, "vocoder_name": "nsf-hifigan",
    }  # fmt: skip
    config = NsfHifiganConfig(
        sample_rate=RATE, in_channels=LATENT, upsample_rates=(8, 4, 4), upsample_kernel_sizes=(16, 8, 8),
        upsample_initial_channel=16, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3, 5),),
        speaker_channels=SPEAKER, padding="up",
    )  # fmt: skip
    decoder = fold(NsfHifigan(config)).state_dict()
    encoder = PosteriorEncoder(512, HOP, 8, LATENT, SPEAKER).state_dict()
    state = {"dec." + foreign_name(name, COMMON): value for name, value in decoder.items()}
    state |= {"enc_q." + name: value for name, value in encoder.items()}
    state["emb_g.weight"] = nn.Embedding(3, SPEAKER).weight.detach()
    path = folder / "G_30.pth"
    torch.save({"model": state, "iteration": 3, "optimizer": None, "learning_rate": 1e-4}, path)
    settings = {
        "model": model,
        "data": {"sampling_rate": RATE, "hop_length": HOP, "filter_length": 512},
        "spk": {"anna": 1},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    if discriminators:
        single, periods = SingleScale(1 / 32).state_dict(), MultiPeriod((2,), 1 / 32).state_dict()
        judges = single | {
            name.replace("discriminators.0", "discriminators.1"): value for name, value in periods.items()
        }
        torch.save({"model": judges}, folder / "D_30.pth")
    return path
