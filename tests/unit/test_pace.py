"""How fast a job moves, and how long that says it will take."""

import pytest

from penstock.storage.catalog.pace import PAUSE_S, WINDOW_S, Pace


def after(*batches: tuple[float, int]) -> Pace:
    """Return the pace after batches, each a moment and its chunks."""
    (first, _), *others = batches
    pace = Pace.begun(first)
    for now, chunks in others:
        pace = pace.after(chunks, now=now)
    return pace


def test_a_steady_pace_is_told_as_it_is_from_the_first_seconds_on():
    for seconds in (3, 10, 100, 1_000):
        pace = after(*((float(now), 50) for now in range(seconds + 1)))
        assert pace.per_s(float(seconds)) == pytest.approx(50.0, rel=0.15)


def test_a_change_is_told_within_about_a_minute():
    pace = after(*((float(now), 100) for now in range(300)), *((300.0 + now, 10) for now in range(60)))
    assert pace.per_s(360.0) == pytest.approx(10 + 90 * 2.72 ** (-60 / WINDOW_S), rel=0.15)


def test_nobody_knows_it_after_one_batch_nor_of_two_at_the_same_moment():
    assert after((5.0, 256)).per_s(9.0) is None
    assert after((5.0, 256), (5.001, 256)).per_s(5.001) is None


def test_standing_still_makes_it_fall_until_nobody_knows():
    pace = after(*((float(now), 50) for now in range(100)))
    falling = [pace.per_s(99.0 + wait) for wait in (0.0, 10.0, 30.0, 60.0)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 10
    assert pace.per_s(99.0 + PAUSE_S + 1) is None


def test_what_was_paused_is_not_slow_when_it_goes_on():
    pace = after(*((float(now), 50) for now in range(100)), *((1_000.0 + now, 50) for now in range(20)))
    assert pace.per_s(1_019.0) == pytest.approx(50.0, rel=0.15)


def test_a_clock_that_goes_back_breaks_nothing():
    pace = after((100.0, 50), (103.0, 50), (90.0, 50), (104.0, 50))
    assert pace.per_s(80.0) > 0
    assert Pace.from_details(pace.to_details()) == pace
