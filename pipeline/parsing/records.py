"""JSON and JSON Lines: each record becomes lines ``name: value``; names inside names are joined by dots."""

import json
from collections.abc import Iterator
from typing import Any

from ..errors import ParseError
from .decoding import decode
from .detection import MEDIA_TYPES
from .documents import Deadline, ParsedDocument, ParseLimits
from .writing import TextWriter

_MAX_DEPTH = 100
_TITLES = ("title", "name", "headline", "subject")
_TOO_DEEP = f"Its values are nested deeper than {_MAX_DEPTH} levels: flatten them and submit it again."


def parse_json(data: bytes, limits: ParseLimits, deadline: Deadline) -> ParsedDocument:
    """Return one block per record: the elements of a list, or the whole of anything else."""
    text = decode(data)
    try:
        value = _load(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and "\n" in text[: error.pos + 1]:
            return _lines(text, limits, deadline)  # records line by line are often called .json
        raise _broken(error, text, where=f"line {error.lineno}") from error
    deadline.check()
    writer = TextWriter(limits, deadline)
    for record in value if isinstance(value, list) else [value]:
        _add(writer, record, heading=_title(record) if isinstance(value, list) else None)
    return writer.finish(title=_title(value), media_type=MEDIA_TYPES["json"])


def parse_jsonl(data: bytes, limits: ParseLimits, deadline: Deadline) -> ParsedDocument:
    """Return one block per line, under the record's title if it has one."""
    return _lines(decode(data), limits, deadline)


def _lines(text: str, limits: ParseLimits, deadline: Deadline) -> ParsedDocument:
    writer = TextWriter(limits, deadline)
    # Not splitlines(): a line separator character may stand unescaped inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.isspace():
            continue
        try:
            record = _load(line)
        except json.JSONDecodeError as error:
            raise _broken(error, line, where=f"line {number}") from error
        _add(writer, record, heading=_title(record))
    return writer.finish(title=None, media_type=MEDIA_TYPES["jsonl"])


def _load(text: str) -> Any:
    try:
        # Numbers stay as they are spelled: nothing is rounded, and no digit limit applies.
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError as error:
        raise ParseError("malformed", _TOO_DEEP) from error


def _broken(error: json.JSONDecodeError, text: str, *, where: str) -> ParseError:
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
        return ParseError("truncated", f"The JSON breaks off in {where}: copy or export it again.")
    return ParseError(
        "malformed", f"{where.capitalize()} is not valid JSON ({error.msg}): correct it and submit it again."
    )


def _title(record: Any) -> str | None:
    if not isinstance(record, dict):
        return None
    return next((record[name] for name in _TITLES if isinstance(record.get(name), str) and record[name].strip()), None)


def _add(writer: TextWriter, record: Any, *, heading: str | None) -> None:
    writer.add("\n".join(_flatten(record, "", 0)), heading=heading)


def _flatten(value: Any, name: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ParseError("malformed", _TOO_DEEP)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else key, depth + 1)
    elif isinstance(value, list):
        plain = [_words(inner) for inner in value if not isinstance(inner, (dict, list))]
        if any(plain):
            yield _labelled(name, ", ".join(words for words in plain if words))
        for inner in value:
            if isinstance(inner, (dict, list)):
                yield from _flatten(inner, name, depth + 1)
    elif words := _words(value):
        yield _labelled(name, words)


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip() if value is not None else ""


def _labelled(name: str, words: str) -> str:
    return f"{name}: {words}" if name else words
