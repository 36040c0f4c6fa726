"""What a checkpoint is, in words: ``melisma info``."""

from collections.abc import Callable, Mapping
from pathlib import Path

from melisma.audio.mel import MelContract
from melisma.interop.checkpoint import load_checkpoint
from melisma.interop.loaded import LoadedModel

F0_IN_WORDS = {
    "zero": "yes; 0 where unvoiced",
    "interpolated": "yes; interpolated through unvoiced frames (melisma converts)",
    None: "none: it sings the pitch of the mel",
}


def facts(loaded: LoadedModel) -> dict[str, str]:
    """Label and value of everything worth showing about a loaded model, in order."""
    generator = loaded.generator
    weights = sum(parameter.numel() for parameter in generator.parameters())
    f0 = F0_IN_WORDS[loaded.f0_contract]
    if loaded.f0_range_hz is not None:
        f0 += f"; trained on {loaded.f0_range_hz[0]:.0f} to {loaded.f0_range_hz[1]:.0f} Hz"
    lines = {
        "kind": loaded.kind,
        "name": " ".join(part for part in (loaded.name, loaded.version) if part),
        "file": loaded.format,
        "audio": f"{generator.sample_rate} Hz, {generator.hop_length} samples a frame",
        "input": mel_in_words(loaded.mel, getattr(generator.config, "in_channels", None)),
        "f0": f0,
    }
    if getattr(generator, "pitch_controllable", False):
        lines["pitch"] = "controllable: F0 may differ from the mel's pitch"
    if loaded.speakers is not None:
        names = f" ({', '.join(list(loaded.speaker_names)[:8])})" if loaded.speaker_names else ""
        lines["speakers"] = f"{loaded.speakers.shape[0]}{names}"
    lines["weights"] = f"{weights / 1e6:.2f} million"
    lines["licence"] = loaded.licence or "not stated in the file; ask whoever made it"
    lines["trained on"] = loaded.provenance or "not stated in the file"
    if loaded.notes:
        lines["notes"] = "; ".join(loaded.notes)
    return lines


def mel_in_words(mel: MelContract | None, channels: int | None) -> str:
    if mel is None:
        return f"a latent of {channels} channels, not a mel"
    logarithm = "natural log" if mel.log_base == "e" else "log10"
    epsilon = f", epsilon {mel.magnitude_epsilon:g} under the root" if mel.magnitude_epsilon else ""
    return (
        f"log-mel: {mel.n_mels} bins, {mel.fmin:g} to {mel.highest_hz:g} Hz, {mel.scale} scale, norm {mel.norm}, "
        f"n_fft {mel.n_fft}, window {mel.win_length}, power {mel.power:g}, {logarithm}, floor {mel.floor:g}{epsilon}, "
        f"padding {mel.padding} ({mel.pad_mode})"
    )


def describe(path: str | Path, more: Callable[[LoadedModel], dict[str, str]] | None = None) -> str:
    """Several lines about the checkpoint at ``path``; errors as for :func:`melisma.interop.load_checkpoint`.

    ``more`` gives further labels and values.
    """
    loaded = load_checkpoint(path)
    return in_lines(facts(loaded) | ({} if more is None else more(loaded)))


def in_lines(values: Mapping[str, str]) -> str:
    """Labels and values, one pair a line, the values below each other."""
    width = max(len(label) for label in values)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in values.items())
