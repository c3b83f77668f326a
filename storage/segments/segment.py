"""Segments: immutable sets of chunks, and the tombstones laid over them. Writing and opening.

A ``.segment`` file holds rows, payload, chunk ids, times and the field index; of a flat segment also the vectors. The
vectors of a graph segment live in its ``.hnsw`` file only. Tombstones are no part of a segment, so that one opened
segment serves every version that names it. It searches nothing and publishes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import paths
from ..errors import Damaged
from ..ids import GenerationId, SegmentId, TenantId, new_id
from ..objects.store import ObjectStore
from .codes import CodedRows
from .document_keys import build_keys
from .fields import build_index
from .files import SEGMENT_KIND, check_is_of, column, descends, mapped, mending, naming
from .graph_files import GraphView, open_graph
from .manifests import FileEntry, SegmentEntry, file_entry
from .payloads import Payload
from .records import DocumentRecord, Documents
from .rounded import RoundedGraph
from .rows import Rows, decoded
from .sections import Array, Sections, open_sections, write_sections

TIMES = ("event_time", "ingested_at", "expires_at")
WALKED_FOUND = 0.98  # of a sample of its rows: a graph whose walks find fewer is not walked
MAPPED_BYTES = 32 << 20  # payload of a larger segment is read, not mapped


@dataclass(frozen=True)
class StagedGraph:
    """A graph file that is stored already, and what a reader must know of it."""

    file: FileEntry
    arrays: Mapping[str, Array]  # sections of the segment: the map of the graph, codes, int8 records
    insertions: int  # of vectors into this graph and those that its rows came from
    found: float  # share of a sample of its rows that walks find by their own vectors, as wide as searches are


@dataclass(frozen=True)
class OpenSegment:
    """A mapped segment of ``n`` rows. The arrays are read-only views of files; tombstones are not applied."""

    entry: SegmentEntry
    rows: Rows
    chunk_ids: NDArray[np.uint64]  # ascending
    event_time: NDArray[np.float64]  # seconds since 1970, NaN where there is none
    ingested_at: NDArray[np.float64]
    expires_at: NDArray[np.float64]  # +inf where there is none
    vectors: NDArray[np.float32] | None  # (n, d), flat segments only
    graph: GraphView | None  # graph segments only, as the next two
    codes: CodedRows | None
    rounded: RoundedGraph | None  # where the generation is walked by int8
    sections: Sections  # everything in the .segment file, the field index included
    payload: Payload | None  # of a large segment: what texts and records are read from

    @property
    def is_walked(self) -> bool:
        """Whether walks find the rows of the graph. Of some vectors they miss many, however the graph was built."""
        return float(self.sections.meta.get("graph_found", 1.0)) >= WALKED_FOUND

    @property
    def documents(self) -> Documents:
        return self.rows.documents

    def shown(
        self, rows: NDArray[np.int64], *, texts: Sequence[bytes] | None = None
    ) -> tuple[list[str], list[str], list[DocumentRecord]]:
        """Return the texts, headings and documents of these rows, read in one go; an empty heading means none.

        ``texts``: what was read of them before.

        Raises:
            Damaged: what is read is not what was written.
        """
        count, owners = len(rows), self.rows.document[rows].tolist()
        known = self.documents.remembered(owners)
        wanted = [("text", rows)] if texts is None else []
        if headed := len(self.rows.heading_bytes) > 0:  # most segments have none, and are asked for none
            wanted.append(("heading", rows))
        if missing := [owner for owner, record in known.items() if record is None]:
            wanted.append(("document", np.array(missing, np.int64)))
        read = [*(texts or ()), *(self._items(wanted) if wanted else ())]
        with naming(self.entry):
            if missing:
                known |= self.documents.remember(missing, lines=read[-len(missing) :])
            headings = [decoded(text) for text in read[count : 2 * count]] if headed else [""] * count
            records = [record for owner in owners if (record := known[owner]) is not None]
            return [decoded(text) for text in read[:count]], headings, records

    def _items(self, wanted: Sequence[tuple[str, NDArray[np.int64]]]) -> list[bytes]:
        """Return these items of each ragged column, one column after the other. What rotted must not lead astray."""
        try:
            spans = [self._span(name, which) for name, which in wanted]
        except IndexError as error:
            raise self._astray() from error
        if self.payload is not None:
            return self.payload.read(spans)
        found: list[bytes] = []
        for section, starts, ends in spans:
            data = self.sections.arrays[section].data
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                if not 0 <= start <= end <= len(data):
                    raise self._astray()
                found.append(bytes(data[start:end]))
        return found

    def _span(self, name: str, which: NDArray[np.int64]) -> tuple[str, NDArray[np.int64], NDArray[np.int64]]:
        offsets = self.sections.arrays[f"{name}_offsets"]
        return f"{name}_bytes", offsets[which].astype(np.int64), offsets[which + 1].astype(np.int64)

    def _astray(self) -> Damaged:
        source = self.sections.source
        return Damaged(f"{source}: a text does not lie where its place is told; restore or rebuild the segment")

    def row_vectors(self, rows: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Return a copy f32[len(rows), d] of the vectors of these rows."""
        if self.graph is not None:
            return self.graph.row_vectors(rows)
        assert self.vectors is not None
        return self.vectors[rows]


def write_segment(
    objects: ObjectStore,
    *,
    tenant: TenantId,
    generation_id: GenerationId,
    rows: Rows,
    chunk_ids: NDArray[np.uint64],
    vectors: NDArray[np.float32] | None = None,
    graph: StagedGraph | None = None,
    derived: Mapping[str, Array] | None = None,
    segment_id: SegmentId | None = None,
) -> SegmentEntry:
    """Write a segment under new names; durable on return, and nobody's until a manifest names it.

    Args:
        chunk_ids: u64[n], ascending.
        vectors: f32[n, d] of a flat segment.
        graph: the stored graph of a graph segment, whose labels are the positions in ``rows``.
        derived: what ``derive_sections`` returns for ``rows``, where it is known without looking at their documents.
    """
    assert len(rows) == len(chunk_ids) > 0
    assert (vectors is None) != (graph is None)
    segment = segment_id or SegmentId(new_id("seg"))
    arrays = {"chunk_id": chunk_ids.astype("<u8", copy=False), **rows.to_arrays(), **(derived or derive_sections(rows))}
    if vectors is not None:
        arrays["vectors"] = np.ascontiguousarray(vectors, "<f4")
    if graph is not None:
        arrays |= graph.arrays
    insertions = graph.insertions if graph else 0
    found = {"graph_found": graph.found} if graph else {}
    meta = {
        "segment_id": segment,
        "generation_id": generation_id,
        "tenant_id": tenant,
        "graph_insertions": insertions,
        **found,
        "documents_in_order": not (rows.document[1:] < rows.document[:-1]).any(),
    }
    parts = write_sections(SEGMENT_KIND, meta=meta, arrays=arrays)
    file = file_entry(paths.segment(tenant, generation_id, segment), parts)
    objects.put(file.name, parts)
    return SegmentEntry(
        id=segment,
        kind="flat" if graph is None else "graph",
        row_count=len(rows),
        first_chunk_id=int(chunk_ids[0]),
        last_chunk_id=int(chunk_ids[-1]),
        files=[file] if graph is None else [file, graph.file],
    )


@mending
def open_segment(objects: ObjectStore, entry: SegmentEntry, *, dimensions: int) -> OpenSegment:
    """Map a segment and check its structure: sizes, shapes, offsets, the header's checksum. Vectors are not read.

    Raises:
        Damaged: naming the file that is missing, truncated, not what the manifest says, or another segment's.
        Unsupported: written by a newer program.
    """
    sections, payload = mapped(objects, entry.files[0], _open_rows)
    check_is_of(sections, entry)
    rows = Rows.from_sections(sections)
    if len(rows) != entry.row_count:
        raise Damaged(f"{sections.source} is not segment {entry.id} of {entry.row_count} rows")
    chunk_ids = column(sections, "chunk_id", "<u8", count=len(rows))
    if (chunk_ids[0], chunk_ids[-1]) != (entry.first_chunk_id, entry.last_chunk_id) or descends(chunk_ids):
        raise Damaged(f"{sections.source}: the chunk ids are not ascending in the range that the manifest states")
    graph, codes, rounded = None, None, None
    if entry.kind == "graph":
        graph, rounded = _open_graph(objects, entry, sections, dimensions=dimensions)
        codes = CodedRows.from_arrays(sections.arrays, count=len(rows), dimensions=dimensions)
    return OpenSegment(
        entry=entry,
        rows=rows,
        chunk_ids=chunk_ids,
        **{name: column(sections, name, "<f8", count=len(rows)) for name in TIMES},
        vectors=None if graph else column(sections, "vectors", "<f4", count=len(rows), width=dimensions),
        graph=graph,
        codes=codes,
        rounded=rounded,
        sections=sections,
        payload=payload,
    )


def derive_sections(rows: Rows) -> dict[str, Array]:
    """Return the sections that follow from the documents of ``rows``: times of the rows, list of ids, field index."""
    records = [(d.event_time, d.ingested_at, d.expires_at) for d in rows.documents]
    event_time = np.array([np.nan if event is None else event for event, _, _ in records], "<f8")
    ingested_at = np.array([ingested for _, ingested, _ in records], "<f8")
    expires_at = np.array([np.inf if expires is None else expires for _, _, expires in records], "<f8")
    times = zip(TIMES, (event_time, ingested_at, expires_at), strict=True)
    return {
        **{name: of_documents[rows.document] for name, of_documents in times},
        **build_keys(rows.documents),
        **build_index(rows.documents).to_arrays(),
    }


def _open_graph(
    objects: ObjectStore, entry: SegmentEntry, sections: Sections, *, dimensions: int
) -> tuple[GraphView, RoundedGraph | None]:
    record_rows = column(sections, "graph_record_rows", "<u4", count=entry.row_count)
    upper_at = column(sections, "graph_upper_at", "<u4", count=entry.row_count)

    def opened(path: Path) -> tuple[GraphView, RoundedGraph | None]:
        view = open_graph(path, dimensions=dimensions, record_rows=record_rows, upper_at=upper_at)
        return view, RoundedGraph.from_arrays(sections.arrays, view=view, path=path)

    return mapped(objects, entry.files[1], opened)


def _open_rows(path: Path) -> tuple[Sections, Payload | None]:
    sections = open_sections(path, kind=SEGMENT_KIND)
    return sections, Payload(path, places=sections.places) if sections.size_bytes > MAPPED_BYTES else None
