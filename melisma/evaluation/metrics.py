"""How near a generated clip is to its reference: both ``(samples,)`` at one rate and aligned; the shorter one decides.

Every metric is safe with silence. One that cannot be computed (PESQ of a clip without speech, F0 without a voiced
frame) is NaN; NaN or infinite samples in the generated clip make every metric NaN.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import soxr
import torch

from melisma.audio.mel import OPENVPI_44K, MelContract, log_mel
from melisma.audio.mel_bands import natural
from melisma.audio.stft import pad_signal, spectra
from melisma.errors import MelismaError
from melisma.f0 import estimate_f0

MR_STFT_SIZES = (512, 1024, 2048)
# Lower magnitudes count as this in the logarithm (a full-scale sine has n_fft / 4).
MR_STFT_FLOOR = 1e-5
MEL_BLIND_HZ = 16000.0
CEPSTRA = 24
PERIODICITY_WINDOW_S = 0.025
PERIODICITY_RATE = 11025


@dataclass(frozen=True)
class Scores:
    """All metrics of one clip.

    Attributes:
        pesq: PESQ wide band (ITU-T P.862.2) at 16 kHz, up to 4.64; higher is better.
        log_mel: mean absolute difference of the log-mel (natural logarithm), nepers.
        mr_stft: :func:`multi_resolution_stft`, full band (as far as the recording's own band reaches).
        mr_stft_16k: the same up to 16 kHz.
        mcd: mel-cepstral distortion, dB.
        f0_cents: median absolute F0 difference where both are voiced.
        vuv_f1: F1 of the voiced decision.
        periodicity: root mean square difference of :func:`periodicity` where the reference is voiced.
    """

    pesq: float
    log_mel: float
    mr_stft: float
    mr_stft_16k: float
    mcd: float
    f0_cents: float
    vuv_f1: float
    periodicity: float


def score(
    reference: np.ndarray,
    generated: np.ndarray,
    sample_rate: int,
    reference_f0_hz: np.ndarray | None = None,
    mel: MelContract = OPENVPI_44K,
    band_hz: float | None = None,
) -> Scores:
    """All metrics of one clip.

    Args:
        reference: ``(samples,)``.
        generated: ``(samples,)``.
        sample_rate: Hz of both; the mel contract's.
        reference_f0_hz: F0 of the reference at the contract's hop, where it is already known.
        mel: contract of the log-mel and MCD.
        band_hz: where the reference's own band ends; None is half the sample rate.
    """
    if sample_rate != mel.sample_rate:
        raise MelismaError(
            f"the metrics' mel is of {mel.sample_rate} Hz audio, not {sample_rate} Hz; resample the clips"
        )
    reference, generated = aligned(reference, generated)
    if not np.isfinite(generated).all():
        return Scores(**{field.name: math.nan for field in fields(Scores)})
    hop = mel.hop_length
    f0 = estimate_f0(reference, sample_rate, hop) if reference_f0_hz is None else reference_f0_hz
    cents, f1 = f0_agreement(f0, estimate_f0(generated, sample_rate, hop))
    return Scores(
        pesq=pesq_wideband(reference, generated, sample_rate),
        log_mel=log_mel_l1(reference, generated, mel),
        mr_stft=multi_resolution_stft(reference, generated, sample_rate, band_hz),
        mr_stft_16k=multi_resolution_stft(reference, generated, sample_rate, MEL_BLIND_HZ),
        mcd=mel_cepstral_distortion(reference, generated, mel),
        f0_cents=cents,
        vuv_f1=f1,
        periodicity=periodicity_error(reference, generated, sample_rate, hop, f0),
    )


def aligned(reference: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both clips as float32, cut to the shorter one."""
    length = min(len(reference), len(generated))
    if length == 0:
        raise MelismaError("a metric needs two clips that are not empty")
    return np.asarray(reference[:length], dtype=np.float32), np.asarray(generated[:length], dtype=np.float32)


def pesq_wideband(reference: np.ndarray, generated: np.ndarray, sample_rate: int) -> float:
    """PESQ-WB at 16 kHz; NaN where it finds nothing to judge (silence, less than a quarter of a second)."""
    try:
        from pesq import PesqError, pesq
    except ImportError as error:
        raise MelismaError("PESQ needs the package pesq: pip install 'melisma[evaluate]'") from error
    pair = [soxr.resample(clip.astype(np.float32), sample_rate, 16000) for clip in aligned(reference, generated)]
    if len(pair[0]) < 4000 or not np.isfinite(pair[1]).all() or min(np.abs(clip).max() for clip in pair) < 1e-5:
        return math.nan
    try:
        return float(pesq(16000, pair[0], pair[1], "wb"))
    except PesqError:
        return math.nan


def log_mel_l1(reference: np.ndarray, generated: np.ndarray, mel: MelContract = OPENVPI_44K) -> float:
    """Mean absolute difference of the log-mels, in the contract's logarithm."""
    left, right = (log_mel(clip, mel) for clip in aligned(reference, generated))
    return float((left - right).abs().mean())


def multi_resolution_stft(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int, highest_hz: float | None = None
) -> float:
    """Mean over FFT sizes 512, 1024 and 2048 of spectral convergence plus log-magnitude L1 (Yamamoto et al. 2020).

    Hann windows as long as the FFT, hop a quarter, no padding of the ends beyond half a window. Spectral convergence is
    ``|| |R| - |G| || / || |R| ||`` over the clip, log-magnitude L1 the mean of ``|ln |R| - ln |G||`` with magnitudes
    floored at 1e-5.

    Args:
        reference: ``(samples,)``.
        generated: ``(samples,)``.
        sample_rate: Hz.
        highest_hz: bins above are left out; None takes all.
    """
    pair = [torch.from_numpy(clip).unsqueeze(0) for clip in aligned(reference, generated)]
    total = 0.0
    for n_fft in MR_STFT_SIZES:
        bins = n_fft // 2 + 1
        if highest_hz is not None:
            bins = min(bins, int(highest_hz * n_fft / sample_rate) + 1)
        left, right = (
            spectra(pad_signal(clip, n_fft // 2, n_fft // 2), n_fft, n_fft // 4).abs()[..., :bins] for clip in pair
        )
        convergence = (left - right).norm() / left.norm().clamp(min=MR_STFT_FLOOR)
        logs = (left.clamp(min=MR_STFT_FLOOR).log() - right.clamp(min=MR_STFT_FLOOR).log()).abs().mean()
        total += float(convergence + logs)
    return total / len(MR_STFT_SIZES)


def mel_cepstral_distortion(reference: np.ndarray, generated: np.ndarray, mel: MelContract = OPENVPI_44K) -> float:
    """MCD in dB over 24 mel-cepstra without the zeroth, no time warping: ``10 / ln 10 * sqrt(2 * sum(d ** 2))``.

    The cepstra are those of the natural log-mel: ``c_m = 2 / N * sum(ln mel_n * cos(pi * m * (n + 1/2) / N))`` over the
    ``N`` mel bins.
    """
    left, right = (cepstra(natural(log_mel(clip, mel)[0], mel)) for clip in aligned(reference, generated))
    return float(cepstral_distance_db(left, right).mean())


def cepstra(natural_log_mel: torch.Tensor) -> torch.Tensor:
    """Mel-cepstra 1 to 24 of ``(n_mels, frames)``: ``(24, frames)``."""
    bins = natural_log_mel.shape[0]
    order = torch.arange(1, CEPSTRA + 1).unsqueeze(1)
    return 2.0 / bins * torch.cos(math.pi * order * (torch.arange(bins) + 0.5) / bins) @ natural_log_mel


def cepstral_distance_db(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Distance of two mel-cepstra in every frame, ``(frames,)`` in dB."""
    return 10.0 / math.log(10.0) * (2.0 * (left - right).square().sum(0)).sqrt()


def f0_agreement(wanted_hz: np.ndarray, found_hz: np.ndarray) -> tuple[float, float]:
    """``(median absolute cents where both are voiced, F1 of the voiced decision)`` of two curves.

    Without any voiced frame in either curve the F1 is 1 and the cents are NaN.
    """
    frames = min(len(wanted_hz), len(found_hz))
    wanted, found = np.asarray(wanted_hz[:frames], np.float64), np.asarray(found_hz[:frames], np.float64)
    both = (wanted > 0) & (found > 0)
    voiced = np.count_nonzero(wanted > 0) + np.count_nonzero(found > 0)
    f1 = 2.0 * np.count_nonzero(both) / voiced if voiced else 1.0
    if not both.any():
        return math.nan, f1
    return float(np.median(np.abs(1200.0 * np.log2(found[both] / wanted[both])))), f1


def periodicity(audio: np.ndarray, sample_rate: int, hop_length: int, f0_hz: np.ndarray) -> np.ndarray:
    """How alike a frame and the same one period later are below 5.5 kHz: ``(frames,)``, 1 periodic, 0 not or unvoiced.

    Args:
        audio: ``(samples,)``.
        sample_rate: Hz.
        hop_length: samples between frames, frame ``t`` at ``(t + 1/2) * hop_length``.
        f0_hz: ``(frames,)``.
    """
    if len(audio) < hop_length:
        return np.zeros(len(f0_hz))
    low = soxr.resample(
        soxr.resample(audio.astype(np.float64), sample_rate, PERIODICITY_RATE), PERIODICITY_RATE, sample_rate
    )
    voiced = np.flatnonzero(f0_hz > 0)
    period = sample_rate / np.asarray(f0_hz, dtype=np.float64)[voiced, None]
    window = np.arange(round(PERIODICITY_WINDOW_S * sample_rate)) - PERIODICITY_WINDOW_S * sample_rate / 2
    centre = (voiced[:, None] + 0.5) * hop_length
    positions = np.arange(len(low))
    early = np.interp(centre + window - period / 2, positions, low)
    late = np.interp(centre + window + period / 2, positions, low)
    energy = np.sqrt((early**2).sum(1) * (late**2).sum(1))
    result = np.zeros(len(f0_hz))
    result[voiced] = np.clip((early * late).sum(1) / np.maximum(energy, 1e-9), 0.0, 1.0)
    return result


def periodicity_error(
    reference: np.ndarray, generated: np.ndarray, sample_rate: int, hop_length: int, f0_hz: np.ndarray
) -> float:
    """Root mean square difference of :func:`periodicity` in the frames where ``f0_hz`` is voiced; NaN without any."""
    voiced = np.asarray(f0_hz) > 0
    if not voiced.any():
        return math.nan
    left, right = (periodicity(clip, sample_rate, hop_length, f0_hz)[voiced] for clip in aligned(reference, generated))
    return float(np.sqrt(np.mean((left - right) ** 2)))
