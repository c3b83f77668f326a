"""Which segments to merge next, and which small ones to fold: read from a manifest alone. It opens no file.

Rows keep their chunk ids and their order, so only neighbours are merged.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, pairwise, takewhile

from ..segments.manifests import Manifest, SegmentEntry

GRAPH_ROWS = 10_000  # below, an exact scan is as quick as a graph and costs nothing to open
FAN_IN = 8
GRAPH_WORN_SHARE = 0.2  # tombstones are walked through: above this share a graph is built anew
FLAT_WORN_SHARE = 0.5
YOUNG_SHARE = 0.25  # of the graph before it: then a graph is added to that one, its rows inserted once more
WAITED_FOR = 10  # times the rows of the smallest graph: of a merge of fewer, what comes after it waits for the end
FOLDED_BYTES = 32 << 20  # of vectors that the writer writes again in passing, in some tens of milliseconds
REWRITTEN_PER_ROW = 8  # rows of a graph that may be written again for each that is added to it


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


def plan_fold(
    manifest: Manifest, *, taken: Collection[str] = (), graph_rows: int = GRAPH_ROWS, fan_in: int = FAN_IN
) -> list[SegmentEntry] | None:
    """Return the neighbouring flat segments to make one of, or None; see `merging.fold`."""
    rows_max = min(graph_rows - 1, FOLDED_BYTES // (4 * manifest.dimensions))
    for free in _free(manifest.segments, taken=taken):
        for is_flat, run in groupby(free, key=lambda entry: entry.kind == "flat"):
            if is_flat and (small := _small_neighbours(list(run), fan_in=fan_in, rows_max=rows_max)):
                return small
    return None


def is_worn(entry: SegmentEntry) -> bool:
    """Say whether so much of a segment is tombstoned that it is to be written anew."""
    share = GRAPH_WORN_SHARE if entry.kind == "graph" else FLAT_WORN_SHARE
    return entry.deleted_count > share * entry.row_count


def _free(segments: Sequence[SegmentEntry], *, taken: Collection[str]) -> Iterator[list[SegmentEntry]]:
    """Yield the segments that are not taken, neighbours together."""
    return (list(run) for is_free, run in groupby(segments, key=lambda entry: entry.id not in taken) if is_free)


def _plan_neighbours(segments: Sequence[SegmentEntry], *, graph_rows: int) -> list[SegmentEntry] | None:
    for position, entry in enumerate(segments):
        if entry.kind == "graph" and is_worn(entry):
            return [entry, *_flats_from(segments, position + 1)]
    for position, (old, young) in enumerate(pairwise(segments)):
        if old.kind == young.kind == "graph" and young.live_count >= YOUNG_SHARE * old.row_count:
            return [old, young, *_flats_from(segments, position + 2)]
    for position, entry in enumerate(segments):
        if entry.kind == "flat" and (position == 0 or segments[position - 1].kind == "graph"):
            run = _flats_from(segments, position)
            if sum(flat.live_count for flat in run) >= graph_rows:
                return [*_base_for(run, segments[:position]), *run]
    return next(([entry] for entry in segments if is_worn(entry)), None)


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
