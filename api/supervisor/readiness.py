"""Asks the api process whether it is ready, without blocking anything else."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

ANSWER_S = 2.0


@dataclass(frozen=True)
class Readiness:
    """The answer of ``/readyz``; ``reasons`` says what is missing."""

    ready: bool
    reasons: tuple[str, ...] = ()


async def readiness(url: str, key: str | None = None) -> Readiness:
    """Return what ``GET <url>/readyz`` says now; no answer is an answer too. Without ``key`` it says little."""
    try:
        async with asyncio.timeout(ANSWER_S):
            status, body = await _get(url, "/readyz", key=key)
    except (OSError, ValueError):  # a timeout is an OSError
        return Readiness(ready=False, reasons=("it does not answer yet",))
    return Readiness(ready=status == 200, reasons=_reasons(body))


async def _get(url: str, path: str, *, key: str | None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        shown = f"Authorization: Bearer {key}\r\n" if key else ""
        request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{shown}Connection: close\r\n\r\n"
        writer.write(request.encode())
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    words = head.split(b" ", 2)
    if len(words) < 3:
        raise ValueError("not an HTTP answer")
    return int(words[1]), body


def _reasons(body: bytes) -> tuple[str, ...]:
    try:
        return tuple(str(reason) for reason in json.loads(body)["reasons"])
    except (ValueError, KeyError, TypeError):
        return ()
