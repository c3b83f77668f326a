"""Merging: fewer, larger segments out of many small ones, from files that never change; which ones, ``planning`` says.

Graphs are built in the maintenance role, which writes new files and publishes nothing: the writer swaps the result in
(``Swap``) and re-applies the deletes that landed meanwhile. Small flat segments the writer folds together itself, as it
adds to them, so that no search has to go through many of them however long a graph takes.
"""

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import paths
from ..errors import Conflict, Damaged
from ..failpoints import hit
from ..ids import SegmentId, new_id
from ..objects.store import ObjectStore
from ..segments.blocks import block_digests
from ..segments.checks import verify_segment
from ..segments.codes import CodedRows, encode_rows
from ..segments.columns import FieldIndex, merge
from ..segments.document_keys import KeyList, merge_keys
from ..segments.files import local_file
from ..segments.graph_files import GraphView, open_built
from ..segments.manifests import INT8, Manifest, SegmentEntry, Swap, describe_file
from ..segments.rounded import round_records
from ..segments.rows import Rows
from ..segments.sections import Array
from ..segments.segment import TIMES, OpenSegment, StagedGraph, open_segment, write_segment
from ..segments.tombstones import read_deletes, with_deletes
from .graphs import build_graph
from .planning import FAN_IN, GRAPH_ROWS, is_worn, plan_fold
from .repairing import repair
from .twins import first_rows, with_twins

log = logging.getLogger(__name__)

__all__ = ["Swap", "build_merge", "fold"]

_SLICE_ROWS = 8_192
_SAMPLED_ROWS = 10_000  # for the centre of the codes


def fold(objects: ObjectStore, manifest: Manifest, *, taken: Collection[str] = (), fan_in: int = FAN_IN) -> Manifest:
    """Return the manifest with the small flat segments that are due made one, which is then stored; or as it is.

    They are due when there are ``fan_in`` neighbours or more, in size classes of the powers of ``fan_in``, and fewer
    rows than a graph has. So a row is written again once per class at most, and about ``fan_in`` segments of each stay.

    Args:
        taken: segments of which a merge is being made.
    """
    apart = set(taken)
    while chosen := plan_fold(manifest, taken=apart, fan_in=fan_in):
        try:
            output = build_merge(objects, manifest, chosen)
        except Damaged as error:  # what is published now is none the worse for it, nor are its neighbours
            log.warning("A small segment stays apart: %s", error, extra={"generation": manifest.generation_id})
            apart |= _damaged(objects, manifest, chosen)
        else:
            at = manifest.segments.index(chosen[0])
            return replace(manifest, segments=[*manifest.segments[:at], output, *manifest.segments[at + len(chosen) :]])
    return manifest


def _damaged(objects: ObjectStore, manifest: Manifest, segments: Sequence[SegmentEntry]) -> set[str]:
    """Return which of these cannot be read whole; all of them, when each can by now."""
    damaged: set[str] = set()
    for entry in segments:
        try:
            verify_segment(objects, entry, dimensions=manifest.dimensions)
        except Damaged:
            damaged.add(entry.id)
    return damaged or {entry.id for entry in segments}


def build_merge(
    objects: ObjectStore,
    manifest: Manifest,
    segments: Sequence[SegmentEntry],
    *,
    threads: int = 1,
    graph_rows: int = GRAPH_ROWS,
    afresh: bool = False,
) -> SegmentEntry:
    """Write the segment that replaces ``segments``, neighbours in ``manifest``, and return its entry.

    Every input is first compared with its checksums, so that damage is never copied under a new one. A graph that
    comes first and is not worn is extended and keeps its tombstoned rows, unless it is to be built ``afresh``;
    otherwise only live rows are taken.

    Raises:
        Conflict: no row is live any more.
        Damaged: an input is not what was written, or the new graph lost rows.
    """
    if not any(entry.live_count for entry in segments):
        raise Conflict(f"all rows of {', '.join(entry.id for entry in segments)} are deleted: nothing to merge")
    inputs = [_open_input(objects, manifest, entry, first=entry is segments[0], afresh=afresh) for entry in segments]
    rows = Rows.stack([each.rows for each in inputs])  # a document version was published at once, in one segment
    tenant, generation_id = manifest.tenant_id, manifest.generation_id
    write = partial(
        write_segment,
        objects,
        tenant=tenant,
        generation_id=generation_id,
        rows=rows,
        chunk_ids=np.concatenate([each.chunk_ids for each in inputs]),
        derived=_merged_sections(inputs, document_count=len(rows.documents)),
    )
    if not inputs[0].whole_graph and len(rows) < graph_rows:
        vectors = np.concatenate([part for each in inputs for part in each.vectors()])
        return write(vectors=vectors)
    segment_id, graph = _stage_graph(objects, manifest, inputs, threads=threads)
    merged = write(graph=graph, segment_id=segment_id)
    if not inputs[0].deleted_count:
        return merged
    dead = read_deletes(objects, inputs[0].segment.entry)
    return with_deletes(objects, merged, tenant=tenant, generation_id=generation_id, rows=dead)


@dataclass(frozen=True)
class _Input:
    """A verified segment, and which of its rows go into the merge."""

    segment: OpenSegment
    kept: NDArray[np.uint32] | None  # None: all of them, tombstoned ones too

    @property
    def whole_graph(self) -> bool:
        return self.kept is None and self.segment.graph is not None

    @property
    def deleted_count(self) -> int:
        """How many tombstoned rows are taken along."""
        return self.segment.entry.deleted_count if self.kept is None else 0

    @cached_property
    def rows(self) -> Rows:
        return self.segment.rows if self.kept is None else self.segment.rows.take(self.kept)

    @property
    def kept_documents(self) -> NDArray[np.uint32]:
        """The positions of the documents of ``rows`` among those of the segment, ascending."""
        if self.kept is None:
            return np.arange(len(self.segment.documents), dtype="<u4")
        return np.unique(self.segment.rows.document[self.kept])

    @property
    def chunk_ids(self) -> NDArray[np.uint64]:
        return self.taken(self.segment.chunk_ids)

    def taken(self, column: Array) -> Array:
        """Return what a column of the segment has of the rows that go into the merge."""
        return column if self.kept is None else column[self.kept]

    def vectors(self) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors of the rows in order, a slice at a time."""
        rows = np.arange(self.segment.entry.row_count, dtype="<u4") if self.kept is None else self.kept
        for first in range(0, len(rows), _SLICE_ROWS):
            yield self.segment.row_vectors(rows[first : first + _SLICE_ROWS])


def _open_input(objects: ObjectStore, manifest: Manifest, entry: SegmentEntry, *, first: bool, afresh: bool) -> _Input:
    verify_segment(objects, entry, dimensions=manifest.dimensions)
    segment = open_segment(objects, entry, dimensions=manifest.dimensions)
    is_base = first and entry.kind == "graph" and not is_worn(entry)
    if not (first and afresh) and (is_base or not entry.deleted_count):
        return _Input(segment, None)
    live = np.ones(entry.row_count, np.bool_)
    live[read_deletes(objects, entry)] = False
    return _Input(segment, np.flatnonzero(live).astype("<u4"))


def _merged_sections(inputs: Sequence[_Input], *, document_count: int) -> dict[str, Array]:
    """Return ``derive_sections`` of the merged rows, from those of the inputs: no document is looked at."""
    indexes, ordinals, first = list[FieldIndex](), list[NDArray[np.int64]](), 0
    for each in inputs:
        count, kept = len(each.segment.documents), each.kept_documents
        new = np.full(count, -1, np.int64)
        new[kept] = np.arange(first, first + len(kept))
        first += len(kept)
        indexes.append(FieldIndex.from_arrays(each.segment.sections.arrays, document_count=count))
        ordinals.append(new)
    listed = [KeyList.from_sections(each.segment.sections, count=len(each.segment.documents)) for each in inputs]
    return {
        **{name: np.concatenate([each.taken(getattr(each.segment, name)) for each in inputs]) for name in TIMES},
        **merge_keys(listed, ordinals=ordinals),
        **merge(indexes, ordinals=ordinals, document_count=document_count).to_arrays(),
    }


def _stage_graph(
    objects: ObjectStore, manifest: Manifest, inputs: Sequence[_Input], *, threads: int
) -> tuple[SegmentId, StagedGraph]:
    """Build a graph over all rows of ``inputs``, on top of the first one where it is a whole graph, and store it.

    Returns it with the id of its segment, which is made after the building, however long that took: the id's age is
    that of the first file.
    """
    base = inputs[0].segment if inputs[0].whole_graph else None
    added = inputs[1:] if base else inputs
    base_count = base.entry.row_count if base else 0
    added_count = sum(len(each.chunk_ids) for each in added)
    path = objects.scratch() / f"{new_id('graph')}.hnsw"
    try:
        first = first_rows((part for each in inputs for part in each.vectors()), count=base_count + added_count)
        inserted = build_graph(
            path,
            base=local_file(objects, base.entry.files[1]) if base else None,
            base_count=base_count,
            vectors=(part for each in added for part in each.vectors()),
            first=first,
            dimensions=manifest.dimensions,
            metric=manifest.metric,
            threads=threads,
        )
        segment_id = SegmentId(new_id("seg"))
        os.utime(path)  # not older than its id, though it was written a moment before
        hit("merge.graph_built")
        before = sum(int(each.segment.sections.meta["graph_insertions"]) for each in inputs)
        name = paths.graph(manifest.tenant_id, manifest.generation_id, segment_id)
        insertions = before + inserted
        return segment_id, _store_graph(
            objects, manifest, path, name=name, first=first, insertions=insertions, threads=threads
        )
    finally:
        path.unlink(missing_ok=True)


def _store_graph(
    objects: ObjectStore,
    manifest: Manifest,
    path: Path,
    *,
    name: str,
    first: NDArray[np.int64],
    insertions: int,
    threads: int,
) -> StagedGraph:
    """Store a finished graph file, and make of it what a reader must know besides."""
    view = open_built(path, dimensions=manifest.dimensions)
    l2 = manifest.metric == "l2"
    watched = view.row_records[with_twins(first)].tolist()
    repaired = repair(path, view, l2=l2, watched=watched, threads=threads)
    if repaired.linked:
        log.info("Linked %d rows that no search found in %s.", repaired.linked, name)
    arrays = {"graph_record_rows": view.record_rows, "graph_upper_at": view.upper_at, **_coded(view, l2=l2).to_arrays()}
    if INT8 in manifest.flags:
        arrays |= round_records(view, l2=l2)
    arrays["graph_blocks"] = block_digests(np.memmap(path, "|u1", "r").data)  # last: the repair has written to it
    staged = StagedGraph(describe_file(name, path), arrays=arrays, insertions=insertions, found=repaired.found)
    objects.adopt(name, path)
    return staged


def _coded(view: GraphView, *, l2: bool) -> CodedRows:
    rows = np.arange(view.count, dtype="<u4")
    sample = view.vectors[:: max(1, view.count // _SAMPLED_ROWS)]
    vectors = (view.row_vectors(rows[first : first + _SLICE_ROWS]) for first in range(0, view.count, _SLICE_ROWS))
    centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    return encode_rows(vectors, count=view.count, centre=centre, l2=l2)
