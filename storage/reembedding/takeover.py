"""The switch: one generation of a collection takes over from the other, inside the transaction that publishes it."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.completion import OPEN_BATCH
from ..catalog.tables import batches, collections, generations, manifests, reader_leases, reembeddings, tags
from ..errors import Conflict
from ..ids import ManifestVersion
from ..ledger.moving import bring_over, forget_counts
from .records import ReembeddingInfo, hold_reembedding
from .steps import covered_version

_AFTER = {"switching": "switched", "returning": "returned"}


def finish_takeover(connection: Connection, info: ReembeddingInfo, *, version: ManifestVersion, now: float) -> int:
    """Make the target the active generation, by its ``version``; the two change places in the re-embedding.

    What is on its way into the former one goes into the new one. Returns how many documents begin again for that.

    Raises:
        Conflict: the source was published since, or the switch was called off. Nothing is changed.
    """
    # Who accepts documents holds the collection until his commit, and asks after that which generation is active.
    held = sa.select(collections.c.id).where(collections.c.id == info.collection_id).with_for_update()
    if connection.scalar(held) is None:
        raise Conflict("the collection was deleted")
    standing = hold_reembedding(connection, info.id)
    if (standing.state, standing.target.id, standing.paused_at) != (info.state, info.target.id, None):
        raise Conflict("the switch was called off")
    if standing.source_version is not None or covered_version(connection, info.source.id) != standing.base_version:
        raise Conflict("the collection was published since: what came is copied first")
    _exchange(connection, standing, now=now)
    _forget_beginnings(connection, standing, version=version)
    _end_upkeep(connection, standing, now=now)
    former, active = standing.source.id, standing.target.id
    moved = bring_over(connection, former_id=former, active_id=active, recut=standing.recuts, now=now)
    if standing.recuts:
        forget_counts(connection, standing.collection_id)
    state = {"state": _AFTER[standing.state], "source_id": active, "target_id": former, "switched_at": now}
    values = {**state, "base_version": version, "hold_until": None, "forced": False}
    connection.execute(sa.update(reembeddings).where(reembeddings.c.id == standing.id).values(values))
    return moved


def _exchange(connection: Connection, info: ReembeddingInfo, *, now: float) -> None:
    retired = sa.update(generations).where(generations.c.id == info.source.id, generations.c.state == "active")
    if connection.execute(retired.values(state="retired")).rowcount != 1:
        raise Conflict("another generation serves this collection")
    active = sa.update(generations).where(generations.c.id == info.target.id)
    connection.execute(active.values(state="active", active_since=now))


def _forget_beginnings(connection: Connection, info: ReembeddingInfo, *, version: ManifestVersion) -> None:
    """Let go of the versions that were published while it followed: they never were what the collection held."""
    while_following = [manifests.c.generation_id == info.target.id, manifests.c.version < version]
    if info.switched_at is not None:  # before that it served
        while_following.append(manifests.c.created_at >= info.switched_at)
    needed = (
        sa.exists().where(by.c.generation_id == manifests.c.generation_id, by.c.version == manifests.c.version)
        for by in (tags, reader_leases)
    )
    connection.execute(sa.delete(manifests).where(*while_following, ~sa.or_(*needed)))


def _end_upkeep(connection: Connection, info: ReembeddingInfo, *, now: float) -> None:
    """End what the former generation alone could do: rollbacks to its versions, and the look for what expired."""
    told = "another generation of the collection took over: choose one of its versions"
    mine = (batches.c.generation_id == info.source.id, batches.c.state.in_(OPEN_BATCH))
    over = sa.update(batches).where(*mine, batches.c.stage.in_(("rollback", "expire")))
    ended = {"state": "done", "owner": None, "lease_until": None, "finished_at": now}
    connection.execute(over.values(error=told, **ended))
