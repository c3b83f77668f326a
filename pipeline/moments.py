"""Times that callers write: what a number, an ISO 8601 time or a date means, alone or compared with a built-in time.

The built-in times are instants, kept as seconds since 1970. A time of day is an instant too; a date alone is the whole
day in UTC. Only built-in times are read so: what text of a document's metadata means is its owner's business.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from penstock.storage.errors import InvalidMetadata
from penstock.storage.metadata import Scalar
from penstock.storage.segments.fields import And, Compare, CompareOp, Exists, Filter, Or

TIMES = ("$event_time", "$expires_at", "$ingested_at")
DAY_S = 86_400.0
_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}(?P<time>[Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(?P<zone>[Zz]|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)?)?",
    re.ASCII,
)


def compared_in_time(op: CompareOp, key: str, value: Scalar) -> Filter:
    """Return the filter that compares the built-in time ``key``.

    ``eq`` with a day is any time of it, ``gt`` is after it, ``lte`` is until its end. Without an offset, times are UTC.

    Raises:
        ValueError: ``value`` is neither a number nor an ISO 8601 date or time.
    """
    if isinstance(value, bool) or (isinstance(value, str) and not _ISO.fullmatch(value)):
        raise ValueError("it is a time: compare it with seconds since 1970, or with text such as 2024-05-31T12:00:00Z")
    if not isinstance(value, str):
        return Compare(op, key, value)
    start = instant(value)
    if len(value) > len("2024-05-31"):
        return Compare(op, key, start)
    return _compared_with_day(op, key, start, start + DAY_S)


def instant(text: str) -> float:
    """Return the seconds since 1970 of an ISO 8601 time, or of the beginning of a day; without an offset in UTC.

    Raises:
        ValueError: it is neither.
    """
    if not _ISO.fullmatch(text):
        raise ValueError(f"{text!r:.80} is no date or time: write for example 2024-05-31 or 2024-05-31T12:00:00Z")
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError as error:  # a thirteenth month
        raise ValueError(f"{text!r} is no date or time that there is: {error}") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def given_time(value: float | str | None, *, param: str, source: str) -> float | None:
    """Return the seconds since 1970 that a producer means: a number as it is, or text as `instant` reads it.

    Raises:
        InvalidMetadata: it is text, and no time; ``param`` is the field, ``source`` the document.
    """
    if not isinstance(value, str):
        return value
    try:
        return instant(value)
    except ValueError as error:
        raise InvalidMetadata(f"{param} of {source!r}: {error}; or seconds since 1970", param=param) from error


def among_times(key: str, values: Sequence[Scalar]) -> Filter:
    """Return the filter that accepts each of these times or days. Raises ValueError as `compared_in_time` does."""
    return Or(tuple(compared_in_time("eq", key, value) for value in values))


def not_among_times(key: str, values: Sequence[Scalar]) -> Filter:
    """Return the negation of `among_times`, which accepts a time that is not known."""
    return And(tuple(compared_in_time("ne", key, value) for value in values))


def _compared_with_day(op: CompareOp, key: str, start: float, end: float) -> Filter:
    before, after = Compare("lt", key, start), Compare("gte", key, end)
    meant: dict[CompareOp, Filter] = {
        "eq": And((Compare("gte", key, start), Compare("lt", key, end))),
        "ne": Or((before, after, Exists(key, present=False))),
        "gt": after,
        "gte": Compare("gte", key, start),
        "lt": before,
        "lte": Compare("lt", key, end),
    }
    return meant[op]
