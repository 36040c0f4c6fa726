"""The mel of a result: the same however it is read, the recording's own where the pitch is."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import melisma
from melisma.editing import Edits, Move, Transpose, apply
from melisma.inference.vocoder import SHIPPED
from melisma.studio.clip import Clip
from melisma.studio.features import ResultMel
from melisma.studio.result import Result


@pytest.mark.parametrize(("speed", "formants"), [(1.0, 0.0), (1.0, 3.0), (0.8, 0.0)])
def test_pieces_are_the_whole(clip: Clip, speed: float, formants: float) -> None:
    target = clip.at_speed(apply(Edits((Transpose(2.0),)), clip.f0_hz, clip.frame_rate_hz), speed)
    whole = ResultMel(clip, target, speed, formants)(0, len(target))
    read = ResultMel(clip, target, speed, formants)
    cuts = [0, 40, 41, 130, len(target)]
    for first, last in [(60, 70), *pairwise(cuts)]:
        assert torch.allclose(read(first, last), whole[..., first:last], atol=3e-3)  # of floor bands, in nepers


def test_only_moved_frames_move(clip: Clip) -> None:
    note = clip.notes[2]
    step = Move(note.start / clip.frame_rate_hz, note.stop / clip.frame_rate_hz, 2.0)
    target = apply(Edits((step,)), clip.f0_hz, clip.frame_rate_hz)
    rows = ResultMel(clip, target, 1.0, 0.0)(0, clip.frames)
    moved = (rows != clip.log_mel).any(dim=0).any(dim=0).numpy()
    assert moved[note.start + 2 : note.stop - 2].all()
    assert not moved[: note.start - 8].any()
    assert not moved[note.stop + 8 :].any()


@pytest.mark.skipif(not SHIPPED["melisma-44k"].exists(), reason="the shipped weights are not in this checkout")
def test_the_context_of_a_piece_is_enough(song: np.ndarray) -> None:
    clip = Clip(song, 44100, melisma.load("melisma-44k", device="cpu"))
    results = []
    for focus_s in (0.0, 0.3):
        result = Result(clip)
        result.set_edits(Edits((Transpose(2.0),)), focus_s)
        while result.work():
            pass
        results.append(result.audio)
    error = np.square(results[0] - results[1]).mean() / np.square(results[0]).mean()
    assert 10 * np.log10(error + 1e-20) < -80
