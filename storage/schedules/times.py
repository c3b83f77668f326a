"""When a schedule runs: a cron expression on the clocks of a time zone, or an interval. It reads no clock.

Where clocks are put forward, a time that they leave out is the first one after the gap; where they are put back, a time
that they show twice is the first of the two. An expression whose hours or minutes begin with ``*`` means moments, not
times of a day: it goes on through both, as Debian's cron does.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..errors import InvalidSchedule

LEAST_EVERY_S = 60.0
MOST_EVERY_S = 366 * 86_400.0
MOST_JITTER_S = 86_400.0
MAX_CRON_CHARACTERS = 255
FIELDS = {  # as people write them, with what may stand there
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, but no day that the month has not, L for the last or LW for the last weekday",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT, 0 and 7 are Sunday; 5#2 is the second Friday, 5L the last",
}


@dataclass(frozen=True)
class Cadence:
    """When to run: ``cron`` or ``every_s``, never both. Each time up to ``jitter_s`` later, by chance.

    ``timezone``: whose clocks the expression means, by a name of the IANA database.
    """

    cron: str | None = None
    every_s: float | None = None
    timezone: str = "UTC"
    jitter_s: float = 0.0

    def following(self, after: float, *, since: float) -> float:
        """Return the first time after ``after``, without its jitter. An interval counts from ``since``, another time.

        Raises:
            InvalidSchedule: it cannot be, or has no further time.
        """
        if self.every_s is not None:
            return since + self.every_s * (math.floor((after - since) / self.every_s) + 1)
        return next(self._times(after))

    def times(self, count: int, *, after: float, since: float) -> list[float]:
        """Return the next few times, likewise."""
        if self.every_s is None:
            return list(islice(self._times(after), count))
        first = self.following(after, since=since)
        return [first + number * self.every_s for number in range(count)]

    def _times(self, after: float) -> Iterator[float]:
        """Yield the times of the expression. The clocks of a zone may go back: only what is later is a next time."""
        begin = datetime.fromtimestamp(math.floor(after), tz=_zone(self.timezone))
        for moment in _parsed(self.cron or "", begin):
            if (at := moment.timestamp()) > after:
                yield at
                after = at
        raise InvalidSchedule(f"the cron expression {self.cron!r} has no time in the next 50 years", param="cron")


def checked_cadence(cadence: Cadence, *, now: float) -> Cadence:
    """Return ``cadence`` when something can run by it.

    Raises:
        InvalidSchedule: names what is wrong, the field of a cron expression too.
    """
    if (cadence.cron is None) == (cadence.every_s is None):
        raise InvalidSchedule("a schedule has a cron expression or an interval: give one of the two", param="cron")
    _check_interval(cadence)
    _zone(cadence.timezone)
    first, second = cadence.times(2, after=now, since=now)
    if not 0 <= cadence.jitter_s <= min(MOST_JITTER_S, second - first):
        raise InvalidSchedule(
            f"jitter_s is {cadence.jitter_s:g}: use 0 to {min(MOST_JITTER_S, second - first):g}, no more than lies "
            "between two times of this schedule",
            param="jitter_s",
        )
    return cadence


def _check_interval(cadence: Cadence) -> None:
    every_s = cadence.every_s
    if every_s is not None and not LEAST_EVERY_S <= every_s <= MOST_EVERY_S:
        told = f"from a minute to a year, {LEAST_EVERY_S:,.0f} to {MOST_EVERY_S:,.0f} seconds"
        raise InvalidSchedule(f"an interval of {every_s:g} s is not allowed: use {told}", param="every_s")
    if every_s is not None and cadence.timezone != "UTC":
        raise InvalidSchedule(
            "an interval has no time zone, it is as long on every clock: leave timezone out, or write a cron "
            "expression",
            param="timezone",
        )


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the name of a folder, such as Europe
        raise InvalidSchedule(
            f"there is no time zone {name[:64]!r}: write a name such as Europe/Berlin or UTC", param="timezone"
        ) from error


def _parsed(expression: str, begin: datetime) -> Any:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 most processes never read an expression

    shown = repr(expression[:MAX_CRON_CHARACTERS])
    words = expression.split()
    if len(expression) > MAX_CRON_CHARACTERS or len(words) != len(FIELDS):
        raise InvalidSchedule(
            f"the cron expression {shown} has {len(words)} fields: write five, {' '.join(FIELDS)}; "
            "'0 3 * * *' is every day at three",
            param="cron",
        )
    try:
        return CronSim(" ".join(words), begin)
    except CronSimError as error:
        raise _bad_field(shown, words, str(error)) from error


def _bad_field(shown: str, words: list[str], told: str) -> InvalidSchedule:
    """Word what the parser says, ``Bad minute``: it names the field, this what stands in it and what may."""
    for (name, allowed), word in zip(FIELDS.items(), words, strict=True):
        if told.endswith(name):
            reason = f"the {name} {word!r} of the cron expression {shown} is not allowed: write {allowed}"
            return InvalidSchedule(f"{reason}; or *, lists (1,5), ranges (1-5) and steps (*/5)", param="cron")
    return InvalidSchedule(f"the cron expression {shown} cannot be read: {told}", param="cron")
