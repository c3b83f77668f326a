"""A job's moves as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse

from penstock.storage.catalog.jobs import JobInfo

from . import answers
from .feeds import JobFeeds

HEARTBEAT_S = 15.0  # proxies cut what is silent for a minute
KEY_EVERY_S = 15.0  # a stream may last for days, its key be replaced meanwhile
RETRY_MS = 2_000
BEAT = b": still there\n\n"
GONE = b"event: gone\ndata: {}\n\n"
HEADERS = {
    "Cache-Control": "no-cache, no-transform",  # compressing proxies hold events back
    "X-Accel-Buffering": "no",  # so does nginx, unless told
}
OF_THE_CLOCK = ("chunks_per_s", "left_s")  # they change while nothing moves


@dataclass(frozen=True)
class Asked:
    """What is asked of a stream.

    ``last_id``: of the event that the caller has seen; ``within_s``: when it shall end; ``is_refused``: says whether
    the caller's key opens nothing any more.
    """

    tenant: str
    last_id: str | None
    within_s: float | None
    is_refused: Callable[[], Awaitable[bool]]


def events_response(feeds: JobFeeds, info: JobInfo, asked: Asked, *, clock: Callable[[], float]) -> Response:
    """Return the stream of a job, which begins with how it is unless the caller has seen that already.

    An id names what a job is, no place in a log: any server resumes after it, and the next event has what was missed.

    Raises:
        Refused: too many streams are open.
    """
    if info.state != "running" and asked.last_id == event_id(answers.job(info, now=0.0)):
        return Response(status_code=204)  # tells browsers to ask no more
    feeds.check_room(asked.tenant)
    stream = _stream(feeds, info, asked, clock=clock)
    return StreamingResponse(stream, media_type="text/event-stream", headers=HEADERS)


def event_id(job: dict[str, Any]) -> str:
    """Return the id of what a job is now: the same in every process, and of a job that has not moved."""
    told = {name: value for name, value in job.items() if name not in OF_THE_CLOCK}
    return blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=9).hexdigest()


async def _stream(feeds: JobFeeds, info: JobInfo, asked: Asked, *, clock: Callable[[], float]) -> AsyncIterator[bytes]:
    loop, last_id = asyncio.get_running_loop(), asked.last_id
    ends_at = None if asked.within_s is None else loop.time() + asked.within_s
    key_looked_at = loop.time()
    with feeds.following(info, tenant=asked.tenant) as follower:
        yield f"retry: {RETRY_MS}\n\n".encode()
        while True:
            if follower.info is None:
                yield GONE
                return
            job = answers.job(follower.info, now=clock())
            found = event_id(job)
            if found != last_id:
                yield _event(job, found)
                last_id = found
            if job["state"] != "running":
                return
            left_s = HEARTBEAT_S if ends_at is None else min(HEARTBEAT_S, ends_at - loop.time())
            if left_s <= 0:
                return
            moved = await follower.moved(within_s=left_s)
            if follower.closing:
                return
            if loop.time() >= key_looked_at + KEY_EVERY_S:
                if await asked.is_refused():
                    return  # whoever resumes is told why
                key_looked_at = loop.time()
            if not moved:
                yield BEAT


def _event(job: dict[str, Any], identity: str) -> bytes:
    name = "progress" if job["state"] == "running" else job["state"]
    return f"id: {identity}\nevent: {name}\ndata: ".encode() + to_json(job) + b"\n\n"
