"""melisma's own model file: one safetensors file whose header carries everything (``docs/architecture.md``, rule 4).

The header's ``__metadata__`` has one JSON text under the key ``melisma``. The tensors have the names of the generator's
folded state dict; a speaker table stands beside them as ``speakers``.
"""

import copy
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from melisma.audio.mel import MelContract
from melisma.config import from_mapping, to_mapping
from melisma.errors import MelismaError
from melisma.files import replace_on_success
from melisma.generators import build_generator, name_of
from melisma.interop.loaded import LoadedModel
from melisma.layers.weight_norm import blank, fold

FORMAT = 1
KEY = "melisma"
SPEAKERS = "speakers"
_HEADER_NAMES = (
    "format", "generator", "config", "mel", "f0", "licence", "provenance", "name", "version", "speaker_names",
)  # fmt: skip


def save_model(
    path: str | Path,
    generator: nn.Module,
    *,
    name: str,
    version: str = "",
    licence: str = "",
    provenance: str = "",
    f0_range_hz: tuple[float, float] | None = None,
    speakers: Tensor | None = None,
    speaker_names: dict[str, int] | None = None,
    half: bool = False,
) -> None:
    """Write a generator as one file that appears whole or not at all.

    Args:
        path: the file, ``.safetensors`` by custom.
        generator: of a class in the table of generators; weight norm is folded in the file, not in the module.
        name: the model's name.
        version: of the model.
        licence: of the weights.
        provenance: what the weights were trained on, with the credits that the recordings ask for.
        f0_range_hz: lowest and highest F0 of the training data.
        speakers: speaker table ``(count, speaker_channels)``.
        speaker_names: name of each speaker and its row.
        half: store float16; it is read back as float32. Tensors that it cannot hold stay float32.

    Raises:
        MelismaError: the folder cannot be written, or weights are not finite.
    """
    state = fold(copy.deepcopy(generator)).state_dict()
    tensors = {key: _stored(key, value, half) for key, value in state.items()}
    if speakers is not None:
        tensors[SPEAKERS] = _stored(SPEAKERS, speakers, half)
    stated = header(generator, name, version, licence, provenance, f0_range_hz, speaker_names)
    with replace_on_success(path) as temporary:
        # Not by save_file: whatever the umask says, it makes files that nobody else may read.
        temporary.write_bytes(save(tensors, metadata={KEY: json.dumps(stated, ensure_ascii=False)}))


def header(
    generator: nn.Module,
    name: str,
    version: str,
    licence: str,
    provenance: str,
    f0_range_hz: tuple[float, float] | None,
    speaker_names: dict[str, int] | None,
) -> dict[str, Any]:
    """What a file of ours says about its model, as JSON can hold it; arguments as for :func:`save_model`."""
    mel = generator.mel
    return {
        "format": FORMAT,
        "generator": name_of(generator),
        "config": to_mapping(generator.config),
        "mel": None if mel is None else to_mapping(mel),
        "f0": {"contract": getattr(generator, "f0_contract", None), "range_hz": f0_range_hz},
        "licence": licence,
        "provenance": provenance,
        "name": name,
        "version": version,
        "speaker_names": speaker_names or {},
    }


def _stored(key: str, value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value.clone()
    if not bool(torch.isfinite(value).all()):
        raise MelismaError(f"{key} holds NaN or infinity; the model is broken: save an earlier state")
    fits = value.numel() == 0 or float(value.abs().max()) <= torch.finfo(torch.float16).max
    return value.to(torch.float16 if half and fits else torch.float32).clone()


def load_model(path: str | Path) -> LoadedModel:
    """Read what :func:`save_model` wrote.

    Raises:
        MelismaError: missing, damaged, of a newer format, or not a model of melisma's.
    """
    path = Path(path)
    if not path.is_file():
        raise MelismaError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, the file is no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise MelismaError(f"{path}: not a whole safetensors file ({error}); fetch or copy it again") from error
    header = _header(path, metadata)
    with blank():
        generator = build_generator(header["generator"], header["config"], f"{path}: config")
    _check_mel(path, header, generator)
    speakers = tensors.pop(SPEAKERS, None)
    _fill(path, generator, tensors)
    return LoadedModel(
        generator=generator.requires_grad_(False).eval(),
        kind=f"melisma/{header['generator']}",
        name=header["name"],
        format="melisma model file (safetensors: tensors only, no code)",
        f0_range_hz=_range(path, header),
        speakers=None if speakers is None else speakers.float(),
        speaker_names=header.get("speaker_names") or {},
        licence=header["licence"],
        provenance=header["provenance"],
        version=header["version"],
    )


def _header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if KEY not in metadata:
        raise MelismaError(
            f"{path}: a safetensors file without melisma's header; melisma cannot tell what it is: "
            "name the original checkpoint with its config.json, or convert it with 'melisma convert'"
        )
    try:
        header = json.loads(metadata[KEY])
    except ValueError as error:
        raise MelismaError(f"{path}: its header is damaged ({error}); fetch or copy the file again") from error
    if not isinstance(header, dict) or not isinstance(header.get("format"), int):
        raise MelismaError(f"{path}: its header is damaged; fetch or copy the file again")
    if header["format"] > FORMAT:
        raise MelismaError(
            f"{path}: format {header['format']} is newer than this melisma reads ({FORMAT}); update melisma"
        )
    missing = [name for name in _HEADER_NAMES[:-1] if name not in header]
    if missing or not isinstance(header["config"], dict):
        raise MelismaError(f"{path}: its header lacks {', '.join(missing) or 'a config'}; fetch the file again")
    return header


def _check_mel(path: Path, header: dict[str, Any], generator: nn.Module) -> None:
    """The header repeats the mel contract for other readers; it must be the one in the config."""
    stated = None if header["mel"] is None else from_mapping(MelContract, header["mel"], f"{path}: mel")
    mel: MelContract | None = generator.mel  # type: ignore[assignment]
    if stated != mel and (stated is None or mel is None or stated.difference(mel)):
        raise MelismaError(f"{path}: the mel contract of its header is not that of its config; fetch the file again")


def _range(path: Path, header: dict[str, Any]) -> tuple[float, float] | None:
    stated = (header["f0"] or {}).get("range_hz")
    if stated is None:
        return None
    try:
        low, high = (float(value) for value in stated)
    except (TypeError, ValueError) as error:
        raise MelismaError(f"{path}: the F0 range in its header is no pair of numbers; fetch the file again") from error
    if not (math.isfinite(high) and 0 < low <= high):
        raise MelismaError(f"{path}: the F0 range {low} to {high} Hz in its header is impossible; fetch the file again")
    return low, high


def _fill(path: Path, generator: nn.Module, tensors: dict[str, Tensor]) -> None:
    wanted = generator.state_dict()
    problems = [f"missing {key}" for key in wanted if key not in tensors]
    problems += [f"unknown {key}" for key in tensors if key not in wanted]
    problems += [
        f"{key} {tuple(tensors[key].shape)} should be {tuple(wanted[key].shape)}"
        for key in wanted
        if key in tensors and tensors[key].shape != wanted[key].shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise MelismaError(f"{path}: weights do not fit its config: {', '.join(problems[:5])}{more}; fetch it again")
    generator.load_state_dict({key: tensors[key].to(wanted[key].dtype) for key in wanted})
