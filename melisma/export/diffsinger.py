"""``melisma export diffsinger``: a checkpoint in openvpi's layout, for DiffSinger, DDSP-SVC and SingingVocoders."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from melisma.audio.mel import MelContract
from melisma.errors import MelismaError
from melisma.files import replace_on_success
from melisma.generators.nsf_hifigan import NsfHifigan, NsfHifiganConfig
from melisma.interop.checkpoint import CONFIG
from melisma.interop.loaded import LoadedModel
from melisma.interop.state import COMMON, foreign_name
from melisma.layers.weight_norm import split

CHECKPOINT, NOTICE = "model.ckpt", "NOTICE.txt"
_OVERTONES = 8
_MEL = {"scale": "slaney", "norm": "slaney", "power": 1.0, "log_base": "e", "floor": 1e-5, "magnitude_epsilon": 0.0}


def check_suitable(loaded: LoadedModel) -> tuple[NsfHifiganConfig, MelContract]:
    """The settings of a model that openvpi's layout can hold.

    Raises:
        MelismaError: what of the model the layout has no place for.
    """
    config = loaded.generator.config
    if not isinstance(config, NsfHifiganConfig):
        raise MelismaError(
            f"{loaded.name} ({loaded.kind}) cannot be a DiffSinger checkpoint: the layout holds NSF-HiFi-GAN alone; "
            "for OpenUtau use 'melisma export openutau'"
        )
    if config.mel is None:
        raise MelismaError(f"{loaded.name} ({loaded.kind}) sings a latent, DiffSinger's vocoders a mel")
    mel = config.mel
    wanted = (
        ("source", config.source in ("harmonic", "mini"), "it has no F0 source"),
        ("activation", config.activation == "leaky-relu", f"its activation is {config.activation}"),
        ("speaker", config.speaker_channels == 0, "it has a speaker input"),
        (
            "overtones",
            config.source == "mini" or config.overtones == _OVERTONES,
            f"it has {config.overtones} overtones",
        ),
        ("unvoiced", config.unvoiced == "interpolated", "it wants F0 = 0 in unvoiced frames, DiffSinger interpolates"),
        ("padding", config.padding == "down", "its upsampling pads as so-vits-svc's does"),
        ("ends", config.final_activation == "tanh" and config.final_bias, "its last layer is another"),
        ("stages", config.activation_before_upsampling, "it has no activation before upsampling"),
        ("mel", all(getattr(mel, name) == value for name, value in _MEL.items()), "its mel has other settings"),
        ("frames", mel.padding != "centre", "its mel frames lie on samples"),
    )
    problems = [said for _, fits, said in wanted if not fits]
    if problems:
        raise MelismaError(f"{loaded.name} ({loaded.kind}) cannot be a DiffSinger checkpoint: {'; '.join(problems)}")
    return config, mel


def settings(loaded: LoadedModel) -> dict[str, Any]:
    """``config.json``."""
    config, mel = check_suitable(loaded)
    return {
        "sampling_rate": config.sample_rate,
        "num_mels": config.in_channels,
        "hop_size": config.hop_length,
        "n_fft": mel.n_fft,
        "win_size": mel.win_length,
        "fmin": mel.fmin,
        "fmax": mel.fmax,
        "upsample_rates": list(config.upsample_rates),
        "upsample_kernel_sizes": list(config.upsample_kernel_sizes),
        "upsample_initial_channel": config.upsample_initial_channel,
        "resblock": str(config.resblock),  # a text: the reference takes the number 1 for type 2
        "resblock_kernel_sizes": list(config.resblock_kernel_sizes),
        "resblock_dilation_sizes": [list(row) for row in config.resblock_dilation_sizes],
        "mini_nsf": config.source == "mini",
        "noise_sigma": config.feature_noise,
        "pc_aug": config.pitch_controllable,
    }


def state(generator: NsfHifigan) -> dict[str, Tensor]:
    """The folded generator's weights under openvpi's names, with weight norm spelt as gain and direction.

    Folding them again gives the same weights to the last bit.
    """
    parts = dict(generator.named_modules())
    weights = {}
    for name, value in generator.state_dict().items():
        foreign = foreign_name(name, COMMON)
        owner: nn.Module = parts[name.rpartition(".")[0]]
        if name.endswith(".weight") and getattr(owner, "is_normed", False):
            weights[f"{foreign}_g"], weights[f"{foreign}_v"] = split(value)
        else:
            weights[foreign] = value.clone()
    return weights


def write_checkpoint(loaded: LoadedModel, folder: Path) -> list[Path]:
    """Write ``model.ckpt``, ``config.json`` and, where the licence is known, ``NOTICE.txt`` into a folder.

    Args:
        loaded: the model, its weight norm folded.
        folder: made if it is not there.

    Returns:
        The files that were written.

    Raises:
        MelismaError: a model that the layout cannot hold, or a folder that cannot be written.
    """
    stated = settings(loaded)
    assert isinstance(loaded.generator, NsfHifigan)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise MelismaError(f"{folder}: cannot be made: {error.strerror}; choose another folder") from error
    with replace_on_success(folder / CHECKPOINT) as temporary:
        torch.save({"generator": state(loaded.generator)}, temporary)
    texts = {CONFIG: json.dumps(stated, indent=4), NOTICE: notice(loaded)}
    for name, text in texts.items():
        if text:
            with replace_on_success(folder / name) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
    return [folder / CHECKPOINT, *(folder / name for name, text in texts.items() if text)]


def notice(loaded: LoadedModel) -> str:
    """What must be said about a model wherever it goes; empty where nothing is known."""
    lines = {"name": loaded.name, "licence": loaded.licence, "trained on": loaded.provenance}
    if not loaded.licence and not loaded.provenance:
        return ""
    return "\n".join(f"{label}: {value}" for label, value in lines.items() if value)
