"""Collecting garbage: objects that nothing names any more. It decides nothing about what is current: the catalog does.

Three guards stand between a file and its deletion. A manifest within retention names it: kept. It is young: kept, for
what will name it may be on its way (``grace.py`` says how long that may take). A retained manifest cannot be read:
nothing of that generation is collected, for nobody knows what it named.
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Column, select

from . import paths
from .catalog.engine import Catalog
from .catalog.tables import batches, generations, versions
from .catalog.tenants import hold_tenant_alone
from .catalog.values import slices
from .errors import Damaged, Unsupported
from .grace import MIN_AGE_S
from .ids import BatchId, GenerationId, TenantId
from .manifests import Manifest, read_manifest
from .objects import ObjectInfo, ObjectStore

log = logging.getLogger(__name__)

_PACKS_PER_TRANSACTION = 20  # while it lasts no document of the tenant is accepted


@dataclass(frozen=True)
class Retention:
    """Which past versions of a generation stay. ``keep_s`` counts from when a version was followed by the next."""

    keep_versions: int = 10  # the current one included
    keep_s: float = 3_600.0
    min_age_s: float = MIN_AGE_S


@dataclass(frozen=True)
class Collected:
    """What was deleted."""

    objects: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Collected") -> "Collected":
        return Collected(self.objects + other.objects, self.size_bytes + other.size_bytes)


def collect_generations(
    catalog: Catalog,
    objects: ObjectStore,
    *,
    tenant: TenantId,
    now: float,
    pinned: Collection[str] = (),
    retention: Retention = Retention(),
) -> Collected:
    """Delete a tenant's manifests past retention, the files only they named, and all of generations that are no more.

    A generation with a manifest that cannot be read is left as it is, with a log line.

    Args:
        pinned: object names to keep besides: the outputs of merges that wait for their swap.
    """
    # Listed before the pointers are read: what is published in between names young files, or old ones of the manifest
    # before it.
    found: dict[GenerationId, list[ObjectInfo]] = {}
    for info in objects.list(paths.generations_prefix(tenant)):
        found.setdefault(paths.generation_of(info.name), []).append(info)
    current = _named(catalog, generations.c.id, generations.c.manifest, among=list(found))
    collected = Collected()
    for generation_id, infos in found.items():
        try:
            kept = {*pinned}
            if generation_id in current:
                kept |= _kept(objects, infos, current[generation_id], now=now, retention=retention)
        except (Damaged, Unsupported) as error:
            log.warning("nothing of %s is collected: %s", generation_id, error, extra={"action": "collect_refused"})
            continue
        garbage = [info for info in infos if info.name not in kept and now - info.modified_at >= retention.min_age_s]
        # Manifests first, so that a crash leaves none that names a missing file.
        garbage.sort(key=lambda info: paths.manifest_version(info.name) is None)
        collected += _delete(objects, garbage)
    return collected


def collect_staging(objects: ObjectStore, *, tenant: TenantId, batch_ids: Iterable[BatchId]) -> Collected:
    """Delete what finished batches staged. The caller vouches that nobody will read it again."""
    prefixes = [paths.staging_prefix(tenant, batch) for batch in batch_ids]
    return _delete(objects, (info for prefix in prefixes for info in objects.list(prefix)))


def collect_lost_staging(
    catalog: Catalog, objects: ObjectStore, *, tenant: TenantId, now: float, min_age_s: float = MIN_AGE_S
) -> Collected:
    """Delete what was staged for batches that the ledger does not have: of deleted collections, or never committed."""
    old = [info for info in objects.list(paths.staging_prefix(tenant)) if now - info.modified_at >= min_age_s]
    known = _named(catalog, batches.c.id, batches.c.state, among=sorted({paths.batch_of(info.name) for info in old}))
    return _delete(objects, (info for info in old if paths.batch_of(info.name) not in known))


def collect_packs(
    catalog: Catalog, objects: ObjectStore, *, tenant: TenantId, now: float, min_age_s: float = MIN_AGE_S
) -> Collected:
    """Delete packs that no document version refers to: of versions that were pruned, or never committed.

    Accepts of this tenant wait while a few packs are looked at and deleted, and these wait for accepts under way; on
    SQLite, for every other writer.
    """
    old = [info for info in objects.list(paths.packs_prefix(tenant)) if now - info.modified_at >= min_age_s]
    used = _named(catalog, versions.c.pack, versions.c.pack, among=[info.name for info in old])
    unused = [info for info in old if info.name not in used]
    collected = Collected()
    for some in slices(unused, _PACKS_PER_TRANSACTION):
        with catalog.write("collect_packs") as connection:
            # Every accept holds its tenant from its first statement on: none is between its look and its commit.
            hold_tenant_alone(connection, tenant)
            still = versions.c.pack.in_([info.name for info in some])
            names = set(connection.scalars(select(versions.c.pack).where(still).distinct()))
            # Looked at again: the same bytes may have been submitted since, which makes the pack young.
            found = (objects.find(info.name) for info in some if info.name not in names)
            collected += _delete(objects, (info for info in found if info and now - info.modified_at >= min_age_s))
    return collected


def collect_scratch(objects: ObjectStore, *, now: float, min_age_s: float = MIN_AGE_S) -> Collected:
    """Delete what processes that died left in the scratch directory."""
    collected = Collected()
    for path in objects.scratch().iterdir():
        with suppress(FileNotFoundError):
            status = path.stat()
            if path.is_file() and now - status.st_mtime >= min_age_s:
                path.unlink()
                collected += Collected(1, status.st_size)
    return collected


def _kept(
    objects: ObjectStore, infos: Iterable[ObjectInfo], current: str | None, *, now: float, retention: Retention
) -> set[str]:
    """Return the names of the retained manifests and of all files that they name."""
    retained = dict(_lineage(objects, current, now=now, retention=retention))
    for info in infos:  # of writers that are about to publish, or were fenced a moment ago
        young = now - info.modified_at < retention.min_age_s
        if young and paths.manifest_version(info.name) is not None and info.name not in retained:
            retained[info.name] = read_manifest(objects, info.name)
    files = {file.name for manifest in retained.values() for entry in manifest.segments for file in entry.all_files}
    return {*retained, *files}


def _lineage(
    objects: ObjectStore, current: str | None, *, now: float, retention: Retention
) -> Iterator[tuple[str, Manifest]]:
    """Yield the current manifest and those before it, as long as they are within retention."""
    name, followed_at, position = current, now, 0
    while name is not None and (position < retention.keep_versions or now - followed_at < retention.keep_s):
        if position and not objects.exists(name):  # collected under a stricter retention
            return
        manifest = read_manifest(objects, name)
        yield name, manifest
        name, followed_at, position = manifest.parent, manifest.created_at, position + 1


def _named(catalog: Catalog, key: Column[str], value: Column[str], *, among: list[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    with catalog.read() as connection:
        for some in slices(among):
            found.update((row[0], row[1]) for row in connection.execute(select(key, value).where(key.in_(some))))
    return found


def _delete(objects: ObjectStore, infos: Iterable[ObjectInfo]) -> Collected:
    collected = Collected()
    for info in infos:
        objects.delete(info.name)
        collected += Collected(1, info.size_bytes)
    return collected
