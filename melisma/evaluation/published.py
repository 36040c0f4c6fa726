"""Audio that other systems published: a folder of files that are called as the clips are."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melisma.audio.io import load_training_audio
from melisma.data.scan import scan
from melisma.errors import MelismaError
from melisma.evaluation.clips import EvaluationClip
from melisma.evaluation.conditions import Prepared

# Systems delay their output by some samples; it is moved back by at most this.
LONGEST_DELAY_S = 0.05


@dataclass(frozen=True)
class Published:
    """A system by its audio alone.

    Attributes:
        name: what the report calls it.
        files: path by file name without suffix.
    """

    name: str
    files: dict[str, Path]

    def audio_for(self, item: Prepared) -> np.ndarray | None:
        """Its version of a clip at the clip's rate, in step with it, ``(samples,)``; None where there is none."""
        clip = item.clip
        path = self.files.get(clip.stem)
        if path is None:
            return None
        whole = load_training_audio(path, clip.sample_rate, channel="mean")
        start, room = round(clip.start_s * clip.sample_rate), round(LONGEST_DELAY_S * clip.sample_rate)
        around = np.pad(whole, (room, room + len(clip.audio)))[start : start + len(clip.audio) + 2 * room]
        delay = best_delay(clip.audio, around)
        return np.asarray(around[delay : delay + len(clip.audio)], dtype=np.float32)


def best_delay(reference: np.ndarray, longer: np.ndarray) -> int:
    """Where in ``longer`` the reference fits best by correlation, in samples from its start."""
    n_fft = 2 ** int(np.ceil(np.log2(len(reference) + len(longer))))
    spectrum = np.fft.rfft(longer, n_fft) * np.conj(np.fft.rfft(reference, n_fft))
    return int(np.argmax(np.fft.irfft(spectrum, n_fft)[: len(longer) - len(reference) + 1]))


def read_published(words: tuple[str, ...], clips: list[EvaluationClip]) -> list[Published]:
    """Systems of ``NAME=FOLDER`` words.

    Raises:
        MelismaError: another form, no such folder, or no file in it that is called as one of the clips.
    """
    systems = []
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            raise MelismaError(f"--audio {word}: write NAME=FOLDER, as in --audio openvpi=samples/openvpi")
        recordings, _ = scan([Path(folder)])
        files = {Path(recording.name).stem: recording.path for recording in recordings}
        wanted = [clip.stem for clip in clips if clip.stem]
        if not any(stem in files for stem in wanted):
            example = f", {wanted[0]}.wav for one" if wanted else ""
            raise MelismaError(f"--audio {word}: no file is called as one of the clips{example}; rename them")
        systems.append(Published(name, files))
    return systems
