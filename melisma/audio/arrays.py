"""Arrays by name in files that may hold several: .npz and .pt."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from melisma.errors import MelismaError


def choose(path: Path, names: Iterable[str], known: Iterable[str], what: str) -> str:
    """The first of the ``known`` names that is there, or the only one there is.

    Args:
        path: the file, for the error.
        names: what it holds.
        known: the names that ``what`` goes by, the preferred first.
        what: what is looked for, in words.

    Raises:
        MelismaError: several arrays, none with a known name.
    """
    names, known = list(names), list(known)
    for name in known:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise MelismaError(
        f"{path}: which of {', '.join(map(str, names)) or 'nothing'} is the {what}? Name it {known[0]!r}"
    )


def read_tensor(path: Path, choose_name: Callable[[list[str]], str], what: str) -> np.ndarray:
    """Read a ``.pt`` file: a tensor, or a mapping of which ``choose_name`` picks one; float32.

    Raises:
        MelismaError: damaged, a pickle that wants more than tensors (it is never run), or no tensor in it.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises depends on the bytes
        raise MelismaError(
            f"{path}: refused: not a file of tensors only; save it with torch.save(tensor, path)"
        ) from error
    if isinstance(content, dict):
        content = content[choose_name(list(content))]
    if not isinstance(content, torch.Tensor):
        raise MelismaError(f"{path}: holds a {type(content).__name__}; save the {what} as one tensor")
    return content.detach().float().numpy()
