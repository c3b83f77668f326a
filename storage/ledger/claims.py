"""Who works on which batch: claims with a lease and an attempt number, counted before the work begins.

A claim is proved by (owner, attempt). Whoever lost it gets Conflict from every function that would record its work.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import OPEN_BATCH
from ..catalog.engine import Catalog
from ..catalog.followers import not_held
from ..catalog.generations import GenerationInfo, read_generations
from ..catalog.tables import batches
from ..errors import Conflict
from ..ids import BatchId, GenerationId, TenantId
from .contents import Tried, VersionRow, holds_documents, read_versions, tried, wanted_by
from .joins import join_groups
from .pauses import goes_on
from .turns import cost_of, refund, whose_turn


@dataclass(frozen=True)
class Held:
    """The proof of a claim: what every function asks for that records an outcome."""

    batch_id: BatchId
    owner: str
    attempt: int
    max_attempts: int


@dataclass(frozen=True)
class Claim(Held):
    """The right to work on one batch until the lease ends.

    ``versions``: the documents still wanted, by id; never empty for the stages chunk and embed, unless the batch copies
    documents for the re-embedding ``reembedding_id``; always empty for merge and swap. ``suspect``: see `MustBeAlone`.
    ``tried``: with this attempt. ``input`` names a staging object. ``express``: it is short, and was sent to the worker
    that does nothing else. ``ready_at``: since when it was due.
    """

    tenant_id: TenantId
    generation: GenerationInfo
    shard: int
    stage: str
    group_id: BatchId
    part: int
    priority: int
    chunk_count: int
    size_bytes: int
    express: bool
    input: str | None
    reembedding_id: str | None
    details: Mapping[str, Any]
    suspect: bool
    tried: Tried
    versions: tuple[VersionRow, ...]
    ready_at: float


# Statements that run while others wait are made once: to make one takes longer than to run it.
_BATCH, _NOW = sa.bindparam("batch", type_=sa.String), sa.bindparam("now", type_=sa.Double)


def one_more_attempt(now: float | sa.BindParameter[float]) -> dict[str, Any]:
    """Return the values that count an attempt."""
    first = sa.func.coalesce(batches.c.first_attempt_at, now)
    return {"attempts": batches.c.attempts + 1, "first_attempt_at": first, "last_attempt_at": now}


_DUE = sa.and_(batches.c.state.in_(("ready", "sent")), batches.c.next_attempt_at <= _NOW)
# At the cap the reconciler decides: one more attempt could only kill one more worker.
_LAPSED = sa.and_(
    batches.c.state == "running",
    batches.c.lease_until < _NOW,
    batches.c.attempts < sa.bindparam("max_attempts", type_=sa.Integer),
)
_TAKE = (
    sa.update(batches)
    .where(batches.c.id == _BATCH, sa.or_(_DUE, _LAPSED))
    .values(state="running", owner=sa.bindparam("taker"), lease_until=sa.bindparam("until"), **one_more_attempt(_NOW))
    .returning(batches)
)
_SUSPICION: sa.Select[Any] = sa.select(batches.c.document_count, batches.c.attempts, batches.c.details).where(
    batches.c.id == _BATCH
)


class MustBeAlone(Exception):
    """The batch is a suspect: its only document was tried before, there or in a batch taken apart.

    It may kill the process, and then costs whatever else is worked on there an attempt; as those may cost it its own.
    """


def claim(
    catalog: Catalog,
    batch_id: BatchId,
    *,
    owner: str,
    lease_s: float,
    now: float,
    max_attempts: int,
    in_turn: bool = False,
    in_company: bool = False,
) -> Claim | None:
    """Take a batch that is due, or whose holder let its lease run out, and count the attempt: all committed.

    ``in_turn``: take the one whose turn it is of those that were sent for its stage: see `turns.whose_turn`.
    ``in_company``: the process works on other batches too, and takes no suspects.

    ``owner`` must differ from that of every other process, past ones included. Returns None when there is nothing to
    do: the batch is done, held or not due, or every document of it was cancelled meanwhile.

    Raises:
        MustBeAlone: the turn is a suspect's. Nothing was taken or charged: claim again when the process is empty.
    """
    with catalog.write("claim") as connection:
        chosen = BatchId(whose_turn(connection, batch_id, now=now)) if in_turn else batch_id
        if in_company and _is_suspect(connection, chosen):
            raise MustBeAlone
        taking = {"batch": chosen, "taker": owner, "until": now + lease_s, "now": now, "max_attempts": max_attempts}
        row = connection.execute(_TAKE, taking).first()
    if row is None:
        return None
    taken = _read_claim(catalog, row, max_attempts=max_attempts)
    if taken is not None and holds_documents(row) and not taken.versions:
        _end_empty(catalog, taken, now=now)
        return None
    return taken


def claim_oldest(
    catalog: Catalog, *, stage: str, shard: int, owner: str, lease_s: float, now: float, max_attempts: int
) -> Claim | None:
    """Take the shard's oldest batch of a stage that is due, or None. For the holder of the shard's lease.

    What is paused stays, and what would publish in a generation that is about to be followed by another.
    """
    due = sa.and_(batches.c.state.in_(("ready", "sent")), batches.c.next_attempt_at <= now)
    lapsed = sa.and_(batches.c.state == "running", batches.c.lease_until < now, batches.c.attempts < max_attempts)
    still_open = (batches.c.stage == stage, batches.c.state.in_(OPEN_BATCH), batches.c.shard == shard)
    waiting = sa.select(batches.c.id).where(*still_open, sa.or_(due, lapsed), goes_on(batches.c.tenant_id))
    waiting = waiting.where(not_held(now))
    with catalog.read() as connection:
        found = connection.scalar(waiting.order_by(batches.c.created_at, batches.c.id).limit(1))
    if found is None:
        return None
    return claim(catalog, BatchId(found), owner=owner, lease_s=lease_s, now=now, max_attempts=max_attempts)


def renew(catalog: Catalog, claim: Held, *, lease_s: float, now: float) -> bool:
    """Move the end of the lease to ``now + lease_s``. False: the claim was lost, and its work will not be taken."""
    with catalog.write("renew") as connection:
        held = sa.update(batches).where(*is_held(claim)).values(lease_until=now + lease_s)
        return connection.execute(held).rowcount == 1


def give_turn_back(catalog: Catalog, claim: Claim) -> None:
    """Take back what claiming the batch was charged: its work could not be begun. See `turns.refund`."""
    cost = cost_of(documents=len(claim.versions), chunks=claim.chunk_count, size_bytes=claim.size_bytes)
    refund(catalog, claim.stage, claim.tenant_id, cost)


def is_held(claim: Held) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions under which ``claim`` is still the one in force, lapsed or not."""
    mine = (batches.c.owner == claim.owner, batches.c.attempts == claim.attempt)
    return (batches.c.id == claim.batch_id, batches.c.state == "running", *mine)


def end(connection: Connection, claim: Held, *, state: str, now: float, **values: Any) -> None:
    """Finish the claimed batch as ``state``. Raises Conflict when the claim was lost."""
    ended = {"state": state, "owner": None, "lease_until": None, "finished_at": now, **values}
    proof = {"batch": claim.batch_id, "holder": claim.owner, "attempt": claim.attempt}
    told = {f"new_{name}": value for name, value in ended.items()}
    if connection.execute(_ending(tuple(sorted(ended))), {**proof, **told}).rowcount != 1:
        raise lost(claim)


@cache
def _ending(names: tuple[str, ...]) -> sa.Update:
    mine = (batches.c.owner == sa.bindparam("holder"), batches.c.attempts == sa.bindparam("attempt"))
    held = sa.update(batches).where(batches.c.id == _BATCH, batches.c.state == "running", *mine)
    return held.values({name: sa.bindparam(f"new_{name}", type_=batches.c[name].type) for name in names})


def lost(claim: Held) -> Conflict:
    return Conflict(f"batch {claim.batch_id} is no longer held by {claim.owner}: it was taken over, or cancelled")


def _read_claim(catalog: Catalog, row: Row[Any], *, max_attempts: int) -> Claim | None:
    """Return the claim on a batch that was just taken, or None where all of its collection was deleted since.

    After the commit: nobody who writes waits for what it reads.
    """
    with catalog.read() as connection:
        wanted = read_versions(connection, *wanted_by(row)) if holds_documents(row) else []
        generation = read_generations(connection, [row.generation_id]).get(GenerationId(row.generation_id))
        if generation is None:
            return None
        return _claim(row, generation, wanted, tried=tried(connection, row), max_attempts=max_attempts)


def _end_empty(catalog: Catalog, taken: Claim, *, now: float) -> None:
    """End a batch of which nobody wants a document any more, unless whoever cancelled them has ended it."""
    with suppress(Conflict), catalog.write("claim_empty") as connection:
        end(connection, taken, state="done", now=now, error="no document left")
        join_groups(connection, [taken.group_id], now=now)  # it may have been the last part of a living group


def _is_suspect(connection: Connection, batch_id: BatchId) -> bool:
    row = connection.execute(_SUSPICION, {"batch": batch_id}).first()
    return row is not None and _suspected(row, tried_before=row.attempts)


def _suspected(row: Row[Any], *, tried_before: int) -> bool:
    return row.document_count == 1 and bool(tried_before or (row.details or {}).get("quarantined"))


def _claim(
    row: Row[Any], generation: GenerationInfo, wanted: list[VersionRow], *, tried: Tried, max_attempts: int
) -> Claim:
    details = row.details or {}
    return Claim(
        batch_id=BatchId(row.id),
        owner=row.owner,
        attempt=row.attempts,
        max_attempts=max_attempts,
        tenant_id=TenantId(row.tenant_id),
        generation=generation,
        shard=row.shard,
        stage=row.stage,
        group_id=BatchId(row.group_id),
        part=row.part,
        priority=row.priority,
        chunk_count=row.chunk_count,
        size_bytes=row.size_bytes,
        express=row.express,
        input=row.input,
        reembedding_id=row.reembedding_id,
        details=details,
        suspect=_suspected(row, tried_before=row.attempts - 1),
        tried=tried,
        versions=tuple(wanted),
        ready_at=max(row.created_at, row.next_attempt_at),
    )
