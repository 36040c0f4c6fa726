"""Generators against the outputs of the public reference implementations."""

import golden_cases
import pytest
import torch

from melisma.interop import build

TOLERANCE = 1e-4  # of the reference output's standard deviation


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("name", golden_cases.names())
def test_reference_output_is_reproduced(name: str, kept: bool) -> None:
    case = golden_cases.read(name)
    generator = build(case.kind, case.config, case.state(kept))
    audio = generator(*case.inputs(), randomness=case.randomness())
    reference = case.data["audio"]
    assert audio.shape == reference.shape
    assert (audio - reference).abs().max() <= TOLERANCE * reference.std()


@pytest.mark.parametrize("name", ["openvpi_nsf_hifigan", "sovits_hifigan", "rvc_40k"])
def test_exact_phase_stays_near_the_reference(name: str) -> None:
    """A piece's phase is exact instead of rounded as the reference's; the difference must stay inaudible."""
    case = golden_cases.read(name)
    generator = build(case.kind, case.config, case.state())
    given = case.randomness()
    exact = type(given)(given.initial_phase, given.noise, given.feature_noise, torch.zeros(1))
    audio = generator(*case.inputs(), randomness=exact)
    assert (audio - case.data["audio"]).abs().max() <= 1e-3 * case.data["audio"].std()
