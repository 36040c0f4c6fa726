"""A note keeps its weak ends, and nothing else becomes voiced."""

import numpy as np

from melisma.f0.swift import EDGE_POINTS, with_edges


def test_weak_ends_that_carry_on_the_pitch_are_voiced() -> None:
    pitch = np.full(12, 200.0)
    confidence = np.array([0.2] * 4 + [0.9] * 4 + [0.2] * 4)
    voiced = with_edges(pitch, confidence)
    assert voiced.tolist() == [False] * (4 - EDGE_POINTS) + [True] * (4 + 2 * EDGE_POINTS) + [False] * (4 - EDGE_POINTS)


def test_a_leap_or_no_confidence_ends_the_note() -> None:
    confidence = np.array([0.2, 0.2, 0.9, 0.9, 0.05, 0.05])
    pitch = np.array([400.0, 400.0, 200.0, 200.0, 200.0, 200.0])
    assert with_edges(pitch, confidence).tolist() == [False, False, True, True, False, False]


def test_weak_points_alone_stay_unvoiced() -> None:
    assert not with_edges(np.full(8, 200.0), np.full(8, 0.25)).any()
