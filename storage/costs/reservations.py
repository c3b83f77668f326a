"""Money set aside for a call, or an order, before it is made, in the catalog: no two must spend the same money."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.tables import collections, jobs, reembeddings, reservations, tenants
from ..catalog.values import slices
from ..errors import OverBudget
from ..ids import BatchId, JobId, new_id
from .amounts import cost_of
from .payees import Payee, is_reembedding
from .purses import ROUNDING_USD, month_of, next_month_at, of_job, of_month, read_purses, set_aside


@dataclass(frozen=True)
class ForBatch:
    """It is charged in full when this attempt on the batch is over and did not settle it."""

    batch_id: BatchId
    attempt: int


@dataclass(frozen=True)
class Until:
    """It is charged in full when it is not settled by then."""

    expires_at: float


@dataclass(frozen=True)
class ForOrder:
    """It is settled with the order that this batch becomes a part of, and given back when it becomes part of none."""

    batch_id: BatchId


def reserve(catalog: Catalog, payee: Payee, tokens: int, *, held: ForBatch | Until, now: float) -> str:
    """Set aside what ``tokens`` will cost at most, of each budget that it counts for, and return the reservation's id.

    Raises:
        OverBudget: a budget has less left, or nobody knows the price where there is a budget. Nothing was set aside.
        Unavailable: the catalog does not answer, so nobody knows whether there is money left.
    """
    with catalog.write("reserve") as connection:
        return reserve_within(connection, payee, tokens, held=held, now=now)


def reserve_within(
    connection: Connection, payee: Payee, tokens: int, *, held: ForBatch | ForOrder | Until, now: float
) -> str:
    """Do what `reserve` does in a transaction of the caller, who rolls back what it raises."""
    usd, month = cost_of(tokens, payee.price), month_of(now)
    shares = shares_of(payee.jobs, usd or 0.0) | {of_month(month): usd or 0.0}
    row = {
        "id": new_id("reservation"),
        "tenant_id": payee.tenant_id,
        "collection_id": payee.collection_id,
        "model": payee.model,
        "month": month,
        "jobs": dict(payee.jobs),
        "tokens": tokens,
        "cost_usd": usd,
        "batch_id": None if isinstance(held, Until) else held.batch_id,
        "attempt": held.attempt if isinstance(held, ForBatch) else None,
        "expires_at": held.expires_at if isinstance(held, Until) else None,
        "made_at": now,
    }
    limits = _limits(connection, payee, month=month)
    if usd is None and limits:
        raise _unpriced(payee, *next(iter(limits.items())))
    if full := set_aside(connection, payee.tenant_id, shares, limits):
        raise _over_budget(connection, payee, full, limit=limits[full], needed=shares[full], now=now)
    connection.execute(sa.insert(reservations).values(row))
    return str(row["id"])


def shares_of(weights: Mapping[JobId, int], usd: float) -> dict[str, float]:
    """Return what each job's purse has of ``usd``."""
    total = sum(weights.values()) or 1
    return {of_job(job_id): usd * weight / total for job_id, weight in weights.items()}


def _limits(connection: Connection, payee: Payee, *, month: str) -> dict[str, float]:
    """Return the budgets that there are, by the name of their purse."""
    wanted = sa.select(tenants.c.monthly_budget_usd).where(tenants.c.id == payee.tenant_id)
    limits: dict[str, float] = {}
    for some in slices(sorted(payee.jobs)):
        table = reembeddings if is_reembedding(some[0]) else jobs  # a batch is one's, or the others'
        budgets = sa.select(table.c.id, table.c.budget_usd).where(table.c.id.in_(some), table.c.budget_usd.is_not(None))
        limits |= {of_job(row.id): row.budget_usd for row in connection.execute(budgets)}
    if (monthly := connection.scalar(wanted)) is not None:
        limits[of_month(month)] = monthly
    return limits


def _over_budget(
    connection: Connection, payee: Payee, name: str, *, limit: float, needed: float, now: float
) -> OverBudget:
    purse = read_purses(connection, payee.tenant_id, [name])[name]
    # What is set aside may come back, as when a provider refuses the call that it was for.
    may_come_back = purse.spent_usd + needed <= limit + ROUNDING_USD
    aside = f" and ${purse.reserved_usd:.6f} set aside for calls and orders under way" if purse.reserved_usd else ""
    told = f"${purse.spent_usd:.6f} are spent{aside}, and the next call would cost ${needed:.6f}"
    why = f"of ${limit:g} has no room: {told}; raise it with `penstock {_raised_by(connection, payee, name)}`"
    return _refused(name, why, renewed_at=next_month_at(now), may_come_back=may_come_back)


def _raised_by(connection: Connection, payee: Payee, name: str) -> str:
    job_id = name.removeprefix(of_job(""))
    if job_id == name:
        return f"tenants set {payee.tenant_id} --monthly-budget USD"
    if not is_reembedding(job_id):
        return f"jobs budget {job_id} --set USD"
    collection = connection.scalar(sa.select(collections.c.name).where(collections.c.id == payee.collection_id))
    return f"reembed {collection} --set-budget USD"


def _unpriced(payee: Payee, name: str, limit: float) -> OverBudget:
    why = (
        f"of ${limit:g} cannot be kept, because nobody knows the price of {payee.model}:"
        " set embedding.openai_usd_per_million_tokens, or take the budget away"
    )
    return _refused(name, why, renewed_at=None, may_come_back=False)


def _refused(name: str, why: str, *, renewed_at: float | None, may_come_back: bool) -> OverBudget:
    job_id = name.removeprefix(of_job(""))
    if job_id != name:
        return OverBudget(f"The budget {why}", budget="job_budget", job_id=job_id, may_come_back=may_come_back)
    told = f"The tenant's budget of this month {why}"
    return OverBudget(told, budget="month_budget", may_come_back=may_come_back, renewed_at=renewed_at)
