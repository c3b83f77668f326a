"""Reads request bodies: bounded, and as JSON checked against a wire type in one pass. Knows no route."""

from collections.abc import AsyncIterator
from typing import TypeVar

import anyio.to_thread
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from penstock.client.wire import Request as WireRequest
from penstock.client.wire.problems import first_problem

from ..errors import Refused
from .repeats import repeated_field

BodyT = TypeVar("BodyT", bound=WireRequest)

TAKEN_AS_JSON = ("", "application/json", "application/x-www-form-urlencoded")  # the last is what `curl -d` says
SMALL_BODY_BYTES = 1 << 20
REPEATS_LOOKED_FOR_BYTES = 8 << 20  # costs a submission of that size 4 % of its time, of 50 MB already 15 %
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
        parsed = kind.model_validate_json(body)
    except ValidationError as error:
        raise refused_fields(error, kind, within=within) from error
    if len(body) <= REPEATS_LOOKED_FOR_BYTES and (path := repeated_field(body)) is not None:
        raise Refused(f"field {path!r} is given twice: give it once", param=path)
    return parsed


def refused_fields(error: ValidationError, kind: type[BaseModel], *, within: str | None = None) -> Refused:
    """Return what to answer: the first wrong field, how many more there are, and what a misspelt one may mean."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return Refused(_unreadable(first["msg"].removeprefix("Invalid JSON: ")), code="invalid_json", param=within)
    problem = first_problem(error, kind)
    message = problem.message if problem.path else f"{within or 'the body'}: {problem.message}"
    return Refused(message, param=".".join(part for part in (within, problem.path) if part) or None)


def _unreadable(why: str) -> str:
    if why.startswith("recursion limit"):
        return f"the body is nested too deeply: {why}"
    if why.endswith(" at line 1 column 0"):
        return "the body is empty: send a JSON object"
    return f"the body is not JSON: {why}"
