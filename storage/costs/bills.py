"""The bill of one attempt on a batch: money set aside before each call, and settled with what the calls took.

What was paid is recorded whatever became of the work it was paid for.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.engine import Catalog
from ..catalog.tables import jobs, reembeddings, reservations
from ..catalog.values import slices
from ..errors import StorageError
from ..ids import JobId, TenantId
from .amounts import Amounts, hour_of
from .book import OF_SEARCHES, CostKey, write_costs
from .payees import Payee, is_reembedding
from .purses import month_of, of_month, pay
from .reservations import ForBatch, reserve, shares_of

log = logging.getLogger(__name__)
UNRESERVED = ""  # what costs nothing, or was saved


class Bill:
    """Pays for the calls of one attempt; settled by `settle_bill` in a transaction of the caller, or when it closes.

    Safe between threads. `reserve` and `paid` are what an embedder asks of whoever pays.
    """

    def __init__(self, catalog: Catalog, payee: Payee, held: ForBatch, *, clock: Callable[[], float]) -> None:
        self.payee = payee
        self.at = clock()
        self._catalog = catalog
        self._held = held
        self._clock = clock
        self._lock = threading.Lock()
        self._parts: dict[str, Amounts] = {UNRESERVED: Amounts()}
        self._newest = UNRESERVED
        self._settled = False

    @property
    def account(self) -> str:
        return self.payee.tenant_id

    def reserve(self, tokens: int) -> None:
        """Set aside what the next calls cost. Raises what `reservations.reserve` does."""
        if self.payee.is_free:
            return
        made = reserve(self._catalog, self.payee, tokens, held=self._held, now=self._clock())
        with self._lock:
            self._parts[made], self._newest = Amounts(), made

    def paid(self, tokens: int, *, answered: bool = True) -> None:
        """Take note of a call. ``answered``: it brought what was asked for."""
        with self._lock:
            self._parts[self._newest] += Amounts.of_call(tokens, self.payee.price, answered=answered)

    def saved(self, hits: int, tokens: int) -> None:
        """Take note of what the cache spared."""
        with self._lock:
            self._parts[UNRESERVED] += Amounts.of_hits(hits, tokens, self.payee.price)

    def parts(self) -> dict[str, Amounts]:
        """Return the amounts by reservation."""
        with self._lock:
            return dict(self._parts)

    def close(self, *, settled: bool = False) -> None:
        """Settle it now unless it is. What cannot be written now is charged in full when the attempt is over."""
        if settled or self._settled:
            self._settled = True
            return
        try:
            with self._catalog.write("settle") as connection:
                settle_bill(connection, self)
        except StorageError as error:
            log.warning("What was paid is charged in full later: %s", error, extra={"batch": self._held.batch_id})
        self._settled = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def settle_bill(connection: Connection, bill: Bill) -> None:
    """Record what a bill says, in a transaction of the caller, who closes it as settled once that is committed."""
    settle(connection, bill.payee, bill.parts(), at=bill.at)


def settle(connection: Connection, payee: Payee, parts: Mapping[str, Amounts], *, at: float) -> Amounts:
    """Record what calls took: in the costs, the budgets, the jobs and re-embeddings. Returns what was recorded.

    ``parts``: by reservation. What a reservation that is gone was for was charged already, and is not recorded twice.
    ``at``: the moment to which the costs belong.
    """
    if not any(parts.values()) and set(parts) <= {UNRESERVED}:
        return Amounts()
    hold_jobs(connection, payee.jobs)
    released = _released(connection, [name for name in parts if name != UNRESERVED])
    free = parts.get(UNRESERVED, Amounts())
    here = sum((parts[row.id] for row in released), free)
    shares = {str(job_id): share for job_id, share in here.shared(payee.jobs)}
    _add_to_jobs(connection, shares)
    _pay(
        connection,
        payee,
        [(row, parts[row.id].cost_usd) for row in released],
        unreserved_usd=free.cost_usd,
        month=month_of(at),
    )
    place = (payee.tenant_id, hour_of(at), payee.collection_id)
    by_job = shares if payee.jobs else {OF_SEARCHES: here}
    write_costs(connection, {CostKey(*place, job_id, payee.model): share for job_id, share in by_job.items()})
    return here


def hold_jobs(connection: Connection, wanted: Mapping[JobId, int]) -> None:
    """Let nobody else change these jobs until the commit: they come first in every transaction."""
    for some in slices(sorted(wanted)):
        held = sa.select(jobs.c.id).where(jobs.c.id.in_(some)).order_by(jobs.c.id)
        connection.execute(held.with_for_update(key_share=True)).all()


def _released(connection: Connection, ids: Sequence[str]) -> list[Row[Any]]:
    """Delete these reservations, and return those that were there."""
    told = (reservations.c.id, reservations.c.month, reservations.c.jobs, reservations.c.cost_usd)
    found: list[Row[Any]] = []
    for some in slices(sorted(ids)):
        deleted = sa.delete(reservations).where(reservations.c.id.in_(some))
        found += list(connection.execute(deleted.returning(*told)))
    return found


def _add_to_jobs(connection: Connection, shares: Mapping[str, Amounts]) -> None:
    rows = [
        {
            "job": job_id,
            "more_tokens": share.tokens,
            "more_usd": None if share.unpriced_tokens else share.cost_usd,
        }
        for job_id, share in sorted(shares.items())
        if share.tokens
    ]
    for table, chosen in ((jobs, False), (reembeddings, True)):
        if mine := [row for row in rows if is_reembedding(str(row["job"])) == chosen]:
            add = sa.update(table).where(table.c.id == sa.bindparam("job"))
            add = add.values(
                embedded_tokens=table.c.embedded_tokens + sa.bindparam("more_tokens"),
                cost_usd=table.c.cost_usd + sa.bindparam("more_usd", type_=sa.Double),
            )
            connection.execute(add, mine)


def _pay(
    connection: Connection, payee: Payee, paid: Sequence[tuple[Row[Any], float]], *, unreserved_usd: float, month: str
) -> None:
    changes: dict[str, tuple[float, float]] = {}

    def add(name: str, spent: float, reserved: float) -> None:
        before = changes.get(name, (0.0, 0.0))
        changes[name] = (before[0] + spent, before[1] + reserved)

    if unreserved_usd:  # what an order brought for which nothing was set aside
        for name, spent in (shares_of(payee.jobs, unreserved_usd) | {of_month(month): unreserved_usd}).items():
            add(name, spent, 0.0)
    for row, spent_usd in paid:
        reserved_usd = row.cost_usd or 0.0
        add(of_month(row.month), spent_usd, reserved_usd)
        weights = {JobId(job_id): int(weight) for job_id, weight in row.jobs.items()}
        aside = shares_of(weights, reserved_usd)
        for name, spent in shares_of(weights, spent_usd).items():
            add(name, spent, aside[name])
    pay(connection, TenantId(payee.tenant_id), changes)
