"""The averaged weights of a run as a model file of melisma's own."""

from dataclasses import dataclass
from pathlib import Path

from melisma.errors import MelismaError
from melisma.interop.own import save_model
from melisma.training.checkpoint import checkpoint_path, latest_checkpoint, load_checkpoint
from melisma.training.recipe import recipe_from
from melisma.training.run_state import PREFIX, fitting
from melisma.training.voice import Voice


@dataclass(frozen=True)
class Published:
    """What was written: the name of the model, its checkpoint and step, and whether validation chose it."""

    name: str
    checkpoint: Path
    step: int
    best: bool


def publish(run: Path, out: Path, name: str | None = None, half: bool = False) -> Published:
    """Write the best checkpoint of a run, the newest where nothing was validated, as one safetensors file.

    Args:
        run: folder of the run, or one ``S_<step>.pth`` in it.
        out: the file.
        name: of the model; else what the recipe's ``about`` says, else that of the run's folder.
        half: store float16.

    Raises:
        MelismaError: no checkpoint, one that is damaged, or a file that cannot be written.
    """
    path, best = (run, False) if run.is_file() else choose(run)
    content = load_checkpoint(path)
    if "recipe" not in content:
        raise MelismaError(f"{path}: not a checkpoint of this trainer; name a run's folder, or its S_<step>.pth")
    recipe = recipe_from(content["recipe"], f"{path}: recipe")
    voice = Voice(recipe.generator, max([-1, *content["speakers"].values()]) + 1)
    with fitting(path):
        voice.load_state_dict(content["average"])
    about = recipe.about
    named = name or about.name or path.resolve().parent.name
    save_model(
        out,
        voice.generator.eval(),
        name=named,
        version=about.version,
        licence=about.licence,
        provenance=about.provenance or content["data_provenance"],
        f0_range_hz=about.f0_range_hz or content["f0_range_hz"],
        speakers=None if voice.speakers is None else voice.speakers.weight.detach(),
        speaker_names=None if voice.speakers is None else content["speakers"],
        half=half,
    )
    return Published(named, path, content["step"], best)


def choose(run: Path) -> tuple[Path, bool]:
    """The best checkpoint of a run, or the newest, and whether it is the best."""
    latest = latest_checkpoint(run, PREFIX) if run.is_dir() else None
    if latest is None:
        raise MelismaError(f"{run}: no run: {PREFIX}_<step>.pth is missing; name a folder that 'melisma train' wrote")
    record = load_checkpoint(latest).get("record", {})
    best = checkpoint_path(run, PREFIX, record.get("best_step", -1))
    return (best, True) if best.is_file() else (latest, False)
