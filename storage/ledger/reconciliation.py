"""Puts right what a death left behind: lapsed claims, messages that nobody received, joins and jobs nobody stamped.

Run every few seconds by anyone, by several at once too; when nothing is wrong it reads a little and writes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import finish_jobs
from ..catalog.engine import Catalog
from ..catalog.tables import batches
from ..catalog.values import slices
from .joins import join_groups, missed_joins
from .quarantine import give_up

_AT_ONCE = 500


@dataclass(frozen=True)
class Reconciled:
    """What one run did: batches made ready again (``released`` from a claim, ``resent`` from the queue), batches
    given up (``apart``: their documents start again alone; ``dead``: the others), groups joined, jobs done.
    """

    released: int
    resent: int
    apart: int
    dead: int
    joined: int
    jobs_done: int


def _at_once(_attempts: int) -> float:
    return 0.0


def reconcile(
    catalog: Catalog, *, now: float, max_attempts: int, delay_s: Callable[[int], float] = _at_once
) -> Reconciled:
    """Look once for everything that nobody will come back for, in one transaction.

    ``delay_s``: how long a batch waits after so many attempts whose holder was lost.
    """
    with catalog.write("reconcile") as connection:
        lapsed = _lapsed(connection, "running", now=now)
        at_cap = [row for row in lapsed if row.attempts >= max_attempts]
        below_cap = [row for row in lapsed if row.attempts < max_attempts]
        released = _make_ready(connection, below_cap)
        _delay(connection, below_cap, now=now, delay_s=delay_s)
        apart = give_up(connection, at_cap, code="worker_lost", reason=None, now=now)
        resent = _make_ready(connection, _lapsed(connection, "sent", now=now))
        joined = join_groups(connection, missed_joins(connection), now=now)
        jobs_done = finish_jobs(connection, now=now)
    return Reconciled(released, resent, apart, len(at_cap) - apart, joined, jobs_done)


def _lapsed(connection: Connection, state: str, *, now: float) -> Sequence[Row[Any]]:
    wanted = sa.select(batches).where(batches.c.state == state, batches.c.lease_until < now)
    wanted = wanted.order_by(batches.c.id).limit(_AT_ONCE)
    return connection.execute(wanted.with_for_update(skip_locked=True)).all()


def _delay(connection: Connection, rows: Sequence[Row[Any]], *, now: float, delay_s: Callable[[int], float]) -> None:
    delayed = sa.update(batches).where(batches.c.id == sa.bindparam("batch")).values(next_attempt_at=sa.bindparam("at"))
    if rows:
        connection.execute(delayed, [{"batch": row.id, "at": now + delay_s(row.attempts)} for row in rows])


def _make_ready(connection: Connection, rows: Sequence[Row[Any]]) -> int:
    # next_attempt_at stays here: it has passed, or the batch would not have been sent.
    for some in slices([row.id for row in rows]):
        ready = sa.update(batches).where(batches.c.id.in_(some))
        connection.execute(ready.values(state="ready", owner=None, lease_until=None))
    return len(rows)
