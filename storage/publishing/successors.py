"""The next version, made from the one before: the merge swapped in, rows buried, its manifest numbered and stored.

It writes tombstones and manifests under new names and changes nothing that exists. A commit decides whether they count.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import Conflict, Damaged, DamagedIndex, Missing
from ..ids import ManifestVersion, SegmentId
from ..objects.store import ObjectStore
from ..segments.lookups import read_chunk_ids, read_document_rows
from ..segments.manifests import Manifest, SegmentEntry, Swap, write_manifest
from ..segments.tombstones import read_deletes, with_deletes

Tombstones = Mapping[SegmentId, NDArray[np.uint32]]  # by segment: ascending rows that are live


@contextmanager
def reading_the_index() -> Iterator[None]:
    """Say of what the block finds damaged that it was there already. What is missing may only be over: see Missing."""
    try:
        yield
    except (DamagedIndex, Missing):
        raise
    except Damaged as error:
        raise DamagedIndex(str(error)) from error


def rows_of_documents(objects: ObjectStore, manifest: Manifest, *, document_ids: Collection[str]) -> Tombstones:
    """Return the live rows of these documents, in the segments that have some. Raises DamagedIndex."""
    if not document_ids:
        return {}
    with reading_the_index():
        found = {entry.id: read_document_rows(objects, entry, document_ids=document_ids) for entry in manifest.segments}
    return {segment: rows for segment, rows in found.items() if len(rows)}


def united(one: Tombstones, other: Tombstones) -> Tombstones:
    """Return the rows of both."""
    both = {segment: [each[segment] for each in (one, other) if segment in each] for segment in {*one, *other}}
    return {segment: np.unique(np.concatenate(rows)) for segment, rows in both.items()}


def bury(objects: ObjectStore, manifest: Manifest, *, doomed: Tombstones) -> Manifest:
    """Return the manifest with tombstones on these rows; a segment without a live row is left out.

    Raises:
        Damaged: a row has a tombstone already.
    """
    kept: list[SegmentEntry] = []
    for entry in manifest.segments:
        successor: SegmentEntry | None = entry
        if entry.id in doomed:
            successor = _with_tombstones(objects, manifest, entry, rows=doomed[entry.id])
        if successor is not None:
            kept.append(successor)
    return replace(manifest, segments=kept)


def swap_in(objects: ObjectStore, manifest: Manifest, swap: Swap) -> Manifest:
    """Return the manifest with a merge's output in the place of its inputs.

    Chunks that were deleted since the merge read its inputs are buried in the output too. An input that is gone was
    dropped because none of its rows was live.

    Raises:
        Conflict: the merge was swapped in before, its inputs were replaced by another one, or its output is gone.
        Damaged: the output would lose a live chunk, or show a dead one.
    """
    output = swap.output
    replaced = [entry for entry in manifest.segments if entry.id in swap.inputs]
    others = [entry for entry in manifest.segments if entry.id not in swap.inputs]
    if not replaced or any(entry.overlaps(output) for entry in others):
        raise Conflict(f"the inputs of merged segment {output.id} are gone: drop it")
    if not all(objects.exists(file.name) for file in output.all_files):
        raise Conflict(f"files of merged segment {output.id} are gone: drop it")
    rows = _dead_rows(objects, output, replaced=replaced)
    fresh = np.setdiff1d(rows, read_deletes(objects, output), assume_unique=True)
    successor: SegmentEntry | None = output
    if len(fresh):
        successor = _with_tombstones(objects, manifest, output, rows=fresh)
    live = successor.live_count if successor else 0
    if live != sum(entry.live_count for entry in replaced):
        raise Damaged(f"merged segment {output.id} does not hold the live chunks of its inputs: merge them again")
    segments = [*others, *([successor] if successor else [])]
    return replace(manifest, segments=sorted(segments, key=lambda entry: entry.first_chunk_id))


def store_successor(
    objects: ObjectStore, manifest: Manifest, *, parent: str | None, epoch: int, now: float, above: int = 0
) -> tuple[str, Manifest]:
    """Number the version that follows, check it, and store its manifest; returns that and its name.

    Args:
        manifest: the segments to serve, with the number of the version before.
        parent: the name of the manifest before.
        epoch: of the writer's lease.
        above: a version that the number must be higher than, besides the one before.

    Raises:
        Damaged: an invariant does not hold. Nothing was stored.
    """
    version = ManifestVersion(max(manifest.version, above) + 1)
    numbered = replace(manifest, version=version, parent=parent, writer_epoch=epoch, created_at=now)
    return write_manifest(objects, numbered), numbered


def _dead_rows(objects: ObjectStore, output: SegmentEntry, *, replaced: Sequence[SegmentEntry]) -> NDArray[np.uint32]:
    """Return the ascending rows of ``output`` whose chunk is not live in the segments that it replaces."""
    chunk_ids = read_chunk_ids(objects, output)
    live = np.zeros(len(chunk_ids), np.bool_)
    for entry in replaced:
        first, end = np.searchsorted(chunk_ids, [entry.first_chunk_id, entry.last_chunk_id + 1])
        live[first:end] = True
        if entry.deleted_count:
            dead = read_chunk_ids(objects, entry)[read_deletes(objects, entry)]
            live[first:end] &= ~np.isin(chunk_ids[first:end], dead, assume_unique=True)
    return np.flatnonzero(~live).astype("<u4")


def _with_tombstones(
    objects: ObjectStore, manifest: Manifest, entry: SegmentEntry, *, rows: NDArray[np.uint32]
) -> SegmentEntry | None:
    """Return the entry with tombstones on ``rows`` besides those it has, or None when no row is left."""
    former = read_deletes(objects, entry)
    united = np.union1d(former, rows)
    if len(united) != len(former) + len(rows):
        raise Damaged(f"{entry.id}: rows that were to be deleted are deleted already; nothing was changed")
    if len(united) == entry.row_count:
        return None
    return with_deletes(objects, entry, tenant=manifest.tenant_id, generation_id=manifest.generation_id, rows=united)
