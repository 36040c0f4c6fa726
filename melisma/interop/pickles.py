"""Opening PyTorch checkpoints without running what is in them."""

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from melisma.errors import MelismaError

# How torch's restricted unpickler says what it would not run; all else that it says is about damage.
_WANTS_CODE = re.compile(r"GLOBAL (\S+)|unrecognized function (.+)|add_safe_globals`,? but got (.+)")


def read_pickle(path: Path) -> dict[str, Any]:
    """The mapping in a PyTorch checkpoint: tensors and plain values; anything else is refused and never run.

    Raises:
        MelismaError: damaged, not a checkpoint, or a pickle that wants to run code.
    """
    if path.stat().st_size == 0:
        raise MelismaError(f"{path}: the file is empty; fetch or copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of TorchScript archives; they are an error below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # what a damaged pickle raises depends on its bytes
        if "TorchScript" in str(error):
            raise MelismaError(
                f"{path}: a TorchScript program, not weights; melisma does not run programs from files: "
                "name the checkpoint that it was made from"
            ) from error
        raise _damaged(path) from error
    if not isinstance(content, dict):
        raise MelismaError(f"{path}: holds a {type(content).__name__}, not a checkpoint's mapping; name another file")
    return content


def _refusal(path: Path, message: str) -> MelismaError:
    found = _WANTS_CODE.search(message)
    if found is None:
        return _damaged(path)
    wanted = next(group for group in found.groups() if group).splitlines()[0].rstrip(".,:;'\"")
    return MelismaError(
        f"{path}: refused: its pickle asks for {wanted}, and code in a file can do anything to this machine; "
        "nothing was run. If you trust its origin, load it there and save the state dict of tensors alone"
    )


def _damaged(path: Path) -> MelismaError:
    with path.open("rb") as file:
        begins = file.read(4)
    if begins[:2] == b"PK" and not zipfile.is_zipfile(path):
        return MelismaError(f"{path}: cut short (its directory is missing); fetch or copy it again")
    return MelismaError(f"{path}: damaged, or not a PyTorch checkpoint; fetch or copy it again, or name another file")
