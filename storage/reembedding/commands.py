"""What a person asks of a re-embedding: begin, pause, resume, cancel, switch, go back, let go. One transaction each.

Asked twice, the second time finds it done. Locks are taken in one order: collection, generation, re-embedding, batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.batches import ready_batch
from ..catalog.budgets import wake_for_money
from ..catalog.collections import CollectionInfo
from ..catalog.engine import Catalog
from ..catalog.followers import follow_batch_of, wake
from ..catalog.tables import (
    REEMBEDDING_ENDS,
    batches,
    collections,
    generations,
    reembeddings,
)
from ..costs.payees import OF_REEMBEDDINGS
from ..errors import AlreadyExists, Conflict, NotFound
from ..ids import new_id
from .endings import BEFORE_SWITCH, changed, read, update
from .records import ReembeddingInfo, hold_reembedding, read_reembedding
from .slices import postpone_slices, resume_slices, retry_slices
from .steps import insert_check

IDS_OF_GENERATION = 1 << 40  # chunk ids: those of two generations of a collection never are the same


@dataclass(frozen=True)
class NewGeneration:
    """What the other generation is to be."""

    model: str
    dimensions: int
    metric: str
    quantization: str
    chunking: Mapping[str, Any]


@dataclass(frozen=True)
class Terms:
    """How a re-embedding goes on.

    ``keep_s``: how long the generation that served before is kept. ``switches``: by itself when the check passes.
    ``forced``: whatever the check says. ``economy``: for half the price, within a
    day. ``afresh``: although nothing would be different: a model may have other weights
    under the same name. ``budget_usd``: more than this it may not cost; None: whatever it costs.
    """

    keep_s: float
    switches: bool = True
    forced: bool = False
    economy: bool = False
    afresh: bool = False
    budget_usd: float | None = None


def begin(
    catalog: Catalog, collection: CollectionInfo, chosen: NewGeneration, *, terms: Terms, now: float
) -> ReembeddingInfo:
    """Begin to build another generation of a collection. One of the same that is being built already is that one.

    That keeps its terms, but for the budget where another one is given.

    Raises:
        NotFound: the collection was deleted.
        AlreadyExists: it is what the collection has already.
        Conflict: another re-embedding of the collection is open, or the generation before is still kept.
    """
    with catalog.write("begin_reembedding") as connection:
        _hold_collection(connection, collection)
        mine = sa.select(generations).where(generations.c.collection_id == collection.id)
        rows = connection.execute(mine).mappings().all()
        source = next(row for row in rows if row["state"] == "active")
        open_one = _open(connection, collection)
        if open_one is not None:
            return _same(connection, open_one, chosen, terms=terms)
        if _describes(source, chosen) and not terms.afresh:
            raise AlreadyExists(
                f"collection {collection.name!r} is embedded with {chosen.model} ({chosen.dimensions} dimensions) and "
                "the same chunking already: choose another model, or ask for it afresh (--afresh)"
            )
        target = {
            **{name: source[name] for name in ("tenant_id", "collection_id", "shard")},
            **{name: getattr(chosen, name) for name in ("model", "dimensions", "metric", "quantization")},
            "id": new_id("gen"),
            "state": "building",
            "chunking": dict(chosen.chunking),
            "next_chunk_id": _first_chunk_id([row["next_chunk_id"] for row in rows]),
            "created_at": now,
        }
        connection.execute(sa.insert(generations).values(target))
        begun = {
            "id": new_id(OF_REEMBEDDINGS),
            "tenant_id": source["tenant_id"],
            "collection_id": source["collection_id"],
            "source_id": source["id"],
            "target_id": target["id"],
            "state": "copying",
            "keep_s": terms.keep_s,
            "switches": terms.switches,
            "forced": terms.forced,
            "economy": terms.economy,
            "budget_usd": terms.budget_usd,
            "chunks_total": source["live_chunks"],
            "created_at": now,
        }
        connection.execute(sa.insert(reembeddings).values(begun))
        connection.execute(sa.insert(batches).values(_follow_batch(begun, shard=source["shard"], now=now)))
        return read(connection, begun["id"])


def pause(catalog: Catalog, collection: CollectionInfo, *, now: float) -> ReembeddingInfo:
    """Let nothing more be copied until it is resumed; what is being embedded just now is embedded.

    After the switch the generation that served before is not kept up to date meanwhile. Raises NotFound, Conflict.
    """

    def change(connection: Connection, info: ReembeddingInfo) -> None:
        if info.state in ("switching", "returning"):
            raise Conflict("the generations are about to change places: wait a moment, or cancel")
        if info.paused_at is None:
            postpone_slices(connection, info.id)
            update(connection, info.id, paused_at=now)

    return changed(catalog, collection, "pause_reembedding", change)


def resume(catalog: Catalog, collection: CollectionInfo, *, now: float) -> ReembeddingInfo:
    """Go on; what failed, or waits for somebody to mend the settings, is tried now. Raises NotFound."""

    def change(connection: Connection, info: ReembeddingInfo) -> None:
        if info.paused_at is not None:
            resume_slices(connection, info.id, now=now)
            update(connection, info.id, paused_at=None, error=None)
        else:
            retry_slices(connection, info.id, now=now)
        wake(connection, info.id, at=now)

    return changed(catalog, collection, "resume_reembedding", change)


def switch(catalog: Catalog, collection: CollectionInfo, *, forced: bool, now: float) -> ReembeddingInfo:
    """Let the new generation take over: at once where it passed its check, else after that, or ``forced`` without.

    Raises:
        NotFound: there is none.
        Conflict: the check refused it, and it is not forced.
    """

    def change(connection: Connection, info: ReembeddingInfo) -> None:
        if info.state in ("switching", "switched"):
            return
        if info.state == "returning":
            raise Conflict("the collection is going back to its other generation: wait for that")
        if info.state == "refused" and not forced:
            raise Conflict("the check refused the new generation: look at its report, and force the switch or cancel")
        asked: dict[str, Any] = {"switches": True, "forced": forced or info.forced}
        if info.state in ("ready", "returned", "refused"):
            asked["state"] = "switching"
        if info.paused_at is not None:
            resume_slices(connection, info.id, now=now)
        update(connection, info.id, **asked, paused_at=None, error=None)
        wake(connection, info.id, at=now)

    return changed(catalog, collection, "switch_generations", change)


def check_again(catalog: Catalog, collection: CollectionInfo, *, now: float) -> ReembeddingInfo:
    """Compare the generations once more before the switch. Raises NotFound, Conflict: it is not the time for that."""

    def change(connection: Connection, info: ReembeddingInfo) -> None:
        if info.state == "checking":
            return
        if info.state not in ("ready", "refused"):
            raise Conflict(f"the re-embedding is {info.state}: it is checked when everything is copied")
        insert_check(connection, info, now=now)

    return changed(catalog, collection, "check_again", change)


def go_back(catalog: Catalog, collection: CollectionInfo, *, now: float) -> ReembeddingInfo:
    """Let the generation that served before take over again, with all that came since.

    Raises:
        NotFound: there is none. Conflict: there was no switch yet.
    """

    def change(connection: Connection, info: ReembeddingInfo) -> None:
        if info.state in ("returning", "returned"):
            return
        if info.state != "switched":
            raise Conflict(f"there was no switch to go back from: the re-embedding is {info.state}")
        if info.paused_at is not None:
            resume_slices(connection, info.id, now=now)
        update(connection, info.id, state="returning", paused_at=None, error=None)
        wake(connection, info.id, at=now)

    return changed(catalog, collection, "return_to_former", change)


def set_budget(catalog: Catalog, collection: CollectionInfo, *, budget_usd: float | None) -> ReembeddingInfo:
    """Let the re-embedding cost so much in all, what it has cost included; None: whatever it costs. Twice is harmless.

    What waits for money goes on at once when there is some. Raises NotFound.
    """

    def change(connection: Connection, info: ReembeddingInfo) -> None:
        _change_budget(connection, info, budget_usd)

    return changed(catalog, collection, "set_reembedding_budget", change)


def _change_budget(connection: Connection, info: ReembeddingInfo, budget_usd: float | None) -> None:
    update(connection, info.id, budget_usd=budget_usd)
    wake_for_money(connection, info.tenant_id)


def _hold_collection(connection: Connection, collection: CollectionInfo) -> None:
    held = sa.select(collections.c.id).where(collections.c.id == collection.id).with_for_update()
    if connection.scalar(held) is None:
        raise NotFound(f"there is no collection {collection.name!r}")


def _open(connection: Connection, collection: CollectionInfo) -> ReembeddingInfo | None:
    mine = (reembeddings.c.collection_id == collection.id, reembeddings.c.state.not_in(REEMBEDDING_ENDS))
    found = connection.scalar(sa.select(reembeddings.c.id).where(*mine))
    return None if found is None else read_reembedding(connection, found)


def _same(connection: Connection, info: ReembeddingInfo, chosen: NewGeneration, *, terms: Terms) -> ReembeddingInfo:
    if info.state in BEFORE_SWITCH and _describes(info.target, chosen):
        if terms.budget_usd is None:
            return info
        hold_reembedding(connection, info.id)
        _change_budget(connection, info, terms.budget_usd)
        return read(connection, info.id)
    if info.state in BEFORE_SWITCH:
        raise Conflict(f"the collection is being embedded again with {info.target.model}: wait for that, or cancel it")
    raise Conflict(
        f"the generation of {info.target.model} that served before is still kept, to go back to: let it go first "
        "(--drop)"
    )


def _describes(there: Any, chosen: NewGeneration) -> bool:
    names = ("model", "dimensions", "metric", "quantization")
    values = there if isinstance(there, Mapping) else vars(there)
    return all(values[name] == getattr(chosen, name) for name in names) and dict(values["chunking"]) == dict(
        chosen.chunking
    )


def _first_chunk_id(next_ids: list[int]) -> int:
    """Return an id from which on no generation of the collection has had any, nor will have."""
    return (max(next_ids) // IDS_OF_GENERATION + 1) * IDS_OF_GENERATION + 1


def _follow_batch(begun: Mapping[str, Any], *, shard: int, now: float) -> dict[str, Any]:
    return ready_batch(
        "follow",
        tenant=begun["tenant_id"],
        generation_id=begun["target_id"],
        shard=shard,
        now=now,
        batch_id=follow_batch_of(begun["id"]),
        reembedding_id=begun["id"],
    )
