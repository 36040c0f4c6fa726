"""Two models on one clip, with the same edits: both sing all of it, and both can be taken home."""

import json
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from melisma.audio.io import write_audio
from melisma.audio.limiter import limited
from melisma.editing import Edits
from melisma.editing.edits import write_edits
from melisma.inference.plots import plot_spectrograms
from melisma.inference.resynthesis import level_gains
from melisma.inference.sources import Level
from melisma.inference.vocoder import Vocoder
from melisma.studio.clip import Clip
from melisma.studio.result import Result

SIDES = ("a", "b")


class Comparison:
    """A clip sung by two models.

    Args:
        clip: the recording; its F0 serves both.
        vocoders: two models.
        names: what they are called.
        edits: the same for both.
    """

    def __init__(self, clip: Clip, vocoders: tuple[Vocoder, Vocoder], names: tuple[str, str], edits: Edits) -> None:
        self.names, self.clip = names, clip
        self.results = []
        for vocoder in vocoders:
            other = Clip(clip.native, clip.native_rate, vocoder, (clip.f0_hz, 1.0 / clip.frame_rate_hz))
            result = Result(other, everything=True)
            result.set_edits(edits)
            self.results.append(result)

    @property
    def progress(self) -> float:
        """Share done, 0 to 1."""
        return sum(result.progress for result in self.results) / len(self.results)

    @property
    def busy(self) -> bool:
        """Whether anything waits for a model."""
        return any(result.busy for result in self.results)

    def work(self) -> bool:
        """Make the next piece; False when both are done."""
        return any(result.work() for result in self.results)

    def audio(self, side: int) -> np.ndarray:
        """``(channels, samples)`` of one side at the rate and the level of the recording."""
        made, rate = self.results[side].native_audio(), self.clip.native_rate
        return made * level_gains(level_of(self.clip.native, rate), level_of(made, rate))[:, None]

    def download(self) -> bytes:
        """A zip with the recording, both sides, their spectrograms and what was done."""
        rate = self.clip.native_rate
        sides = {side: self.audio(index) for index, side in enumerate(SIDES)}
        told = {
            "models": dict(zip(SIDES, self.names, strict=True)),
            "edits": json.loads(write_edits(self.results[0].edits)),
            "sample_rate": rate,
        }
        buffer = BytesIO()
        with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            folder = Path(name)
            for file, samples in {"recording": self.clip.native, **sides}.items():
                write_audio(folder / f"{file}.wav", limited(samples, rate), rate)
                archive.write(folder / f"{file}.wav", f"{file}.wav")
            panels = [("recording", self.clip.native, None)]
            panels += [(f"{side}: {name}", sides[side], None) for side, name in zip(SIDES, self.names, strict=True)]
            plot_spectrograms(folder / "spectrograms.png", panels, rate, self.clip.mel.hop_length)
            archive.write(folder / "spectrograms.png", "spectrograms.png")
            archive.writestr("comparison.json", json.dumps(told, indent=1))
        return buffer.getvalue()


def level_of(samples: np.ndarray, sample_rate: int) -> Level:
    """Level of ``(channels, samples)``."""
    level = Level(len(samples), sample_rate)
    level.add(samples)
    return level
