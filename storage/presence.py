"""Who is there: every role process says so every few seconds, in Redis, and is forgotten when it stops saying so.

For people and for `penstock status`. Nothing depends on it: a process that cannot beat works on. It only says whether
short batches have a worker of their own (``workers/beat.py``).
"""

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

log = logging.getLogger(__name__)

PREFIX = "penstock:presence"
TTL_S = 20.0
# How long the work of a role may show no move: one document may be parsed for minutes, a provider may be slow; the
# loop of beat turns twice a second. A merge may take hours, and shows nothing meanwhile.
STILL_S = {"beat": 30.0, "search": 120.0, "chunk": 330.0, "embed": 330.0, "express": 330.0, "index": 330.0}


@dataclass(frozen=True)
class RoleInfo:
    """A process as it described itself. Times are seconds since 1970, by its own clock."""

    role: str
    host: str
    pid: int
    started_at: float
    seen_at: float
    progress_at: float | None
    doing: str | None

    @property
    def still_s(self) -> float | None:
        """For how long its work has stood still; None when that is not too long. By its own clock alone."""
        most_s = STILL_S.get(self.role)
        if most_s is None or self.progress_at is None or self.seen_at - self.progress_at <= most_s:
            return None
        return self.seen_at - self.progress_at


class Presence:
    """The heartbeats of all role processes on one server. Safe between threads.

    Args:
        client: gives up after seconds; how its answers are decoded does not matter.
        ttl_s: how long after its last beat a process counts as there; the server keeps the time.
    """

    def __init__(self, client: redis.Redis, *, ttl_s: float = TTL_S, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._clock = clock
        self._host = socket.gethostname()
        self._started_at = clock()

    def beat(self, role: str, details: Mapping[str, Any] | None = None) -> None:
        """Say that this process is there as ``role``. Never raises because of the server.

        ``details`` may have ``progress_at``, when its work last moved, and ``doing``: text, or a number of tasks.
        """
        given = details or {}
        described = {
            "role": role,
            "host": self._host,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "seen_at": self._clock(),
            "progress_at": given.get("progress_at"),
            "doing": _doing(given.get("doing")),
        }
        key = self._key(role)
        try:
            with self._client.pipeline(transaction=True) as pipeline:
                pipeline.set(key, json.dumps(described), px=int(self._ttl_s * 1000))
                pipeline.sadd(PREFIX, key)  # listing by SCAN would walk over every cached vector
                pipeline.execute()
        except redis.RedisError as error:
            log.debug("This process could not say that it is there: %s", error, extra={"action": "beat_lost"})

    def leave(self, role: str) -> None:
        """Say that this process is gone, or it would be noticed seconds later. Never raises because of the server."""
        with suppress(redis.RedisError):
            self._client.delete(self._key(role))

    def _key(self, role: str) -> str:
        return f"{PREFIX}:{role}:{self._host}:{os.getpid()}"

    def roles(self) -> list[RoleInfo]:
        """Return who is there, by role, host and process.

        Raises:
            redis.RedisError: the server does not answer, so nobody knows.
        """
        keys = [_text(key) for key in self._client.smembers(PREFIX)]
        if not keys:
            return []
        values = self._client.mget(keys)
        gone = [key for key, value in zip(keys, values, strict=True) if value is None]
        if gone:
            self._client.srem(PREFIX, *gone)
        found = [described for value in values if value is not None and (described := _described(value))]
        return sorted(found, key=lambda one: (one.role, one.host, one.pid))


def _doing(value: Any) -> str | None:
    if isinstance(value, int):
        return None if not value else "1 task" if value == 1 else f"{value} tasks"
    return None if value is None else str(value)


def _described(value: bytes | str) -> RoleInfo | None:
    try:
        return RoleInfo(**json.loads(value))
    except (ValueError, TypeError):  # an older or newer program describes itself otherwise
        return None


def _text(key: bytes | str) -> str:
    return key.decode() if isinstance(key, bytes) else key
