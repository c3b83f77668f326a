"""Who works on which run: a claim with a lease, counted before the work begins, as batches have it.

Whoever lost his claim gets Conflict when he tells what became of the run; so does one whose schedule was deleted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.tables import collections, schedule_runs, schedules
from ..catalog.values import storable
from ..errors import Conflict
from ..ids import CollectionId, RunId, ScheduleId, TenantId
from .due import count_due, count_going, may_begin


@dataclass(frozen=True)
class Run:
    """The right to work on one run until the lease ends, and what is to be done. ``progress``: of its attempts so far.

    Without a tenant and a collection (its name) it is the installation's, and about everything. ``began_at``: at its
    first attempt.
    """

    id: RunId
    owner: str
    attempt: int
    schedule_id: ScheduleId
    tenant: TenantId | None
    collection_id: CollectionId | None
    collection: str | None
    action: str
    options: Mapping[str, Any]
    began_at: float
    progress: Mapping[str, Any] = field(default_factory=dict)


def claim_run(catalog: Catalog, *, owner: str, lease_s: float, now: float, most: int) -> Run | None:
    """Take the run whose turn it is, and count the attempt: all committed. None: nothing waits, or ``most`` are going.

    The next is of the tenant whose runs began longest ago, so that one with many schedules does not keep others
    waiting.
    """
    if not count_due(catalog, now=now, most=most):  # without the write lock
        return None
    with catalog.write("claim_run") as connection:
        # Chosen and held before it is counted what goes: of several who choose at once the others then see the first.
        chosen = _next(connection, now=now)
        if chosen is None or count_going(connection, now=now) >= most:
            return None
        values = {"state": "running", "owner": owner, "lease_until": now + lease_s}
        values |= {"attempts": schedule_runs.c.attempts + 1}
        values |= {"started_at": sa.func.coalesce(schedule_runs.c.started_at, now)}
        taken = sa.update(schedule_runs).where(schedule_runs.c.id == chosen, *may_begin(now)).values(values)
        if connection.execute(taken).rowcount != 1:
            return None
        return _claimed(connection, chosen)


def renew_run(catalog: Catalog, run: Run, *, lease_s: float, now: float) -> bool:
    """Move the end of the lease to ``now + lease_s``. False: the run was lost."""
    with catalog.write("renew_run") as connection:
        held = sa.update(schedule_runs).where(*_held(run)).values(lease_until=now + lease_s)
        return connection.execute(held).rowcount == 1


def is_held(catalog: Catalog, run: Run) -> bool:
    """Say whether the claim is still the one in force."""
    with catalog.read() as connection:
        return connection.scalar(sa.select(schedule_runs.c.id).where(*_held(run))) is not None


def record_progress(catalog: Catalog, run: Run, progress: Mapping[str, Any]) -> None:
    """Keep what was done so far, for the history and for another attempt. Raises Conflict."""
    _change(catalog, run, progress=dict(progress))


def end_run(
    catalog: Catalog, run: Run, *, state: str, now: float, progress: Mapping[str, Any], reason: str | None = None
) -> None:
    """End a run as ``ok``, ``failed`` or ``skipped``. Raises Conflict."""
    told = None if reason is None else storable(reason)
    with catalog.write("end_run") as connection:
        if state == "ok":  # the schedule before its run, as everywhere
            mine = sa.update(schedules).where(schedules.c.id == run.schedule_id)
            connection.execute(mine.values(last_success_at=now))
        ended = {"state": state, "owner": None, "lease_until": None, "finished_at": now, "reason": told}
        _record(connection, run, {**ended, "progress": dict(progress)})


def postpone_run(catalog: Catalog, run: Run, *, at: float, progress: Mapping[str, Any]) -> None:
    """Let go of a run until that moment; this attempt does not count. Raises Conflict."""
    _change(catalog, run, **_free(at), progress=dict(progress))


def hand_back_run(catalog: Catalog, run: Run, *, now: float) -> None:
    """Let another process take the run at once; this attempt does not count. Raises Conflict."""
    _change(catalog, run, **_free(now))


def _free(at: float) -> dict[str, Any]:
    uncounted = {"attempts": schedule_runs.c.attempts - 1}
    return {"state": "waiting", "owner": None, "lease_until": None, "next_attempt_at": at, **uncounted}


def _change(catalog: Catalog, run: Run, **values: Any) -> None:
    with catalog.write("change_run") as connection:
        _record(connection, run, values)


def _record(connection: Connection, run: Run, values: Mapping[str, Any]) -> None:
    if connection.execute(sa.update(schedule_runs).where(*_held(run)).values(dict(values))).rowcount != 1:
        raise Conflict(f"run {run.id} is no longer held by {run.owner}: it was taken over, or its schedule deleted")


def _held(run: Run) -> tuple[sa.ColumnElement[bool], ...]:
    mine = (schedule_runs.c.owner == run.owner, schedule_runs.c.attempts == run.attempt)
    return (schedule_runs.c.id == run.id, schedule_runs.c.state == "running", *mine)


def _next(connection: Connection, *, now: float) -> str | None:
    others = schedule_runs.alias("others")
    same = sa.func.coalesce(others.c.tenant_id, "") == sa.func.coalesce(schedule_runs.c.tenant_id, "")
    began = sa.select(sa.func.max(others.c.started_at)).where(same).scalar_subquery()
    wanted = sa.select(schedule_runs.c.id).where(*may_begin(now))
    order = (sa.func.coalesce(began, 0.0), schedule_runs.c.next_attempt_at, schedule_runs.c.id)
    held = wanted.order_by(*order).limit(1).with_for_update(of=schedule_runs)
    found: str | None = connection.scalar(held)
    return found


def _claimed(connection: Connection, run_id: str) -> Run:
    of_schedule = [schedules.c[name] for name in ("action", "options", "collection_id")]
    wanted = sa.select(schedule_runs, *of_schedule, collections.c.name.label("collection"))
    wanted = wanted.join(schedules, schedules.c.id == schedule_runs.c.schedule_id)
    wanted = wanted.join(collections, collections.c.id == schedules.c.collection_id, isouter=True)
    row = connection.execute(wanted.where(schedule_runs.c.id == run_id)).one()
    return Run(
        id=RunId(row.id),
        owner=row.owner,
        attempt=row.attempts,
        schedule_id=ScheduleId(row.schedule_id),
        tenant=row.tenant_id,
        collection_id=row.collection_id,
        collection=row.collection,
        action=row.action,
        options=row.options,
        began_at=row.started_at,
        progress=row.progress,
    )
