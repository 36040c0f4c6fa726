"""Recorded forwards: what is recorded when, and on a GPU that it sounds the same."""

from collections.abc import Callable

import pytest
import torch
from test_nsf_hifigan import inputs, made
from torch import Tensor

from melisma.inference import graphs
from melisma.inference.graphs import Recordings


class Recorder:
    """Stands in for CUDA: a recording runs the forward again on the inputs that it was made with."""

    def __init__(self, fails: bool = False) -> None:
        self.recorded = self.played = 0
        self.fails = fails

    def __call__(self, forward: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        self.recorded += 1
        out = forward()

        def play() -> None:
            self.played += 1
            out.copy_(forward())

        return play, out


@pytest.mark.parametrize("name", ["plain", "mini", "hifigan", "speaker"])
def test_the_second_of_a_shape_is_recorded_and_new_inputs_are_heard(name: str) -> None:
    generator, recorder = made(name), Recorder()
    recordings = Recordings(recorder)
    with torch.inference_mode():
        for number, frames in enumerate((5, 5, 4, 5, 5)):
            features, f0, speaker = inputs(generator, frames)
            features = features + number
            drawn = generator.randomness(f0, number, 0, frames) if name != "hifigan" else None
            f0_or_none = None if name == "hifigan" else f0
            found = recordings.sing(generator, features, f0_or_none, speaker, randomness=drawn)
            torch.testing.assert_close(found, generator(features, f0_or_none, speaker, drawn), rtol=0, atol=1e-6)
    assert recorder.recorded == 1
    assert recorder.played == 3


def test_a_forward_that_cannot_be_recorded_goes_on_and_is_told_once() -> None:
    generator, recordings = made("plain"), Recordings(Recorder(fails=True))
    features, f0, _ = inputs(generator, 5)
    drawn = generator.randomness(f0, 0, 0, 5)
    with torch.inference_mode():
        expected = recordings.sing(generator, features, f0, randomness=drawn)
        with pytest.warns(UserWarning, match=r"not permitted when stream is capturing\); it goes on without"):
            assert torch.equal(recordings.sing(generator, features, f0, randomness=drawn), expected)
        assert torch.equal(recordings.sing(generator, features, f0, randomness=drawn), expected)


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_MOST_SHAPES", 2)
    generator, recorder = made("plain"), Recorder()
    recordings = Recordings(recorder)
    with torch.inference_mode():
        for frames in (3, 3, 4, 4, 5, 5, 5):
            features, f0, _ = inputs(generator, frames)
            recordings.sing(generator, features, f0, randomness=generator.randomness(f0, 0, 0, frames))
    assert recorder.recorded == 2


def test_a_cpu_has_none() -> None:
    generator = made("plain")
    assert graphs.on(torch.device("cpu"), generator) is generator


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["plain", "snake", "mini", "bigvgan"])
def test_recorded_sounds_like_eager(name: str) -> None:
    generator = made(name).cuda().requires_grad_(False)
    recordings = Recordings()
    with torch.inference_mode():
        for number in range(4):
            features, f0, _ = (None if given is None else given.cuda() for given in inputs(generator, 6))
            features = features + number
            drawn = generator.randomness(f0, number, 0, 6)
            f0_or_none = None if name == "bigvgan" else f0
            found = recordings.sing(generator, features, f0_or_none, randomness=drawn)
            torch.testing.assert_close(found, generator(features, f0_or_none, None, drawn), rtol=0, atol=1e-3)
    assert len(recordings.made) == 1
