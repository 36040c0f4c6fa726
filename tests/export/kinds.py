"""Small models of every kind that can be exported."""

import dataclasses
from functools import cache

import torch

from melisma.audio.mel import MelContract
from melisma.export.graph import PLAIN, GraphOptions, Layout
from melisma.export.onnx_file import Exported, export_onnx
from melisma.generators.analytic import Analytic, AnalyticConfig
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.generators.spectral import Spectral, SpectralConfig
from melisma.interop.loaded import LoadedModel
from melisma.layers.weight_norm import fold

SPEAKERS = 5
SMALL = NsfHifiganConfig(
    sample_rate=8000,
    in_channels=6,
    upsample_rates=(4,),
    upsample_kernel_sizes=(8,),
    upsample_initial_channel=16,
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1,),),
)
OPENVPI = dataclasses.replace(
    SMALL,
    sample_rate=44100,
    in_channels=8,
    upsample_rates=(16, 32),
    upsample_kernel_sizes=(32, 64),
    framed_phase=True,
    unvoiced="interpolated",
    mel=MelContract(44100, 2048, 2048, 512, 8, 40.0, 16000.0),
)
MEL = MelContract(sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=40, fmin=40.0, fmax=7000.0)
SPECTRAL = SpectralConfig(mel=MEL, n_fft=256, channels=16, blocks=1, projections=1, low_rounds=1, hold_frames=2)
CONFIGS = {
    "so-vits-svc": dataclasses.replace(SMALL, speaker_channels=SPEAKERS, padding="up"),
    "so-vits-svc-snake": dataclasses.replace(
        SMALL, speaker_channels=SPEAKERS, padding="up", activation="snakebeta"
    ),
    "rvc": dataclasses.replace(SMALL, overtones=0, final_bias=False, speaker_channels=4, speaker_required=False),
    "openvpi": OPENVPI,
    "openvpi-mini": dataclasses.replace(OPENVPI, source="mini", feature_noise=0.1, pitch_controllable=True),
    "hifi-gan": dataclasses.replace(SMALL, source="none"),
    "bigvgan": dataclasses.replace(
        SMALL, source="none", activation="snake", activation_before_upsampling=False, final_activation="clamp"
    ),
    "spectral": SPECTRAL,
    "spectral-even": dataclasses.replace(SPECTRAL, noise="even"),
    "analytic": AnalyticConfig(mel=MEL, n_fft=256, projections=0),
}  # fmt: skip
# The kinds whose draws are inputs in the tests; the others make them from a seed.
NOISE_INPUTS = ("rvc", "openvpi-mini", "analytic")
BAKED_SPEAKER = ("so-vits-svc-snake",)


def loaded(kind: str) -> LoadedModel:
    """A model of a kind with weights that are loud enough to show differences."""
    torch.manual_seed(1)
    config = CONFIGS[kind]
    if isinstance(config, NsfHifiganConfig):
        generator: torch.nn.Module = NsfHifigan(config)
        for name, parameter in generator.named_parameters():
            if name.endswith("original0"):
                torch.nn.init.constant_(parameter, 1.0 if "post" not in name else 0.3)
    elif isinstance(config, SpectralConfig):
        generator = Spectral(config)
        torch.nn.init.normal_(generator.head.weight, std=0.05)
    else:
        generator = Analytic(config)
    width = getattr(config, "speaker_channels", 0)
    speakers = torch.randn(2, width) if width else None
    generator = fold(generator).requires_grad_(False).eval()
    return LoadedModel(
        generator, kind, kind, "made in a test", (60.0, 1200.0), speakers, {"anna": 1}, "MIT", "a test", "1.2"
    )


def options(kind: str, layout: Layout = PLAIN) -> GraphOptions:
    """What is settled in the graph of a kind."""
    width = getattr(CONFIGS[kind], "speaker_channels", 0)
    speaker = torch.randn(1, width, 1, generator=torch.Generator().manual_seed(4)) if kind in BAKED_SPEAKER else None
    return GraphOptions(layout, None if kind in NOISE_INPUTS else 3, speaker)


@cache
def exported(kind: str) -> Exported:
    """The finished graph of a kind, made once a process."""
    return export_onnx(loaded(kind), options(kind))
