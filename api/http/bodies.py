"""Reads request bodies: bounded, and as JSON checked against a wire type in one pass. Knows no route."""

import difflib
import re
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar, get_args

import anyio.to_thread
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from penstock.client.wire import Request as WireRequest

from ..errors import Refused

BodyT = TypeVar("BodyT", bound=WireRequest)

TAKEN_AS_JSON = ("", "application/json", "application/x-www-form-urlencoded")  # the last is what `curl -d` says
SMALL_BODY_BYTES = 1 << 20
ALTERNATIVES = frozenset({"bool", "dict", "float", "int", "list", "str"})  # of a union; no field is called so
PARSED_INLINE_BYTES = 1 << 16  # parsing more would hold up the event loop for a millisecond


async def read_json(request: Request, kind: type[BodyT], *, limit_bytes: int = SMALL_BODY_BYTES) -> BodyT:
    """Return the body as ``kind``.

    Raises:
        Refused: 413 when it is larger than ``limit_bytes``, 415 when it is declared as something else than JSON,
            400 naming the first field that is wrong.
    """
    check_is_json(request)
    body = b"".join([chunk async for chunk in bounded(request, limit_bytes=limit_bytes)])
    if len(body) <= PARSED_INLINE_BYTES:
        return parse_json(body, kind)
    return await anyio.to_thread.run_sync(parse_json, body, kind)


def check_is_json(request: Request) -> None:
    """Refuse a body that is declared as something else."""
    declared = media_type(request)
    if declared not in TAKEN_AS_JSON and not declared.endswith("+json"):
        raise Refused(f"the body is {declared!r}: send application/json", status=415, code="unsupported_media_type")


def media_type(request: Request) -> str:
    """Return the declared type of the body in lower case, without its parameters; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def bounded(request: Request, *, limit_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises Refused (413) once more than ``limit_bytes`` are announced or came."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    read_bytes = 0
    async for chunk in request.stream():
        read_bytes += len(chunk)
        if read_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        yield chunk


def _too_large(limit_bytes: int) -> Refused:
    return Refused(
        f"the request is larger than {limit_bytes:,} bytes: send less at once",
        status=413,
        code="request_too_large",
        headers={"Connection": "close"},
    )


def parse_json(body: bytes, kind: type[BodyT], *, within: str | None = None) -> BodyT:
    """Return JSON as ``kind``. ``within`` is the form field that held it. Raises Refused naming what is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise refused_fields(error, kind, within=within) from error


def refused_fields(error: ValidationError, kind: type[BaseModel], *, within: str | None = None) -> Refused:
    """Return what to answer: the first wrong field, how many more there are, and what a misspelt one may mean."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    # A misspelt field is also a missing one: the misspelling explains both.
    first, *others = sorted(found, key=lambda problem: problem["type"] != "extra_forbidden")
    if first["type"] == "json_invalid":
        message = f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
        return Refused(message, code="invalid_json", param=within)
    path = _path(first["loc"])
    known = _model_at(kind, first["loc"][:-1]).model_fields
    message = worded_problem(path, first["type"], first["msg"], known=known)
    if others:
        message += f" ({len(others)} more {'problem' if len(others) == 1 else 'problems'})"
    return Refused(message, param=".".join(part for part in (within, path) if part) or None)


def worded_problem(path: str, kind: str, text: str, *, known: Iterable[str]) -> str:
    """Return one of pydantic's problems as a sentence. ``known``: the names a misspelt one may mean."""
    if kind == "extra_forbidden":
        names = list(known)
        close = difflib.get_close_matches(re.split(r"[.\]]", path)[-1], names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
        return f"unknown field {path!r}: {hint}"
    if kind == "missing":
        return f"field {path!r} is missing"
    text = text[:1].lower() + text[1:]
    return f"field {path!r}: {text}" if path else text


def _path(location: tuple[int | str, ...]) -> str:
    """Return ``documents[3].source``. Alternatives of a union, which pydantic puts last, are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not path or (part.isidentifier() and part not in ALTERNATIVES):
            path += f".{part}" if path else part
    return path


def _model_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str) and part in kind.model_fields:
            kind = _model_in(kind.model_fields[part].annotation) or kind
    return kind


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
