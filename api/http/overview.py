"""The installation at a glance: for /v1/status and for /metrics. Asks the ledger and the presence board; changes nothing."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from penstock.storage.catalog.collections import CollectionInfo, list_collections
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.jobs import get_job
from penstock.storage.catalog.tenants import list_tenants
from penstock.storage.errors import NotFound, StorageError
from penstock.storage.ledger.overview import Overview, StageOverview, overview

from . import answers
from .components import Components

SHOWN_COLLECTIONS = 200


def status_of(components: Components, version: str) -> dict[str, Any]:
    """Return the answer of /v1/status. Blocks."""
    now, seen = components.clock(), overview(components.catalog)
    collections = islice(_collections(components.catalog), SHOWN_COLLECTIONS)
    return {
        "version": version,
        "now": now,
        "queued_documents": seen.queued,
        "oldest_queued_s": _age(seen.oldest_queued_at, now=now),
        "stages": {name: _stage(stage, now=now) for name, stage in seen.stages.items()},
        "roles": _roles(components),
        "jobs": list(_jobs(components.catalog, seen)),
        "collections": [_collection(info) for info in collections],
    }
