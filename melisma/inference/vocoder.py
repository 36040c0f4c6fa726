"""The vocoder as its users see it: load a model, synthesise features, resynthesise recordings."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from melisma.audio.f0_curve import NEUTRAL_HZ, interpolate_unvoiced
from melisma.audio.mel import OPENVPI_44K, MelContract
from melisma.config import lookup, suggest
from melisma.errors import MelismaError
from melisma.generators.nsf_hifigan import NsfHifigan
from melisma.generators.spectral import Spectral
from melisma.inference.features import as_f0, as_features, as_speaker
from melisma.inference.memory import keep_freed_memory
from melisma.inference.pieces import PIECE_SECONDS, Precision, Request, render
from melisma.inference.resynthesis import Edit, Settings, check_recording, check_settings, level_gains, plan, sing
from melisma.inference.sources import ArraySource, Level
from melisma.inference.streaming import Stream, fingerprint
from melisma.kernels import choice

_MODELS = Path(__file__).parent.parent / "models"
SHIPPED = {name: _MODELS / f"{name}.safetensors" for name in ("melisma-44k", "melisma-44k-live")}
ANALYTIC = "analytic"
WantedPrecision = Literal["auto", "float32", "bfloat16"]
_OUTSIDE_RANGE = 2.0 ** (1 / 12)  # a semitone beyond what the model was trained on is no reason to warn


@dataclass(frozen=True)
class Info:
    """Where a model comes from.

    Attributes:
        name: its name or path.
        kind: what it is (a foreign format's name, or a generator of ours).
        f0_range_hz: lowest and highest F0 that it was trained on, or None when not known.
        details: what else its file says (licence, provenance).
    """

    name: str
    kind: str
    f0_range_hz: tuple[float, float] | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Vocoder:
    """A generator that is ready to sing.

    Args:
        generator: see docs/architecture.md, rule 1.
        info: where it comes from.
        speakers: the speaker table ``(count, speaker_channels)`` of models that have one.
        device: where it runs.
        precision: ``float32``, or ``bfloat16`` for the layers with weights.

    Attributes:
        mel: the mel contract, None for a latent decoder.
        sample_rate: Hz.
        hop_length: samples a frame.
    """

    def __init__(
        self,
        generator: Any,
        info: Info,
        speakers: Tensor | None = None,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self.generator = generator.to(device).eval()
        self.info = info
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.mel: MelContract | None = generator.mel
        self.sample_rate: int = generator.sample_rate
        self.hop_length: int = generator.hop_length
        self._speakers = speakers
        self._warned = False

    def synthesize(
        self,
        features: np.ndarray | Tensor,
        f0_hz: np.ndarray | Tensor | None = None,
        speaker: int | str | np.ndarray | Tensor | None = None,
        seed: int = 0,
        projections: int | None = None,
        piece_seconds: float = PIECE_SECONDS,
        progress: Callable[[float], None] | None = None,
    ) -> np.ndarray:
        """Features and F0 to audio.

        Args:
            features: log-mel under :attr:`mel`, or latent: ``(channels, frames)`` or ``(batch, channels, frames)``.
            f0_hz: ``(frames,)`` or ``(batch, frames)`` in Hz, 0 where unvoiced (or interpolated there); None for models
                without F0.
            speaker: for models with speakers, a row of their table, its name, or a vector ``(speaker_channels,)``.
            seed: of phase and noise; the same seed gives the same audio.
            projections: rounds of mel projection of the spectral family; None is the model's default, 0 is off.
            piece_seconds: long input goes in pieces of this length; the result does not depend on it.
            progress: called with the share done, 0 to 1, after every piece.

        Returns:
            float32 ``(frames * hop_length,)``, or ``(batch, samples)`` where features have a batch.

        Raises:
            MelismaError: wrong shapes, NaN, or an F0 that cannot be; the line says the cure.
        """
        mel, batched = as_features(features, self.generator)
        curve = None if not self.uses_f0 else as_f0(f0_hz, mel.shape[0], mel.shape[2], self.sample_rate)
        if isinstance(speaker, str):
            speaker = lookup(self.info.details.get("speakers", {}), speaker, "speaker")
        request = Request(
            frames=mel.shape[-1],
            features=lambda first, last: mel[..., first:last],
            f0_hz=None if curve is None else self.f0_for_model(curve),
            speaker=as_speaker(speaker, self.generator, self._speakers, mel.shape[0], mel.shape[2]),
            seed=seed,
            projections=self.check_projections(projections),
        )
        pieces, done = [], 0
        for piece in render(self.generator, request, self.precision, piece_seconds):
            pieces.append(piece)
            done += piece.shape[1]
            if progress is not None:
                progress(done / (request.frames * self.hop_length))
        audio = np.concatenate(pieces, axis=1)
        return audio if batched else audio[0]

    def resynthesize(
        self,
        audio: np.ndarray | Tensor,
        sample_rate: int,
        shift_semitones: float = 0.0,
        f0_hz: np.ndarray | Tensor | None = None,
        speed: float = 1.0,
        seed: int = 0,
        projections: int | None = None,
        f0_method: str | None = None,
        progress: Callable[[float], None] | None = None,
        target_f0_hz: np.ndarray | Tensor | Edit | None = None,
        formant_semitones: float = 0.0,
    ) -> np.ndarray:
        """A recording in, the same voice out, at another pitch or speed where wanted.

        Args:
            audio: ``(samples,)`` or ``(channels, samples)``, full scale 1. Channels share one F0, found on their mean,
                and one seed.
            sample_rate: Hz, 8 to 192 kHz. What lies above half the model's rate is dropped.
            shift_semitones: pitch shift.
            f0_hz: F0 of the recording, one value every :attr:`hop_length` samples at the model's rate, 0 where
                unvoiced; None estimates it. The shift is added to it.
            speed: 2 is twice as fast; the pitch stays.
            seed: of phase and noise.
            projections: see :meth:`synthesize`.
            f0_method: an estimator's name.
            progress: called with the share done, 0 to 1.
            target_f0_hz: the F0 to sing, at the frames of ``f0_hz`` (before any change of speed), or a function that
                makes it from the recording's, see :mod:`melisma.editing`; None sings the recording's. The shift is
                added to it. The recording's own F0 is still found, or given, for what is known from it.
            formant_semitones: by how much the formants of voiced sound move, -12 to 12; the pitch stays.

        Returns:
            float32 of the same shape and rate (``round(samples / speed)`` samples), each channel at its level.

        Raises:
            MelismaError: a latent model, a recording or a curve that cannot be used; the line says the cure.
        """
        rows = _recording(audio)
        check_recording(rows.shape[0], rows.shape[1], sample_rate, "audio")
        settings = Settings(shift_semitones, speed, seed, projections, f0_method, formant_semitones)
        check_settings(settings)
        report = progress or (lambda done: None)
        curve = None if f0_hz is None else np.asarray(f0_hz, dtype=np.float32)
        source = ArraySource(rows, sample_rate, self.sample_rate)
        planned = plan(self, source, settings, curve, report, _edit(target_f0_hz))
        made = Level(source.channels, sample_rate)
        blocks = []
        for block in sing(self, source, settings, planned, report):
            made.add(block)
            blocks.append(block)
        result = np.concatenate(blocks, axis=1) * level_gains(source.level, made)[:, None]
        return result[0] if np.ndim(audio) == 1 else result

    def stream(
        self,
        seed: int = 0,
        speaker: int | str | np.ndarray | Tensor | None = None,
        projections: int | None = None,
    ) -> Stream:
        """A stream that takes features and F0 in chunks of any sizes and gives the audio as soon as it is decided.

        All that it gives, joined, is what :meth:`synthesize` gives for the whole.

        Args:
            seed: of phase and noise.
            speaker: for models with speakers, see :meth:`synthesize`; the same for the whole stream.
            projections: see :meth:`synthesize`.
        """
        if isinstance(speaker, str):
            speaker = lookup(self.info.details.get("speakers", {}), speaker, "speaker")
        vector = as_speaker(speaker, self.generator, self._speakers, 1, 1)
        return Stream(self, seed, vector, self.check_projections(projections))

    @cached_property
    def fingerprint(self) -> str:
        """What tells this model from any other: a digest of its settings and weights."""
        return fingerprint(self.generator)

    @property
    def uses_f0(self) -> bool:
        """Whether the model sings an F0 (HiFi-GAN and BigVGAN do not)."""
        return getattr(self.generator, "f0_contract", "zero") not in (None, "none")

    def check_projections(self, projections: int | None) -> int | None:
        """Refuse projections for a model that has none."""
        if projections is not None and getattr(self.generator, "default_projections", None) is None:
            raise MelismaError("this model has no mel projections; leave projections out (only spectral models do)")
        if projections is not None and projections < 0:
            raise MelismaError(f"projections {projections} is negative; 0 turns them off")
        return projections

    def f0_for_model(self, f0_hz: np.ndarray) -> Tensor | None:
        """``(batch, frames)`` under the model's F0 contract, as a tensor; warns once outside its range."""
        if not self.uses_f0:
            return None
        self.warn_outside_range(f0_hz)
        if self.generator.f0_contract == "interpolated":
            # A curve without any voiced frame has nothing to interpolate; at 0 Hz such a source holds a constant.
            silent = ~(f0_hz > 0).any(axis=-1, keepdims=True)
            f0_hz = interpolate_unvoiced(np.where(silent, NEUTRAL_HZ, f0_hz))
        return torch.tensor(np.asarray(f0_hz, dtype=np.float32))

    def warn_outside_range(self, f0_hz: np.ndarray) -> None:
        """Warn, once, of an F0 outside what the model was trained on."""
        voiced = f0_hz[f0_hz > 0]
        if self._warned or self.info.f0_range_hz is None or voiced.size == 0:
            return
        low, high = self.info.f0_range_hz
        if voiced.min() < low / _OUTSIDE_RANGE or voiced.max() > high * _OUTSIDE_RANGE:
            self._warned = True
            lowest, highest = f"{voiced.min():.0f}", f"{voiced.max():.0f}"
            found = f"is {lowest}" if lowest == highest else f"goes from {lowest} to {highest}"
            warnings.warn(
                f"F0 {found} Hz; {self.info.name} was trained on {low:.0f} "
                f"to {high:.0f} Hz and may sound worse outside",
                UserWarning,
                stacklevel=3,
            )


def _edit(target_f0_hz: np.ndarray | Tensor | Edit | None) -> Edit | None:
    """A target curve as a function of the recording's."""
    if target_f0_hz is None or callable(target_f0_hz):
        return target_f0_hz
    target = np.asarray(target_f0_hz, dtype=np.float32)
    return lambda f0_hz: target


def _recording(audio: np.ndarray | Tensor) -> np.ndarray:
    """``(channels, samples)`` float32; refuses other shapes, integers and NaN."""
    samples = audio.detach().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio)
    if samples.ndim not in (1, 2):
        raise MelismaError(f"audio must be (samples,) or (channels, samples), not {samples.shape}")
    if not np.issubdtype(samples.dtype, np.floating):
        raise MelismaError(f"audio must be float with full scale 1, not {samples.dtype}; divide 16-bit values by 32768")
    rows = np.atleast_2d(samples).astype(np.float32)
    if rows.shape[0] > 16 and rows.shape[0] > rows.shape[1]:
        raise MelismaError(f"audio of shape {samples.shape} looks like (samples, channels); transpose it")
    if not np.isfinite(rows).all():
        raise MelismaError("the audio holds NaN or Inf; repair or export it again")
    return rows


def load(
    name_or_path: str | Path,
    device: str = "auto",
    precision: WantedPrecision = "auto",
) -> Vocoder:
    """Load a vocoder. The process keeps freed memory from then on (:mod:`melisma.inference.memory`).

    Args:
        name_or_path: ``melisma-44k`` or ``melisma-44k-live`` (the shipped models), ``analytic`` (no weights, the same
            mel), or a checkpoint of any format that melisma reads; what it is, is recognised by its content.
        device: ``auto`` takes a CUDA device where there is one.
        precision: ``auto`` is float32, but bfloat16 for the convolutional models on a CPU that has no faster way to
            float32 (``melisma info --system`` says what this one takes). ``bfloat16`` takes two fifths of the time with
            AMX, three quarters of it without; streams and pieces then differ from the whole by what it rounds. Trained
            spectral models need AMX for it and take four fifths of the time; others of the kind stay in float32.

    Raises:
        MelismaError: no such model or file, or a checkpoint that cannot be read; the line says the cure.
    """
    keep_freed_memory()
    chosen = _device(device)
    lookup(_PRECISIONS, precision, "precision")
    if str(name_or_path) == ANALYTIC:
        from melisma.generators.analytic import analytic

        generator = analytic(OPENVPI_44K)
        return Vocoder(generator, Info(ANALYTIC, ANALYTIC), None, chosen, _precision(precision, generator, chosen))
    path = model_path(name_or_path)
    from melisma.interop import load_checkpoint

    loaded = load_checkpoint(path)
    info = Info(str(name_or_path), loaded.kind, loaded.f0_range_hz, loaded.details)
    exact = _precision(precision, loaded.generator, chosen)
    return Vocoder(loaded.generator, info, loaded.speakers, chosen, exact)


_PRECISIONS = {"auto": "what is fast here", "float32": "single", "bfloat16": "half the bits"}


def _precision(wanted: str, generator: torch.nn.Module, device: torch.device) -> Precision:
    """What ``auto`` means here; warns where bfloat16 is asked for and cannot be had, or would only be slower."""
    convolutional = isinstance(generator, NsfHifigan)
    if wanted == "auto":
        return "bfloat16" if device.type == "cpu" and convolutional and choice.bfloat16().fast else "float32"
    if wanted == "bfloat16" and not convolutional:
        trained, tiles = isinstance(generator, Spectral), choice.tiles()
        if trained and device.type == "cpu" and tiles.fast:
            return "bfloat16"
        why = f": {tiles.why}" if trained and not tiles.fast else ""
        warnings.warn(f"this kind of model is computed in float32, not in bfloat16{why}", UserWarning, stacklevel=3)
        return "float32"
    if wanted == "bfloat16" and device.type == "cpu" and not choice.half_precision().fast:
        why = choice.half_precision().why
        warnings.warn(f"bfloat16 is slower than float32 here: {why}", UserWarning, stacklevel=3)
    return "bfloat16" if wanted == "bfloat16" else "float32"


def model_path(name_or_path: str | Path) -> Path:
    """The file of a model: a shipped one by name, else the path itself; neither is an error with a suggestion."""
    path = SHIPPED.get(str(name_or_path), Path(name_or_path))
    if not path.exists():
        names = [*SHIPPED, ANALYTIC]
        if str(name_or_path) in SHIPPED:
            raise MelismaError(f"{name_or_path}: its weights are not in this installation ({path}); install it again")
        raise MelismaError(
            f"{name_or_path}: no such model or file; known models: {', '.join(names)}"
            f"{suggest(str(name_or_path), names)}"
        )
    return path


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise MelismaError(f"unknown device {device!r}; use auto, cpu or cuda") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise MelismaError("no CUDA device is available; use device='cpu' or 'auto'")
    return chosen
