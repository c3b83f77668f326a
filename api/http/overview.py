"""The installation at a glance, for /v1/status. Asks the ledger and who says to be present; changes nothing."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

import redis

from penstock.storage.cache import read_total
from penstock.storage.catalog.collections import CollectionInfo, list_collections
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.jobs import read_jobs
from penstock.storage.catalog.tenants import list_tenants
from penstock.storage.errors import Unavailable
from penstock.storage.ledger.overview import Overview, StageOverview, overview, unwritten_shards
from penstock.storage.ledger.setbacks import list_setbacks
from penstock.storage.rates import read_rates
from penstock.storage.reembedding.records import list_reembeddings

from . import answers
from .components import Components
from .health import absent_roles

SHOWN_COLLECTIONS = 200
SHOWN_REEMBEDDINGS = 50


def status_of(components: Components, version: str) -> dict[str, Any]:
    """Return the answer of /v1/status. Blocks."""
    now, seen = components.clock(), overview(components.catalog)
    collections = islice(_collections(components.catalog), SHOWN_COLLECTIONS)
    return {
        "version": version,
        "now": now,
        "paused_at": seen.pauses.since,
        "paused_tenants": list(seen.pauses.tenants),
        "unwritten_shards": unwritten_shards(components.catalog, now=now),
        "queued_documents": seen.queued,
        "oldest_queued_s": _age(seen.oldest_queued_at, now=now),
        "stages": {name: _stage(stage, now=now) for name, stage in seen.stages.items()},
        "roles": _roles(components),
        "absent_roles": _absent_roles(components, now=now),
        "setbacks": list(_setbacks(components)),
        "jobs": list(_jobs(components, seen, now=now)),
        "reembeddings": list(_reembeddings(components.catalog)),
        "collections": [_collection(info) for info in collections],
        "cache": _cache(components),
        "limits": _limits(components),
    }


def _stage(stage: StageOverview, *, now: float) -> dict[str, Any]:
    return {
        "ready": stage.ready,
        "sent": stage.sent,
        "running": stage.running,
        "dead": stage.dead,
        "oldest_s": _age(stage.oldest_at, now=now),
    }


def _age(since: float | None, *, now: float) -> float | None:
    return None if since is None else max(0.0, now - since)


def _absent_roles(components: Components, *, now: float) -> list[str]:
    try:
        return absent_roles(components.catalog, components.presence, now=now)
    except redis.RedisError:  # ``roles`` tells that nobody answers
        return []


def _roles(components: Components) -> list[dict[str, Any]] | None:
    try:
        found = components.presence.roles()
    except redis.RedisError:
        return None
    return [{**asdict(role), "still_s": role.still_s} for role in found]


def _cache(components: Components) -> dict[str, Any] | None:
    try:
        found = read_total(components.redis)
    except Unavailable:
        return None
    return {**asdict(found), "limit_bytes": components.settings.embedding.cache_bytes}


def _limits(components: Components) -> list[dict[str, Any]] | None:
    try:
        return [asdict(line) for line in read_rates(components.redis)]
    except Unavailable:
        return None


def _setbacks(components: Components) -> Iterator[dict[str, Any]]:
    for one in list_setbacks(components.catalog, max_attempts=components.settings.workers.max_attempts):
        yield {"tenant": one.tenant_id, "collection": one.collection, **answers.setback(one.setback)}


def _jobs(components: Components, seen: Overview, *, now: float) -> Iterator[dict[str, Any]]:
    wanted = [job_id for _, job_id in seen.running_jobs]
    found = read_jobs(components.catalog, wanted, tallies=components.tallies)
    for tenant_id, job_id in seen.running_jobs:
        if job_id in found:  # else its collection was deleted meanwhile
            yield {**answers.job(found[job_id], now=now), "tenant": tenant_id}


def _reembeddings(catalog: Catalog) -> Iterator[dict[str, Any]]:
    for collection, info in list_reembeddings(catalog, limit=SHOWN_REEMBEDDINGS):
        yield {**answers.reembedding(info), "tenant": info.tenant_id, "collection": collection}


def _collections(catalog: Catalog) -> Iterator[CollectionInfo]:
    for tenant in list_tenants(catalog):
        yield from list_collections(catalog, tenant=tenant.id)


def _collection(info: CollectionInfo) -> dict[str, Any]:
    return {
        "tenant": info.tenant_id,
        "name": info.name,
        "model": info.generation.model,
        "version": info.generation.version,
        "chunks": info.generation.live_chunks,
        "documents": dict(info.documents),
    }
