"""Reads a job's server-sent events, and goes on after a connection was lost. Knows the format and no other route."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from .errors import ClientError, NotFound, ServerError, Unreachable
from .transport import Transport
from .wire import Job

SILENT_S = 45.0  # three heartbeats of the server
LONGEST_STREAM_S = 86_400.0  # the server's bound on one stream that has an end
PAUSE_S = 1.0
TRIES = 5  # in a row without an event


class NoEvents(Exception):
    """Raised when the server, or what stands before it, gives no events."""


@dataclass(frozen=True)
class Event:
    name: str
    data: str
    id: str | None


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events in the lines of a stream; comments, heartbeats among them, are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if not line:
            if "data" in fields:
                yield Event(fields.get("event", "message"), fields["data"], fields.get("id"))
            fields = {}
        elif name == "data" and "data" in fields:
            fields["data"] += "\n" + value.removeprefix(" ")
        elif name:
            fields[name] = value.removeprefix(" ")


def followed(transport: Transport, path: str, *, deadline: float | None) -> Iterator[Job]:
    """Yield a job as its events tell it until it is over, or until ``deadline`` of the monotonic clock.

    Raises:
        NoEvents: nothing here gives events, or not any more.
        NotFound: there is no such job, or no more.
        ClientError: as every request.
    """
    last_id, failures = "", 0
    while True:
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        failures += 1  # a stream without an event says nothing
        try:
            for event in _streamed(transport, path, last_id=last_id, left_s=left_s):
                last_id, failures = event.id or last_id, 0
                job = _job(event)
                yield job
                if job.state != "running":
                    return
        except (Unreachable, ServerError) as error:
            if failures >= TRIES:
                raise NoEvents from error
        if deadline is not None and time.monotonic() >= deadline:
            return
        if failures >= TRIES:
            raise NoEvents
        time.sleep(PAUSE_S)


def _streamed(transport: Transport, path: str, *, last_id: str, left_s: float | None) -> Iterator[Event]:
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
    params = {} if left_s is None else {"wait": round(min(left_s, LONGEST_STREAM_S), 3)}
    try:
        with transport.stream(path, params=params, headers=headers, silent_s=SILENT_S) as lines:
            yield from read_events(lines)
    except NotFound as error:
        if error.code == "no_such_path":
            raise NoEvents from error
        raise


def _job(event: Event) -> Job:
    if event.name == "gone":
        raise NotFound("the job is gone: its collection was deleted while it was followed", code="not_found")
    try:
        return Job.model_validate_json(event.data)
    except ValidationError as error:
        raise ClientError("the server's events hold what this client cannot read as a job") from error
