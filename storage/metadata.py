"""Metadata of a document: any JSON object, checked when it is submitted, flattened to dotted paths when it is indexed.

``{"author": {"name": "Ada"}, "tags": ["a", "b"]}`` holds ``author.name`` once and ``tags`` twice. ``null`` and empty
lists or objects hold nothing. It must not know how values are stored or compared; see fields.py.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import InvalidMetadata

Scalar = str | bool | int | float

MAX_BYTES = 65_536  # of the metadata of one document, as JSON
MAX_DEPTH = 16
INTEGERS = range(-(2**63), 2**63)


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Return if every value can be kept, and later be compared exactly.

    Raises:
        InvalidMetadata: names the field; it is not JSON, too deep or too large, a number that is not finite or an
            integer outside 64 bits, text that is not valid Unicode, or a top-level field that begins with ``$``.
    """
    for key in metadata:
        if isinstance(key, str) and key.startswith("$"):
            raise InvalidMetadata(f"metadata field {key!r} is not allowed: names that begin with '$' are built in")
    _check(metadata, path="", depth=0)
    size_bytes = len(json.dumps(metadata, ensure_ascii=False).encode())
    if size_bytes > MAX_BYTES:
        raise InvalidMetadata(f"metadata of {size_bytes:,} bytes is too large: keep it within {MAX_BYTES:,}")


def worded(value: Any) -> str:
    """Return a value as a message shows it: the words of JSON, text in quotes."""
    if isinstance(value, str):
        return repr(value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # what came as Python's own objects
        return repr(value)


def merge_patch(metadata: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata`` changed by a JSON merge patch (RFC 7396): null takes a field away, objects are merged."""
    merged = dict(metadata)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            inner = merged.get(key)
            merged[key] = merge_patch(inner if isinstance(inner, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _check(value: Any, *, path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidMetadata(f"metadata field {path!r} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or not key or not _is_unicode(key):
                raise InvalidMetadata(f"metadata field {path!r} has the key {key!r}: keys are non-empty text")
            _check(inner, path=f"{path}.{key}" if path else key, depth=depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner, path=path, depth=depth + 1)
    elif (problem := _problem(value)) is not None:
        raise InvalidMetadata(f"metadata field {path!r} {problem}")


def _problem(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if value in INTEGERS else "is an integer outside 64 bits, too large to compare: make it a string"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"is {value}, which is not a JSON number"
    if isinstance(value, str):
        return None if _is_unicode(value) else "is text with a lone surrogate, which is not valid Unicode"
    return f"is a {type(value).__name__}, which is not JSON"


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def flatten(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    """Yield each (dotted path, value) that ``metadata`` holds; a list yields its path once per element."""
    for key, value in metadata.items():
        yield from _flatten(key, value)


def _flatten(path: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, str | bool | int | float):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(f"{path}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _flatten(path, inner)
