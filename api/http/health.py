"""Whether this process can do its work, and if not, why. Asks each thing once; changes nothing."""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import redis

from penstock.storage.catalog.migrations import check_schema
from penstock.storage.errors import StorageError

from .components import Components


def readiness(components: Components) -> dict[str, Any]:
    """Return the answer of /readyz. Blocks.

    Not ready without the catalog, the object store, or a model that collections need. Without the cache's server
    documents are still taken and searches answered: that is degraded, no more.
    """
    needed = (_catalog, _objects, _models)
    reasons = [reason for look in needed for reason in _problems(look, components)]
    return {"ok": not reasons, "reasons": reasons, "degraded": list(_problems(_server, components))}


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
    yield from ()


def _models(components: Components) -> Iterator[str]:
    for model, failure in components.embedders.failures.items():
        yield f"model {model}: {failure}"


def _server(components: Components) -> Iterator[str]:
    components.redis.ping()
    yield from ()
