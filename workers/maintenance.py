"""The maintenance role: builds merged segments, at each tick plans those that were missed, collects garbage, and does
what schedules are for.

It never publishes: the shard's writer does.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from penstock.settings.model import Settings
from penstock.storage import ledger
from penstock.storage.catalog.generations import generation_info
from penstock.storage.errors import Conflict
from penstock.storage.ids import BatchId
from penstock.storage.named_files import NamedFiles
from penstock.storage.publishing.merging import build_merge
from penstock.storage.reembedding.endings import let_go_in_time
from penstock.storage.search.reader_leases import LeaseWatch
from penstock.storage.segments.manifests import Manifest, SegmentEntry, Swap, read_manifest

from . import routes
from .app import COLLECT_EVERY_S
from .checking import check_generations
from .claims import Claims, ids
from .components import Components
from .garbage import collect_all
from .liveness import Liveness
from .orders import OrderDesk
from .planning import plan_missed
from .runs import ScheduleRuns

log = logging.getLogger(__name__)
LEASES = 10  # of workers.lease_s: hnswlib keeps the GIL, and with it every renewal, while it reads or writes a graph


class Maintenance:
    """The role's process: `Role` of ``roles.py``."""

    def __init__(self, settings: Settings, *, liveness: Liveness) -> None:
        self._settings = settings
        self._liveness = liveness

    def open(self) -> None:
        self._components = Components.open(self._settings, role="maintenance")
        self._claims = Claims(
            self._components, liveness=self._liveness, lease_s=LEASES * self._settings.workers.lease_s
        )
        self._next_tick_at = 0.0
        self._planned_to = ""
        self._pruning = ledger.PruningProgress()
        self._readers = LeaseWatch()
        self._named = NamedFiles(self._components.objects)
        self._runs = ScheduleRuns(self._components, liveness=self._liveness)
        self._desk = OrderDesk(self._components, liveness=self._liveness)

    def close(self) -> None:
        self._runs.close()
        self._claims.close()
        self._components.close()

    def tasks(self) -> Mapping[str, Callable[..., Any]]:
        return {
            routes.MERGE: self.merge,
            routes.CHECK: self.check,
            routes.COLLECT: self.collect,
            routes.RUN: self.run,
            routes.ORDER: self.order,
        }

    def merge(self, batch_id: str) -> None:
        """Build the segment of one merge batch, for the writer to swap in."""
        began = time.perf_counter()
        with self._claims.working(BatchId(batch_id)) as claim:
            if claim is None:
                return
            components = self._components
            try:
                swap = self._build(claim)
                details, now = swap.to_details(), components.clock()
                ledger.finish_merge(components.catalog, components.objects, claim, details=details, now=now)
            except Conflict as error:
                self._drop(claim, error=str(error))
                return
            components.notices.work_ready()
            took_s = time.perf_counter() - began
            merged, rows = len(swap.inputs), swap.output.row_count
            log.info("Merged %d segments into one of %d chunks in %.1f s.", merged, rows, took_s, extra=ids(claim))

    def run(self) -> None:
        """Work on the run of a schedule whose turn it is, if there is one."""
        self._runs.work()

    def check(self, batch_id: str) -> None:
        """Compare two generations, of which one is about to take over from the other."""
        with self._claims.working(BatchId(batch_id)) as claim:
            if claim is None:
                return
            try:
                if not self._liveness.stopping:
                    check_generations(self._components, claim, liveness=self._liveness)
                    return
            except Conflict:
                if not self._liveness.stopping:
                    raise
            self._claims.hand_back(claim)

    def collect(self) -> None:
        """Plan merges that were missed, and delete what nobody needs any more, of every tenant.

        Ticks that waited together behind a long merge count as one.
        """
        if time.monotonic() < self._next_tick_at:
            return
        opened, self._planned_to = plan_missed(self._components, after=self._planned_to)
        if opened:
            log.info("Planned %d merges that were missed.", opened)
        if ended := let_go_in_time(self._components.catalog, now=self._components.clock()):
            log.info("Let %d generations go that were kept after a re-embedding.", ended)
        collected = collect_all(self._components, pruning=self._pruning, readers=self._readers, named=self._named)
        if collected.objects:
            log.info("Deleted %d unused objects of %d bytes.", collected.objects, collected.size_bytes)
        self._next_tick_at = time.monotonic() + COLLECT_EVERY_S / 2

    def order(self) -> None:
        """Take a step with every order at a provider that is due."""
        self._desk.tick()

    def _build(self, claim: ledger.Claim) -> Swap:
        """Raises Conflict when the segments are not there any more: they were merged or emptied since."""
        components = self._components
        current = generation_info(components.catalog, claim.generation.id).manifest
        if current is None:
            raise Conflict("the generation has no manifest")
        manifest = read_manifest(components.objects, current)
        entries = _entries(manifest, claim.details["segments"])
        threads = self._settings.embedding.threads
        afresh = bool(claim.details.get("afresh"))  # asked for where rows of a graph were found lost
        output = build_merge(components.objects, manifest, entries, threads=threads, afresh=afresh)
        return Swap(inputs=[entry.id for entry in entries], output=output)

    def _drop(self, claim: ledger.Claim, *, error: str) -> None:
        log.info("A merge was dropped: %s", error, extra=ids(claim))
        ledger.drop_merge(self._components.catalog, claim, error=error, now=self._components.clock())


def _entries(manifest: Manifest, segment_ids: list[str]) -> list[SegmentEntry]:
    found = {str(entry.id): entry for entry in manifest.segments}
    missing = [segment for segment in segment_ids if segment not in found]
    if missing:
        raise Conflict(f"segment {missing[0]} is no longer in the current version")
    return [found[segment] for segment in segment_ids]
