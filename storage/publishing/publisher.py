"""Publishing: the one way in which a new version of a generation comes to be.

Files first, under new names and durable; then one SQL transaction that moves the generation's pointer if nobody else
has moved it and the writer's epoch still holds, and in which the caller marks documents as indexed. Whatever dies
before the commit leaves files that nobody names. It never edits a file, and it never retries: the caller looks again.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from ..catalog.engine import Catalog
from ..catalog.followers import wake_followers
from ..catalog.manifests import Origin
from ..catalog.sweeps import guard_of_generation
from ..errors import Damaged, DamagedIndex, Fenced, Missing
from ..failpoints import hit
from ..grace import Lookout, check_not_collected, check_there
from ..ids import ChunkId, GenerationId, ManifestVersion
from ..objects.store import ObjectStore
from ..segments.manifests import Manifest, Swap, read_manifest
from ..segments.rows import Rows
from ..segments.segment import write_segment
from .commits import Standing, advance, check_standing, read_standing
from .leases import acquire_lease, release_lease, renew_lease
from .merging import fold
from .planning import FAN_IN
from .revisions import Revision, Rewriting, Trim, plan_rewriting
from .rollbacks import Rollback
from .successors import bury, reading_the_index, rows_of_documents, store_successor, swap_in, united

__all__ = [
    "PublishedManifest",
    "Publisher",
    "Revision",
    "Swap",
    "TakingOver",
    "Trim",
    "acquire_lease",
    "release_lease",
    "renew_lease",
]


@dataclass(frozen=True)
class PublishedManifest:
    """The current version after ``publish``. ``changed`` is False when there was nothing to publish."""

    name: str | None  # None: the generation is empty and was never published
    manifest: Manifest
    first_chunk_id: ChunkId  # of the additions, which have consecutive ids in row order
    changed: bool
    trimmed: Mapping[str, int] = field(default_factory=dict)  # chunks that each trim took, by its id


@dataclass(frozen=True)
class TakingOver:
    """``generation_id`` served until now, at last its version ``above``.

    The versions of a collection are numbered across its generations, so that a token of one is answered by the next.
    """

    generation_id: GenerationId
    above: ManifestVersion


InTransaction = Callable[[Connection, PublishedManifest], None]


class Publisher:
    """Publishes versions of the generations of one shard. Holds no state between calls.

    Args:
        fan_in: so many small segments become one, when more is added to them.
    """

    def __init__(
        self,
        catalog: Catalog,
        objects: ObjectStore,
        *,
        clock: Callable[[], float] = time.time,
        fan_in: int = FAN_IN,
    ) -> None:
        self._catalog = catalog
        self._objects = objects
        self._clock = clock
        self._fan_in = fan_in

    def publish(  # noqa: PLR0913  (whatever a version can be made of)
        self,
        generation_id: GenerationId,
        *,
        epoch: int,
        shard: int,
        additions: Rows | None = None,
        vectors: NDArray[np.float32] | None = None,
        removed_document_ids: Sequence[str] = (),
        revisions: Sequence[Revision] = (),
        trims: Sequence[Trim] = (),
        swap: Swap | None = None,
        rollback: Rollback | None = None,
        taken: Collection[str] = (),
        taking_over: TakingOver | None = None,
        in_transaction: InTransaction | None = None,
    ) -> PublishedManifest:
        """Publish the next version: rolled back, the merge swapped in, the removed documents gone, the additions there.

        The documents of ``additions`` replace all live chunks they had. Revised documents keep theirs, under other
        ids. With nothing to change no version is made, but ``in_transaction`` still runs, under the same guard.

        Args:
            epoch: of the writer's lease on ``shard``.
            additions: n rows, in the order in which they get chunk ids.
            vectors: f32[n, d], finite; unit length where the metric is cosine.
            revisions, trims: of documents that are neither added nor removed; those of others do nothing.
            taken: segments of which a merge is being made: they are not folded with others behind its back.
            taking_over: the generation begins to serve with this version, which is made in any case.
            in_transaction: called inside the committing transaction; what it raises undoes everything.

        Raises:
            Fenced: another writer has the lease or published first, or a file was collected. Discard, look again.
            Conflict: the swap's inputs or its output are gone.
            Damaged: vectors of another size or not finite; or what is stored contradicts itself. Nothing is published.
            DamagedIndex: nor can anything else be, until the current version is repaired.
            NotFound: there is no such generation in this shard.
        """
        standing = read_standing(self._catalog, generation_id, shard=shard, epoch=epoch)
        since = Lookout.begin(self._catalog, guard_of_generation(generation_id))
        current = self._current(standing)
        if additions:
            _check_vectors(additions, vectors, dimensions=current.dimensions)
        published = PublishedManifest(standing.name, current, ChunkId(current.next_chunk_id), changed=False)
        hit("publish.begun")
        leaving = {*removed_document_ids, *(additions.document_ids if additions is not None else ())}
        with self._looking_again(standing, needed=current.file_names):
            base = current if rollback is None else rollback.applied_to(current)
            successor = base if swap is None else swap_in(self._objects, base, swap)
            if additions or revisions:  # which add a segment too
                successor = fold(self._objects, successor, taken=taken, fan_in=self._fan_in)
            doomed = rows_of_documents(self._objects, successor, document_ids=leaving)
            rewriting = plan_rewriting(
                self._objects,
                successor,
                revisions=[one for one in revisions if one.document_id not in leaving],
                trims=[one for one in trims if one.document_id not in leaving],
            )
            if swap or doomed or rewriting.leaving or additions or base.segments != current.segments or taking_over:
                successor = bury(self._objects, successor, doomed=united(doomed, rewriting.leaving))
                successor = self._add(successor, *_together(additions, vectors, rewriting))
                hit("publish.segments_written")
                now, above = self._clock(), 0
                if taking_over is not None:
                    successor, above = replace(successor, active_since=now), taking_over.above
                name, manifest = store_successor(
                    self._objects, successor, parent=standing.name, epoch=epoch, now=now, above=above
                )
                published = replace(published, name=name, manifest=manifest, changed=True, trimmed=rewriting.trimmed)
        hit("publish.files_written")
        named = _newly_named(published, current) if published.changed else []
        if swap is not None or rollback is not None:  # which name files that were written before
            check_there(self._objects, named)
        with self._catalog.write("publish") as connection:
            origin = _origin(generation_id, swap=swap, rollback=rollback, taking_over=taking_over)
            advance(connection, standing, name=published.name, manifest=published.manifest, origin=origin)
            check_not_collected(connection, self._objects, named, since=since)
            if in_transaction is not None:
                in_transaction(connection, published)
            if published.changed:
                wake_followers(connection, generation_id, now=self._clock())
        return published

    @contextmanager
    def _looking_again(self, standing: Standing, *, needed: Iterable[str]) -> Iterator[None]:
        """Raise Fenced instead of Missing, or DamagedIndex if one of ``needed`` is: files of a version still current.

        Else this took so long that what it read was no longer kept, or that what it wrote was collected again.
        """
        try:
            yield
        except Missing as error:
            check_standing(self._catalog, standing)
            if self._objects.missing(needed):
                raise DamagedIndex(str(error)) from error
            raise Fenced(f"a file was collected before anything named it: {error}") from error

    def _current(self, standing: Standing) -> Manifest:
        """Return the current manifest, with the catalog's word for everything but the segments."""
        if standing.name is None:
            return standing.empty
        with reading_the_index(), self._looking_again(standing, needed=[standing.name]):
            stored, stated = read_manifest(self._objects, standing.name), standing.empty
        for fact in ("generation_id", "version", "next_chunk_id", "dimensions", "metric", "model"):
            if getattr(stored, fact) != getattr(stated, fact):
                raise DamagedIndex(
                    f"{standing.name} and the catalog differ in {fact}: restore catalog and objects from one backup"
                )
        return replace(stated, segments=stored.segments)

    def _add(self, manifest: Manifest, additions: Rows | None, vectors: NDArray[np.float32] | None) -> Manifest:
        """Return the manifest with a segment of the additions, which is then stored."""
        if not additions:
            return manifest
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


def _origin(
    generation_id: GenerationId, *, swap: Swap | None, rollback: Rollback | None, taking_over: TakingOver | None
) -> Origin:
    if taking_over is not None:
        return Origin("switch", taking_over.generation_id, taking_over.above)
    if rollback is not None:
        return Origin("rollback", generation_id, rollback.version)
    return Origin("publish" if swap is None else "merge")


def _together(
    additions: Rows | None, vectors: NDArray[np.float32] | None, rewriting: Rewriting
) -> tuple[Rows | None, NDArray[np.float32] | None]:
    """Return what is new and what is written again as the rows of one segment."""
    if rewriting.vectors is None:
        return additions, vectors
    if not additions:
        return rewriting.rows, rewriting.vectors
    assert vectors is not None
    return Rows.concat([additions, rewriting.rows]), np.concatenate([vectors, rewriting.vectors])


def _newly_named(published: PublishedManifest, current: Manifest) -> list[str]:
    """Return the objects to which nothing led before: those of the version before are kept by its row."""
    assert published.name is not None
    return [*sorted(published.manifest.file_names - current.file_names), published.name]


def _check_vectors(additions: Rows, vectors: NDArray[np.float32] | None, *, dimensions: int) -> None:
    shape = (len(additions), dimensions)
    if vectors is None or vectors.shape != shape or vectors.dtype != np.float32:
        found = "no vectors" if vectors is None else f"{vectors.dtype}{vectors.shape}"
        raise Damaged(f"{found} came for {shape[0]} chunks; the collection needs float32{shape}")
    with np.errstate(invalid="ignore"):  # one sum, not a mask of n * d: NaN or infinity anywhere makes it not finite
        total = vectors.sum(dtype=np.float64)
    if not np.isfinite(total):
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        document = additions.documents[int(additions.document[row])]
        raise Damaged(f"the vector of a chunk of {document.source} holds NaN or infinity; embed the document again")
