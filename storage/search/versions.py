"""Opened versions: a snapshot is one version of a generation, used by a search from its first segment to its last.

A snapshot is immutable. It is closed when it was retired and the last search that holds it has ended. It never asks
the catalog anything: which version is current is the business of snapshots.py.
"""

import math
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import kernels
from ..catalog.generations import GenerationInfo
from ..errors import Damaged
from ..ids import ManifestVersion, SegmentId
from ..objects.store import ObjectStore
from ..segments.checks import open_sampled
from ..segments.fields import Filter
from ..segments.manifests import Manifest, SegmentEntry, read_manifest, segments_of
from ..segments.tombstones import read_deletes
from .flats import Flats
from .found import Found
from .hits import Hit, best_hits
from .mismatches import check_kinds
from .planner import TYPICAL, Costs
from .readers import SegmentReader
from .searchable import SearchableSegment

LEASED_BYTES = 64 << 20  # a download of more may take longer than a version is kept


@dataclass(frozen=True)
class SegmentPlan:
    """How one segment was searched; for people."""

    segment: SegmentId
    kind: str
    rows: int
    accepted: int
    method: str
    visits: int


class Snapshot:
    """Version ``version`` of a generation, 0 when nothing was published yet. Safe between threads."""

    def __init__(
        self, generation: GenerationInfo, *, manifest: Manifest | None, readers: Mapping[SegmentId, SegmentReader]
    ) -> None:
        self.generation = generation
        self.tenant_id = generation.tenant_id
        self.generation_id = generation.id
        self.version = generation.version if manifest else ManifestVersion(0)
        self.dimensions = generation.dimensions
        self.metric = generation.metric
        self.manifest = manifest
        self.manifest_name = generation.manifest
        self.files = {file.name: file.size_bytes for entry in segments_of(manifest) for file in entry.all_files}
        self.readers = readers
        self._flats = Flats(readers.values(), l2=self.metric == "l2")
        self._largest = max(readers, key=lambda segment: readers[segment].entry.live_count, default=None)
        self._lock = threading.Lock()
        self._holders = 0
        self._retired = False

    @property
    def chunk_count(self) -> int:
        """Live chunks, those that expired and were not yet removed included."""
        return self.manifest.live_chunks if self.manifest else 0

    @property
    def document_count(self) -> int:
        """Documents with a live chunk. Computed once per segment."""
        return sum(reader.document_count for reader in self.readers.values())

    @property
    def closed(self) -> bool:
        return self._retired and not self._holders

    def search(
        self,
        vector: ArrayLike,
        *,
        k: int,
        filter: Filter | None = None,  # noqa: A002  (the word of the grammar)
        ef: int = 64,
        now: float,
    ) -> list[Hit]:
        """Return the ``k`` best hits, all there are when fewer are accepted; equal scores in the order of chunk ids.

        Args:
            vector: f32[dimensions], finite; scaled to unit length where the metric is cosine.
            k: at least 1.
            ef: how wide graphs are walked; raised to ``k`` where it is less.
            now: seconds since 1970; what expired by then is not found.

        Raises:
            ValueError: the vector has another length, is not finite, or is zero under cosine.
            FilterMismatch: the filter compares a field with a kind of value that no document holds there.
            Damaged: a mapped file is not what it was when it was opened.
        """
        return _hits(self._found(vector, k=k, filter=filter, ef=ef, now=now), k=k)

    def explained(
        self,
        vector: ArrayLike,
        *,
        k: int,
        filter: Filter | None = None,  # noqa: A002
        ef: int = 64,
        now: float,
    ) -> tuple[list[Hit], list[SegmentPlan]]:
        """Search, and also say how each segment was searched."""
        found = self._found(vector, k=k, filter=filter, ef=ef, now=now)
        return _hits(found, k=k), [_plan(reader.segment.entry, each) for reader, each in found]

    def _found(
        self,
        vector: ArrayLike,
        *,
        k: int,
        filter: Filter | None,  # noqa: A002
        ef: int,
        now: float,
    ) -> list[tuple[SegmentReader, Found]]:
        query, ef = self._query(vector), max(ef, k)
        readers, flats = self.readers, self._flats  # before the question: who does not hold it may see it closed
        if self.closed:
            raise ValueError(f"snapshot {self.version} of {self.generation_id} is closed")
        if filter is not None:
            check_kinds(filter, readers.values())
        together = flats.among(now=now) if filter is None else ()
        found = {
            segment: reader.search(query, k=k, ef=ef, filter=filter, now=now, read=k if segment == self._largest else 0)
            for segment, reader in readers.items()
            if segment not in together
        }
        if together:
            full = [each.scores[k - 1] for each in found.values() if len(each.scores) >= k]
            found |= flats.search(query, k=k, least=max(full, default=-np.inf))
        return [(reader, found[segment]) for segment, reader in readers.items()]

    def exactly(self, vector: ArrayLike, *, k: int, now: float) -> list[Hit]:
        """Return the ``k`` best hits by a scan of every live row: what `search` is measured by."""
        query = self._query(vector)
        return _hits([(reader, reader.exactly(query, k=k, now=now)) for reader in self.readers.values()], k=k)

    def warm(self, *, former: "Snapshot") -> None:
        """Prepare the segments that ``former`` has not: it serves meanwhile."""
        known = {id(reader.shared) for reader in former.readers.values()}
        for reader in self.readers.values():
            if id(reader.shared) not in known:
                reader.shared.warm()

    def hold(self) -> bool:
        """Keep the snapshot open until `release`; False when it is closed already."""
        with self._lock:
            if self.closed:
                return False
            self._holders += 1
            return True

    def release(self) -> None:
        """Undo one `hold`."""
        with self._lock:
            self._holders -= 1
            self._close_if_unused()

    def retire(self) -> None:
        """Close the snapshot as soon as nobody holds it."""
        with self._lock:
            self._retired = True
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self.closed:
            # The maps go with the last array that shows them; a newer version may share some.
            self.readers, self._flats = {}, Flats((), l2=False)

    def _query(self, vector: ArrayLike) -> NDArray[np.float32]:
        query = np.array(vector, np.float32)  # a copy: the kernels were compiled for arrays that nobody writes
        if query.shape != (self.dimensions,):
            raise ValueError(f"the vector has shape {query.shape}, the generation has {self.dimensions} dimensions")
        squares = kernels.sum_squares(query)
        if not math.isfinite(squares):
            raise ValueError("the vector has a component that is not finite")
        if self.metric == "cosine":
            if squares == 0:
                raise ValueError("the vector is zero, which has no direction")
            query /= math.sqrt(squares)
        query.flags.writeable = False
        return query


def open_snapshot(
    objects: ObjectStore,
    generation: GenerationInfo,
    *,
    former: Snapshot | None = None,
    opened: MutableMapping[str, SearchableSegment] | None = None,
    costs: Costs = TYPICAL,
    leased: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Snapshot:
    """Open the version that the generation points to; segments that ``former`` has opened are shared with it.

    ``opened`` holds segments that other snapshots have opened, by the name of their first file. They are shared too,
    and those opened here are added.

    ``leased`` keeps the version for the time of its block; it is asked for when much has to be downloaded.

    Sizes and structure of every file are checked, the whole content of small ones and of all tombstones, and a few
    blocks of large ones, drawn at random. A file that has to be downloaded is compared with its checksum once.

    Raises:
        Damaged: naming the file that is missing or not what was written.
        Unsupported: written by a newer program.
    """
    if generation.manifest is None:
        return Snapshot(generation, manifest=None, readers={})
    manifest = read_manifest(objects, generation.manifest)
    stated = (manifest.tenant_id, manifest.generation_id, manifest.version, manifest.dimensions, manifest.metric)
    wanted = (generation.tenant_id, generation.id, generation.version, generation.dimensions, generation.metric)
    if stated != wanted:
        raise Damaged(f"manifest {generation.manifest} is not that of version {generation.version} of {generation.id}")
    known = former.readers if former else {}
    shared = {} if opened is None else opened
    with leased() if _download_bytes(objects, manifest) > LEASED_BYTES else nullcontext():
        readers = {
            entry.id: _open_reader(
                objects, entry, manifest=manifest, former=known.get(entry.id), opened=shared, costs=costs
            )
            for entry in manifest.segments
        }
    return Snapshot(generation, manifest=manifest, readers=readers)


def _download_bytes(objects: ObjectStore, manifest: Manifest) -> int:
    files = [file for entry in manifest.segments for file in entry.all_files]
    return sum(file.size_bytes for file in files if not objects.is_local(file.name))


def _open_reader(
    objects: ObjectStore,
    entry: SegmentEntry,
    *,
    manifest: Manifest,
    former: SegmentReader | None,
    opened: MutableMapping[str, SearchableSegment],
    costs: Costs,
) -> SegmentReader:
    if former is not None and former.entry == entry:
        return former
    shared = former.shared if former is not None else opened.get(entry.files[0].name)
    if shared is None or shared.segment.entry.files != entry.files:
        segment = open_sampled(objects, entry, dimensions=manifest.dimensions)
        shared = opened[entry.files[0].name] = SearchableSegment(segment, costs=costs)
    return SegmentReader(shared, entry, deleted=read_deletes(objects, entry), l2=manifest.metric == "l2")


def _hits(found: Sequence[tuple[SegmentReader, Found]], *, k: int) -> list[Hit]:
    return best_hits([(reader.segment, each) for reader, each in found if len(each.rows)], k=k)


def _plan(entry: SegmentEntry, found: Found) -> SegmentPlan:
    return SegmentPlan(entry.id, entry.kind, entry.row_count, found.accepted, found.method, found.visits)
