"""When schedules run: across the changes of the clock, and what is said of an expression that cannot be."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from penstock.storage.errors import InvalidSchedule
from penstock.storage.schedules.times import Cadence, checked_cadence

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    """Return a moment given in UTC."""
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


def told(cadence: Cadence, *, after: str, count: int = 3) -> list[str]:
    """Return the next times as the clocks of Berlin show them."""
    times = cadence.times(count, after=at(after), since=at(after))
    return [datetime.fromtimestamp(moment, BERLIN).isoformat() for moment in times]


def test_a_time_that_the_clocks_leave_out_comes_right_after_the_gap():
    daily = Cadence(cron="30 2 * * *", timezone="Europe/Berlin")
    assert told(daily, after="2026-03-28T00:00") == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


@pytest.mark.parametrize("after", ["2026-10-25T00:45", "2026-10-25T01:10", "2026-10-25T01:45"])
def test_a_time_that_the_clocks_show_twice_comes_once(after):
    daily = Cadence(cron="30 2 * * *", timezone="Europe/Berlin")
    assert told(daily, after="2026-10-24T00:00") == [
        "2026-10-24T02:30:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]
    assert told(daily, after=after, count=1) == ["2026-10-26T02:30:00+01:00"]  # it was, whichever 2:30 it is by now


def test_what_runs_every_half_hour_runs_through_both_changes():
    often = Cadence(cron="*/30 * * * *", timezone="Europe/Berlin")
    assert told(often, after="2026-03-29T00:30", count=2) == ["2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"]
    assert told(often, after="2026-10-25T00:00", count=4) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


def test_an_interval_keeps_its_beat_however_late_somebody_looks():
    hourly = Cadence(every_s=3_600.0)
    assert hourly.following(10_000.0, since=100.0) == 100.0 + 3 * 3_600.0
    assert hourly.following(3_700.0, since=100.0) == 7_300.0  # the very moment is not its own next time
    assert hourly.times(3, after=100.0, since=100.0) == [3_700.0, 7_300.0, 10_900.0]


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("61 * * * *", "minute '61'"),
        ("0 25 * * *", "hour '25'"),
        ("0 3 0 * *", "day-of-month '0'"),
        ("0 0 31 2 *", "day-of-month '31'"),
        ("0 3 * FOO *", "month 'FOO'"),
        ("0 3 * * 9", "day-of-week '9'"),
        ("0 3 * *", "4 fields: write five, minute hour day-of-month month day-of-week"),
        ("0 0 3 * * *", "6 fields"),
        ("", "0 fields"),
    ],
)
def test_the_field_of_an_expression_that_is_wrong_is_named(expression, named):
    with pytest.raises(InvalidSchedule, match=named) as caught:
        checked_cadence(Cadence(cron=expression), now=0.0)
    assert caught.value.param == "cron"


@pytest.mark.parametrize(
    ("cadence", "param"),
    [
        (Cadence(), "cron"),
        (Cadence(cron="0 3 * * *", every_s=60.0), "cron"),
        (Cadence(every_s=59.0), "every_s"),
        (Cadence(every_s=float("nan")), "every_s"),
        (Cadence(every_s=3_600.0, timezone="Europe/Berlin"), "timezone"),
        (Cadence(every_s=60.0, jitter_s=61.0), "jitter_s"),
        (Cadence(every_s=60.0, jitter_s=float("nan")), "jitter_s"),
        (Cadence(cron="* * * * *", jitter_s=-1.0), "jitter_s"),
        *((Cadence(cron="0 3 * * *", timezone=zone), "timezone") for zone in ("Europe", "/etc/passwd", "..", "", "\0")),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_wrong(cadence, param):
    with pytest.raises(InvalidSchedule) as caught:
        checked_cadence(cadence, now=0.0)
    assert caught.value.param == param
