"""Which rows and objects maintenance may delete. What is current, the catalog says; how, storage knows."""

import logging
from collections.abc import Iterable

import sqlalchemy as sa

from penstock.storage import ledger, paths
from penstock.storage.catalog.completion import OPEN_BATCH
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.recorded_queries import forget_recorded_before
from penstock.storage.catalog.retention import Retention
from penstock.storage.catalog.tables import batches
from penstock.storage.catalog.tenants import list_tenants
from penstock.storage.catalog.values import slices
from penstock.storage.collecting import (
    Collected,
    collect_generations,
    collect_lost_staging,
    collect_packs,
    collect_scratch,
    collect_staged,
    list_staged,
)
from penstock.storage.ids import BatchId
from penstock.storage.intake.idempotency import forget_keys
from penstock.storage.named_files import NamedFiles
from penstock.storage.schedules import forget_runs
from penstock.storage.search.reader_leases import LeaseWatch

from .components import Components

log = logging.getLogger(__name__)


def collect_all(
    components: Components, *, pruning: ledger.PruningProgress, readers: LeaseWatch, named: NamedFiles
) -> Collected:
    """Delete what nobody needs any more and return what that was. Moves ``pruning`` on. Raises Unavailable.

    ``readers``: the same at each call, so that it learns which readers are alive; ``named`` likewise, so that a pass in
    which little changed reads little.
    """
    catalog, objects, now = components.catalog, components.objects, components.clock()
    kept = components.settings.snapshots
    retention = Retention(keep_versions=kept.keep_versions, keep_s=kept.keep_s)
    tenants = [info.id for info in list_tenants(catalog)]
    collected = collect_scratch(objects, now=now)
    if lapsed := readers.end_lapsed(catalog):
        log.info("Ended %d leases of readers that are gone.", lapsed)
    for tenant in tenants:  # first, for document versions stay as long as a version of the index serves them
        collected += collect_generations(catalog, objects, tenant=tenant, now=now, retention=retention, named=named)
    if released := ledger.release_dead_bytes(catalog, now=now, keep_s=components.settings.workers.keep_dead_bytes_s):
        log.info("Let go of the bytes of %d documents that failed long ago.", released)
    pruned = ledger.prune(catalog, now=now, progress=pruning)  # then, for it makes packs garbage
    if pruned.batches or pruned.versions:
        log.info("Forgot %d batches and %d document versions of long ago.", pruned.batches, pruned.versions)
    if forgotten := forget_keys(catalog, now=now, keep_s=components.settings.limits.idempotency_keep_s):
        log.info("Forgot %d idempotency keys of long ago.", forgotten)
    shadow = components.settings.shadow
    if forgotten := forget_recorded_before(catalog, now - shadow.keep_s if shadow.record else now):
        log.info("Forgot %d recorded queries.", forgotten)
    if forgotten := forget_runs(catalog, now=now):
        log.info("Forgot %d runs of schedules of long ago.", forgotten)
    for tenant in tenants:
        staged = list_staged(objects, tenant=tenant, now=now)
        over = set(finished(catalog, sorted({paths.batch_of(info.name) for info in staged})))
        collected += collect_staged(objects, (info for info in staged if paths.batch_of(info.name) in over))
        others = [info for info in staged if paths.batch_of(info.name) not in over]
        collected += collect_lost_staging(catalog, objects, tenant=tenant, staged=others)
        collected += collect_packs(catalog, objects, tenant=tenant, now=now)
    return collected


def finished(catalog: Catalog, batch_ids: Iterable[BatchId]) -> list[BatchId]:
    """Return those embed batches among ``batch_ids`` whose group has nothing left to do."""
    others = batches.alias("others")
    still_open = sa.exists().where(others.c.group_id == batches.c.group_id, others.c.state.in_(OPEN_BATCH))
    found: list[BatchId] = []
    with catalog.read() as connection:
        for some in slices(list(batch_ids)):
            over = sa.select(batches.c.id).where(batches.c.id.in_(some), batches.c.state.in_(("done", "dead")))
            over = over.where(batches.c.reembedding_id.is_(None))  # what is copied waits, for as long as it takes
            found += connection.scalars(over.where(~still_open)).all()
    return found
