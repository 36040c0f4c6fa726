"""Golden cases of generators: outputs of the public references on weights that follow from their names."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melisma.source import Randomness

FOLDER = Path(__file__).parent / "golden"
KINDS = {
    "sovits_snake": "so-vits-svc-snake",
    "sovits_hifigan": "so-vits-svc",
    "openvpi": "openvpi",
    "rvc": "rvc",
    "hifigan": "hifi-gan",
    "bigvgan": "bigvgan",
}


def weight(name: str, shape: list[int]) -> Tensor:
    """The weight that a name stands for (golden/README of the collection)."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    post = 0.3 if "post" in name else 1.0
    if name.endswith("weight_g"):
        drawn = np.abs(1 + 0.1 * drawn) * post
    elif name.endswith(("alpha", "beta")):
        drawn = 0.2 * drawn
    elif name.endswith("bias"):
        drawn = 0.05 * drawn
    elif not name.endswith("weight_v"):
        drawn = drawn / np.sqrt(np.prod(shape[1:])) * post
    return torch.tensor(drawn.astype(np.float32))


@dataclass(frozen=True)
class Case:
    """One case, read."""

    kind: str
    config: dict[str, Any]
    entries: list[tuple[str, list[int], bool]]
    data: dict[str, Tensor]

    def state(self, kept: bool = False) -> dict[str, Tensor]:
        """The foreign state dict, with or without the constants that a model computes itself."""
        return {name: weight(name, shape) for name, shape, is_kept in self.entries if kept or not is_kept}

    def randomness(self) -> Randomness:
        """The reference's draws."""
        uniform = [value for name, value in self.data.items() if name.endswith("uniform")]
        normal = [value for name, value in self.data.items() if name.endswith("normal")]
        if self.config.get("mini_nsf"):
            return Randomness(feature_noise=normal[0] if normal else None)
        return Randomness(uniform[0] if uniform else None, normal[0] if normal else None)

    def inputs(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Features, F0 and speaker."""
        return self.data["features"], self.data.get("f0_hz"), self.data.get("speaker")


def names() -> list[str]:
    """The cases there are."""
    return sorted(path.name for path in FOLDER.iterdir() if path.name.startswith(tuple(KINDS)))


def read(name: str) -> Case:
    """Read one case."""
    facts = json.loads((FOLDER / name / "case.json").read_text())
    kind = next(kind for prefix, kind in KINDS.items() if name.startswith(prefix))
    with np.load(FOLDER / name / "data.npz") as data:
        return Case(kind, facts["config"], facts["state"], {key: torch.tensor(data[key]) for key in data.files})
