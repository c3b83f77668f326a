"""Reads request bodies: bounded, and as JSON checked against a wire type in one pass. Knows no route."""

import asyncio
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, Any, TypeVar, get_args

import anyio.to_thread
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from penstock.client.wire import Request as WireRequest

from ..errors import Refused

BodyT = TypeVar("BodyT", bound=WireRequest)

SMALL_BODY_BYTES = 1 << 20
IN_MEMORY_BYTES = 1 << 20  # more of a submission is spooled to disk while it arrives
PARSE_INLINE_BYTES = 1 << 16  # parsing more would hold up the event loop for a millisecond
LINGER_S = 2.0


async def read_json(request: Request, kind: type[BodyT], *, limit_bytes: int = SMALL_BODY_BYTES) -> BodyT:
    """Return the body as ``kind``. Raises Refused naming the first field that is wrong."""
    check_json_type(request)
    chunks = [chunk async for chunk in bounded(request, limit_bytes=limit_bytes)]
    body = b"".join(chunks)
    if len(body) <= PARSE_INLINE_BYTES:
        return parse_json(kind, body)
    return await anyio.to_thread.run_sync(parse_json, kind, body)


def check_json_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type != "application/json" and not media_type.endswith("+json"):
        raise Refused(
            f"the body is {media_type!r}: send application/json",
            status=415,
            code="unsupported_media_type",
        )


class bounded:  # noqa: N801 an asynchronous iterator used like a function
    """The chunks of a body, refused with 413 as soon as they exceed ``limit_bytes``, announced or streamed."""

    def __init__(self, request: Request, *, limit_bytes: int) -> None:
        self._request = request
        self._limit_bytes = limit_bytes
        self._read_bytes = 0
