"""Checkpoints of a run: saved whole or not at all, found by their step, pruned; the configuration beside them.

Names follow so-vits-svc: ``G_30400.pth`` for the generator, ``D_30400.pth`` for the discriminators. ``G_0.pth`` and
``D_0.pth`` are where fine-tuning began and are never pruned.
"""

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from melisma.errors import MelismaError
from melisma.files import replace_on_success, write_failure

PREFIXES = ("G", "D")


def checkpoint_path(folder: str | Path, prefix: str, step: int) -> Path:
    """``folder/prefix_step.pth``."""
    return Path(folder) / f"{prefix}_{step}.pth"


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Save tensors and plain values; the file appears under its name when all of it is on the disk.

    Raises:
        MelismaError: the folder cannot be written or the disk is full; every earlier file is as it was.
    """
    try:
        with replace_on_success(path) as temporary, temporary.open("wb") as handle:
            torch.save(dict(state), handle)
    except RuntimeError as error:  # torch's zip writer wraps the OSError of a full disk, or loses it
        raise write_failure(Path(path), error.__context__ or error) from error


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Load what :func:`save_checkpoint` wrote; a pickle that wants more than tensors and plain values never runs.

    Raises:
        MelismaError: missing, damaged, or a pickle with other content.
    """
    path = Path(path)
    if not path.is_file():
        raise MelismaError(f"{path}: no such checkpoint; check the name and the folder")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise MelismaError(
            f"{path}: refused: not a checkpoint of tensors and plain values only; save its state dict alone"
        ) from error
    except Exception as error:  # what a damaged pickle raises depends on the bytes: KeyError, EOFError, RuntimeError
        raise MelismaError(f"{path}: damaged or not a checkpoint; go on from an earlier one") from error
    if not isinstance(state, dict):
        raise MelismaError(f"{path}: holds a {type(state).__name__}, not a checkpoint's mapping")
    return state


def find_checkpoints(folder: str | Path, prefix: str = "G") -> list[tuple[int, Path]]:
    """Steps and paths of the checkpoints ``prefix_<step>`` (any suffix or none), by rising step."""
    pattern = re.compile(rf"{re.escape(prefix)}_(\d+)(\.\w+)?")
    matches = ((pattern.fullmatch(path.name), path) for path in Path(folder).glob("*") if path.is_file())
    return sorted((int(match[1]), path) for match, path in matches if match)


def latest_checkpoint(folder: str | Path, prefix: str = "G") -> Path | None:
    """The checkpoint of the highest step, ``None`` if there is none."""
    found = find_checkpoints(folder, prefix)
    return found[-1][1] if found else None


def prune_checkpoints(folder: str | Path, keep: int, prefixes: Iterable[str] = PREFIXES) -> list[Path]:
    """Delete all but the ``keep`` newest checkpoints of each prefix; step 0 stays and does not count.

    Args:
        folder: the run.
        keep: how many to keep, by step; 0 keeps all (the seed's meaning of ``keep_ckpts: 0``).
        prefixes: which files.

    Returns:
        what was deleted.
    """
    if keep < 0:
        raise MelismaError(f"cannot keep {keep} checkpoints; give 0 to keep all, or a positive number")
    removed = []
    for prefix in prefixes:
        numbered = [path for step, path in find_checkpoints(folder, prefix) if step > 0]
        removed += numbered[: len(numbered) - keep] if 0 < keep < len(numbered) else []
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def save_config(folder: str | Path, config: Mapping[str, Any], name: str = "config.json") -> Path:
    """Write the run's configuration as JSON beside its checkpoints and return the path; the folder is made."""
    path = Path(folder) / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MelismaError(f"{path.parent}: cannot be made: {error.strerror}; choose another folder") from error
    with replace_on_success(path) as temporary:
        temporary.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
