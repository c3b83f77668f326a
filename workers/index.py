"""The index role: the one writer of its shards. Publishes whatever is ready, together, swaps finished merges in,
takes out what has expired, and looks after generations that follow others.

One message is enough for everything that is ready; further ones find nothing to do.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection

from penstock.settings.logs import failed_at, log_failure
from penstock.settings.model import Settings
from penstock.storage import ledger
from penstock.storage.errors import Conflict, DamagedIndex, Fenced, StorageError, Unavailable
from penstock.storage.failpoints import hit
from penstock.storage.figures import Figure
from penstock.storage.ids import GenerationId
from penstock.storage.publishing.publisher import PublishedManifest, Publisher

from . import routes, staging
from .changes import changes_of
from .claims import STORAGE, Claims, ids_of_versions, listed
from .components import Components
from .following import Following
from .liveness import Liveness
from .pacing import Pace
from .planning import plan
from .upkeep import Upkeep, announce, ids_of
from .writers import ShardLeases

log = logging.getLogger(__name__)

TURN_S = 20.0  # then the message ends, so that the worker hears of a shutdown; the next one goes on
REFUSALS = 3  # in a row: then someone else is at work here
MOST_GENERATIONS = 50  # in one claim: each is published by itself, and what came meanwhile waits for all of them


class Writer:
    """The role's process: `Role` of ``roles.py``. One task at a time."""

    def __init__(self, settings: Settings, *, liveness: Liveness) -> None:
        self._settings = settings
        self._liveness = liveness

    def open(self) -> None:
        self._components = Components.open(self._settings, role="index")
        self._claims = Claims(self._components, liveness=self._liveness)
        self._leases = ShardLeases(self._components)
        self._publisher = Publisher(self._components.catalog, self._components.objects, clock=self._components.clock)
        self._upkeep = Upkeep(self._components, self._claims, self._publisher)
        self._following = Following(self._components, self._claims, self._publisher, self._upkeep)
        self._pace = Pace()

    def close(self) -> None:
        self._claims.close()
        with suppress(Unavailable):
            self._leases.close()
        self._components.close()

    def tasks(self) -> Mapping[str, Callable[..., Any]]:
        return {routes.INDEX: self.index}

    def index(self, shard: int) -> None:
        """Publish until nothing is ready for ``shard``, it is another process's, or the turn is over."""
        ends_at = time.monotonic() + TURN_S
        refusals = 0
        while refusals < REFUSALS and time.monotonic() < ends_at and not self._liveness.stopping:
            try:
                epoch = self._leases.epoch_of(shard)
                if epoch is None or not self._turn(shard, epoch):
                    return
                refusals = 0
            except Fenced as error:
                log.warning("What was prepared is discarded: %s", error, extra={"shard": shard})
                self._leases.forget(shard)
                refusals += 1
            except Conflict as error:
                log.info("Something changed while it was being published: %s", error, extra={"shard": shard})
                refusals += 1
            except Unavailable as error:
                log.warning("Nothing could be published: %s", error, extra={"shard": shard})
                return
            self._liveness.moved()

    def _turn(self, shard: int, epoch: int) -> bool:
        """Publish once what is ready, the least first, which waits for no other; returns whether anything was."""
        rolled_back = self._upkeep.roll_back(shard, epoch=epoch)
        upkept = self._upkeep.swap(shard, epoch=epoch) | self._upkeep.expire(shard, epoch=epoch) | rolled_back
        upkept |= self._following.follow(shard, epoch=epoch)
        groups = self._claim(shard)
        with self._claims.keeper.hold(*groups):  # the last ones, too, while the first are published
            self._publish_all(groups, epoch=epoch)
        return bool(upkept or groups)

    def _publish_all(self, groups: Sequence[ledger.IndexGroup], *, epoch: int) -> None:
        pending = _by_generation(groups)
        try:
            for generation_id in sorted(pending, key=lambda one: sum(len(group.versions) for group in pending[one])):
                if self._liveness.stopping:
                    break
                self._publish(generation_id, pending[generation_id], epoch=epoch)
                self._liveness.moved()
                del pending[generation_id]
        except Unavailable as error:  # of the others, too, nothing could be published
            self._claims.wait_for_storage(_all(pending), error)
            pending.clear()
            raise
        finally:
            for group in _all(pending):
                self._claims.retry(group, error="handed back: not published now", delay_s=0.0, counted=False)

    def _claim(self, shard: int) -> list[ledger.IndexGroup]:
        components, workers = self._components, self._settings.workers
        while True:
            resting = self._pace.resting()
            groups = ledger.claim_index(
                components.catalog,
                shard=shard,
                owner=components.owner,
                lease_s=workers.lease_s,
                now=components.clock(),
                max_chunks=workers.max_chunks_per_publish,
                max_generations=MOST_GENERATIONS,
                max_attempts=workers.max_attempts,
                resting=resting,
            )
            if groups or not resting or self._liveness.stopping:
                return groups
            self._pace.doze()  # what is ready of those that rest has no other message to wait for

    def _publish(self, generation_id: GenerationId, groups: Sequence[ledger.IndexGroup], *, epoch: int) -> None:
        about = {"tenant": groups[0].generation.tenant_id, "generation": generation_id, **_ids_of_groups(groups)}
        with self._claims.measured("index") as attempt:
            try:
                self._publish_groups(generation_id, groups, epoch=epoch)
                attempt.outcome = "done"
                self._claims.outages.over(STORAGE)
            except Conflict:
                attempt.outcome = "lost"
                raise
            except Unavailable:
                attempt.outcome = "postponed"
                raise
            except OSError as error:
                attempt.outcome = "postponed"
                log_failure(log, "This machine cannot publish now", error, extra=about)
                for group in groups:
                    self._claims.retry_unchanged(group, error)
            except DamagedIndex as error:  # it names files, and holds no text
                attempt.outcome = "postponed"
                log.error("Nothing is published into a damaged index: %s", error, extra=about)  # noqa: TRY400
                for group in groups:
                    self._claims.wait_for_repair(group, error)
            except Exception as error:  # noqa: BLE001 whatever it is, the ledger has to know
                log_failure(log, "Publishing failed", error, extra=about)
                told = str(error) if isinstance(error, StorageError) else failed_at(error)
                for group in groups:
                    self._claims.retry(group, error=told)

    def _publish_groups(self, generation_id: GenerationId, groups: Sequence[ledger.IndexGroup], *, epoch: int) -> None:
        components = self._components
        began = time.perf_counter()
        for version in (version for group in groups for version in group.versions):
            hit(f"index.document.{version.source}")
        changes = changes_of(groups)
        parts = [part for group in groups for part in group.parts]
        rows, vectors = staging.read_wanted(components.objects, parts, wanted=changes.put)

        folds = bool(rows or changes.revisions)
        taken = ledger.being_merged(components.catalog, generation_id) if folds else frozenset()

        def finish(connection: Connection, published: PublishedManifest) -> None:
            if folds:
                served = {entry.id for entry in published.manifest.segments}
                ledger.check_not_merged(connection, generation_id, taken=taken, served=served)
            ledger.finish_indexing(
                connection,
                groups,
                version=published.manifest.version,
                now=components.clock(),
                trimmed=published.trimmed,
            )

        published = self._publisher.publish(
            generation_id,
            epoch=epoch,
            shard=groups[0].generation.shard,
            additions=rows,
            vectors=vectors,
            removed_document_ids=changes.removed,
            revisions=changes.revisions,
            trims=changes.trims,
            taken=taken,
            in_transaction=finish,
        )
        announce(components, published.manifest)
        took_s = time.perf_counter() - began
        self._pace.published(generation_id, took_s)
        log.info(
            "Published %d chunks of %d documents%s in %.0f ms.",
            len(rows),
            len(changes.put),
            changes.told,
            took_s * 1e3,
            extra=ids_of(published.manifest) | _ids_of_groups(groups),
        )
        self._measure(groups)
        self._forget_staged(parts)
        plan(components, published.manifest)

    def _measure(self, groups: Sequence[ledger.IndexGroup]) -> None:
        now = self._components.clock()
        accepted = [version.created_at for group in groups for version in group.versions if version.action == "put"]
        lags = (Figure("penstock_publish_lag_seconds", value=max(0.0, now - at)) for at in accepted)
        self._components.figures.add(lags)

    def _forget_staged(self, parts: Sequence[tuple[str, str]]) -> None:
        with suppress(StorageError, OSError):  # garbage collection comes by later
            for names in parts:
                for name in names:
                    self._components.objects.delete(name)


def _all(pending: Mapping[GenerationId, Sequence[ledger.IndexGroup]]) -> list[ledger.IndexGroup]:
    return [group for some in pending.values() for group in some]


def _by_generation(groups: Sequence[ledger.IndexGroup]) -> dict[GenerationId, list[ledger.IndexGroup]]:
    found: dict[GenerationId, list[ledger.IndexGroup]] = defaultdict(list)
    for group in groups:
        found[group.generation.id].append(group)
    return dict(found)


def _ids_of_groups(groups: Sequence[ledger.IndexGroup]) -> dict[str, str]:
    versions = [version for group in groups for version in group.versions]
    return listed("batch", [group.batch_id for group in groups]) | ids_of_versions(versions)
