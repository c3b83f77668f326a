"""What the writer of a shard publishes besides documents: rollbacks, built merges, and what expired taken out."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection

from penstock.settings.logs import failed_at, log_failure
from penstock.storage import ledger
from penstock.storage.catalog.engine import Catalog
from penstock.storage.errors import Conflict, Fenced, StorageError, Unavailable
from penstock.storage.ids import ManifestVersion
from penstock.storage.publishing.publisher import PublishedManifest, Publisher, Swap
from penstock.storage.publishing.rollbacks import plan_rollback
from penstock.storage.segments.manifests import Manifest

from .claims import Claims, ids
from .components import Components
from .planning import plan

log = logging.getLogger(__name__)


class _Take(Protocol):
    """How the ledger gives one batch of a shard to the holder of its lease."""

    def __call__(
        self, catalog: Catalog, *, shard: int, owner: str, lease_s: float, now: float, max_attempts: int
    ) -> ledger.Claim | None: ...


class Upkeep:
    """Part of the index role's process. Each method does one batch, and raises what says to look again."""

    def __init__(self, components: Components, claims: Claims, publisher: Publisher) -> None:
        self._components = components
        self._claims = claims
        self._publisher = publisher

    def roll_back(self, shard: int, *, epoch: int) -> bool:
        """Roll one generation back; returns whether somebody asked for it."""
        with self.claimed(ledger.claim_rollback, shard) as claim:
            if claim is None:
                return False
            try:
                self._roll_back(claim, epoch=epoch)
            except (Conflict, Unavailable):
                raise
            except StorageError as error:
                log.warning("A rollback cannot be: %s", error, extra=ids(claim))
                ledger.fail_rollback(self._components.catalog, claim, error=str(error), now=self._components.clock())
        return True

    def _roll_back(self, claim: ledger.Claim, *, epoch: int) -> None:
        components, version = self._components, ManifestVersion(claim.details["version"])
        rollback = plan_rollback(components.catalog, components.objects, claim.generation.id, version=version)
        differing = 0

        def finish(connection: Connection, published: PublishedManifest) -> None:
            nonlocal differing
            manifest, now = published.manifest, components.clock()
            differing = ledger.finish_rollback(
                connection, claim, rollback, manifest=manifest, changed=published.changed, now=now
            )

        published = self._publisher.publish(
            claim.generation.id, epoch=epoch, shard=claim.shard, rollback=rollback, in_transaction=finish
        )
        if published.changed:
            announce(components, published.manifest)
            log.info(
                "Rolled back to version %d: %d documents differ.",
                version,
                differing,
                extra=ids_of(published.manifest),
            )
            plan(components, published.manifest)

    def swap(self, shard: int, *, epoch: int) -> bool:
        """Swap one finished merge in; returns whether there was one."""
        with self.claimed(ledger.claim_swap, shard) as claim:
            if claim is None:
                return False
            try:
                self._swap_in(claim, epoch=epoch)
            except Fenced:
                raise
            except Conflict as error:
                ledger.drop_merge(self._components.catalog, claim, error=str(error), now=self._components.clock())
        return True

    def _swap_in(self, claim: ledger.Claim, *, epoch: int) -> None:
        components = self._components

        def finish(connection: Connection, _published: PublishedManifest) -> None:
            ledger.finish_swap(connection, claim, now=components.clock())

        swap = Swap.from_details(dict(claim.details))
        published = self._publisher.publish(
            claim.generation.id, epoch=epoch, shard=claim.shard, swap=swap, in_transaction=finish
        )
        announce(components, published.manifest)
        log.info("Swapped %d segments for one.", len(swap.inputs), extra=ids_of(published.manifest))
        plan(components, published.manifest)

    def expire(self, shard: int, *, epoch: int) -> bool:
        """Take out some of what has expired in one generation; returns whether there was one to look at."""
        with self.claimed(ledger.claim_expiry, shard) as claim:
            if claim is None:
                return False
            self._take_out_expired(claim, epoch=epoch)
        return True

    def _take_out_expired(self, claim: ledger.Claim, *, epoch: int) -> None:
        components = self._components
        expired = ledger.read_expired(components.catalog, claim, now=components.clock())

        def finish(connection: Connection, _published: PublishedManifest) -> None:
            ledger.finish_expiry(connection, claim, expired, now=components.clock())

        published = self._publisher.publish(
            claim.generation.id,
            epoch=epoch,
            shard=claim.shard,
            removed_document_ids=[one.document_id for one in expired],
            in_transaction=finish,
        )
        if published.changed:
            announce(components, published.manifest)
            log.info("Took out %d documents that had expired.", len(expired), extra=ids_of(published.manifest))
            plan(components, published.manifest)

    @contextmanager
    def claimed(self, take: _Take, shard: int) -> Iterator[ledger.Claim | None]:
        """Give a claim on a batch of the shard, kept while the block runs, or None.

        What went wrong is the ledger's to know, and ends here; what only says to look again does not.
        """
        components, workers = self._components, self._components.settings.workers
        claim = take(
            components.catalog,
            shard=shard,
            owner=components.owner,
            lease_s=workers.lease_s,
            now=components.clock(),
            max_attempts=workers.max_attempts,
        )
        if claim is None:
            yield None
            return
        with self._claims.keeper.hold(claim), self._claims.measured(claim.stage) as attempt:
            try:
                yield claim
                attempt.outcome = "done"
            except Conflict as error:
                attempt.outcome = "lost"
                self._claims.retry(claim, error=str(error), delay_s=0.0, counted=False)
                raise
            except Unavailable as error:
                attempt.outcome = "postponed"
                self._claims.wait_for_storage([claim], error)
                raise
            except OSError as error:
                attempt.outcome = "postponed"
                log_failure(log, "This machine cannot publish now", error, extra=ids(claim))
                self._claims.retry_unchanged(claim, error)
            except Exception as error:  # noqa: BLE001 whatever it is, the ledger has to know
                log_failure(log, "What the shard needs could not be published", error, extra=ids(claim))
                self._claims.retry(claim, error=failed_at(error))


def announce(components: Components, manifest: Manifest) -> None:
    """Tell readers that there is a new version."""
    components.notices.published(manifest.tenant_id, manifest.generation_id, manifest.version)


def ids_of(manifest: Manifest) -> dict[str, Any]:
    """Return what a log line about this version carries."""
    return {"tenant": manifest.tenant_id, "generation": manifest.generation_id, "version": manifest.version}
