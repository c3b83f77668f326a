"""How callers name a version of a collection: a number, a tag, ``current``, or a moment at which it was current."""

import re

from penstock.storage.catalog.references import CURRENT, Reference
from penstock.storage.catalog.tags import RESERVED

from .errors import InvalidQuery
from .moments import instant

_NUMBER = re.compile(r"[0-9]{1,18}")
_TAG = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def parse_reference(text: str, *, now: float, param: str = "snapshot") -> Reference:
    """Return the version that one word names: ``12``, ``current``, a tag, or a date or time in ISO 8601.

    Raises:
        InvalidQuery: it is none of these, or a time that is still to come.
    """
    if _NUMBER.fullmatch(text):
        return Reference(version=int(text))
    if text == RESERVED:
        return CURRENT
    if _TAG.fullmatch(text):
        return Reference(tag=text)
    if not text[:1].isdigit():
        raise InvalidQuery(
            f"{text!r} names no version: write a number, a tag, current, or a time such as 2024-05-31T12:00:00Z",
            param=param,
        )
    return Reference(as_of=_past(text, now=now, param=param))


def chosen_reference(
    *, version: int | None, tag: str | None, as_of: float | str | None, now: float, min_token: str | None = None
) -> Reference | None:
    """Return the version that a search asks for, None when it is the newest that serves.

    Raises:
        InvalidQuery: more than one way was used, or the time is none or still to come.
    """
    given = {"version": version, "tag": tag, "as_of": as_of, "min_token": min_token}
    used = [name for name, value in given.items() if value is not None]
    if len(used) > 1:
        raise InvalidQuery(f"{' and '.join(used)} exclude each other: choose one", param=used[-1])
    if as_of is not None:
        return Reference(as_of=_past(as_of, now=now, param="as_of"))
    if version is None and tag is None:
        return None
    if tag == RESERVED:
        raise InvalidQuery(f"{tag!r} is no tag: it is the newest version, which is searched without a tag", param="tag")
    if tag is not None and not _TAG.fullmatch(tag):
        raise InvalidQuery(f"{tag!r} is no tag: use a letter, then a-z, 0-9, '-' and '_'", param="tag")
    return Reference(version=version, tag=tag)


def _past(moment: float | str, *, now: float, param: str) -> float:
    try:
        at = instant(moment) if isinstance(moment, str) else float(moment)
    except ValueError as error:
        raise InvalidQuery(str(error), param=param) from error
    if at > now:
        raise InvalidQuery(f"{moment} is still to come: which version will be current then is not known", param=param)
    return at
