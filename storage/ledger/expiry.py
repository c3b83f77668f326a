"""What has expired leaves the index: one batch per generation, opened at a tick, published by the shard's writer.

As much as fits in one publish leaves at a time, and the batch goes on until nothing is left; between two of its
publishes the writer does what else is ready.

A search never finds what has expired, whatever happens here; this only makes room. The writer decides, under the lock
of the documents, inside the publish transaction: what was given a later end by then stays, and so does every document
that has a newer version on its way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.batches import ready_batch
from ..catalog.completion import OPEN_BATCH, UNFINISHED
from ..catalog.engine import Catalog
from ..catalog.sources import lock_sources
from ..catalog.statements import insert_absent
from ..catalog.tables import IS_INDEXED, OF_DOCUMENT, batches, documents, generations, versions
from ..catalog.values import slices
from ..errors import Conflict
from ..ids import BatchId, DocumentId, GenerationId, TenantId, VersionId
from .claims import Claim, claim_oldest, end

EVERY_S = 60.0  # per generation: each makes a version of the index, and readers open it
GIVEN_UP_S = 3_600.0  # what failed at every attempt would fail again
AT_ONCE = 5_000  # documents in one publish, and so in one transaction
_GENERATIONS = 200  # in one tick
_SUFFIX = "-expire"


@dataclass(frozen=True)
class ExpiredDocument:
    version_id: VersionId
    document_id: DocumentId
    source: str


def open_expiries(
    catalog: Catalog, *, now: float, every_s: float = EVERY_S, of: Sequence[GenerationId] | None = None
) -> int:
    """Make a batch for each generation that serves something expired, at most one every ``every_s``; returns how many.

    A few hundred generations are looked at in one call; the next call finds the others. ``of``: these alone.
    """
    batch_id = generations.c.id.concat(_SUFFIX)
    paused = sa.or_(
        batches.c.state.in_(OPEN_BATCH),
        sa.and_(batches.c.state == "done", batches.c.finished_at > now - every_s),
        sa.and_(batches.c.state == "dead", batches.c.finished_at > now - GIVEN_UP_S),
    )
    wanted = sa.select(generations.c.id, generations.c.tenant_id, generations.c.shard)
    served = sa.exists().where(versions.c.collection_id == generations.c.collection_id, *_expired(now))
    wanted = wanted.where(generations.c.state == "active", served)
    wanted = wanted.where(~sa.exists().where(batches.c.id == batch_id, paused)).order_by(generations.c.id)
    if of is not None:
        wanted = wanted.where(generations.c.id.in_(of))
    with catalog.read() as connection:  # the common case, without the write lock
        rows = connection.execute(wanted.limit(_GENERATIONS)).all()
    if not rows:
        return 0
    made = [_batch(row.id, tenant=row.tenant_id, shard=row.shard, now=now) for row in rows]
    again = {"state": "ready", "attempts": 0, "next_attempt_at": 0.0, "created_at": now, "finished_at": None}
    over = sa.update(batches).where(
        batches.c.id.in_([row["id"] for row in made]), batches.c.state.in_(("done", "dead"))
    )
    with catalog.write("open_expiries") as connection:
        # A collection may be deleted meanwhile; its generation is then not there to refer to.
        still = sa.select(generations.c.id).where(generations.c.id.in_([row.id for row in rows]))
        here = set(connection.scalars(still.order_by(generations.c.id).with_for_update(read=True, key_share=True)))
        connection.execute(over.values(again))
        insert_absent(connection, batches, [row for row in made if row["generation_id"] in here])
    return len(made)


def claim_expiry(
    catalog: Catalog, *, shard: int, owner: str, lease_s: float, now: float, max_attempts: int
) -> Claim | None:
    """Take the shard's oldest batch of expired documents, or None. For the holder of the shard's lease."""
    return claim_oldest(
        catalog, stage="expire", shard=shard, owner=owner, lease_s=lease_s, now=now, max_attempts=max_attempts
    )


def read_expired(catalog: Catalog, claim: Claim, *, now: float) -> list[ExpiredDocument]:
    """Return what has expired and the claimed generation serves, the earliest first, `AT_ONCE` documents at most."""
    wanted = sa.select(versions.c.id, versions.c.document_id, documents.c.source).join(documents, OF_DOCUMENT)
    wanted = wanted.where(versions.c.collection_id == claim.generation.collection_id, *_expired(now))
    with catalog.read() as connection:
        rows = connection.execute(wanted.order_by(versions.c.expires_at, versions.c.id).limit(AT_ONCE))
        return [ExpiredDocument(*row) for row in rows]


def finish_expiry(connection: Connection, claim: Claim, expired: Sequence[ExpiredDocument], *, now: float) -> None:
    """Mark these as expired and end the batch, or have it taken again at once where there may be more.

    Call it inside the publish transaction.

    ``now``: read in there. They end when the version that serves them is followed, or pruning takes them to have ended
    before, and forgets what that version could be rolled back to.

    Raises:
        Conflict: the claim was lost, or one of them does not expire now after all. Roll back and look again.
    """
    if len(expired) < AT_ONCE:
        end(connection, claim, state="done", now=now, error=None)
    else:  # behind the other generations of the shard, with attempts of its own for each publish
        again = {"attempts": 0, "next_attempt_at": 0.0, "created_at": now, "finished_at": None}
        end(connection, claim, state="ready", now=now, error=None, **again)
    lock_sources(connection, claim.generation.collection_id, sources=[one.source for one in expired])
    ended = 0
    for some in slices([one.version_id for one in expired]):
        over = sa.update(versions).where(versions.c.id.in_(some), *_expired(now))
        ended += connection.execute(over.values(state="expired", finished_at=now)).rowcount
    if ended != len(expired):
        raise Conflict(f"{len(expired) - ended} documents were changed before they could expire")


def _expired(now: float) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions for a served version whose time is over and that nothing is about to replace."""
    newer = versions.alias("newer")
    same = (newer.c.document_id == versions.c.document_id, newer.c.collection_id == versions.c.collection_id)
    coming = sa.exists().where(*same, newer.c.number > versions.c.number, newer.c.state.in_(UNFINISHED))
    return IS_INDEXED, versions.c.expires_at.is_not(None), versions.c.expires_at <= now, ~coming.correlate(versions)


def _batch(generation_id: GenerationId, *, tenant: TenantId, shard: int, now: float) -> dict[str, Any]:
    batch_id = BatchId(f"{generation_id}{_SUFFIX}")  # always the same one, opened again and again
    return ready_batch("expire", tenant=tenant, generation_id=generation_id, shard=shard, now=now, batch_id=batch_id)
