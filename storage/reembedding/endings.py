"""How re-embeddings end: cancelled before their switch, or the generation that serves no more let go after it.

Locks are taken in one order: generation, re-embedding, batches.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.collections import CollectionInfo
from ..catalog.completion import OPEN_BATCH
from ..catalog.engine import Catalog
from ..catalog.tables import batches, generations, manifests, reader_leases, reembeddings, tags
from ..errors import Conflict, NotFound
from .records import AFTER_SWITCH, ReembeddingInfo, find_reembedding, hold_reembedding, read_reembedding

BEFORE_SWITCH = ("copying", "checking", "ready", "refused", "switching")


def cancel(catalog: Catalog, collection: CollectionInfo, *, now: float) -> ReembeddingInfo:
    """End a re-embedding before its switch: what was built goes, the collection stays as it is. Later, call off one.

    Raises:
        NotFound: there is none.
        Conflict: the switch was made.
    """

    def change(connection: Connection, info: ReembeddingInfo) -> None:
        if info.state in ("switching", "returning") and info.target.state == "retired":
            called_off = {"switching": "returned", "returning": "switched"}[info.state]
            update(connection, info.id, state=called_off, hold_until=None)
            return
        if info.state not in BEFORE_SWITCH:
            raise Conflict("the new generation serves already: go back to the one before, or let that go")
        _end(connection, info, state="cancelled", now=now)

    return changed(catalog, collection, "cancel_reembedding", change, twice="cancelled")


def let_go(catalog: Catalog, collection: CollectionInfo, *, now: float) -> ReembeddingInfo:
    """End a re-embedding after its switch: the generation that does not serve is dropped, with its tags.

    Raises:
        NotFound: there is none. Conflict: there was no switch yet.
    """

    def change(connection: Connection, info: ReembeddingInfo) -> None:
        if info.state not in AFTER_SWITCH:
            raise Conflict(f"nothing can be let go while the re-embedding is {info.state}: cancel it instead")
        _end(connection, info, state="done", now=now)

    return changed(catalog, collection, "let_generation_go", change, twice="done")


def let_go_in_time(catalog: Catalog, *, now: float) -> int:
    """Drop the generations that were kept long enough after a switch and have no tag. Returns how many."""
    in_time = reembeddings.c.switched_at + reembeddings.c.keep_s <= now
    tagged = sa.exists().where(tags.c.generation_id == reembeddings.c.target_id)
    over = sa.select(reembeddings.c.id, reembeddings.c.target_id)
    over = over.where(reembeddings.c.state.in_(AFTER_SWITCH), in_time, ~tagged)
    with catalog.read() as connection:
        rows = connection.execute(over).all()
    ended = 0
    for row in rows:
        with catalog.write("let_generation_go") as connection:
            _hold_generation(connection, row.target_id)
            found = connection.execute(over.where(reembeddings.c.id == row.id)).all()  # somebody may have tagged it
            if found:
                _end(connection, hold_reembedding(connection, row.id), state="done", now=now)
            ended += len(found)
    return ended


def changed(
    catalog: Catalog,
    collection: CollectionInfo,
    what: str,
    change: Callable[[Connection, ReembeddingInfo], None],
    *,
    twice: str = "",
) -> ReembeddingInfo:
    """Change the open re-embedding of a collection; ``twice``: in which state the last one needs no change."""
    last = find_reembedding(catalog, collection.id)
    if last is None or not last.is_open:
        if last is not None and last.state == twice:
            return last
        raise NotFound(
            f"collection {collection.name!r} is not being embedded again, and no other generation of it is kept"
        )
    with catalog.write(what) as connection:
        _hold_generation(connection, last.target.id)
        info = hold_reembedding(connection, last.id)
        if not info.is_open or info.target.id != last.target.id:
            raise Conflict("the re-embedding went on just now: look at it again")
        change(connection, info)
        return read(connection, last.id)


def _end(connection: Connection, info: ReembeddingInfo, *, state: str, now: float) -> None:
    """End a re-embedding and drop its target: from the commit on nothing leads to that generation's files."""
    target = info.target.id
    connection.execute(sa.delete(batches).where(batches.c.reembedding_id == info.id))
    mine = (batches.c.generation_id == target, batches.c.state.in_(OPEN_BATCH))
    over = {"state": "dead", "owner": None, "lease_until": None, "finished_at": now}
    connection.execute(sa.update(batches).where(*mine).values(error="its generation was dropped", **over))
    for table in (tags, reader_leases, manifests):
        connection.execute(sa.delete(table).where(table.c.generation_id == target))
    dropped = sa.update(generations).where(generations.c.id == target, generations.c.state != "active")
    if connection.execute(dropped.values(state="dropped", manifest=None, live_chunks=0)).rowcount != 1:
        raise Conflict("the generation serves now, and cannot be dropped")
    update(connection, info.id, state=state, finished_at=now, paused_at=None, hold_until=None)


def _hold_generation(connection: Connection, generation_id: str) -> None:
    """Wait for whoever publishes in it, and keep others from that until the commit."""
    held = sa.select(generations.c.id).where(generations.c.id == generation_id)
    connection.execute(held.with_for_update(key_share=True)).all()


def update(connection: Connection, reembedding_id: str, **values: Any) -> None:
    connection.execute(sa.update(reembeddings).where(reembeddings.c.id == reembedding_id).values(values))


def read(connection: Connection, reembedding_id: str) -> ReembeddingInfo:
    found = read_reembedding(connection, reembedding_id)
    assert found is not None
    return found
