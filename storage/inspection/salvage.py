"""The best that can be served of a generation some of whose files are damaged: intact segments, of whatever version.

Chunk ids order everything: segments of different versions whose ranges do not overlap may stand in one version. What
is deleted or replaced since is live again in older segments; the ledger says afterwards what may stay.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..objects.store import ObjectStore
from ..segments.manifests import Manifest, SegmentEntry
from ..segments.segment import write_segment
from .checksums import CheckedFiles
from .examined import ExaminedGeneration
from .remains import Remains, read_remains


@dataclass(frozen=True)
class Salvaged:
    """Segments in the order of their chunk ids.

    ``restored``: of past versions; ``rewritten``: from intact parts; ``torn``: the same, without rows that are lost.
    """

    segments: Sequence[SegmentEntry]
    restored: int
    rewritten: int
    torn: int


def salvage(objects: ObjectStore, checked: CheckedFiles, found: ExaminedGeneration) -> Salvaged:
    """Return the segments to serve from now on. What it rewrites is written under new names, and nobody's yet.

    Past versions come before rows of which some are lost: they may have all of them.
    """
    chosen: list[SegmentEntry] = []
    torn: list[Remains] = []
    rewritten, restored = 0, 0
    current = found.current
    for entry in current.segments if current else ():
        if not found.is_broken(entry):
            chosen.append(entry)
        elif current is not None and (left := read_remains(objects, checked, entry, dimensions=current.dimensions)):
            if left.whole:
                chosen.append(_written(objects, left, manifest=current))
                rewritten += 1
            else:
                torn.append(left)
    for manifest in found.manifests.values():  # the newest first
        for entry in manifest.segments:
            if not found.is_broken(entry) and not any(entry.overlaps(other) for other in chosen):
                chosen.append(entry)
                restored += 1
    parts = list(_parts(torn, chosen))
    chosen += [_written(objects, part, manifest=current) for part in parts if current is not None]
    segments = sorted(chosen, key=lambda entry: entry.first_chunk_id)
    return Salvaged(segments, restored, rewritten, len(parts))


def _parts(torn: Sequence[Remains], chosen: Sequence[SegmentEntry]) -> Iterator[Remains]:
    for left in torn:
        yield from left.beside(chosen)


def _written(objects: ObjectStore, left: Remains, *, manifest: Manifest) -> SegmentEntry:
    """Write rows as a flat segment.

    Whatever is computed from the rows is made anew: the field index, codes, a graph (by the next merge).
    """
    return write_segment(
        objects,
        tenant=manifest.tenant_id,
        generation_id=manifest.generation_id,
        rows=left.rows,
        chunk_ids=left.chunk_ids,
        vectors=left.vectors,
    )
