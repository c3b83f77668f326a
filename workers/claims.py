"""How a task works on its batch: claim it, keep the claim, and tell the ledger when it did not work out."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.pipeline.errors import ProviderMisconfigured, ProviderUnavailable
from penstock.settings.logs import failed_at, log_failure
from penstock.storage import ledger
from penstock.storage.errors import Conflict, Unavailable
from penstock.storage.ids import BatchId

from .backoff import Outages, full_jitter
from .components import Components
from .leases import LeaseKeeper

log = logging.getLogger(__name__)

OUTAGE_DELAYS = 10  # of the usual first ones, between attempts on a machine that is in trouble
MISCONFIGURED_DELAY_S = 60.0  # a person has to act; the batch must not hammer a provider until then


class Claims:
    """Claims of this process on batches. One per process that runs tasks.

    ``lease_s``: instead of ``workers.lease_s``, for a process that may come to no renewal for long.
    """

    def __init__(self, components: Components, *, lease_s: float | None = None) -> None:
        self._components = components
        self._lease_s = lease_s or components.settings.workers.lease_s
        self.outages = Outages()
        self.keeper: LeaseKeeper[ledger.Held] = LeaseKeeper(self._renew, every_s=self._lease_s / 3)

    @contextmanager
    def working(self, batch_id: BatchId) -> Iterator[ledger.Claim | None]:
        """Give the claim on a batch, kept while the block runs; None when there is nothing to do.

        What the block raises ends here: the batch is tried again later, with a count, unless it was lost anyway.
        """
        claim = self._claim(batch_id)
        if claim is None:
            yield None
            return
        with self.keeper.hold(claim), self.answering(claim):
            yield claim

    @contextmanager
    def answering(self, claim: ledger.Claim) -> Iterator[None]:
        """End here what the block raises, as `working` does."""
        try:
            yield
        except Conflict:
            log.info("The batch was lost: another worker has it, or its documents are gone.", extra=ids(claim))
        except Unavailable as error:
            log.warning("The batch stays claimed until its lease ends: %s", error, extra=ids(claim))
        except ProviderUnavailable as error:
            self._wait_for_provider(claim, error)
        except ProviderMisconfigured as error:
            log.warning("The model cannot work as configured: see %s.", error.setting, extra=ids(claim))
            self.retry(claim, error=str(error), delay_s=MISCONFIGURED_DELAY_S, counted=False)
        except OSError as error:
            log.warning("This machine cannot do it now: %s.", error.strerror or failed_at(error), extra=ids(claim))
            self.retry_unchanged(claim, error)
        except Exception as error:  # noqa: BLE001 whatever it is, the ledger has to know
            log_failure(log, "The batch failed", error, extra=ids(claim))
            self.retry(claim, error=failed_at(error))

    def retry(self, claim: ledger.Held, *, error: str, delay_s: float | None = None, counted: bool = True) -> None:
        """Hand the batch back, by default after a delay that grows with its attempts. Losing the claim is no error."""
        first_s = self._components.settings.workers.retry_delay_s
        delay = full_jitter(claim.attempt, first_s=first_s) if delay_s is None else delay_s
        now = self._components.clock()
        try:
            ledger.retry_later(self._components.catalog, claim, error=error, now=now, delay_s=delay, counted=counted)
        except (Conflict, Unavailable) as lost:
            log.info("The batch could not be handed back: %s", lost, extra={"batch": claim.batch_id})

    def retry_unchanged(self, claim: ledger.Held, error: OSError) -> None:
        """Try again later without counting: a full disk is no document's fault, however long it stays full."""
        delay_s = OUTAGE_DELAYS * self._components.settings.workers.retry_delay_s
        self.retry(claim, error=error.strerror or failed_at(error), delay_s=delay_s, counted=False)

    def hand_back(self, claim: ledger.Claim) -> None:
        """Give the batch to another worker at once, because this one was told to stop."""
        self.retry(claim, error="handed back: the worker was stopped", delay_s=0.0, counted=False)
        self._components.notices.work_ready()

    def close(self) -> None:
        self.keeper.close()

    def _wait_for_provider(self, claim: ledger.Claim, error: ProviderUnavailable) -> None:
        """Try again later without counting: an outage is no document's fault, however long it lasts."""
        delay_s = self.outages.delay_s(
            claim.generation.model,
            first_s=self._components.settings.workers.retry_delay_s,
            wish_s=error.retry_after_s,
        )
        log.warning("The provider is not available, trying again in %.1f s.", delay_s, extra=ids(claim))
        self.retry(claim, error=str(error), delay_s=delay_s, counted=False)

    def _claim(self, batch_id: BatchId) -> ledger.Claim | None:
        components = self._components
        try:
            return ledger.claim(
                components.catalog,
                batch_id,
                owner=components.owner,
                lease_s=self._lease_s,
                now=components.clock(),
                max_attempts=components.settings.workers.max_attempts,
            )
        except Unavailable as error:
            log.warning("The batch was not taken and will be sent again: %s", error, extra={"batch": batch_id})
            return None

    def _renew(self, claim: ledger.Held) -> bool:
        components = self._components
        return ledger.renew(components.catalog, claim, lease_s=self._lease_s, now=components.clock())


def ids(claim: ledger.Claim) -> dict[str, str]:
    """Return what a log line about this batch carries."""
    return {"tenant": claim.tenant_id, "generation": claim.generation.id, "batch": claim.batch_id}
