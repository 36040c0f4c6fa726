"""What a checkpoint turned out to be."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from melisma.audio.mel import MelContract


@dataclass(frozen=True)
class LoadedModel:
    """A generator that is ready for inference, and what its file said.

    Attributes:
        generator: in evaluation mode, float32, weight norm folded; on the CPU.
        kind: the format: a key of :data:`melisma.interop.BUILDERS`, or ``melisma/<generator>`` for our own files.
        name: the model's own name, or the file's.
        format: the file in words.
        f0_range_hz: lowest and highest F0 of the training data, where known.
        speakers: the speaker table ``(count, speaker_channels)``, where there is one.
        speaker_names: name of each speaker and its row in the table, where known.
        licence: of the weights; empty where the file does not say.
        provenance: what they were trained on; empty where the file does not say.
        version: of the model; empty where the file does not say.
        notes: what else is worth knowing: how far to trust the file, what was left unread.
    """

    generator: nn.Module
    kind: str
    name: str
    format: str
    f0_range_hz: tuple[float, float] | None = None
    speakers: Tensor | None = None
    speaker_names: dict[str, int] = field(default_factory=dict)
    licence: str = ""
    provenance: str = ""
    version: str = ""
    notes: tuple[str, ...] = ()

    @property
    def mel(self) -> MelContract | None:
        """The mel contract; ``None`` for a latent decoder."""
        return self.generator.mel  # type: ignore[return-value]

    @property
    def f0_contract(self) -> str | None:
        """``zero``, ``interpolated``, or ``None`` for a model without F0."""
        return getattr(self.generator, "f0_contract", None)

    @property
    def details(self) -> dict[str, Any]:
        """What the file says beyond the generator, for showing."""
        return {
            "name": self.name,
            "version": self.version,
            "format": self.format,
            "licence": self.licence,
            "provenance": self.provenance,
            "speakers": dict(self.speaker_names),
            "notes": list(self.notes),
        }
