"""Saved features: .npy, .npz and .pt, in either layout."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from melisma.audio.arrays import choose, read_tensor
from melisma.audio.mel import MelContract, convert_log_mel
from melisma.config import from_mapping
from melisma.errors import MelismaError
from melisma.inference.features import check_scale, feature_channels

Layout = Literal["auto", "bins-frames", "frames-bins"]

KEYS = ("features", "mel", "mels", "mel_spec", "x")
CONTRACT_KEY = "mel_contract"  # in .npz: the contract as JSON, as MelContract's fields


def load_features(
    path: str | Path, generator: Any, layout: Layout = "auto", mel_base: Literal["auto", "e", "10"] = "auto"
) -> np.ndarray:
    """Load features for a generator.

    Args:
        path: ``.npy``, ``.npz`` (one array, or one of :data:`KEYS`; with ``mel_contract`` it is checked) or ``.pt`` (a
            tensor, or a mapping with such a key). A leading axis of length one is dropped.
        generator: what they are for: the number of its channels tells ``[bins, frames]`` from ``[frames, bins]``.
        layout: decides where both fit.
        mel_base: logarithm of the values where it is not the model's own.

    Returns:
        float32 ``(channels, frames)`` under the generator's contract.

    Raises:
        MelismaError: not readable, a pickle that wants more than tensors, wrong bins, another contract.
    """
    path = Path(path)
    values, contract = _read(path)
    try:
        return settled_features(values, contract, generator, layout, mel_base)
    except MelismaError as error:
        raise MelismaError(f"{path}: {error}") from error


def features_of_arrays(
    arrays: Mapping[str, np.ndarray],
    name: str,
    generator: Any,
    layout: Layout = "auto",
    mel_base: Literal["auto", "e", "10"] = "auto",
) -> np.ndarray:
    """:func:`load_features` of the arrays of an ``.npz`` that was read elsewhere; ``name`` stands for it in errors."""
    path = Path(name)
    contract = _contract(str(arrays[CONTRACT_KEY]), path) if CONTRACT_KEY in arrays else None
    try:
        return settled_features(arrays[_key(path, list(arrays))], contract, generator, layout, mel_base)
    except MelismaError as error:
        raise MelismaError(f"{name}: {error}") from error


def settled_features(
    values: np.ndarray,
    contract: MelContract | None,
    generator: Any,
    layout: Layout,
    mel_base: Literal["auto", "e", "10"],
) -> np.ndarray:
    """Values of a saved mel (or latent) as float32 ``(channels, frames)`` under the generator's contract."""
    features = _arranged(values, feature_channels(generator), layout)
    if generator.mel is None:
        return features
    source = contract or generator.mel
    if mel_base != "auto":
        source = dataclasses.replace(source, log_base=mel_base)
    if source != generator.mel:
        import torch

        features = convert_log_mel(torch.from_numpy(features), source, generator.mel).numpy()
    check_scale(features, generator.mel)
    return features


def _arranged(values: np.ndarray, channels: int | None, layout: Layout) -> np.ndarray:
    if values.dtype.kind not in "fiu":
        raise MelismaError(f"holds {values.dtype}, not numbers; save the features as floats")
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2 or values.size == 0:
        raise MelismaError(f"features of shape {values.shape}; one clip of (bins, frames) or (frames, bins) is needed")
    rows, columns = values.shape
    if layout == "auto":
        if channels is not None and channels not in (rows, columns):
            raise MelismaError(
                f"features of shape {values.shape}, the model needs {channels} bins; make them with its own settings"
            )
        if rows == columns:
            raise MelismaError(
                f"features of shape {values.shape} fit both ways; say --layout bins-frames or --layout frames-bins"
            )
        layout = "bins-frames" if channels is None or rows == channels else "frames-bins"
    features = values if layout == "bins-frames" else values.T
    if channels is not None and features.shape[0] != channels:
        raise MelismaError(f"features of shape {values.shape} as {layout}: the model needs {channels} bins")
    if not np.isfinite(features).all():
        raise MelismaError("the features hold NaN or Inf; repair them at their origin")
    return np.array(features, dtype=np.float32)


def _read(path: Path) -> tuple[np.ndarray, MelContract | None]:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise MelismaError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; name a saved array")
    try:
        if suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                contract = _contract(str(arrays[CONTRACT_KEY]), path) if CONTRACT_KEY in arrays else None
                return np.asarray(arrays[_key(path, list(arrays))]), contract
        if suffix == ".pt":
            return read_tensor(path, lambda names: _key(path, names), "features"), None
    except (ValueError, OSError, EOFError, TypeError, AttributeError) as error:
        raise MelismaError(
            f"{path}: refused: not a plain {suffix} of numbers (files that would run code are never opened as such); "
            "save one array with numpy.save"
        ) from error
    raise MelismaError(f"{path}: unknown kind of features {suffix or 'without suffix'!r}; known: .npy, .npz, .pt")


def _key(path: Path, names: list[str]) -> str:
    """Which of several arrays are the features; F0 and the contract may stand beside them."""
    return choose(path, [name for name in names if name not in (CONTRACT_KEY, "f0", "f0_hz")], KEYS, "mel (or latent)")


def _contract(text: str, path: Path) -> MelContract:
    try:
        mapping = json.loads(text)
    except json.JSONDecodeError as error:
        raise MelismaError(f"{path}: {CONTRACT_KEY} is not JSON; write the contract's fields") from error
    return from_mapping(MelContract, mapping, f"{path}: {CONTRACT_KEY}")
