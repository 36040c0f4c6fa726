"""The models that a service knows, loaded when first asked for and kept."""

import threading
from dataclasses import dataclass
from typing import Any

from melisma.config import lookup
from melisma.inference.vocoder import Vocoder, load
from melisma.web.settings import Settings


@dataclass(frozen=True)
class ModelInfo:
    """What ``GET /v1/models`` says of a model.

    Attributes:
        name: as requests call it.
        kind: what it is.
        default: whether it sings where a request names none.
        sample_rate: Hz.
        hop_length: samples a frame.
        channels: bins of the mel, or channels of the latent.
        uses_f0: whether it takes F0.
        f0_range_hz: lowest and highest F0 that it was trained on, where known.
        mel: the mel contract; null for a model of latents, which takes no recordings.
    """

    name: str
    kind: str
    default: bool
    sample_rate: int
    hop_length: int
    channels: int | None
    uses_f0: bool
    f0_range_hz: tuple[float, float] | None
    mel: dict[str, Any] | None


class Models:
    """Vocoders by name; safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: dict[str, Vocoder] = {}
        self._lock = threading.Lock()

    def name(self, name: str | None) -> str:
        """The name itself where it is known, the default's for none; an unknown one is an error."""
        lookup(self._settings.models, name or self._settings.default_model, "model")
        return name or self._settings.default_model

    def get(self, name: str | None = None) -> Vocoder:
        """The model of a name, or the default; it may have to be loaded, so call this from a worker."""
        known = self.name(name)
        with self._lock:
            if known not in self._loaded:
                self._loaded[known] = load(self._settings.models[known], device=self._settings.device)
            return self._loaded[known]

    @property
    def loaded(self) -> bool:
        """Whether all models are in memory."""
        return len(self._loaded) == len(self._settings.models)

    def describe(self) -> list[ModelInfo]:
        """All models; loads those that are not in memory."""
        return [self._info(name) for name in self._settings.models]

    def _info(self, name: str) -> ModelInfo:
        from melisma.config import to_mapping
        from melisma.inference.features import feature_channels

        vocoder = self.get(name)
        return ModelInfo(
            name=name,
            kind=vocoder.info.kind,
            default=name == self._settings.default_model,
            sample_rate=vocoder.sample_rate,
            hop_length=vocoder.hop_length,
            channels=feature_channels(vocoder.generator),
            uses_f0=vocoder.uses_f0,
            f0_range_hz=vocoder.info.f0_range_hz,
            mel=None if vocoder.mel is None else to_mapping(vocoder.mel),
        )
