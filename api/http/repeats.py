"""Finds a field that stands twice in an object of a JSON text. Whichever was taken, the other would be ignored."""

import json
from typing import Any


class _Repeated(Exception):
    """Raised when an object has a name twice."""


class _Object(list[tuple[str, Any]]):
    """The names and values of an object, in their order."""


def repeated_field(text: bytes) -> str | None:
    """Return the path of the first repeated field, such as ``documents[3].source``; None when there is none.

    ``text`` is JSON that somebody has parsed before: not nested too deeply, and without syntax errors.
    """
    decoded = text.decode()
    try:
        _CHECK.decode(decoded)
    except _Repeated:
        return _found(_OBJECTS.decode(decoded), "")
    return None


def _names_checked(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _Repeated


# Numbers are not looked at, so none can be too long. The first keeps nothing of what it reads.
_CHECK = json.JSONDecoder(object_pairs_hook=_names_checked, parse_int=str, parse_float=str)
_OBJECTS = json.JSONDecoder(object_pairs_hook=_Object, parse_int=str, parse_float=str)


def _found(value: Any, path: str) -> str | None:
    if isinstance(value, _Object):
        seen: set[str] = set()
        for name, inner in value:
            here = f"{path}.{name}" if path else name
            if name in seen:
                return here
            seen.add(name)
            if (found := _found(inner, here)) is not None:
                return found
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            if (found := _found(inner, f"{path}[{position}]")) is not None:
                return found
    return None
