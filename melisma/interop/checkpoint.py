"""Any checkpoint file to a generator: recognised by its content, its ``config.json`` found beside it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from melisma.errors import MelismaError
from melisma.interop import own, rvc, sovits
from melisma.interop.build import BUILDERS
from melisma.interop.loaded import LoadedModel
from melisma.interop.pickles import read_pickle
from melisma.interop.state import strip_prefix

CONFIG = "config.json"
_LIGHTNING_PREFIX = "generator."
_SAFE = "a pickle, read as tensors and plain values only: no code of it was run"


def load_checkpoint(path: str | Path) -> LoadedModel:
    """Load a model file of any format that melisma reads.

    Args:
        path: our own ``.safetensors``; so-vits-svc ``G_*.pth``; openvpi ``model`` or a training checkpoint of
            SingingVocoders; an RVC voice; HiFi-GAN ``g_*``; BigVGAN. All but the first and RVC need their
            ``config.json`` beside them. File names do not matter.

    Raises:
        MelismaError: one line: what is wrong with which file and what to do about it.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(item.name for item in path.iterdir() if item.is_file() and item.name != CONFIG)[:5]
        raise MelismaError(
            f"{path}: is a folder; name the checkpoint in it" + (f": {', '.join(names)}" if names else "")
        )
    if not path.exists():
        raise MelismaError(f"{path}: no such file; check the name and the folder")
    try:
        if _is_safetensors(path):
            return own.load_model(path)
        return _foreign(path, read_pickle(path))
    except PermissionError as error:
        raise MelismaError(f"{path}: may not be read; change its permissions") from error


def save_checkpoint(loaded: LoadedModel, path: str | Path, half: bool = False) -> None:
    """Write a loaded model as a file of melisma's own; ``half`` stores float16."""
    own.save_model(
        path,
        loaded.generator,
        name=loaded.name,
        version=loaded.version,
        licence=loaded.licence,
        provenance=loaded.provenance or f"converted from {loaded.kind} ({loaded.name})",
        f0_range_hz=loaded.f0_range_hz,
        speakers=loaded.speakers,
        speaker_names=loaded.speaker_names,
        half=half,
    )


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        begins = file.read(9)
    return path.suffix == ".safetensors" or (len(begins) == 9 and begins[8:] == b"{" and begins[6:8] == b"\0\0")


def _foreign(path: Path, content: dict[str, Any]) -> LoadedModel:
    """Recognise what a mapping is; every format has names at its top that no other has."""
    weights, config = content.get("weight"), content.get("config")
    if isinstance(weights, Mapping) and config is not None:
        return _rvc(path, content)
    model = content.get("model")
    if isinstance(model, Mapping) and any(str(name).startswith(sovits.PREFIX) for name in model):
        return _sovits(path, content)
    if isinstance(content.get("generator"), Mapping):
        return _vocoder(path, content["generator"], [key for key in content if key != "generator"])
    states = content.get("state_dict")
    if isinstance(states, Mapping) and any(str(name).startswith(_LIGHTNING_PREFIX) for name in states):
        ignored = sorted({name.split(".")[0] for name in states if not name.startswith(_LIGHTNING_PREFIX)})
        ignored += [key for key in content if key != "state_dict"]
        return _vocoder(path, strip_prefix(states, _LIGHTNING_PREFIX), ignored)
    if any(str(name).startswith("conv_pre.") for name in content):
        return _vocoder(path, content, [])
    raise _unknown(path, content)


def _unknown(path: Path, content: dict[str, Any]) -> MelismaError:
    names = [str(key) for key in content]
    model = content.get("model")
    inner = [str(key) for key in model] if isinstance(model, Mapping) else []
    if {"mpd", "msd"} & set(names) or any(name.startswith("discriminators.") for name in inner):
        return MelismaError(f"{path}: discriminators of a training run; name the generator's file (g_* or G_*)")
    if {"recipe", "voice", "average"} <= set(names):
        return MelismaError(
            f"{path}: a checkpoint of melisma train; make a model of it: melisma export model {path} -o FILE"
        )
    shown = ", ".join(names[:6]) or "nothing"
    return MelismaError(
        f"{path}: no model that melisma knows (it holds {shown}); it reads {', '.join(BUILDERS)} and its own files"
    )


def _json_beside(path: Path) -> dict[str, Any]:
    beside = path.with_name(CONFIG)
    if not beside.is_file():
        raise MelismaError(f"{beside}: missing; put the {CONFIG} that belongs to {path.name} beside it")
    try:
        config = json.loads(beside.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise MelismaError(f"{beside}: not readable as JSON ({error}); fetch it again or repair it") from error
    if not isinstance(config, dict):
        raise MelismaError(f"{beside}: expected a JSON object of settings; fetch it again")
    return config


def _notes(ignored: list[str], unread: list[str]) -> tuple[str, ...]:
    notes = [_SAFE]
    if ignored:
        notes.append(f"not used from the file: {_few(ignored)}")
    if unread:
        notes.append(f"settings that melisma does not know and did not read: {_few(unread)}")
    return tuple(notes)


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _build(path: Path, kind: str, config: Any, state: Mapping[str, Tensor], ignored: list[str]) -> LoadedModel:
    try:
        generator, unread = BUILDERS[kind](config, state)
    except MelismaError as error:
        raise MelismaError(f"{path}: {error}") from error
    return LoadedModel(generator, kind, path.stem, f"{kind} checkpoint", notes=_notes(ignored, unread))


def _check_hop(path: Path, stated: Any, loaded: LoadedModel) -> LoadedModel:
    hop_length = loaded.generator.hop_length
    if stated is not None and stated != hop_length:
        raise MelismaError(
            f"{path.with_name(CONFIG)}: its hop of {stated} samples is not the product of its upsample_rates "
            f"({hop_length}); it does not belong to {path.name}"
        )
    return loaded


def _vocoder(path: Path, state: Mapping[str, Tensor], ignored: list[str]) -> LoadedModel:
    names = [str(name) for name in state]
    if any(name.startswith("ups.0.0.") for name in names):
        kind = "bigvgan"
    elif any(name.startswith(("m_source.", "noise_convs.", "source_conv.")) for name in names):
        kind = "openvpi"
    else:
        kind = "hifi-gan"
    config = _json_beside(path)
    loaded = _check_hop(path, config.get("hop_size"), _build(path, kind, config, state, ignored))
    if loaded.mel is None:
        raise MelismaError(f"{path.with_name(CONFIG)}: num_mels, n_fft, win_size and fmin must be in it")
    return loaded


def _sovits(path: Path, content: dict[str, Any]) -> LoadedModel:
    model = content["model"]
    state = strip_prefix(model, sovits.PREFIX)
    if "m_source.l_linear.weight" in state and state["m_source.l_linear.weight"].numel() == 1:
        raise MelismaError(f"{path}: a training checkpoint of RVC; name the voice that RVC exports from it")
    config = _json_beside(path)
    if not isinstance(config.get("model"), Mapping) or not isinstance(config.get("data"), Mapping):
        raise MelismaError(f"{path.with_name(CONFIG)}: lacks 'model' or 'data'; it is not so-vits-svc's")
    settings = {**config["model"], "sampling_rate": config["data"].get("sampling_rate")}
    kind = "so-vits-svc-snake" if any(name.startswith("snake_post.") for name in state) else "so-vits-svc"
    parts = {str(name).split(".")[0] for name in model} - {"dec", "emb_g"}
    ignored = sorted(parts) + [key for key in content if key != "model"]
    loaded = _check_hop(path, config["data"].get("hop_length"), _build(path, kind, settings, state, ignored))
    speakers = config.get("spk")
    names = {str(name): row for name, row in speakers.items()} if isinstance(speakers, Mapping) else {}
    return replace(loaded, speakers=_table(path, model, sovits.SPEAKERS, loaded), speaker_names=names)


def _rvc(path: Path, content: dict[str, Any]) -> LoadedModel:
    weights = content["weight"]
    if content.get("f0") in (0, "0", False):
        raise MelismaError(f"{path}: an RVC voice without F0; melisma sings F0: train or choose a voice with it")
    state = strip_prefix(weights, rvc.PREFIX)
    ignored = sorted({str(name).split(".")[0] for name in weights} - {"dec", "emb_g"})
    loaded = _build(path, "rvc", content["config"], state, ignored)
    version = content.get("version")
    notes = (*loaded.notes, f"RVC {version}") if isinstance(version, str) else loaded.notes
    return replace(loaded, speakers=_table(path, weights, rvc.SPEAKERS, loaded), notes=notes)


def _table(path: Path, weights: Mapping[str, Any], name: str, loaded: LoadedModel) -> Tensor | None:
    table = weights.get(name)
    if table is None:
        return None
    channels = loaded.generator.config.speaker_channels  # type: ignore[union-attr]
    if not isinstance(table, Tensor) or table.ndim != 2 or table.shape[1] != channels:
        raise MelismaError(f"{path}: {name} should be (speakers, {channels})")
    return table.float()
