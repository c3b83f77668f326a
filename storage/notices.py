"""Hints between processes over Redis pub/sub: there is work, there is a new version. Never trusted, never waited for.

Whoever is told looks into the catalog; whoever is not told finds out when he polls. So nothing here raises because the
server is down, and nothing says more than names.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .ids import GenerationId, TenantId

if TYPE_CHECKING:
    import redis
    from redis.client import PubSub

log = logging.getLogger(__name__)

CHANNEL = "penstock:notices"
ANSWER_S = 1.0  # a hint is not worth more waiting
QUIET_S = 1.0  # after a failure nothing is sent for this time, so that a dead server slows nobody down
TICK_S = 0.25  # how soon a listener notices that it shall stop
RECONNECT_S = (0.1, 5.0)  # first and longest pause before listening again

Callbacks = Mapping[str, Callable[..., object]]


class Notices:
    """Sends and hears hints. Safe between threads. ``url`` None: there is nobody to tell.

    ``listen`` calls ``callbacks["work_ready"]()`` and ``callbacks["published"](tenant, generation_id, version)``.
    """

    def __init__(self, url: str | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._client: redis.Redis | None = None
        self._lock = threading.Lock()
        self._quiet_until = -QUIET_S

    def work_ready(self) -> None:
        """Say that the ledger has something to dispatch."""
        self._send(["work_ready"])

    def published(self, tenant: TenantId, generation_id: GenerationId, version: int) -> None:
        """Say that a generation has a new version."""
        self._send(["published", tenant, generation_id, int(version)])

    def listen(self, callbacks: Callbacks, stop: threading.Event) -> None:
        """Call ``callbacks`` by the kind of each hint until ``stop`` is set. Connects again for as long as it takes."""
        pause_s = RECONNECT_S[0]
        while not stop.is_set():
            if self._url is None:
                stop.wait()
                return
            if self._hear(callbacks, stop):
                pause_s = RECONNECT_S[0]
            stop.wait(pause_s)
            pause_s = min(2 * pause_s, RECONNECT_S[1])

    def close(self) -> None:
        """Close the connections for sending. A listener ends by its ``stop``."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _send(self, notice: list[str | int]) -> None:
        if self._url is None or self._clock() < self._quiet_until:
            return
        try:
            self._connected().publish(CHANNEL, json.dumps(notice))
        except Exception as error:  # noqa: BLE001  no failure of a hint may reach its sender
            self._quiet_until = self._clock() + QUIET_S
            log.debug("A notice was not sent: %s", error, extra={"action": "notice_lost"})

    def _connected(self) -> "redis.Redis":
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client

    def _open(self) -> "redis.Redis":
        import redis  # noqa: PLC0415  not everyone who reads snapshots has someone to tell
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        assert self._url is not None
        client: redis.Redis = redis.Redis.from_url(
            self._url,
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            health_check_interval=10,
            retry=Retry(NoBackoff(), 0),
        )
        return client

    def _hear(self, callbacks: Callbacks, stop: threading.Event) -> bool:
        """Listen until ``stop`` or a failure; return whether anything was heard."""
        heard = False
        try:
            with self._open() as client, client.pubsub(ignore_subscribe_messages=True) as subscription:
                subscription.subscribe(CHANNEL)
                while not stop.is_set():
                    heard = _next(subscription, callbacks) or heard
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever the server does
            log.debug("Notices are not heard: %s", error, extra={"action": "notices_lost"})
        return heard


def _next(subscription: "PubSub", callbacks: Callbacks) -> bool:
    message = subscription.get_message(timeout=TICK_S)
    if message is None:
        return False
    kind, arguments = _parsed(message["data"])
    callback = callbacks.get(kind)
    if callback is not None:
        try:
            callback(*arguments)
        except Exception:
            log.exception("What a notice asked for failed.", extra={"action": "notice_failed"})
    return True


def _parsed(data: Any) -> tuple[str, list[Any]]:
    try:
        kind, *arguments = json.loads(data)
    except (ValueError, TypeError):
        return "", []
    shapes: dict[str, list[type]] = {"work_ready": [], "published": [str, str, int]}
    fits = isinstance(kind, str) and [type(argument) for argument in arguments] == shapes.get(kind)
    return (kind, arguments) if fits else ("", [])
