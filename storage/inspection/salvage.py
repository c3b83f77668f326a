"""The best that can be served of a generation some of whose files are damaged: intact segments, of whatever version.

Chunk ids order everything: segments of different versions whose ranges do not overlap may stand in one version. What
is deleted or replaced since is live again in older segments; the ledger says afterwards what may stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import StorageError
from ..objects.store import ObjectStore
from ..segments.files import SEGMENT_KIND, local_file
from ..segments.graph_files import graph_shape, open_graph, record_map, upper_places
from ..segments.manifests import Manifest, SegmentEntry
from ..segments.rows import Rows
from ..segments.sections import Sections, open_sections
from ..segments.segment import write_segment
from ..segments.tombstones import read_deletes
from .checksums import CheckedFiles
from .examined import ExaminedGeneration

ESSENTIAL = (
    "chunk_id",
    "document_bytes",
    "document_offsets",
    *(field.name for field in fields(Rows) if field.name != "documents"),
)


@dataclass(frozen=True)
class Salvaged:
    """Segments in the order of their chunk ids. ``restored``: of past versions; ``rewritten``: from intact parts."""

    segments: Sequence[SegmentEntry]
    restored: int
    rewritten: int


def salvage(objects: ObjectStore, checked: CheckedFiles, found: ExaminedGeneration) -> Salvaged:
    """Return the segments to serve from now on. What it rewrites is written under new names, and nobody's yet."""
    chosen: list[SegmentEntry] = []
    rewritten = 0
    current = found.current
    for entry in current.segments if current else ():
        if not found.is_broken(entry):
            chosen.append(entry)
        elif current is not None and (anew := _rewritten(objects, checked, entry, manifest=current)) is not None:
            chosen.append(anew)
            rewritten += 1
    restored = 0
    for manifest in found.manifests.values():  # the newest first
        for entry in manifest.segments:
            if not found.is_broken(entry) and not any(entry.overlaps(other) for other in chosen):
                chosen.append(entry)
                restored += 1
    return Salvaged(sorted(chosen, key=lambda entry: entry.first_chunk_id), restored, rewritten)


def _rewritten(
    objects: ObjectStore, checked: CheckedFiles, entry: SegmentEntry, *, manifest: Manifest
) -> SegmentEntry | None:
    """Write the live rows of a damaged segment as a flat one, from the parts that are intact; None: too few are.

    Whatever is computed from the rows is made anew: the field index, codes, a graph (by the next merge).
    """
    try:
        sections = open_sections(local_file(objects, entry.files[0]), kind=SEGMENT_KIND)
        needed = (*ESSENTIAL, "vectors") if entry.kind == "flat" else ESSENTIAL
        if not all(sections.is_intact(name) for name in needed):
            return None
        rows = Rows.from_sections(sections)
        kept = _kept(objects, checked, entry)
        vectors = _vectors(objects, checked, entry, sections, kept, dimensions=manifest.dimensions)
    except (StorageError, OSError):
        return None
    if vectors is None or not len(kept):
        return None
    return write_segment(
        objects,
        tenant=manifest.tenant_id,
        generation_id=manifest.generation_id,
        rows=rows.take(kept),
        chunk_ids=sections.arrays["chunk_id"][kept],
        vectors=vectors,
    )


def _kept(objects: ObjectStore, checked: CheckedFiles, entry: SegmentEntry) -> NDArray[np.uint32]:
    """Return the rows without a tombstone; where the tombstones are damaged, all of them: the ledger knows better."""
    rows = np.arange(entry.row_count, dtype="<u4")
    if entry.deletes is None or not checked.is_intact(entry.deletes):
        return rows
    return np.setdiff1d(rows, read_deletes(objects, entry), assume_unique=True)


def _vectors(
    objects: ObjectStore,
    checked: CheckedFiles,
    entry: SegmentEntry,
    sections: Sections,
    rows: NDArray[np.uint32],
    *,
    dimensions: int,
) -> NDArray[np.float32] | None:
    if entry.kind == "flat":
        vectors: NDArray[np.float32] = sections.arrays["vectors"][rows]
        return vectors
    if not checked.is_intact(entry.files[1]):
        return None
    return _graph_vectors(local_file(objects, entry.files[1]), rows, dimensions=dimensions)


def _graph_vectors(path: Path, rows: NDArray[np.uint32], *, dimensions: int) -> NDArray[np.float32]:
    """Return the vectors of these rows from a graph file alone, which knows the row of each record."""
    count, record_bytes = graph_shape(path)
    view = open_graph(
        path,
        dimensions=dimensions,
        record_rows=record_map(path, count=count, record_bytes=record_bytes),
        upper_at=upper_places(path, count=count, record_bytes=record_bytes),
    )
    return view.row_vectors(rows)
