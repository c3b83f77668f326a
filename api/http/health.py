"""Whether this process can do its work, and if not, why. Asks each thing once; changes nothing.

Why something is amiss may name machines, processes, paths and models: only whoever has the key is told, and the log.
Everybody else is told which component it is.
"""

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.migrations import check_schema
from penstock.storage.errors import StorageError
from penstock.storage.ledger.overview import neglected_stages, unwritten_shards
from penstock.storage.objects.store import ObjectStore
from penstock.storage.presence import Presence

from .embedders import QueryEmbedders

log = logging.getLogger(__name__)

REMEMBERED_S = 1.0  # for those without a key, who may ask as often as they like


@dataclass(frozen=True)
class Trouble:
    """A component that is amiss, and ``why``."""

    component: str
    why: str

    def __str__(self) -> str:
        return f"{self.component}: {self.why}"


@dataclass(frozen=True)
class Readiness:
    """``reasons``: why the process is not ready. ``degraded``: what is missing and not needed to answer."""

    reasons: tuple[Trouble, ...]
    degraded: tuple[Trouble, ...]

    def told(self, *, in_full: bool) -> dict[str, Any]:
        """Return `wire.Health`, with the names of components alone unless ``in_full``."""
        ok = not self.reasons
        if in_full:
            return {"ok": ok, "reasons": [*map(str, self.reasons)], "degraded": [*map(str, self.degraded)]}
        return {"ok": ok, "reasons": _components(self.reasons), "degraded": _components(self.degraded)}


class Health:
    """Looks at what this process needs; what it finds is logged when it changes. Safe between threads.

    Args:
        model: of new collections, among ``embedders``.
        server: a client that gives up soon.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        objects: ObjectStore,
        embedders: QueryEmbedders,
        model: str,
        server: redis.Redis,
        presence: Presence,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._objects = objects
        self._embedders = embedders
        self._model = model
        self._server = server
        self._presence = presence
        self._clock = clock
        self._wall_clock = wall_clock
        self._looking = threading.Lock()
        self._found = Readiness((), ())
        self._until = -REMEMBERED_S

    def recent(self) -> Readiness:
        """Return what is at most `REMEMBERED_S` old. Blocks where it has to look."""
        with self._looking:
            return self._found if self._clock() < self._until else self._look()

    def now(self) -> Readiness:
        """Look anew. Blocks."""
        with self._looking:
            return self._look()

    def _look(self) -> Readiness:
        before, self._found = self._found, self._readiness()
        self._until = self._clock() + REMEMBERED_S
        if _components(self._found.reasons) != _components(before.reasons):
            _log(self._found)
        return self._found

    def _readiness(self) -> Readiness:
        """Look at everything.

        Not ready without the catalog, the object store and the model of new collections. Without another model, which
        one tenant may have chosen, or without the cache's server the rest is still done: that is degraded, no more.
        """
        self._embedders.mend()
        failures = dict(self._embedders.failures)
        main = failures.pop(self._model, None)
        reasons = [*_troubles("catalog", self._look_at_catalog), *_troubles("objects", self._look_at_objects)]
        reasons += [Trouble("model", f"{self._model}: {main}")] if main else []
        degraded = [*_troubles("redis", self._server.ping), *self._still_roles(), *self._absent(), *self._unwritten()]
        degraded += [Trouble("model", f"{other}: {why}") for other, why in failures.items()]
        return Readiness(tuple(reasons), tuple(degraded))

    def _look_at_catalog(self) -> None:
        check_schema(self._catalog)

    def _look_at_objects(self) -> None:
        with tempfile.TemporaryFile(dir=self._objects.scratch()) as file:
            file.write(b"ready")  # a full or read-only disk takes no documents
        self._objects.exists("readiness")  # no such object: a bucket that answers is enough

    def _still_roles(self) -> Iterator[Trouble]:
        """Name the roles that are there and whose work does not move: that their process lives says nothing."""
        with suppress(redis.RedisError):  # told already
            for role in self._presence.roles():
                if role.still_s is not None:
                    why = f"has stood still for {role.still_s:.0f} s: its log may say why; end it, another goes on"
                    yield Trouble(f"role {role.role}", f"{role.host}:{role.pid} {why}")

    def _absent(self) -> Iterator[Trouble]:
        with suppress(StorageError, redis.RedisError):  # told already
            for role in absent_roles(self._catalog, self._presence, now=self._wall_clock()):
                why = f"nobody is there though work has waited for a minute: is `penstock worker {role}` running?"
                yield Trouble(f"role {role}", why)

    def _unwritten(self) -> Iterator[Trouble]:
        """Name the shards that nobody writes though work waits: what is accepted there is found later."""
        with suppress(StorageError):  # told already
            for shard in unwritten_shards(self._catalog, now=self._wall_clock()):
                why = "nobody writes it though work has waited for a minute: is `penstock worker index` running?"
                yield Trouble("writer", f"shard {shard}: {why}")


def absent_roles(catalog: Catalog, presence: Presence, *, now: float) -> list[str]:
    """Return the roles, of chunk and embed, of which no process is there although work has waited for a minute.

    One that is frozen is not there: it says nothing of itself. Raises RedisError: nobody knows.
    """
    neglected = neglected_stages(catalog, now=now)
    return sorted(set(neglected) - {role.role for role in presence.roles()}) if neglected else []


def _troubles(component: str, look: Callable[[], object]) -> Iterator[Trouble]:
    try:
        look()
    except (StorageError, OSError, redis.RedisError) as error:
        yield Trouble(component, str(error) or type(error).__name__)


def _components(troubles: tuple[Trouble, ...]) -> list[str]:
    return sorted({trouble.component for trouble in troubles})


def _log(found: Readiness) -> None:
    if found.reasons:
        why = "; ".join(map(str, found.reasons))
        log.warning("This process is not ready: %s", why, extra={"action": "not_ready"})
    else:
        log.info("This process is ready again", extra={"action": "ready_again"})
