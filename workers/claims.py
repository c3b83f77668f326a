"""How a task works on its batch: claim it, keep the claim, and tell the ledger when it did not work out."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from penstock.pipeline.errors import ProviderHeld, ProviderMisconfigured, ProviderUnavailable
from penstock.settings.logs import failed_at, log_failure
from penstock.storage import ledger
from penstock.storage.errors import Conflict, Damaged, DamagedIndex, OverBudget, Unavailable
from penstock.storage.figures import Figure
from penstock.storage.ids import BatchId

from .backoff import Outages, full_jitter
from .company import Company
from .components import Components
from .leases import LeaseKeeper
from .liveness import Liveness

log = logging.getLogger(__name__)

OUTAGE_DELAYS = 10  # of the usual first ones, between attempts on a machine that is in trouble
LISTED = 5  # ids of jobs or batches on one log line
HAND_BACK_S = 5.0  # before the end of the grace
STORAGE = ""  # among the outages, beside those of models
MISCONFIGURED_DELAY_S = 60.0  # a person has to act; the batch must not hammer a provider until then


class Claims:
    """Claims of this process on batches. One per process that runs tasks.

    Shortly before the grace is over that follows the order to stop, what is not finished is handed back to others; its
    work, which may go on, is then refused. ``lease_s``: instead of ``workers.lease_s``, for a process that may come to
    no renewal for long.
    """

    def __init__(self, components: Components, *, liveness: Liveness, lease_s: float | None = None) -> None:
        self._components = components
        self._liveness = liveness
        grace_s = components.settings.workers.grace_s
        self._finish_s = max(grace_s - HAND_BACK_S, grace_s / 2)
        self._lease_s = lease_s or components.settings.workers.lease_s
        self._returned: set[tuple[BatchId, int]] = set()
        self._company = Company()
        self.outages = Outages()
        self.keeper: LeaseKeeper[ledger.Held] = LeaseKeeper(
            self._renew, every_s=self._lease_s / 3, overdue=self._overdue, give_back=self.hand_back
        )

    @contextmanager
    def working(self, batch_id: BatchId) -> Iterator[ledger.Claim | None]:
        """Give the claim on a batch, kept while the block runs; None when there is nothing to do.

        What the block raises ends here: the batch is tried again later, with a count, unless it was lost anyway.
        """
        with self._company.joined(lambda in_company: self._claim(batch_id, in_company=in_company)) as claim:
            if claim is None:
                yield None
                return
            due_s = max(0.0, self._components.clock() - claim.ready_at)
            self._components.figures.add([Figure("penstock_dispatch_lag_seconds", (claim.stage,), due_s)])
            with self.keeper.hold(claim), self.measured(claim.stage) as attempt, self.answering(claim, attempt):
                yield claim

    @contextmanager
    def measured(self, stage: str) -> Iterator["Attempt"]:
        """Count what the block does as one attempt on ``stage``, which ends as the block says."""
        began, attempt = time.perf_counter(), Attempt()
        try:
            yield attempt
        finally:
            took_s = time.perf_counter() - began
            ended = Figure("penstock_attempts", (stage, attempt.outcome))
            self._components.figures.add([Figure("penstock_stage_seconds", (stage,), took_s), ended])

    @contextmanager
    def answering(self, claim: ledger.Claim, attempt: "Attempt") -> Iterator[None]:
        """End here what the block raises, as `working` does."""
        try:
            yield
            self.outages.over(STORAGE)
            attempt.outcome = "handed_back" if _number(claim) in self._returned else "done"
            self._returned.discard(_number(claim))
        except Conflict:
            attempt.outcome = "lost"
            log.info("The batch was lost: another worker has it, or its documents are gone.", extra=ids(claim))
        except Unavailable as error:
            attempt.outcome = "postponed"
            log.warning("What the batch needs does not answer: %s", error, extra=ids(claim))
            self.wait_for_storage([claim], error)
        except ProviderHeld as error:
            attempt.outcome = "held"
            self._wait_for_turn(claim, error)
        except ProviderUnavailable as error:
            attempt.outcome = "postponed"
            self._wait_for_provider(claim, error)
        except ProviderMisconfigured as error:
            attempt.outcome = "postponed"
            log.warning("The model cannot work as configured: see %s.", error.setting, extra=ids(claim))
            delay_s = MISCONFIGURED_DELAY_S
            self.retry(claim, error=str(error), delay_s=delay_s, counted=False, postponed="paused")
        except OverBudget as error:
            attempt.outcome = "postponed"
            self._wait_for_money(claim, error)
        except OSError as error:
            attempt.outcome = "postponed"
            log.warning("This machine cannot do it now: %s.", error.strerror or failed_at(error), extra=ids(claim))
            self.retry_unchanged(claim, error)
        except Damaged as error:  # it names files and counts rows, and holds no text
            log.error("The batch failed: %s", error, extra=ids(claim))  # noqa: TRY400 the line is enough
            self.retry(claim, error=str(error))
        except Exception as error:  # noqa: BLE001 whatever it is, the ledger has to know
            log_failure(log, "The batch failed", error, extra=ids(claim))
            self.retry(claim, error=failed_at(error))

    def retry(
        self,
        claim: ledger.Held,
        *,
        error: str,
        delay_s: float | None = None,
        counted: bool = True,
        postponed: ledger.Postponed | None = None,
    ) -> None:
        """Hand the batch back, by default after a delay that grows with its attempts. Losing the claim is no error."""
        first_s = self._components.settings.workers.retry_delay_s
        delay = full_jitter(claim.attempt, first_s=first_s) if delay_s is None else delay_s
        now = self._components.clock()
        try:
            ledger.retry_later(
                self._components.catalog,
                claim,
                error=error,
                now=now,
                delay_s=delay,
                counted=counted,
                postponed=postponed,
            )
        except (Conflict, Unavailable) as lost:
            log.info("The batch could not be handed back: %s", lost, extra={"batch": claim.batch_id})

    def retry_unchanged(self, claim: ledger.Held, error: OSError) -> None:
        """Try again later without counting: a full disk is no document's fault, however long it stays full."""
        delay_s = OUTAGE_DELAYS * self._components.settings.workers.retry_delay_s
        self.retry(claim, error=error.strerror or failed_at(error), delay_s=delay_s, counted=False)

    def wait_for_repair(self, claim: ledger.Held, error: DamagedIndex) -> None:
        """Try again later without counting: a file of the index that rotted is no document's fault."""
        told = f"{error}; or `penstock doctor --repair` mends the index, and this goes on by itself"
        self.retry(claim, error=told, delay_s=MISCONFIGURED_DELAY_S, counted=False, postponed="paused")

    def wait_for_storage(self, claims: Sequence[ledger.Held], error: Unavailable) -> None:
        """Try again later without counting. Where it is the catalog that is away, the end of the lease hands back."""
        first_s = self._components.settings.workers.retry_delay_s
        delay_s = self.outages.delay_s(STORAGE, first_s=first_s, wish_s=None)
        for claim in claims:
            self.retry(claim, error=str(error), delay_s=delay_s, counted=False, postponed="retrying")

    def hand_back(self, claim: ledger.Held) -> None:
        """Give the batch to another worker at once, because this one was told to stop."""
        self._returned.add(_number(claim))
        self.retry(claim, error="handed back: the worker was stopped", delay_s=0.0, counted=False)
        self._components.notices.work_ready()

    def _overdue(self) -> bool:
        return self._liveness.stopping_s > self._finish_s

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
        self.retry(claim, error=str(error), delay_s=delay_s, counted=False, postponed="retrying")

    def _wait_for_turn(self, claim: ledger.Claim, error: ProviderHeld) -> None:
        """Try again when the provider may be asked, which it was not: the turn is not charged, and others may go."""
        delay_s = (error.retry_after_s or 0.0) + full_jitter(1, first_s=self._components.settings.workers.retry_delay_s)
        log.info("The provider is asked again in %.1f s.", delay_s, extra=ids(claim))
        self.retry(claim, error=str(error), delay_s=delay_s, counted=False, postponed="retrying")
        ledger.give_turn_back(self._components.catalog, claim)

    def _wait_for_money(self, claim: ledger.Claim, error: OverBudget) -> None:
        """Wait without counting: until the budget is raised, or the month ends that it is for."""
        log.warning("A budget has no room: %s", error, extra=ids(claim))
        if error.may_come_back:
            delay_s = OUTAGE_DELAYS * self._components.settings.workers.retry_delay_s
            self.retry(claim, error=str(error), delay_s=delay_s, counted=False, postponed="retrying")
            return
        if error.job_id is not None and claim.reembedding_id is None and self._set_apart(claim, error.job_id):
            return
        until = error.renewed_at
        delay_s = ledger.UNTIL_RAISED_S if until is None else max(0.0, until - self._components.clock())
        self.retry(claim, error=str(error), delay_s=delay_s, counted=False, postponed=error.budget)

    def _set_apart(self, claim: ledger.Claim, job_id: str) -> bool:
        """Let the other jobs of a batch go on, which was made before this one had a budget."""
        components = self._components
        try:
            apart = ledger.set_apart(components.catalog, claim, job_id=job_id, now=components.clock())
        except (Conflict, Unavailable) as lost:
            log.info("The batch could not be handed back: %s", lost, extra={"batch": claim.batch_id})
            return True
        if apart:
            components.notices.work_ready()
        return apart

    def _claim(self, batch_id: BatchId, *, in_company: bool) -> ledger.Claim | None:
        components = self._components
        try:
            return ledger.claim(
                components.catalog,
                batch_id,
                owner=components.owner,
                lease_s=self._lease_s,
                now=components.clock(),
                max_attempts=components.settings.workers.max_attempts,
                in_turn=True,
                in_company=in_company,
            )
        except Unavailable as error:
            log.warning("The batch was not taken and will be sent again: %s", error, extra={"batch": batch_id})
            return None

    def _renew(self, claim: ledger.Held) -> bool:
        components = self._components
        return ledger.renew(components.catalog, claim, lease_s=self._lease_s, now=components.clock())


def _number(claim: ledger.Held) -> tuple[BatchId, int]:
    return claim.batch_id, claim.attempt


@dataclass
class Attempt:
    """How one attempt ended: ``done``, ``handed_back``, ``lost``, ``postponed`` (no document's fault), ``held`` (before
    its provider was asked) or ``failed``.
    """

    outcome: str = "failed"


def ids(claim: ledger.Claim, *, version: ledger.VersionRow | None = None) -> dict[str, str]:
    """Return what a log line about this batch carries, or about one document of it."""
    batch = {"tenant": claim.tenant_id, "generation": claim.generation.id, "batch": claim.batch_id}
    return batch | ids_of_versions(claim.versions if version is None else [version])


def ids_of_versions(versions: Sequence[ledger.VersionRow]) -> dict[str, str]:
    """Return whose work it is: the job or the first jobs of it, and the document when there is one only."""
    jobs = listed("job", sorted({version.job_id for version in versions}))
    return jobs | ({"document": versions[0].document_id} if len(versions) == 1 else {})


def listed(kind: str, found: Sequence[str]) -> dict[str, str]:
    """Return ``kind`` for one id, its plural for several: the first few, and how many more there are."""
    if len(found) < 2:
        return dict.fromkeys([kind], found[0]) if found else {}
    more = [f"+{len(found) - LISTED}"] if len(found) > LISTED else []
    return {f"{kind}s" if kind != "batch" else "batches": ",".join([*found[:LISTED], *more])}
