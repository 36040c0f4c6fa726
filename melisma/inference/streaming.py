"""Streams: features and F0 in chunks of any sizes, audio as soon as it is decided, a state that can be saved."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from melisma.audio.f0_curve import NEUTRAL_HZ, interpolate_unvoiced
from melisma.config import to_mapping
from melisma.errors import MelismaError
from melisma.inference import halo
from melisma.inference.features import as_f0, as_features, feature_channels
from melisma.inference.pieces import within
from melisma.layers.streaming import Memory, State, is_finished

if TYPE_CHECKING:
    from melisma.inference.vocoder import Vocoder

FORMAT = 1
_KEY = "melisma-stream"
_OWN, _GENERATOR, _SPEAKER = "own.", "generator.", "speaker"
_ENOUGH_FRAMES = 32  # from so many on, the scale of a mel is judged


class Stream:
    """What :meth:`melisma.inference.vocoder.Vocoder.stream` returns.

    Everything pushed, and :meth:`finish` at the end, gives the audio of
    :meth:`~melisma.inference.vocoder.Vocoder.synthesize` of the whole, however it is cut: to 1e-5 of full scale in
    float32, to what bfloat16 rounds in bfloat16. Models that sing through unvoiced frames (``f0_contract``
    ``interpolated``) hold back an unvoiced stretch until the next voiced frame comes.

    Args:
        vocoder: the model.
        seed: of phase and noise.
        speaker: ``(1, speaker_channels, 1)`` or None.
        projections: rounds of mel projection, None for the model's default.
    """

    def __init__(self, vocoder: "Vocoder", seed: int, speaker: Tensor | None, projections: int | None) -> None:
        self._vocoder = vocoder
        self._generator = vocoder.generator
        self._seed, self._projections, self._speaker = seed, projections, speaker
        self._batch: int | None = None  # None until the first chunk; 0 for features without a batch
        self._own: State = {}  # frames that wait for a voiced one
        self._state: State | None = None  # the generator's

    @property
    def lookahead_samples(self) -> int:
        """Samples of audio that wait for later frames: after ``n`` frames, all but (at most) these have come."""
        return lookahead_samples(self._generator, self._projections)

    def push(self, features: np.ndarray | Tensor, f0_hz: np.ndarray | Tensor | None = None) -> np.ndarray:
        """Take the next frames.

        Args:
            features: ``(channels, frames)`` or ``(batch, channels, frames)``; there may be no frames.
            f0_hz: of the same frames, ``(frames,)`` or ``(batch, frames)`` in Hz, 0 where unvoiced.

        Returns:
            float32 ``(samples,)``, or ``(batch, samples)`` where features have a batch: what is now decided, maybe
            nothing.

        Raises:
            MelismaError: shapes or values that cannot be, or the stream is finished. The stream stays as it was.
        """
        self._refuse_finished("push")
        if np.ndim(features) in (2, 3) and np.shape(features)[-1] == 0:
            return self._nothing(np.shape(features), f0_hz)
        few = np.ndim(features) > 0 and np.shape(features)[-1] < _ENOUGH_FRAMES
        chunk, batched = as_features(features, self._generator, few)
        batch = chunk.shape[0] if batched else 0
        if self._batch not in (None, batch):
            raise MelismaError(
                f"features {tuple(np.shape(features))} do not go on with the stream, which has "
                f"{f'a batch of {self._batch}' if self._batch else 'no batch'}; give every chunk the same batch"
            )
        curve = None
        if self._vocoder.uses_f0:
            values = as_f0(f0_hz, chunk.shape[0], chunk.shape[2], self._vocoder.sample_rate)
            self._vocoder.warn_outside_range(values)
            curve = torch.tensor(values)
        self._batch = batch
        return self._advance(chunk, curve, last=False)

    def finish(self) -> np.ndarray:
        """Give the rest of the audio; nothing can be pushed afterwards. Shapes as of :meth:`push`."""
        self._refuse_finished("finish")
        rows = max(1, self._batch or 1)
        chunk = torch.zeros(rows, feature_channels(self._generator) or 1, 0)
        curve = torch.zeros(rows, 0) if self._vocoder.uses_f0 else None
        return self._advance(chunk, curve, last=True)

    def save(self) -> bytes:
        """Everything that the stream remembers, as a safetensors file in memory: tensors and words, no code."""
        tensors = {f"{_GENERATOR}{name}": value for name, value in (self._state or {}).items()}
        tensors |= {f"{_OWN}{name}": value for name, value in self._own.items()}
        if self._speaker is not None:
            tensors[_SPEAKER] = self._speaker
        facts = {
            "format": FORMAT,
            "model": self._vocoder.fingerprint,
            "name": self._vocoder.info.name,
            "seed": self._seed,
            "projections": self._projections,
            "batch": self._batch,
        }
        copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        return safetensors.torch.save(copies, {_KEY: json.dumps(facts)})

    def restore(self, saved: bytes) -> None:
        """Go on where the stream was that :meth:`save` wrote down; its seed and speaker come with it.

        Raises:
            MelismaError: not a stream's state, or that of another model.
        """
        facts, tensors = _read(saved)
        if facts["model"] != self._vocoder.fingerprint:
            raise MelismaError(
                f"this stream was saved with another model ({facts['name']}) than {self._vocoder.info.name}; "
                "restore it with the model that it was saved with"
            )
        self._seed, self._projections, self._batch = facts["seed"], facts["projections"], facts["batch"]
        self._speaker = tensors.pop(_SPEAKER, None)
        self._own = {name.removeprefix(_OWN): value for name, value in tensors.items() if name.startswith(_OWN)}
        device = self._vocoder.device
        state = {
            name.removeprefix(_GENERATOR): value.to(device) if value.ndim else value  # counters stay on the CPU
            for name, value in tensors.items()
            if name.startswith(_GENERATOR)
        }
        self._state = state or None

    def _refuse_finished(self, what: str) -> None:
        if is_finished(self._own):
            raise MelismaError(f"{what}: this stream is finished; begin a new one with stream()")

    def _nothing(self, shape: tuple[int, ...], f0_hz: np.ndarray | Tensor | None) -> np.ndarray:
        wanted = feature_channels(self._generator)
        if wanted is not None and shape[-2] != wanted:
            raise MelismaError(f"features have {shape[-2]} channels, the model needs {wanted}")
        if f0_hz is not None and np.shape(f0_hz)[-1:] != (0,):
            raise MelismaError("features have 0 frames and F0 has some; push the same frames of both")
        return np.zeros((*shape[:-2], 0), dtype=np.float32)

    def _advance(self, features: Tensor, f0_hz: Tensor | None, last: bool) -> np.ndarray:
        memory = Memory(self._own, last)
        if f0_hz is not None and self._generator.f0_contract == "interpolated":
            features, f0_hz = without_gaps(features, f0_hz, memory)
        device = self._vocoder.device
        with torch.inference_mode(), within(self._vocoder.precision, self._generator, device):
            audio, state = self._step(features.to(device), None if f0_hz is None else f0_hz.to(device), last)
        self._own, self._state = memory.state, state  # only now: an error leaves the stream as it was
        rows = audio[:, 0].float().cpu().numpy()
        return rows if self._batch else rows[0]

    def _step(self, features: Tensor, f0_hz: Tensor | None, last: bool) -> tuple[Tensor, State]:
        generator, state = self._generator, self._state
        batch, _, frames = features.shape
        speaker = None if self._speaker is None else self._speaker.to(features.device).expand(batch, -1, -1)
        if not steps(generator, self._projections):
            return halo.step(generator, features, f0_hz, speaker, state, self._seed, self._projections, last)
        before = int(state["frames"]) if state else 0
        drawn = generator.draws(self._seed, before, frames, batch, features.device)
        return generator.step(features, f0_hz, speaker, state=state, randomness=drawn, last=last)


def without_gaps(features: Tensor, f0_hz: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """Fill unvoiced stretches as :func:`melisma.audio.f0_curve.interpolate_unvoiced` does for the whole curve.

    Args:
        features: the next frames ``(batch, channels, frames)``.
        f0_hz: ``(batch, frames)``, Hz, 0 where unvoiced.
        memory: frames that wait, and the F0 before them.

    Returns:
        both, as far as a voiced frame lies behind (or to the end, where it is the last chunk).
    """
    features, f0_hz = memory.joined("features", features), memory.joined("f0", f0_hz)
    curve = f0_hz.double().numpy()
    frames = np.arange(1, curve.shape[1] + 1)
    ready = curve.shape[1] if memory.last else int(np.where(curve > 0, frames, 0).max(axis=1, initial=0).min())
    anchor = memory.recall("anchor")
    known = curve if anchor is None else np.concatenate([anchor.numpy(), curve], axis=1)
    if ready == 0:
        filled = curve
    else:
        silent = ~(known > 0).any(axis=1, keepdims=True)
        filled = interpolate_unvoiced(np.where(silent, NEUTRAL_HZ, known))
    filled = filled[:, known.shape[1] - curve.shape[1] :][:, :ready]
    if ready > 0:
        memory.keep("anchor", torch.tensor(filled[:, -1:]))
    memory.keep("features", features[..., ready:])
    memory.keep("f0", f0_hz[:, ready:])
    return features[..., :ready], torch.tensor(filled, dtype=f0_hz.dtype)


def steps(generator: Any, projections: int | None) -> bool:
    """Whether the generator's own ``step`` does; that of the spectral family makes no projections."""
    rounds = getattr(generator, "default_projections", 0) if projections is None else projections
    return hasattr(generator, "step") and not rounds


def lookahead_samples(generator: Any, projections: int | None = None) -> int:
    """Samples of audio that wait for later frames in a stream of this generator."""
    if steps(generator, projections):
        return int(generator.lookahead_samples)
    return halo.lookahead_samples(generator, projections)


def latency_in_words(generator: Any) -> str:
    """How much of a stream's audio waits for later frames, from the receptive field."""

    def waits(projections: int | None) -> str:
        samples = lookahead_samples(generator, projections)
        return f"{samples} samples ({1000 * samples / generator.sample_rate:.0f} ms)"

    said = f"{waits(None)} wait for later frames"
    rounds = getattr(generator, "default_projections", 0)
    if rounds:
        said = f"{waits(None)} at most wait for later frames with {rounds} projections, {waits(0)} without"
    if getattr(generator, "f0_contract", None) == "interpolated":
        said += "; unvoiced stretches wait for the next voiced frame"
    return said


def fingerprint(generator: Any) -> str:
    """Digest of a generator's settings and weights."""
    digest = hashlib.sha256(f"{type(generator).__name__} {json.dumps(to_mapping(generator.config))}".encode())
    for name, value in sorted(generator.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _read(saved: bytes) -> tuple[dict[str, Any], State]:
    damaged = "this is not the state of a stream (damaged, or something else); give what save() returned"
    try:
        size = int.from_bytes(saved[:8], "little")
        facts = json.loads(json.loads(saved[8 : 8 + size])["__metadata__"][_KEY])
        tensors = safetensors.torch.load(saved)
        version = int(facts["format"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise MelismaError(damaged) from error
    if version > FORMAT:
        raise MelismaError(f"this stream's state has format {version}, newer than {FORMAT}; update melisma")
    if any(key not in facts for key in ("model", "name", "seed", "projections", "batch")):
        raise MelismaError(damaged)
    return facts, tensors
