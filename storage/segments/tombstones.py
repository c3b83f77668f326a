"""Tombstones: which rows of a segment a version no longer has. No part of the segment, which serves every version."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .. import paths
from ..errors import Damaged
from ..ids import GenerationId, TenantId, new_id
from ..objects.store import ObjectStore
from .files import column, descends, mending, open_container
from .manifests import SegmentEntry, file_entry
from .sections import write_sections

DELETES_KIND = "deletes"


def with_deletes(
    objects: ObjectStore,
    entry: SegmentEntry,
    *,
    tenant: TenantId,
    generation_id: GenerationId,
    rows: NDArray[np.uint32],
) -> SegmentEntry:
    """Write the tombstones of a segment as a new file and return the entry that names it.

    Args:
        rows: u32[k], ascending positions in the segment: all that are deleted, former ones included.
    """
    arrays = {"rows": rows.astype("<u4", copy=False)}
    parts = write_sections(DELETES_KIND, meta={"segment_id": entry.id}, arrays=arrays)
    file = file_entry(paths.deletes(tenant, generation_id, new_id("del")), parts)
    objects.put(file.name, parts)
    return replace(entry, deletes=file, deleted_count=len(rows))


@mending
def read_deletes(objects: ObjectStore, entry: SegmentEntry) -> NDArray[np.uint32]:
    """Return the ascending tombstoned rows u32[deleted_count] of a segment, empty when it has none.

    Raises:
        Damaged: missing, altered, or not of this segment.
    """
    if entry.deletes is None:
        return np.empty(0, "<u4")
    sections = open_container(objects, entry.deletes, kind=DELETES_KIND)
    sections.verify()  # small, and a wrong bit hides a chunk or shows a deleted one
    rows = column(sections, "rows", "<u4", count=entry.deleted_count)
    if sections.meta.get("segment_id") != entry.id or descends(rows) or rows[-1] >= entry.row_count:
        raise Damaged(f"{sections.source} does not hold the tombstones of segment {entry.id}")
    return rows
