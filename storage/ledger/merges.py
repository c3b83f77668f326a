"""Merges of segments as two batches: ``merge``, built by maintenance, then ``swap``, published by the shard's writer.

At most `OPEN_MAX` are open per generation, and no two take the same segment: one may be of a large graph and take long.
A merge that is dropped loses nothing: its inputs are still served.
"""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.completion import OPEN_BATCH
from ..catalog.engine import Catalog
from ..catalog.generations import hold_generation
from ..catalog.sweeps import guard_of_generation
from ..catalog.tables import batches, generations
from ..catalog.values import storable
from ..errors import Conflict, NotFound
from ..grace import Lookout, check_not_collected, check_there
from ..ids import BatchId, GenerationId, new_id
from ..objects.store import ObjectStore
from ..segments.manifests import Swap
from .claims import Claim, claim_oldest, end

OPEN_MAX = 2  # merges of one generation: so many may have a graph each to build, at most


def being_merged(catalog: Catalog, generation_id: GenerationId) -> frozenset[str]:
    """Return the segments of which a merge is being made, or waits for its swap."""
    with catalog.read() as connection:
        return frozenset[str]().union(*_open_inputs(connection, generation_id))


def check_not_merged(
    connection: Connection, generation_id: GenerationId, *, taken: Collection[str], served: Collection[str]
) -> None:
    """Check, in a publish transaction, that no merge was opened meanwhile of segments that it serves no more.

    Args:
        taken: what `being_merged` returned before: those the publish has left alone.
        served: the segments of the version that is published.

    Raises:
        Conflict: one was, whose work would be in vain.
    """
    opened = frozenset[str]().union(*_open_inputs(connection, generation_id)).difference(taken)
    if not opened.issubset(served):
        raise Conflict(f"a merge of {generation_id} was opened while its segments were folded: leave it those")


def open_merge(
    catalog: Catalog, *, generation_id: GenerationId, details: Mapping[str, Any], now: float
) -> BatchId | None:
    """Make a merge batch, ready to be claimed; ``details`` says what to merge: its ``segments``.

    None: one of the segments is being merged already, or too many merges are open.

    Raises:
        NotFound: there is no such generation.
    """
    batch_id = BatchId(new_id("batch"))
    with catalog.write("open_merge") as connection:
        owner = sa.select(generations.c.tenant_id, generations.c.shard).where(generations.c.id == generation_id)
        row = connection.execute(owner.with_for_update(key_share=True)).first()  # one at a time of each generation
        if row is None:
            raise NotFound(f"there is no generation {generation_id!r}")
        others = _open_inputs(connection, generation_id)
        if len(others) >= OPEN_MAX or any(not other.isdisjoint(details["segments"]) for other in others):
            return None
        values = _batch(batch_id, stage="merge", group_id=batch_id, details=details, now=now)
        values |= {"tenant_id": row.tenant_id, "generation_id": generation_id, "shard": row.shard}
        connection.execute(sa.insert(batches).values(values))
    return batch_id


def _open_inputs(connection: Connection, generation_id: GenerationId) -> list[frozenset[str]]:
    of_merges = (batches.c.generation_id == generation_id, batches.c.stage.in_(("merge", "swap")))
    still_open = sa.select(batches.c.stage, batches.c.details).where(*of_merges, batches.c.state.in_(OPEN_BATCH))
    return [
        frozenset(row.details["segments"] if row.stage == "merge" else Swap.from_details(row.details).inputs)
        for row in connection.execute(still_open)
    ]


def finish_merge(
    catalog: Catalog, objects: ObjectStore, claim: Claim, *, details: Mapping[str, Any], now: float
) -> BatchId:
    """End a merge whose segment is written, and make its swap batch; ``details`` says what to swap: ``Swap``.

    From the commit on the batch keeps the segment's files; until then nothing does.

    Raises:
        Conflict: the claim was lost, the generation is gone, or a file was collected; nothing was changed.
    """
    batch_id = BatchId(f"{claim.group_id}-swap")
    files = [file.name for file in Swap.from_details(dict(details)).output.all_files]
    since = Lookout.begin(catalog, guard_of_generation(claim.generation.id))
    check_there(objects, files)
    with catalog.write("finish_merge") as connection:
        if not hold_generation(connection, claim.generation.id):
            raise Conflict(f"generation {claim.generation.id} was deleted: drop the merge")
        end(connection, claim, state="done", now=now, error=None)
        values = _batch(batch_id, stage="swap", group_id=claim.group_id, details=details, now=now)
        values |= {"tenant_id": claim.tenant_id, "generation_id": claim.generation.id, "shard": claim.shard}
        connection.execute(sa.insert(batches).values(values))
        check_not_collected(connection, objects, files, since=since)
    return batch_id


def claim_swap(
    catalog: Catalog, *, shard: int, owner: str, lease_s: float, now: float, max_attempts: int
) -> Claim | None:
    """Take the shard's oldest swap that is due, or None. For the holder of the shard's lease."""
    return claim_oldest(
        catalog, stage="swap", shard=shard, owner=owner, lease_s=lease_s, now=now, max_attempts=max_attempts
    )


def finish_swap(connection: Connection, claim: Claim, *, now: float) -> None:
    """End a swap; call it inside the publish transaction. Raises Conflict when the claim was lost."""
    end(connection, claim, state="done", now=now, error=None)


def drop_open_merges(connection: Connection, generation_id: GenerationId, *, error: str, now: float) -> None:
    """End what is being merged or waits for its swap, in a transaction that publishes without its inputs."""
    still_open = (batches.c.stage.in_(("merge", "swap")), batches.c.state.in_(OPEN_BATCH))
    dropped = sa.update(batches).where(batches.c.generation_id == generation_id, *still_open)
    over = {"state": "dead", "owner": None, "lease_until": None, "finished_at": now}
    connection.execute(dropped.values(over | {"error": error}))


def drop_merge(catalog: Catalog, claim: Claim, *, error: str, now: float) -> None:
    """End a merge or a swap that cannot succeed, for example because its inputs are gone. Raises Conflict."""
    if claim.stage not in {"merge", "swap"}:
        raise Conflict(f"batch {claim.batch_id} is a {claim.stage} batch: only merges and swaps can be dropped")
    with catalog.write("drop_merge") as connection:
        end(connection, claim, state="dead", now=now, error=storable(error))


def _batch(
    batch_id: BatchId, *, stage: str, group_id: BatchId, details: Mapping[str, Any], now: float
) -> dict[str, Any]:
    row = {"id": batch_id, "stage": stage, "state": "ready", "group_id": group_id}
    return {**row, "details": dict(details), "created_at": now}
