"""What happens to a batch that did not succeed: it is tried again, taken apart, or given up with its document.

One bad document never fails its batch: at the cap of attempts each of its documents starts again alone, from its
bytes, with attempts of its own. Only a batch that was made of one document fails it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.batches import ready_batch
from ..catalog.completion import close_empty_batches, finish_jobs
from ..catalog.engine import Catalog
from ..catalog.tables import batches, versions
from ..catalog.values import slices, storable
from ..ids import BatchId, VersionId, new_id
from .claims import Claim, Held, is_held, lost
from .contents import FailedDocument, Tried, hold_versions, holds_documents, mark_failed, tried, wanted_by
from .joins import join_groups

Postponed = Literal["job_budget", "month_budget", "paused", "retrying"]
UNTIL_RAISED_S = 100 * 365 * 86_400.0  # when nothing but a raised budget helps: that one makes it ready

DOING = {
    "chunk": "parsing this document",
    "embed": "embedding this document",
    "index": "publishing this document",
    "expire": "removing what expired",
    "merge": "merging segments",
    "rollback": "rolling back",
    "swap": "publishing a merge",
    "follow": "looking after a re-embedding",
    "check": "checking a re-embedding",
}


def retry_later(
    catalog: Catalog,
    claim: Held,
    *,
    error: str,
    now: float,
    delay_s: float,
    code: str = "gave_up",
    counted: bool = True,
    postponed: Postponed | None = None,
) -> None:
    """Hand a claimed batch back, to be tried again after ``delay_s``.

    After the claim's ``max_attempts`` it is taken apart instead, or its only document fails with ``code`` and
    ``error``. ``counted=False`` gives the attempt back: for an outage or a shutdown, which is no document's fault.
    ``postponed``: what the jobs of its documents are told until the batch ends, or is handed back for another reason:
    that they wait for a budget or a month, are ``paused`` until a person has acted, or wait for a while.

    Raises:
        Conflict: the claim was lost; nothing was changed.
    """
    with catalog.write("retry_later") as connection:
        row = connection.execute(sa.select(batches).where(*is_held(claim)).with_for_update()).first()
        if row is None:
            raise lost(claim)
        if counted and row.attempts >= claim.max_attempts:
            reason = f"gave up after {row.attempts} attempts at {DOING[row.stage]}: {error}"
            give_up(connection, [row], code=code, reason=reason, now=now)
            return
        again = sa.update(batches).where(batches.c.id == row.id).values(state="ready", owner=None, lease_until=None)
        again = again.values(next_attempt_at=now + delay_s, attempts=row.attempts - (not counted))
        connection.execute(again.values(error=storable(error), postponed=postponed))


def set_apart(catalog: Catalog, claim: Claim, *, job_id: str, now: float) -> bool:
    """Take the documents of a job out of a claimed embed batch, which others share with it: they begin again alone.

    The others wait no longer. Returns False when there are none, and nothing was changed.

    Raises:
        Conflict: the claim was lost; nothing was changed.
    """
    with catalog.write("set_apart") as connection:
        row = connection.execute(sa.select(batches).where(*is_held(claim)).with_for_update()).first()
        if row is None:
            raise lost(claim)
        live = hold_versions(connection, *wanted_by(row))
        mine = [version for version, owner in live.items() if owner == job_id]
        if len(mine) in (0, len(live)):
            return False
        sizes = {version.id: version.size_bytes for version in claim.versions}
        batch = ready_batch(
            "chunk",
            tenant=claim.tenant_id,
            generation_id=claim.generation.id,
            shard=claim.shard,
            now=now,
            priority=claim.priority,
            document_count=len(mine),
            size_bytes=sum(sizes.get(version, 0) for version in mine),
        )
        connection.execute(sa.insert(batches).values(batch))
        for some in slices(mine):
            moved = sa.update(versions).where(versions.c.id.in_(some))
            connection.execute(moved.values(state="chunking", batch_id=batch["id"]))
        again = sa.update(batches).where(batches.c.id == row.id).values(state="ready", owner=None, lease_until=None)
        connection.execute(again.values(next_attempt_at=now, attempts=row.attempts - 1, error=None, postponed=None))
        close_empty_batches(connection, [row.group_id], now=now)
        join_groups(connection, [row.group_id], now=now)
    return True


def lost_reason(batch: Row[Any]) -> str:
    """Say why a batch failed whose holders never came back."""
    times = f"{batch.attempts} times" if batch.attempts > 1 else "once"
    if batch.error:  # some attempts ended with words
        times = f"at the last of {batch.attempts} attempts (an earlier one ended with: {batch.error})"
    advice = ". Submit it again when it is mended, or the limits are raised" if holds_documents(batch) else ""
    return f"the worker died {times} while {DOING[batch.stage]}, or took too long{advice}"


def give_up(connection: Connection, rows: Sequence[Row[Any]], *, code: str, reason: str | None, now: float) -> int:
    """End held batches that used up their attempts. Returns how many were taken apart.

    ``reason``: what the only document of a batch is told; None: that the worker died.
    """
    apart = 0
    for row in rows:  # rare, and each has its own documents
        live = hold_versions(connection, *wanted_by(row)) if holds_documents(row) else {}
        in_company = row.document_count > 1  # of which the others may be over by now: none of them was tried alone
        if live and in_company:
            _take_apart(connection, row, list(live), tried=tried(connection, row), now=now)
            apart += 1
        elif live:
            told = reason or lost_reason(row)
            failures = [FailedDocument(version, code, told) for version in live]
            mark_failed(connection, failures, stage=row.stage, now=now, tried=tried(connection, row))
            finish_jobs(connection, now=now, job_ids=set(live.values()))
        told = "taken apart: each document starts again alone" if live and in_company else reason or lost_reason(row)
        ended = sa.update(batches).where(batches.c.id == row.id).values(error=storable(told), finished_at=now)
        connection.execute(ended.values(state="dead", owner=None, lease_until=None))
    groups = [row.group_id for row in rows if row.stage == "embed"]
    close_empty_batches(connection, groups, now=now)
    join_groups(connection, groups, now=now)
    return apart


def _take_apart(connection: Connection, row: Row[Any], live: Sequence[VersionId], *, tried: Tried, now: float) -> None:
    found = sa.select(versions.c.id, versions.c.action, versions.c.state, versions.c.size_bytes).where(*wanted_by(row))
    alone = {version: new_id("batch") for version in sorted(live)}
    batch_rows: list[dict[str, Any]] = []
    version_rows: list[dict[str, Any]] = []
    for version in connection.execute(found):
        begins = version.action == "put"  # a removal or an update has no bytes of its own: it waits for the writer
        batch = ready_batch(
            "chunk" if begins else "index",
            tenant=row.tenant_id,
            generation_id=row.generation_id,
            shard=row.shard,
            now=now,
            batch_id=BatchId(alone[version.id]),
            priority=row.priority,
            document_count=1,
            size_bytes=version.size_bytes,
            details={"quarantined": True, "attempts": {row.stage: tried.attempts}},
            first_attempt_at=tried.first_attempt_at,
        )
        batch_rows.append(batch)
        state = "chunking" if begins else version.state
        version_rows.append({"version": version.id, "batch": alone[version.id], "becomes": state})
    connection.execute(sa.insert(batches), batch_rows)
    moved = sa.update(versions).where(versions.c.id == sa.bindparam("version"))
    moved = moved.values(state=sa.bindparam("becomes"), batch_id=sa.bindparam("batch"))
    connection.execute(moved, version_rows)
