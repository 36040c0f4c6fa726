"""Training examples: which piece of which clip, how it is varied, and the piece itself.

A crop is a pure function of the clips and of one random generator, which the trainer seeds with (seed, step, number of
the crop in the global batch): neither the number of processes nor an interruption changes what is drawn.
"""

from dataclasses import dataclass, field

import numpy as np
import soxr

from melisma.audio.f0_curve import sample_curve
from melisma.errors import MelismaError
from melisma.training.recordings import Chances, Place

Array = np.ndarray

# Share of the narrower band that resampling keeps.
KEPT_BAND = 0.92
# A clip that fills less than this share of a crop is not worth the silence.
LEAST_SHARE = 0.25


@dataclass(frozen=True)
class DataSettings:
    """What is trained on, and how it is varied.

    Attributes:
        folders: datasets of ``melisma prepare``.
        shares: how often each kind of clip is drawn; empty goes by the length of the clips.
        frames: of the model's features in a crop.
        balance: share of crops that are drawn by pitch: every semitone from 55 to 1600 Hz with the same chance.
        mismatch: share of crops whose mel was sung at another pitch, where the dataset has twins.
        resample: share of crops whose pitch and formants are moved together by resampling.
        resample_range: smallest and largest ratio of that.
        gain_db: range of the gain.
        noise: share of crops whose mel is that of a noisy recording; the target stays clean.
        noise_db: range of that noise, below the level of the crop.
        blur: share of crops whose mel is blurred over bands and frames, as acoustic models blur what they predict.
        blur_range: smallest and largest standard deviation of that, in bands and, drawn apart, in frames.
    """

    folders: tuple[str, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)
    frames: int = 64
    balance: float = 0.5
    mismatch: float = 0.3
    resample: float = 0.5
    resample_range: tuple[float, float] = (0.6, 1.8)
    gain_db: tuple[float, float] = (-20.0, 4.0)
    noise: float = 0.0
    noise_db: tuple[float, float] = (-60.0, -30.0)
    blur: float = 0.0
    blur_range: tuple[float, float] = (0.3, 2.5)

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise MelismaError(f"data.frames is {self.frames}; a crop needs at least 1")
        for name in ("balance", "mismatch", "resample", "noise", "blur"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise MelismaError(f"data.{name} is {getattr(self, name)}; it is a share, from 0 to 1")
        if not 0.1 <= self.resample_range[0] <= 1.0 <= self.resample_range[1] <= 10.0:
            raise MelismaError(f"data.resample_range {self.resample_range}: from 0.1 to 1, and from 1 to 10")
        if not 0.0 < self.blur_range[0] <= self.blur_range[1] <= 10.0:
            raise MelismaError(f"data.blur_range {self.blur_range}: two standard deviations above 0, at most 10")


@dataclass(frozen=True)
class Shape:
    """Of a crop: its frames with the margins, and the model's rate and hop.

    ``frame_offset`` is where in its hop a frame stands: 0.5 between samples, 0 for centred mels.
    """

    frames: int
    sample_rate: int
    hop_length: int
    frame_offset: float = 0.5

    @property
    def samples(self) -> int:
        """Audio of a crop."""
        return self.frames * self.hop_length

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.samples / self.sample_rate


@dataclass(frozen=True)
class Plan:
    """What chance decided about a crop.

    Attributes:
        place: the clip.
        start_frame: where the crop begins, in frames of the dataset.
        ratio: of resampling; 2 sings an octave higher and twice as fast.
        gain_db: wanted gain.
        twin: whether the mel is that of the twin.
        noise_db: level of noise on the mel's audio, None without.
        noise_seed: of that noise.
        blur: standard deviations of a blur of the mel in bands and in frames, None without.
    """

    place: Place
    start_frame: int
    ratio: float
    gain_db: float
    twin: bool
    noise_db: float | None
    noise_seed: int
    blur: tuple[float, float] | None = None


@dataclass(frozen=True)
class Crop:
    """One training example.

    Attributes:
        key: the clip's name.
        speaker: who sings; empty where the dataset does not say.
        reference: target audio, ``(samples,)`` float32.
        source: audio whose features are the input: the reference, its twin, or a noisy form of either.
        f0_hz: F0 of the reference at the model's frames, 0 where unvoiced.
        band_hz: nothing of the reference above this is real.
        blur: of the features, see :class:`Plan`.
    """

    key: str
    speaker: str
    reference: Array
    source: Array
    f0_hz: Array
    band_hz: float
    blur: tuple[float, float] | None = None


def draw_plan(chances: Chances, rng: np.random.Generator, settings: DataSettings, shape: Shape) -> Plan:
    """Decide about a crop; ``rng`` is the only source of chance."""
    low, high = settings.resample_range
    resampled = rng.random() < settings.resample
    if rng.random() < settings.balance and (targets := chances.reachable(low, high)):
        number, middle, ratio = _by_pitch(chances, rng, int(rng.choice(targets)), settings, resampled)
        place = chances.places[number]
        needed = _frames_of(place, shape, ratio)
        start = middle - int(rng.integers(0, max(1, needed)))
    else:
        place = chances.places[chances.clip(rng)]
        ratio = float(np.exp(rng.uniform(np.log(low), np.log(high)))) if resampled else 1.0
        needed = _frames_of(place, shape, ratio)
        start = int(rng.integers(0, max(1, place.clip.frames - needed + 1)))
    start = max(0, min(start, place.clip.frames - needed))
    twin = place.clip.twin_semitones != 0.0 and bool(rng.random() < settings.mismatch)
    noisy = bool(rng.random() < settings.noise)
    blurred = bool(rng.random() < settings.blur)
    least, most = settings.blur_range
    return Plan(
        place,
        start,
        ratio,
        float(rng.uniform(*settings.gain_db)),
        twin,
        float(rng.uniform(*settings.noise_db)) if noisy else None,
        int(rng.integers(2**32)),
        (float(rng.uniform(least, most)), float(rng.uniform(least, most))) if blurred else None,
    )


def _by_pitch(
    chances: Chances, rng: np.random.Generator, target: int, settings: DataSettings, resampled: bool
) -> tuple[int, int, float]:
    """Clip, frame and ratio that bring a frame to a semitone above 55 Hz."""
    low, high = (12 * np.log2(ratio) for ratio in settings.resample_range)
    if chances.is_sung(target) and not resampled:
        return (*chances.frame_at(rng, target), 1.0)
    sung = int(rng.choice(chances.sung_between(target - high, target - low)))
    moved = np.clip(target - sung + rng.uniform(-0.5, 0.5), low, high)
    return (*chances.frame_at(rng, sung), float(2.0 ** (moved / 12)))


def _frames_of(place: Place, shape: Shape, ratio: float) -> int:
    """Frames of the dataset that a crop takes."""
    a_frame = place.recordings.hop_length / place.recordings.sample_rate
    return int(np.ceil(shape.seconds * ratio / a_frame)) + (2 if ratio != 1.0 else 0)


def cut(plan: Plan, shape: Shape) -> Crop:
    """The piece that a plan describes; silence where the clip is shorter."""
    place, recordings, clip = plan.place, plan.place.recordings, plan.place.clip
    rate, hop = recordings.sample_rate, recordings.hop_length
    frames = _frames_of(place, shape, plan.ratio)
    start, count = plan.start_frame * hop, frames * hop
    reference = recordings.audio(place.index, start, count)
    gain = min(10.0 ** (plan.gain_db / 20.0), 0.99 / max(1e-3, float(np.abs(reference).max(initial=0.0))))
    twin = recordings.twin(place.index, start, count) if plan.twin else None
    pieces = [
        _played(samples * np.float32(gain), plan.ratio, rate, shape)
        for samples in (reference, twin)
        if samples is not None
    ]
    source = pieces[-1]
    if plan.noise_db is not None:
        level = float(np.sqrt(np.mean(np.square(source)))) * 10.0 ** (plan.noise_db / 20.0)
        source = source + (np.random.default_rng(plan.noise_seed).standard_normal(len(source)) * level).astype(
            np.float32
        )
    a_frame = hop / rate
    curve = recordings.f0_hz(place.index, plan.start_frame, frames)
    wanted = (np.arange(shape.frames) + shape.frame_offset) * (shape.hop_length / shape.sample_rate) * plan.ratio
    if plan.ratio == 1.0 and shape.frame_offset == 0.5 and shape.hop_length * rate == hop * shape.sample_rate:
        f0_hz = curve[: shape.frames]
    else:
        f0_hz = sample_curve((np.arange(frames) + 0.5) * a_frame, curve, wanted) * plan.ratio
    band_hz = _band_hz(plan, shape)
    return Crop(clip.key, clip.speaker, pieces[0], source, f0_hz.astype(np.float32), band_hz, plan.blur)


def _played(samples: Array, ratio: float, rate: int, shape: Shape) -> Array:
    """Samples at the model's rate, ``ratio`` times as fast, in the length of a crop."""
    if rate * ratio != shape.sample_rate:
        samples = soxr.resample(samples, rate * ratio, shape.sample_rate, quality="HQ")
    out = np.zeros(shape.samples, dtype=np.float32)
    out[: min(len(out), len(samples))] = samples[: len(out)]
    return out


def _band_hz(plan: Plan, shape: Shape) -> float:
    rate = plan.place.recordings.sample_rate * plan.ratio
    if rate == shape.sample_rate:
        return min(plan.place.clip.band_hz, shape.sample_rate / 2)
    return min(plan.place.clip.band_hz * plan.ratio, KEPT_BAND * min(rate, shape.sample_rate) / 2)


def long_enough(places: list[Place], shape: Shape) -> tuple[list[Place], int]:
    """The clips that fill a fair share of a crop, and how many of them are shorter than a whole one.

    Raises:
        MelismaError: there is none.
    """
    kept = [place for place in places if place.seconds >= LEAST_SHARE * shape.seconds]
    if not kept:
        longest = max(place.seconds for place in places)
        raise MelismaError(
            f"every clip is shorter than a segment: the longest has {longest:.2f} s, a segment {shape.seconds:.2f} s; "
            "give longer recordings, or shorter segments: --data.frames"
        )
    return kept, sum(place.seconds < shape.seconds for place in kept)
