"""Segments compared with their checksums: some of it before they are served, all of it before they are trusted."""

import mmap
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged
from ..objects.mapped_files import open_to_map
from ..objects.store import ObjectStore
from .blocks import blocks_match
from .files import local_file, mending, missing, verify_file
from .graph_files import check_links
from .manifests import SegmentEntry
from .sections import Sections
from .segment import OpenSegment, open_segment
from .tombstones import read_deletes

VERIFIED_BYTES = 4 << 20  # a file up to this size is compared with all its checksums when it is opened to be served
_SAMPLED_BLOCKS = 1  # of each section
_SAMPLED_GRAPH_BLOCKS = 4


def sample_segment(objects: ObjectStore, entry: SegmentEntry, segment: OpenSegment) -> None:
    """Compare a small segment with its checksums, of a large one a few blocks of each file: a few milliseconds' work.

    Raises:
        Damaged: naming the file and the part of it that is not what was written.
    """
    if segment.sections.size_bytes <= VERIFIED_BYTES:
        segment.sections.verify()
    else:
        segment.sections.verify_sample(_SAMPLED_BLOCKS)
    if segment.graph is not None:
        digests, path = _graph_blocks(segment.sections), local_file(objects, entry.files[1])
        with (
            open_to_map(path) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as data,
        ):
            intact = blocks_match(data, digests, sample=_SAMPLED_GRAPH_BLOCKS)
        if not intact:
            raise Damaged(f"{path.name} does not match the checksums of its blocks; restore or rebuild the segment")


@mending
def open_sampled(objects: ObjectStore, entry: SegmentEntry, *, dimensions: int) -> OpenSegment:
    """Open a segment to be served. Raises as ``open_segment`` and ``sample_segment``."""
    segment = open_segment(objects, entry, dimensions=dimensions)
    sample_segment(objects, entry, segment)
    return segment


def check_served(objects: ObjectStore, entries: Iterable[SegmentEntry], *, dimensions: int) -> None:
    """Check that readers will serve these segments: those that lie here as they check them, of others that they exist.

    What is elsewhere is compared with its checksum by who downloads it.

    Raises:
        Damaged: naming a file that is missing or not what was written.
    """
    for entry in entries:
        files = {file.name: file for file in entry.all_files}
        if all(map(objects.is_local, files)):
            open_sampled(objects, entry, dimensions=dimensions)
            read_deletes(objects, entry)
        elif gone := objects.missing(files):
            raise missing(files[gone[0]])


def _graph_blocks(sections: Sections) -> NDArray[np.uint8]:
    blocks = sections.arrays.get("graph_blocks")
    if blocks is None:
        raise Damaged(f"{sections.source} has no checksums of its graph's blocks; rebuild the segment")
    return blocks


@mending
def verify_segment(objects: ObjectStore, entry: SegmentEntry, *, dimensions: int) -> None:
    """Read every file of a segment and compare it with the manifest's checksums; check the links of a graph.

    Raises:
        Damaged: naming the first file that is not what was written.
    """
    for file in entry.all_files:
        verify_file(objects, file)
    segment = open_segment(objects, entry, dimensions=dimensions)
    segment.sections.verify()
    read_deletes(objects, entry)
    if segment.graph is not None:
        check_links(segment.graph, source=entry.files[1].name)
