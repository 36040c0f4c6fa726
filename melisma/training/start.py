"""Where a new run begins: weights of any checkpoint that melisma reads, ours or foreign, discriminators too.

Discriminators are taken from the checkpoint itself (ours, SingingVocoders), or from the file that its trainer wrote
beside it: ``D_<step>`` of so-vits-svc, ``do_<step>`` of HiFi-GAN and BigVGAN, ``bigvgan_discriminator_optimizer.pt``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from melisma.config import to_mapping
from melisma.discriminators import Discriminator
from melisma.errors import MelismaError
from melisma.inference.vocoder import ANALYTIC, model_path
from melisma.interop import load_checkpoint as load_model
from melisma.interop.pickles import read_pickle
from melisma.interop.state import strip_prefix
from melisma.layers.weight_norm import unfold
from melisma.training.checkpoint import load_checkpoint
from melisma.training.recipe import GeneratorConfig, flat, recipe_from
from melisma.training.voice import Voice

OURS = ".pth"
AVERAGE = "average"
# What trainers call the discriminators whose names differ from the table's: HiFi-GAN and BigVGAN at the top of a file,
# SingingVocoders below "discriminator.".
FOREIGN_NAMES = {"multi-period": ("mpd",), "multi-scale": ("msd",), "multi-resolution": ("mrd",), "sub-band-cqt": ()}


@dataclass(frozen=True)
class Start:
    """What a checkpoint gives to begin with.

    Attributes:
        path: the file.
        config: of its generator.
        generator: weights, those of weight norm folded or not.
        speakers: vectors ``(count, channels)``, None without.
        speaker_names: their rows.
        judges: states of the discriminators by the table's name.
    """

    path: Path
    config: GeneratorConfig
    generator: dict[str, Tensor]
    speakers: Tensor | None
    speaker_names: dict[str, int]
    judges: dict[str, dict[str, Tensor]]


def read_start(name_or_path: str | Path, config: GeneratorConfig | None = None) -> Start:
    """Read a checkpoint to begin with: a shipped model by its name, or a file.

    Args:
        name_or_path: which.
        config: what a run's checkpoint from before version 0.2 is taken for, which does not say it.

    Raises:
        MelismaError: no such file, no model that melisma reads, or one without weights to train.
    """
    if name_or_path == ANALYTIC:
        raise MelismaError(f"{ANALYTIC} has no weights to train; begin with another model")
    path = model_path(name_or_path)
    if path.suffix == OURS and path.name.startswith("S_"):
        return _from_run(path, load_checkpoint(path), config)
    loaded = load_model(path)
    theirs: Any = loaded.generator.config
    if not isinstance(theirs, GeneratorConfig):
        raise MelismaError(f"{path}: {loaded.kind} has no weights to train; begin with another model")
    state = dict(unfold(loaded.generator).state_dict())
    return Start(path, theirs, state, loaded.speakers, dict(loaded.speaker_names), _foreign_judges(path))


def _from_run(path: Path, content: Mapping[str, Any], config: GeneratorConfig | None) -> Start:
    if "recipe" not in content and AVERAGE in content and config is not None:
        return Start(path, config, content[AVERAGE], None, {}, {})
    if "recipe" not in content or AVERAGE not in content:
        raise MelismaError(
            f"{path}: a checkpoint of an older trainer, which does not say its model; name the generator in the recipe"
        )
    recipe = recipe_from(content["recipe"], f"{path}: recipe")
    assert recipe.generator is not None  # a run knows its generator
    average = content[AVERAGE]
    speakers = average.get("speakers.weight")
    generator = strip_prefix(average, "generator.")
    return Start(path, recipe.generator, generator, speakers, content["speakers"], _split(content["judges"]))


def _split(judges: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in judges.items():
        label, _, rest = name.partition(".")
        found.setdefault(label, {})[rest] = value
    return found


def begin(voice: Voice, average: Voice, judges: nn.ModuleDict, start: Start, speakers: Mapping[str, int]) -> list[str]:
    """Put the weights of a checkpoint into a new run.

    Args:
        voice: what learns; is changed.
        average: its running average; is changed.
        judges: discriminators; those that the checkpoint has are changed.
        start: what was read.
        speakers: rows of the run's speakers.

    Returns:
        Names of the discriminators that begin fresh, each with the reason.

    Raises:
        MelismaError: the checkpoint's generator is another than the recipe's: the settings that differ are named.
    """
    differs = _differences(start.config, voice.generator.config)
    if differs:
        raise MelismaError(
            f"{start.path}: its generator is not the recipe's: {'; '.join(differs[:5])}; leave 'generator' out of the "
            "recipe to take the checkpoint's"
        )
    try:
        voice.generator.load_state_dict(start.generator)
    except (RuntimeError, KeyError) as error:
        raise MelismaError(
            f"{start.path}: its weights do not fit the recipe's generator; is the file whole?"
        ) from error
    if voice.speakers is not None and start.speakers is not None:
        with torch.no_grad():
            voice.speakers.weight.copy_(_speaker_rows(start, speakers))
    average.load_state_dict(voice.state_dict())
    fresh = []
    for label, judge in judges.items():
        if label not in start.judges:
            fresh.append(f"{label} (none in or beside {start.path.name})")
            continue
        try:
            cast(Discriminator, judge).load_foreign(start.judges[label])
            judge.train()
        except MelismaError as error:
            fresh.append(f"{label} ({error})")
    return fresh


def _differences(theirs: GeneratorConfig, ours: GeneratorConfig) -> list[str]:
    if type(theirs) is not type(ours):
        return [f"{type(theirs).__name__} != {type(ours).__name__}"]
    # Rounds of projection, the noise and whether the pitch may differ are no matter of weights.
    free = ("projections", "low_rounds", "hold_frames", "noise", "pitch_controllable", "feature_noise")
    before, now = flat(to_mapping(theirs)), flat(to_mapping(ours))
    return [
        f"{key} {before.get(key)} != {now.get(key)}"
        for key in {**before, **now}
        if before.get(key) != now.get(key) and key not in free
    ]


def _speaker_rows(start: Start, speakers: Mapping[str, int]) -> Tensor:
    """The checkpoint's vectors, whose rows the run keeps, and their mean for speakers that it does not know."""
    assert start.speakers is not None
    rows = start.speakers.mean(dim=0, keepdim=True).repeat(1 + max(speakers.values()), 1)
    for row in set(speakers.values()) & set(start.speaker_names.values()):
        rows[row] = start.speakers[row]
    return rows


def _foreign_judges(path: Path) -> dict[str, dict[str, Tensor]]:
    """States of the discriminators in a foreign checkpoint or in the file beside it."""
    if path.suffix == ".safetensors":
        return {}
    content: Mapping[str, Any] = {}
    for candidate in (path, *_beside(path)):
        content = read_pickle(candidate)
        states = content.get("state_dict")
        if isinstance(states, Mapping):
            content = _split(strip_prefix(states, "discriminator."))
        found = {
            label: dict(content[name])
            for label, names in FOREIGN_NAMES.items()
            for name in names
            if isinstance(content.get(name), Mapping)
        }
        model = content.get("model")
        if isinstance(model, Mapping) and any(str(name).startswith("discriminators.") for name in model):
            found |= _vits(model)
        if found:
            return found
    return {}


def _beside(path: Path) -> list[Path]:
    """Where trainers put the discriminators of this generator."""
    names = []
    if match := re.fullmatch(r"G_(\d+.*)", path.name):
        names.append(f"D_{match[1]}")
    if match := re.fullmatch(r"g_(\d+.*)", path.name):
        names.append(f"do_{match[1]}")
    if path.name == "bigvgan_generator.pt":
        names.append("bigvgan_discriminator_optimizer.pt")
    return [path.with_name(name) for name in names if path.with_name(name).is_file()]


def _vits(model: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """so-vits-svc's one list: the single scale first, then the periods."""
    single, periods = {}, {}
    for name, value in model.items():
        match = re.fullmatch(r"(?:module\.)?discriminators\.(\d+)\.(.+)", str(name))
        if match and match[1] == "0":
            single[f"discriminators.0.{match[2]}"] = value
        elif match:
            periods[f"discriminators.{int(match[1]) - 1}.{match[2]}"] = value
    return {"single-scale": single, "multi-period": periods}
