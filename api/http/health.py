"""Whether this process can do its work, and if not, why. Asks each thing once; changes nothing."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import redis

from penstock.storage.catalog.migrations import check_schema
from penstock.storage.errors import StorageError

from .components import Components


def readiness(components: Components) -> dict[str, Any]:
    """Return the answer of /readyz. Blocks.

    Not ready without the catalog, the object store and the model of new collections. Without another model, which one
    tenant may have chosen, or without the cache's server the rest is still done: that is degraded, no more.
    """
    components.embedders.mend()
    failures = dict(components.embedders.failures)
    main = failures.pop(components.settings.embedding.model, None)
    reasons = [reason for look in (_catalog, _objects) for reason in _problems(look, components)]
    reasons += [f"model {components.settings.embedding.model}: {main}"] if main else []
    degraded = [
        *_problems(_server, components),
        *_problems(_roles, components),
        *(f"model {model}: {why}" for model, why in failures.items()),
    ]
    return {"ok": not reasons, "reasons": reasons, "degraded": degraded}


def _problems(look: Callable[[Components], Iterator[str]], components: Components) -> Iterator[str]:
    try:
        yield from look(components)
    except (StorageError, OSError, redis.RedisError) as error:
        yield f"{look.__name__.strip('_')}: {error or type(error).__name__}"


def _catalog(components: Components) -> Iterator[str]:
    check_schema(components.catalog)
    yield from ()


def _objects(components: Components) -> Iterator[str]:
    with tempfile.TemporaryFile(dir=components.objects.scratch()) as file:
        file.write(b"ready")  # a full or read-only disk takes no documents
    components.objects.exists("readiness")  # no such object: a bucket that answers is enough
    yield from ()


def _roles(components: Components) -> Iterator[str]:
    """Name the roles that are there and whose work does not move: that their process lives says nothing."""
    with suppress(redis.RedisError):  # told already
        for role in components.presence.roles():
            if role.still_s is not None:
                place = f"role {role.role} ({role.host}:{role.pid})"
                yield f"{place} has stood still for {role.still_s:.0f} s: its log may say why; end it, another goes on"


def _server(components: Components) -> Iterator[str]:
    components.redis.ping()
    yield from ()
