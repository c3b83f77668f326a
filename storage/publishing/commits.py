"""The SQL side of publishing: where a generation stands, whether the lease holds, and the committing statements.

It opens no transaction of its own except for reading, and touches no object.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, select, update

from ..catalog.engine import Catalog
from ..catalog.manifests import Origin, record_manifest
from ..catalog.tables import collections, generations, shards
from ..errors import Fenced, NotFound
from ..ids import GenerationId, ManifestVersion
from ..segments.manifests import INT8, Manifest


@dataclass(frozen=True)
class Standing:
    """Where a generation stands in the catalog, seen by the holder of a lease."""

    name: str | None  # of the current manifest
    empty: Manifest  # what the catalog says, as a manifest without segments
    epoch: int  # of the lease


def read_standing(catalog: Catalog, generation_id: GenerationId, *, shard: int, epoch: int) -> Standing:
    """Read where a generation stands.

    Raises:
        NotFound: there is no such generation in this shard.
        Fenced: the lease of this epoch is over.
    """
    columns = (generations, collections.c.name, _lease_holds(shard, epoch).label("holds"))
    query = select(*columns).join(collections, collections.c.id == generations.c.collection_id)
    with catalog.read() as connection:
        here = (generations.c.id == generation_id, generations.c.shard == shard, generations.c.state != "dropped")
        found = connection.execute(query.where(*here))
        row = found.mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no generation {generation_id} in shard {shard}")
    if not row["holds"]:
        raise _fenced(generation_id)
    same = ("tenant_id", "collection_id", "writer_epoch", "model", "dimensions", "metric", "chunking", "shard",
            "active_since")  # fmt: skip
    empty = Manifest(
        **{name: row[name] for name in (*same, "next_chunk_id", "created_at")},
        generation_id=generation_id,
        collection_name=row["name"],
        version=ManifestVersion(row["version"]),
        parent=None,
        segments=[],
        flags=[INT8] if row["quantization"] == "int8" else [],
    )
    return Standing(row["manifest"], empty, epoch)


def check_standing(catalog: Catalog, standing: Standing) -> None:
    """Return when the generation still stands there. Raises as ``read_standing``, and Fenced: the pointer was moved."""
    generation_id = standing.empty.generation_id
    now = read_standing(catalog, generation_id, shard=standing.empty.shard, epoch=standing.epoch)
    if now.name != standing.name:
        raise _fenced(generation_id)


def advance(
    connection: Connection, standing: Standing, *, name: str | None, manifest: Manifest, origin: Origin
) -> None:
    """Move the pointer from the manifest of ``standing`` to ``manifest``; to itself, it only takes the lock.

    A version that is new enters the history with its ``origin``.

    Raises:
        Fenced: the lease is over, or the pointer is somewhere else.
    """
    # PostgreSQL: a rival that wants the lease waits here until this transaction ends. SQLite has one writer anyway.
    held = (shards.c.shard == manifest.shard) & (shards.c.epoch == standing.epoch)
    connection.execute(select(shards.c.epoch).where(held).with_for_update(read=True))
    values: dict[str, Any] = {"manifest": name}
    if name != standing.name:
        values |= {
            "version": manifest.version,
            "writer_epoch": manifest.writer_epoch,
            "next_chunk_id": manifest.next_chunk_id,
            "live_chunks": manifest.live_chunks,
            "published_at": manifest.created_at,
            "active_since": manifest.active_since,
        }
    guard = (
        generations.c.id == manifest.generation_id,
        generations.c.manifest.is_not_distinct_from(standing.name),
        generations.c.writer_epoch <= standing.epoch,
        _lease_holds(manifest.shard, standing.epoch),
    )
    if connection.execute(update(generations).where(*guard).values(values)).rowcount != 1:
        raise _fenced(manifest.generation_id)
    if name is not None and name != standing.name:
        record_manifest(connection, manifest, name=name, origin=origin)


def _lease_holds(shard: int, epoch: int) -> ColumnElement[bool]:
    held = (shards.c.shard == shard) & (shards.c.epoch == epoch) & shards.c.owner.is_not(None)
    return exists().where(held)


def _fenced(generation_id: GenerationId) -> Fenced:
    return Fenced(f"another writer took over or published first in {generation_id}: nothing was published")
