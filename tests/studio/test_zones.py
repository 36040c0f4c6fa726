"""Zones: whole voiced stretches, apart from each other, with fades only in pauses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melisma.studio.zones import FADE_FRAMES, FIRST_FRAMES, Zone, cut_zone, fade_gain, find_zones, in_listening_order

VOICED = st.lists(st.booleans(), min_size=1, max_size=120).map(np.array)


@given(VOICED)
def test_every_stretch_lies_in_one_zone_and_fades_only_in_pauses(voiced: np.ndarray) -> None:
    zones = find_zones(voiced)
    covered = np.zeros(len(voiced), dtype=int)
    for zone in zones:
        covered[zone.start : zone.stop] += 1
        inner = voiced[zone.start + zone.fade_in : zone.stop - zone.fade_out]
        assert inner.all()
        assert not voiced[zone.start : zone.start + zone.fade_in].any()
        assert not voiced[zone.stop - zone.fade_out : zone.stop].any()
        assert max(zone.fade_in, zone.fade_out) <= FADE_FRAMES
    assert covered.max(initial=0) <= 1
    assert (covered[voiced] == 1).all()


@given(VOICED)
def test_everything_covers_all_frames_once(voiced: np.ndarray) -> None:
    zones = find_zones(voiced, everything=True)
    assert [zone.start for zone in zones] == [0, *(zone.stop for zone in zones[:-1])]
    assert zones[-1].stop == len(voiced)


@given(st.integers(0, 50), st.integers(1, 2000), st.integers(0, 2100))
def test_pieces_cover_a_zone_once_and_begin_at_the_focus(start: int, length: int, focus: int) -> None:
    zone = Zone(start, start + length, 0, 0)
    pieces = cut_zone(zone, focus)
    frames = sorted(frame for low, high in pieces for frame in range(low, high))
    assert frames == list(range(zone.start, zone.stop))
    if focus < zone.stop:
        assert pieces[0][0] == max(zone.start, focus)
        assert pieces[0][1] - pieces[0][0] <= FIRST_FRAMES


def test_the_zone_that_is_heard_comes_first() -> None:
    zones = [Zone(0, 10, 0, 0), Zone(20, 30, 0, 0), Zone(40, 50, 0, 0)]
    assert [zone.start for zone in in_listening_order(zones, 25)] == [20, 40, 0]


def test_a_fade_is_the_same_however_the_zone_is_cut() -> None:
    zone = Zone(10, 40, 4, 2)
    whole = fade_gain(zone, 10, 40, 64)
    np.testing.assert_array_equal(np.concatenate([fade_gain(zone, 10, 13, 64), fade_gain(zone, 13, 40, 64)]), whole)
    assert whole[0] < 0.01
    assert whole[-1] < 0.03
    assert whole[4 * 64 : -2 * 64] == pytest.approx(1.0)
    assert (np.diff(whole[: 4 * 64]) > 0).all()
