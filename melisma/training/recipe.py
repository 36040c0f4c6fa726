"""The recipe of a run: everything that decides its weights, read strictly from YAML and from ``--key value``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from melisma.config import from_mapping, lookup, to_mapping
from melisma.errors import MelismaError
from melisma.generators import GENERATORS
from melisma.generators.nsf_hifigan import NsfHifiganConfig
from melisma.generators.spectral import SpectralConfig
from melisma.training.crops import DataSettings
from melisma.training.schedule import OptimizerSettings
from melisma.training.terms import LossSettings, check_losses
from melisma.training.validation import ValidationSettings

KIND = "kind"
GeneratorConfig = NsfHifiganConfig | SpectralConfig
# What a run may change when it goes on: nothing that it has learned so far depends on these.
FREE = ("steps", "save_every", "keep", "log_every", "accumulate", "device", "validation", "about")


@dataclass(frozen=True)
class About:
    """What the exported model says about itself.

    Attributes:
        name: of the model; empty is the name of the run's folder.
        version: of the model.
        licence: of the weights.
        provenance: what it was trained on, with the credits that the recordings ask for.
        f0_range_hz: lowest and highest F0 of the training data; None is measured.
    """

    name: str = ""
    version: str = ""
    licence: str = ""
    provenance: str = ""
    f0_range_hz: tuple[float, float] | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run.

    Attributes:
        steps: batches in all; one step is one batch, whatever the number of discriminators.
        generator: ``kind`` from the table of generators and its settings; None takes those of ``start_from``.
        data: what is trained on, and how it is varied.
        batch: crops a step, over all processes and accumulated parts together.
        accumulate: parts into which a process cuts its share of a batch, to need less memory.
        losses: weight of each loss by name, see :mod:`melisma.training.terms`.
        loss_settings: of these losses.
        discriminators: settings of each by its name in the table; none where no loss is adversarial.
        discriminator_warmup: steps in which only discriminators learn, where a generator begins with weights and they
            do not.
        optimizer: of the generator.
        discriminator_optimizer: of the discriminators.
        ema: share of the running average of the weights that is kept each step.
        precision: ``bfloat16`` computes convolutional generators and the discriminators so; sources, the last
            convolution, transforms and losses stay float32, and so do spectral generators.
        device: ``auto``, ``cpu`` or ``cuda``.
        validation: on held-out clips.
        seed: of all draws.
        save_every: steps between checkpoints.
        keep: newest checkpoints that are kept, beside the best.
        log_every: steps between rows of the log.
        bad_in_a_row: steps in a row that may not be finite before the run goes back to its last checkpoint.
        start_from: a shipped model or a checkpoint of any kind that melisma reads, with whose weights a run begins.
        about: what the exported model says about itself.
    """

    steps: int
    generator: GeneratorConfig | None = None
    data: DataSettings = field(default_factory=DataSettings)
    batch: int = 16
    accumulate: int = 1
    losses: dict[str, float] = field(default_factory=dict)
    loss_settings: LossSettings = field(default_factory=LossSettings)
    discriminators: dict[str, dict[str, Any]] = field(default_factory=dict)
    discriminator_warmup: int = 500
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    discriminator_optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    ema: float = 0.998
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    seed: int = 0
    save_every: int = 250
    keep: int = 2
    log_every: int = 25
    bad_in_a_row: int = 3
    start_from: str | None = None
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "save_every", "keep", "log_every", "bad_in_a_row"):
            if getattr(self, name) < 1:
                raise MelismaError(f"{name} is {getattr(self, name)}; a recipe needs at least 1")
        if not 0.0 <= self.ema < 1.0:
            raise MelismaError(f"ema is {self.ema}; give a share from 0 (no average) to below 1")
        if self.generator is None and self.start_from is None:
            raise MelismaError("the recipe names no generator; give 'generator: {kind: ...}', or start_from a model")
        check_losses(self.losses, self.loss_settings, self.discriminators, isinstance(self.generator, NsfHifiganConfig))


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe.

    Args:
        path: the file.
        overrides: settings that go before the file's, each as ``dotted.key=value`` with the value in YAML.

    Raises:
        MelismaError: no such file, not YAML, an unknown key (named, with the nearest), a value of a wrong type or one
            that is impossible.
    """
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MelismaError(f"{path}: no such recipe") from error
    except OSError as error:
        raise MelismaError(f"{path}: cannot be read: {error.strerror}; give a .yaml file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MelismaError(f"{path}: not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(mapping, dict):
        raise MelismaError(f"{path}: a recipe is a mapping of settings")
    for override in overrides:
        _override(mapping, override)
    return recipe_from(mapping, str(path))


def recipe_from(mapping: Mapping[str, Any], what: str) -> Recipe:
    """A recipe from a mapping as YAML or JSON gives it; ``what`` names its origin in errors."""
    values = dict(mapping)
    generator = values.get("generator")
    if isinstance(generator, Mapping):
        values["generator"] = _generator_config(generator, f"{what}: generator")
    return from_mapping(Recipe, values, what)


def recipe_mapping(recipe: Recipe) -> dict[str, Any]:
    """The inverse of :func:`recipe_from`, for JSON."""
    mapping = to_mapping(recipe)
    if recipe.generator is not None:
        mapping["generator"] = {KIND: kind_of(recipe.generator), **mapping["generator"]}
    return mapping


def kind_of(config: GeneratorConfig) -> str:
    """The name in the table of generators of a configuration."""
    return next(name for name, (config_class, _) in GENERATORS.items() if type(config) is config_class)


def differences(saved: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What a saved recipe has otherwise, as ``key: saved != given``; keys of :data:`FREE` do not count."""
    before, now = flat(saved), flat(recipe_mapping(recipe))
    keys = [key for key in dict.fromkeys([*before, *now]) if key.split(".")[0] not in FREE]
    missing = object()
    return [
        f"{key}: {before.get(key, 'not there')} != {now.get(key, 'not there')}"
        for key in keys
        if before.get(key, missing) != now.get(key, missing)
    ]


def flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings; tuples become lists, as JSON has them."""
    found: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = _listed(value)
    return found


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _override(mapping: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise MelismaError(f"--{override}: give a value: --{key or 'key'} VALUE")
    *parents, last = key.split(".")
    place = mapping
    for parent in parents:
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            raise MelismaError(f"--{key}: {parent} is {place!r} in the recipe and has no settings of its own")
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MelismaError(f"--{key} {text}: not a value: {str(error).splitlines()[0]}") from error


def _generator_config(mapping: Mapping[str, Any], what: str) -> GeneratorConfig:
    trainable = [name for name, (config_class, _) in GENERATORS.items() if issubclass(config_class, GeneratorConfig)]
    settings = dict(mapping)
    if KIND not in settings:
        raise MelismaError(f"{what}: needs {KIND}, one of {', '.join(trainable)}")
    kind = settings.pop(KIND)
    config_class, _ = lookup(GENERATORS, kind, "generator")
    if kind not in trainable:
        raise MelismaError(f"{what}: {kind!r} has no weights to train; take one of {', '.join(trainable)}")
    _check_rates(settings, what)
    return from_mapping(config_class, settings, what)


def _check_rates(settings: Mapping[str, Any], what: str) -> None:
    """Upsampling rates that do not make the mel's hop are named, with some that do."""
    mel = settings.get("mel")
    hop = mel.get("hop_length") if isinstance(mel, Mapping) else None
    rates = settings.get("upsample_rates")
    if not isinstance(hop, int) or not isinstance(rates, list) or not all(isinstance(rate, int) for rate in rates):
        return
    if math.prod(rates) != hop:
        suggested = suggest_rates(hop)
        raise MelismaError(
            f"{what}: upsample_rates {rates} make {math.prod(rates)} samples a frame, the mel's hop_length is {hop}; "
            f"try upsample_rates {suggested} with upsample_kernel_sizes {[_kernel(rate) for rate in suggested]}"
        )


def _kernel(rate: int) -> int:
    """A kernel that covers every sample equally often and whose padding is even."""
    return 2 * rate if rate % 2 == 0 else 2 * rate + 1


def suggest_rates(hop_length: int, largest: int = 12, stages: int = 5) -> list[int]:
    """Upsampling rates whose product is a hop length: large ones first, few of them where that is possible."""
    primes, rest, divisor = [], hop_length, 2
    while rest > 1:
        while rest % divisor == 0:
            primes.append(divisor)
            rest //= divisor
        divisor += 1
    rates = sorted(primes, reverse=True)
    while len(rates) > stages:
        rates.sort()
        rates = [rates[0] * rates[1], *rates[2:]]
    rates.sort(reverse=True)
    while len(rates) > 4 and rates[-1] * rates[-2] <= largest // 2:
        rates = sorted([*rates[:-2], rates[-1] * rates[-2]], reverse=True)
    return rates
