"""Merging: fewer, larger segments out of many small ones, from files that never change.

Planning reads a manifest only. Graphs are built in the maintenance role, which writes new files and publishes nothing:
the writer swaps the result in (``Swap``) and re-applies the deletes that landed meanwhile. Small flat segments the
writer folds together itself, as it adds to them, so that no search has to go through many of them however long a graph
takes. Rows keep their chunk ids and their order, so only neighbours are merged.
"""

import logging
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby, pairwise, takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import paths
from ..errors import Conflict, Damaged
from ..failpoints import hit
from ..ids import SegmentId, new_id
from ..objects.store import ObjectStore
from ..segments.blocks import block_digests
from ..segments.codes import CodedRows, encode_rows
from ..segments.columns import FieldIndex, merge
from ..segments.files import local_file
from ..segments.graph_files import GraphView, graph_shape, open_graph, record_map, upper_places
from ..segments.manifests import INT8, Manifest, SegmentEntry, Swap, describe_file
from ..segments.rounded import round_records
from ..segments.rows import Rows
from ..segments.segment import OpenSegment, StagedGraph, open_segment, verify_segment, write_segment
from ..segments.tombstones import read_deletes, with_deletes
from .graphs import build_graph
from .repairing import repair

log = logging.getLogger(__name__)

__all__ = ["GRAPH_ROWS", "Swap", "build_merge", "fold", "plan_fold", "plan_merge"]

GRAPH_ROWS = 10_000  # below, an exact scan is as quick as a graph and costs nothing to open
FAN_IN = 8
GRAPH_WORN_SHARE = 0.2  # tombstones are walked through: above this share a graph is built anew
FLAT_WORN_SHARE = 0.5
YOUNG_SHARE = 0.25  # of the graph before it: then a graph is added to that one, its rows inserted once more
WAITED_FOR = 10  # times the rows of the smallest graph: of a merge of fewer, what comes after it waits for the end
FOLDED_BYTES = 32 << 20  # of vectors that the writer writes again in passing, in some tens of milliseconds
REWRITTEN_PER_ROW = 8  # rows of a graph that may be written again for each that is added to it
_SLICE_ROWS = 8_192
_SAMPLED_ROWS = 10_000  # for the centre of the codes


def plan_merge(
    manifest: Manifest, *, taken: Collection[str] = (), graph_rows: int = GRAPH_ROWS
) -> list[SegmentEntry] | None:
    """Return the neighbouring segments to merge next, or None when the generation is in good shape.

    A graph worn by tombstones comes first; then a graph that has grown to a share of the one before it; then flat
    segments that together are large enough for a graph, with the graph they follow where it is not too large to be
    written again for so few; last what is worn among flat segments, for the others take care of theirs in passing.

    So a row is inserted into a young graph, and once more when that has grown to `YOUNG_SHARE` of the old one: about
    twice, and a large graph is written again as often as it grows by that share.

    Args:
        taken: segments of which a merge is being made. What came after a large one is merged beside it.
    """
    if 0 < sum(entry.row_count for entry in manifest.segments if entry.id in taken) < WAITED_FOR * graph_rows:
        return None
    plans = (_plan_neighbours(free, graph_rows=graph_rows) for free in _free(manifest.segments, taken=taken))
    return next((plan for plan in plans if plan), None)


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


def plan_fold(
    manifest: Manifest, *, taken: Collection[str] = (), graph_rows: int = GRAPH_ROWS, fan_in: int = FAN_IN
) -> list[SegmentEntry] | None:
    """Return the neighbouring flat segments to make one of, or None; see `fold`."""
    rows_max = min(graph_rows - 1, FOLDED_BYTES // (4 * manifest.dimensions))
    for free in _free(manifest.segments, taken=taken):
        for is_flat, run in groupby(free, key=lambda entry: entry.kind == "flat"):
            if is_flat and (small := _small_neighbours(list(run), fan_in=fan_in, rows_max=rows_max)):
                return small
    return None


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
        fields=_merged_fields(inputs, document_count=len(rows.documents)),
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
        return self.segment.chunk_ids if self.kept is None else self.segment.chunk_ids[self.kept]

    def vectors(self) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors of the rows in order, a slice at a time."""
        rows = np.arange(self.segment.entry.row_count, dtype="<u4") if self.kept is None else self.kept
        for first in range(0, len(rows), _SLICE_ROWS):
            yield self.segment.row_vectors(rows[first : first + _SLICE_ROWS])


def _open_input(objects: ObjectStore, manifest: Manifest, entry: SegmentEntry, *, first: bool, afresh: bool) -> _Input:
    verify_segment(objects, entry, dimensions=manifest.dimensions)
    segment = open_segment(objects, entry, dimensions=manifest.dimensions)
    is_base = first and entry.kind == "graph" and not _is_worn(entry)
    if not (first and afresh) and (is_base or not entry.deleted_count):
        return _Input(segment, None)
    live = np.ones(entry.row_count, np.bool_)
    live[read_deletes(objects, entry)] = False
    return _Input(segment, np.flatnonzero(live).astype("<u4"))


def _merged_fields(inputs: Sequence[_Input], *, document_count: int) -> FieldIndex:
    indexes, ordinals, first = list[FieldIndex](), list[NDArray[np.int64]](), 0
    for each in inputs:
        count, kept = len(each.segment.documents), each.kept_documents
        new = np.full(count, -1, np.int64)
        new[kept] = np.arange(first, first + len(kept))
        first += len(kept)
        indexes.append(FieldIndex.from_arrays(each.segment.sections.arrays, document_count=count))
        ordinals.append(new)
    return merge(indexes, ordinals=ordinals, document_count=document_count)


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
    inserted = sum(len(each.chunk_ids) for each in added)
    path = objects.scratch() / f"{new_id('graph')}.hnsw"
    try:
        build_graph(
            path,
            base=local_file(objects, base.entry.files[1]) if base else None,
            base_count=base_count,
            vectors=(part for each in added for part in each.vectors()),
            count=base_count + inserted,
            dimensions=manifest.dimensions,
            metric=manifest.metric,
            threads=threads,
        )
        segment_id = SegmentId(new_id("seg"))
        os.utime(path)  # not older than its id, though it was written a moment before
        hit("merge.graph_built")
        before = sum(int(each.segment.sections.meta["graph_insertions"]) for each in inputs)
        name = paths.graph(manifest.tenant_id, manifest.generation_id, segment_id)
        return segment_id, _store_graph(objects, manifest, path, name=name, insertions=before + inserted)
    finally:
        path.unlink(missing_ok=True)


def _store_graph(objects: ObjectStore, manifest: Manifest, path: Path, *, name: str, insertions: int) -> StagedGraph:
    """Store a finished graph file, and make of it what a reader must know besides."""
    count, record_bytes = graph_shape(path)
    record_rows = record_map(path, count=count, record_bytes=record_bytes)
    upper_at = upper_places(path, count=count, record_bytes=record_bytes)
    view = open_graph(path, dimensions=manifest.dimensions, record_rows=record_rows, upper_at=upper_at)
    l2 = manifest.metric == "l2"
    repaired = repair(path, view, l2=l2)
    if repaired.linked:
        log.info("Linked %d rows that no search found in %s.", repaired.linked, name)
    arrays = {"graph_record_rows": record_rows, "graph_upper_at": upper_at, **_coded(view, l2=l2).to_arrays()}
    if INT8 in manifest.flags:
        arrays |= round_records(view, l2=l2)
    arrays["graph_blocks"] = block_digests(np.memmap(path, "|u1", "r").data)  # last: the repair has written to it
    staged = StagedGraph(file=describe_file(name, path), arrays=arrays, insertions=insertions)
    objects.adopt(name, path)
    return staged


def _coded(view: GraphView, *, l2: bool) -> CodedRows:
    rows = np.arange(view.count, dtype="<u4")
    sample = view.vectors[:: max(1, view.count // _SAMPLED_ROWS)]
    vectors = (view.row_vectors(rows[first : first + _SLICE_ROWS]) for first in range(0, view.count, _SLICE_ROWS))
    centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    return encode_rows(vectors, count=view.count, centre=centre, l2=l2)


def _is_worn(entry: SegmentEntry) -> bool:
    share = GRAPH_WORN_SHARE if entry.kind == "graph" else FLAT_WORN_SHARE
    return entry.deleted_count > share * entry.row_count


def _free(segments: Sequence[SegmentEntry], *, taken: Collection[str]) -> Iterator[list[SegmentEntry]]:
    """Yield the segments that are not taken, neighbours together."""
    return (list(run) for is_free, run in groupby(segments, key=lambda entry: entry.id not in taken) if is_free)


def _plan_neighbours(segments: Sequence[SegmentEntry], *, graph_rows: int) -> list[SegmentEntry] | None:
    for position, entry in enumerate(segments):
        if entry.kind == "graph" and _is_worn(entry):
            return [entry, *_flats_from(segments, position + 1)]
    for position, (old, young) in enumerate(pairwise(segments)):
        if old.kind == young.kind == "graph" and young.live_count >= YOUNG_SHARE * old.row_count:
            return [old, young, *_flats_from(segments, position + 2)]
    for position, entry in enumerate(segments):
        if entry.kind == "flat" and (position == 0 or segments[position - 1].kind == "graph"):
            run = _flats_from(segments, position)
            if sum(flat.live_count for flat in run) >= graph_rows:
                return [*_base_for(run, segments[:position]), *run]
    return next(([entry] for entry in segments if _is_worn(entry)), None)


def _flats_from(segments: Sequence[SegmentEntry], position: int) -> list[SegmentEntry]:
    """Return the flat segments that follow each other from ``position`` on."""
    return list(takewhile(lambda entry: entry.kind == "flat", segments[position:]))


def _base_for(run: Sequence[SegmentEntry], before: Sequence[SegmentEntry]) -> Sequence[SegmentEntry]:
    """Return the graph to which the flat segments ``run`` are added, or nothing: then they begin a young one."""
    last = before[-1:]
    is_young = len(before) > 1 and before[-2].kind == "graph"
    rows = sum(flat.live_count for flat in run)
    return last if is_young or (last and last[0].row_count <= REWRITTEN_PER_ROW * rows) else []


def _small_neighbours(run: Sequence[SegmentEntry], *, fan_in: int, rows_max: int) -> list[SegmentEntry] | None:
    """Return ``fan_in`` or more neighbours that make one of the next size class, the smallest first, or None.

    So every rewrite lifts a row by a class, and it is rewritten once per class at most.
    """
    classes = [int(math.log(entry.live_count, fan_in)) for entry in run]
    for limit in sorted(set(classes)):
        for within, group in groupby(zip(classes, run, strict=True), key=lambda pair: pair[0] <= limit):
            members = [entry for _, entry in group]
            rows = sum(entry.live_count for entry in members)
            if within and len(members) >= fan_in and fan_in ** (limit + 1) <= rows <= rows_max:
                return members
    return None
