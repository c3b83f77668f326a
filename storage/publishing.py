"""Publishing: the one way in which a new version of a generation comes to be.

Files first, under new names and durable; then one SQL transaction that moves the generation's pointer if nobody else
has moved it and the writer's epoch still holds, and in which the caller marks documents as indexed. Whatever dies
before the commit leaves files that nobody names. It never edits a file, and it never retries: the caller looks again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, exists, insert, select, update

from .catalog.engine import Catalog
from .catalog.tables import chunks, collections, generations, shards
from .errors import Damaged, Fenced, NotFound
from .failpoints import hit
from .ids import ChunkId, GenerationId, ManifestVersion
from .leases import acquire_lease, release_lease, renew_lease
from .manifests import Manifest, Swap, check_invariants, name_of, read_manifest
from .objects import ObjectStore
from .rows import Rows
from .segments import write_segment
from .successors import bury, swap_in

__all__ = ["PublishedManifest", "Publisher", "Swap", "acquire_lease", "release_lease", "renew_lease"]

_IDS_PER_STATEMENT = 500


@dataclass(frozen=True)
class PublishedManifest:
    """The current version after ``publish``. ``changed`` is False when there was nothing to publish."""

    name: str | None  # None: the generation is empty and was never published
    manifest: Manifest
    first_chunk_id: ChunkId  # of the additions, which have consecutive ids in row order
    changed: bool


InTransaction = Callable[[Connection, PublishedManifest], None]


@dataclass(frozen=True)
class _Parent:
    name: str | None
    manifest: Manifest
    epoch: int  # of the writer that publishes on top of it


class Publisher:
    """Publishes versions of the generations of one shard. Holds no state between calls."""

    def __init__(self, catalog: Catalog, objects: ObjectStore, *, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._objects = objects
        self._clock = clock

    def publish(
        self,
        generation_id: GenerationId,
        *,
        epoch: int,
        shard: int,
        additions: Rows | None = None,
        vectors: NDArray[np.float32] | None = None,
        removed_document_ids: Sequence[str] = (),
        swap: Swap | None = None,
        in_transaction: InTransaction | None = None,
    ) -> PublishedManifest:
        """Publish the next version: the merge swapped in, the removed documents gone, the additions there.

        The documents of ``additions`` replace all live chunks they had. With nothing to change no version is made,
        but ``in_transaction`` still runs, under the same guard.

        Args:
            epoch: of the writer's lease on ``shard``.
            additions: n rows, in the order in which they get chunk ids.
            vectors: f32[n, d], finite; unit length where the metric is cosine.
            in_transaction: called inside the committing transaction; what it raises undoes everything.

        Raises:
            Fenced: another writer has the lease, or published first. Discard, look again.
            Conflict: the swap's inputs are gone.
            Damaged: vectors of another size or not finite; or what is stored contradicts itself. Nothing is published.
            NotFound: there is no such generation in this shard.
        """
        parent = self._parent(generation_id, epoch=epoch, shard=shard)
        if additions is not None and len(additions):
            _check_vectors(vectors, count=len(additions), dimensions=parent.manifest.dimensions)
        documents = {*removed_document_ids, *(additions.document_ids if additions is not None else ())}
        doomed = self._live_chunk_ids(generation_id, sorted(documents))
        changed = bool(swap or len(doomed) or (additions is not None and len(additions)))
        hit("publish.begun")
        published = PublishedManifest(parent.name, parent.manifest, ChunkId(parent.manifest.next_chunk_id), changed)
        if changed:
            manifest = self._next_manifest(parent, additions=additions, vectors=vectors, doomed=doomed, swap=swap)
            published = replace(published, name=self._write_manifest(manifest), manifest=manifest)
        hit("publish.files_written")
        with self._catalog.write() as connection:
            _advance(connection, parent, published)
            if changed:
                _replace_chunks(connection, published, doomed=doomed, documents=sorted(documents), additions=additions)
            if in_transaction is not None:
                in_transaction(connection, published)
            hit("publish.before_commit")
        hit("publish.committed")
        return published

    def _parent(self, generation_id: GenerationId, *, epoch: int, shard: int) -> _Parent:
        query = select(generations, collections.c.name, _lease_holds(shard, epoch).label("holds")).join(collections)
        with self._catalog.read() as connection:
            found = connection.execute(query.where(generations.c.id == generation_id, generations.c.shard == shard))
            row = found.mappings().one_or_none()
        if row is None:
            raise NotFound(f"there is no generation {generation_id} in shard {shard}")
        if not row["holds"]:
            raise _fenced(generation_id)
        base = _empty_manifest(row)
        if row["manifest"] is None:
            return _Parent(None, base, epoch)
        manifest = read_manifest(self._objects, row["manifest"])
        stated = (row["id"], row["version"], row["next_chunk_id"])
        if (manifest.generation_id, manifest.version, manifest.next_chunk_id) != stated:
            raise Damaged(
                f"manifest {row['manifest']} is not the version that the catalog states; run `penstock doctor`"
            )
        return _Parent(row["manifest"], replace(base, segments=manifest.segments), epoch)

    def _live_chunk_ids(self, generation_id: GenerationId, documents: Sequence[str]) -> NDArray[np.uint64]:
        found: list[int] = []
        with self._catalog.read() as connection:
            for some in _slices(documents):
                here = (chunks.c.generation_id == generation_id) & chunks.c.document_id.in_(some)
                found += connection.scalars(select(chunks.c.chunk_id).where(here))
        return np.sort(np.array(found, "<u8"))

    def _next_manifest(
        self,
        parent: _Parent,
        *,
        additions: Rows | None,
        vectors: NDArray[np.float32] | None,
        doomed: NDArray[np.uint64],
        swap: Swap | None,
    ) -> Manifest:
        """Write the files of the next version, except its manifest."""
        manifest = parent.manifest
        if swap is not None:
            manifest = swap_in(self._objects, manifest, swap)
        manifest = bury(self._objects, manifest, chunk_ids=doomed)
        if additions is not None and len(additions):
            manifest = self._append(manifest, additions, vectors=vectors)
        return replace(
            manifest,
            version=ManifestVersion(manifest.version + 1),
            parent=parent.name,
            writer_epoch=parent.epoch,
            created_at=self._clock(),
        )

    def _append(self, manifest: Manifest, additions: Rows, *, vectors: NDArray[np.float32] | None) -> Manifest:
        following = manifest.next_chunk_id + len(additions)
        entry = write_segment(
            self._objects,
            tenant=manifest.tenant_id,
            generation_id=manifest.generation_id,
            rows=additions,
            chunk_ids=np.arange(manifest.next_chunk_id, following, dtype="<u8"),
            vectors=vectors,
        )
        return replace(manifest, segments=[*manifest.segments, entry], next_chunk_id=following)

    def _write_manifest(self, manifest: Manifest) -> str:
        check_invariants(manifest)
        data = manifest.to_json()
        name = name_of(manifest, data)
        hit("publish.segments_written")
        self._objects.put(name, [data])
        return name


def _empty_manifest(row: Any) -> Manifest:
    """Return what the catalog says of a generation, as the version before the first."""
    return Manifest(
        generation_id=row["id"],
        tenant_id=row["tenant_id"],
        collection_id=row["collection_id"],
        collection_name=row["name"],
        version=row["version"],
        parent=None,
        writer_epoch=row["writer_epoch"],
        model=row["model"],
        dimensions=row["dimensions"],
        metric=row["metric"],
        chunking=row["chunking"],
        shard=row["shard"],
        next_chunk_id=row["next_chunk_id"],
        created_at=row["created_at"],
        segments=[],
    )


def _check_vectors(vectors: NDArray[np.float32] | None, *, count: int, dimensions: int) -> None:
    if vectors is None or vectors.shape != (count, dimensions) or vectors.dtype != np.float32:
        found = "no vectors" if vectors is None else f"{vectors.dtype}{vectors.shape}"
        raise Damaged(f"{found} came for {count} chunks; the collection needs float32({count}, {dimensions})")
    # One sum instead of a mask of n * d: a NaN or an infinity anywhere makes it not finite.
    if not np.isfinite(vectors.sum(dtype=np.float64)):
        raise Damaged("a vector holds NaN or infinity; embed its document again")


def _lease_holds(shard: int, epoch: int) -> Any:
    held = (shards.c.shard == shard) & (shards.c.epoch == epoch) & shards.c.owner.is_not(None)
    return exists().where(held)


def _advance(connection: Connection, parent: _Parent, published: PublishedManifest) -> None:
    """Move the generation's pointer from the parent's manifest to the published one, or raise Fenced.

    With nothing to publish the pointer is set to what it is: the same guard, the same lock.
    """
    manifest = published.manifest
    lease = (shards.c.shard == manifest.shard) & (shards.c.epoch == parent.epoch)
    # PostgreSQL: a rival that wants the lease waits here until this transaction ends. SQLite has one writer anyway.
    connection.execute(select(shards.c.epoch).where(lease).with_for_update(read=True))
    values: dict[str, Any] = {"manifest": published.name}
    if published.changed:
        values |= {
            "version": manifest.version,
            "writer_epoch": parent.epoch,
            "next_chunk_id": manifest.next_chunk_id,
            "live_chunks": manifest.live_chunks,
            "published_at": manifest.created_at,
        }
    moved = connection.execute(
        update(generations)
        .where(
            generations.c.id == manifest.generation_id,
            generations.c.manifest.is_not_distinct_from(parent.name),
            generations.c.writer_epoch <= parent.epoch,
            _lease_holds(manifest.shard, parent.epoch),
        )
        .values(values)
    )
    if moved.rowcount != 1:
        raise _fenced(manifest.generation_id)


def _replace_chunks(
    connection: Connection,
    published: PublishedManifest,
    *,
    doomed: NDArray[np.uint64],
    documents: Sequence[str],
    additions: Rows | None,
) -> None:
    manifest = published.manifest
    removed = 0
    for some in _slices(documents) if len(doomed) else ():
        here = (chunks.c.generation_id == manifest.generation_id) & chunks.c.document_id.in_(some)
        removed += connection.execute(delete(chunks).where(here)).rowcount
    if removed != len(doomed):
        raise _fenced(manifest.generation_id)
    if additions is not None and len(additions):
        rows = _chunk_rows(additions, manifest, first_chunk_id=published.first_chunk_id)
        connection.execute(insert(chunks), rows)


def _chunk_rows(additions: Rows, manifest: Manifest, *, first_chunk_id: int) -> list[dict[str, Any]]:
    fixed = {"generation_id": manifest.generation_id, "tenant_id": manifest.tenant_id}
    identities, documents = additions.identity.tobytes(), additions.document_ids
    return [
        {
            **fixed,
            "chunk_id": first_chunk_id + row,
            "document_id": documents[document],
            "ordinal": ordinal,
            "identity": identities[16 * row : 16 * row + 16],
        }
        for row, (document, ordinal) in enumerate(
            zip(additions.document.tolist(), additions.ordinal.tolist(), strict=True)
        )
    ]


def _slices(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(items), _IDS_PER_STATEMENT):
        yield items[first : first + _IDS_PER_STATEMENT]


def _fenced(generation_id: GenerationId) -> Fenced:
    return Fenced(f"another writer took over or published first in {generation_id}: nothing was published")
