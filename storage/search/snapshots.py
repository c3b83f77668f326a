"""The reader's cache of snapshots: it follows the catalog from version to version while searches go on.

A new version is opened and checked beside the one in use, then one reference is swapped; one that is damaged is
refused and the former serves on. A version is learnt from a notification or, when that is lost, by polling. Past
versions are opened when they are asked for, and share with the newest one what they have in common. Nothing here
writes anything, and no search waits for the opening of a version that it did not ask for.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakValueDictionary

from ..catalog.collections import GenerationInfo, generation_info, pointers
from ..catalog.engine import Catalog
from ..catalog.manifests import is_kept
from ..errors import Damaged, NotFound, NotKept, NotYet, StorageError, Unavailable, Unsupported
from ..ids import GenerationId, ManifestVersion, TenantId
from ..objects.store import ObjectStore
from .hits import Hit
from .planner import TYPICAL, prepare
from .reader_leases import ReaderLeases
from .refusals import Refusals
from .shelf import Shelf
from .versions import SegmentPlan, Snapshot, open_snapshot

__all__ = ["Hit", "SegmentPlan", "Snapshot", "SnapshotCache", "SnapshotCounts", "open_snapshot"]

log = logging.getLogger(__name__)

Pointer = tuple[str | None, ManifestVersion]  # manifest and version of a generation
SWITCH_S = 0.0005
LOOK_AGAIN_S = 0.05  # a search that waits for its version looks for itself: a notification may be lost
MOVED_TIMES = 5  # a version whose files went while it was opened was replaced and collected meanwhile


@dataclass(frozen=True)
class SnapshotCounts:
    """What the cache holds now, and what it did since it was made."""

    open: int
    size_bytes: int
    opened: int
    refused: int
    evicted: int


class SnapshotCache:
    """Opened snapshots by generation and version, the least used closed above ``capacity_bytes`` or ``capacity_files``.

    Safe between threads. A daemon thread that looks for new versions is started by the first `get`.

    Args:
        poll_s: how often the versions of all cached generations are looked up, in one query.
        capacity_bytes: sum of the file sizes of the snapshots kept; those that searches hold live on until released.
        capacity_files: how many files they may use; each costs the process a descriptor or two.
        leases: of this process, closed with the cache; by default its own.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        catalog: Catalog,
        objects: ObjectStore,
        *,
        poll_s: float = 1.0,
        capacity_bytes: int = 4 << 30,
        capacity_files: int = sys.maxsize,
        leases: ReaderLeases | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._objects = objects
        self._leases = leases or ReaderLeases(catalog)
        self._poll_s = poll_s
        self._clock = clock
        self._shelf = Shelf(capacity_bytes=capacity_bytes, capacity_files=capacity_files)
        self._refusals = Refusals(clock=clock)
        self._changed = threading.Condition()  # guards everything here
        self._opening: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()
        self._due: set[GenerationId] = set()
        self._opened = 0
        self._poller: threading.Thread | None = None
        self._closed = False
        self._costs = TYPICAL

    def prepare(self) -> None:
        """Compile what a search runs, and measure what it costs on this machine: before the first search.

        For the whole process: threads take turns more often, so that no search waits 5 ms for one that opens a version.
        """
        sys.setswitchinterval(SWITCH_S)
        self._costs = prepare()

    @contextmanager
    def get(
        self, tenant: TenantId, generation_id: GenerationId, *, min_version: int = 0, timeout_s: float = 5.0
    ) -> Iterator[Snapshot]:
        """Give the newest snapshot that serves, for the time of the block; an empty one if nothing was published.

        A version that is in use is given at once, without a look at the catalog; waiting is only for ``min_version``.

        Raises:
            NotFound: the tenant has no such generation.
            NotYet: no version from ``min_version`` on could be served within ``timeout_s``.
            Damaged, Unsupported: the current version was refused, and there is no former one in use.
            Unavailable: the catalog or the object store did not answer.
        """
        snapshot = self._held(tenant, generation_id, min_version=min_version, timeout_s=timeout_s)
        try:
            yield snapshot
        finally:
            snapshot.release()

    @contextmanager
    def get_past(self, generation: GenerationInfo, *, timeout_s: float = 5.0) -> Iterator[Snapshot]:
        """Give the version that ``generation`` names, for the time of the block; without a manifest, an empty one.

        The caller vouches for the tenant, and that the version is kept.

        Raises:
            NotKept: the version went since it was looked up.
            NotYet: somebody else opens it, and was not ready within ``timeout_s``.
            Damaged, Unsupported: it cannot be served.
            Unavailable: the catalog or the object store did not answer.
        """
        deadline = self._clock() + timeout_s
        with self._leases.using((generation.id, generation.version)) if generation.manifest else nullcontext():
            snapshot = self._held_past(generation, deadline=deadline)
            try:
                yield snapshot
            finally:
                snapshot.release()

    def refresh(self, generation_id: GenerationId) -> None:
        """Look soon for a new version, if the generation is in use here; returns at once."""
        with self._changed:
            if generation_id in self._shelf.followed:
                self._due.add(generation_id)
                self._changed.notify_all()

    def counts(self) -> SnapshotCounts:
        with self._changed:
            shelf = self._shelf
            return SnapshotCounts(len(shelf), shelf.size_bytes, self._opened, self._refusals.count, shelf.evicted)

    def close(self) -> None:
        """Stop looking for new versions and close every snapshot as soon as its last search ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._shelf.clear()
        if self._poller is not None:
            self._poller.join()
        self._leases.close()

    def _held(self, tenant: TenantId, generation_id: GenerationId, *, min_version: int, timeout_s: float) -> Snapshot:
        deadline = self._clock() + timeout_s
        while True:
            snapshot = self._cached(generation_id)
            if snapshot is None or snapshot.version < min_version:
                snapshot = self._follow(generation_id, tenant=tenant, deadline=deadline)
            if snapshot.tenant_id != tenant:
                raise _not_found(generation_id)
            if snapshot.version >= min_version:
                if snapshot.hold():
                    return snapshot
                continue  # it was replaced and closed between the two lines
            self._wait(snapshot, min_version=min_version, remaining_s=deadline - self._clock())

    def _wait(self, snapshot: Snapshot, *, min_version: int, remaining_s: float) -> None:
        if remaining_s > 0:
            with self._changed:
                self._changed.wait(min(remaining_s, LOOK_AGAIN_S))
            return
        refused = self._refusals.last(snapshot.generation_id)
        because = f": {refused}" if refused else "; try again in a moment"
        raise NotYet(f"version {min_version} is not served yet, version {snapshot.version} is{because}")

    def _cached(self, generation_id: GenerationId) -> Snapshot | None:
        with self._changed:
            self._start()
            return self._shelf.use(generation_id)

    def _held_past(self, generation: GenerationInfo, *, deadline: float) -> Snapshot:
        key, what = (generation.id, generation.version), f"version {generation.version} of {generation.id}"
        while True:
            if (found := self._hold_past(generation)) is not None:
                return found
            with self._exclusively(key, what=what, deadline=deadline):
                if (found := self._hold_past(generation)) is None:
                    return self._open_past(generation)
                found.release()  # somebody else opened it meanwhile

    def _hold_past(self, generation: GenerationInfo) -> Snapshot | None:
        with self._changed:
            self._start()
            found = self._shelf.use(generation.id, generation.version)
        return found if found is not None and found.manifest_name == generation.manifest and found.hold() else None

    def _open_past(self, generation: GenerationInfo) -> Snapshot:
        with self._changed:
            newest = self._shelf.newest(generation.id)
        try:
            leased = self._leases.using((generation.id, generation.version), opening=True)
            with nullcontext() if generation.manifest is None else leased:  # what was before the first has no files
                snapshot = self._open(generation, former=newest)
        except (Damaged, Unsupported) as error:
            if is_kept(self._catalog, generation.id, generation.version):
                raise
            raise NotKept(
                f"version {generation.version} is not kept any more: list the versions, and choose another"
            ) from error
        except OSError as error:
            raise Unavailable(f"generation {generation.id} could not be read: {error}. Try again.") from error
        with self._changed:
            self._start()
            snapshot.hold()
            self._shelf.put_past(snapshot)
            self._opened += 1
        return snapshot

    @contextmanager
    def _exclusively(self, key: Hashable, *, what: str, deadline: float) -> Iterator[None]:
        """Let one thread open a generation, or one of its past versions; the others wait until ``deadline``."""
        with self._changed:
            opening = self._opening.setdefault(key, threading.Lock())
        if not opening.acquire(timeout=max(0.0, deadline - self._clock())):
            raise NotYet(f"{what} is still being opened; try again in a moment")
        try:
            yield
        finally:
            opening.release()

    def _follow(
        self, generation_id: GenerationId, *, tenant: TenantId | None, deadline: float, seen: Pointer | None = None
    ) -> Snapshot:
        """Bring one generation to the version that the catalog points to, and return what serves now.

        ``seen``: where it pointed a moment ago.
        """
        with self._exclusively(generation_id, what=f"generation {generation_id}", deadline=deadline):
            for _ in range(MOVED_TIMES):
                with suppress(_Moved):
                    return self._advance(generation_id, tenant=tenant, seen=seen)
                seen = None
        raise Unavailable(f"generation {generation_id} changes faster than it can be opened; try again")

    def _advance(self, generation_id: GenerationId, *, tenant: TenantId | None, seen: Pointer | None) -> Snapshot:
        former = self._cached(generation_id)
        if former is not None and seen is not None and seen[1] > former.version:
            generation = replace(former.generation, manifest=seen[0], version=seen[1])  # all else stays for its life
        else:
            generation = self._generation(generation_id)
        if tenant not in {None, generation.tenant_id}:
            raise _not_found(generation_id)
        if former is not None and former.manifest_name == generation.manifest:
            return former
        refused = self._refusals.standing(generation)
        if refused is None:
            try:
                snapshot = self._open(generation, former=former)
                if former is not None:  # or a search waits for it
                    snapshot.warm(former=former)
                return self._swap(snapshot)
            except NotKept as error:
                raise _Moved from error
            except (Damaged, Unsupported) as error:
                refused = self._refuse(generation, error, former=former)
            except OSError as error:
                raise Unavailable(f"generation {generation_id} could not be read: {error}. Try again.") from error
        if former is None:
            raise refused
        return former

    def _generation(self, generation_id: GenerationId) -> GenerationInfo:
        try:
            return generation_info(self._catalog, generation_id)
        except NotFound:
            self._forget(generation_id)
            raise

    def _open(self, generation: GenerationInfo, *, former: Snapshot | None) -> Snapshot:
        leased = partial(self._leases.using, (generation.id, generation.version), opening=True)
        return open_snapshot(
            self._objects, generation, former=former, opened=self._shelf.segments, costs=self._costs, leased=leased
        )

    def _swap(self, snapshot: Snapshot) -> Snapshot:
        with self._changed:
            if self._closed:
                snapshot.retire()
                raise Unavailable("this process is closing its snapshots; ask another")
            self._shelf.put_newest(snapshot)
            self._refusals.forget(snapshot.generation_id)
            self._opened += 1
            self._changed.notify_all()
        return snapshot

    def _refuse(self, generation: GenerationInfo, error: StorageError, *, former: Snapshot | None) -> StorageError:
        if generation_info(self._catalog, generation.id).manifest != generation.manifest:
            raise _Moved
        self._refusals.add(generation, error, former=None if former is None else former.version)
        return error

    def _forget(self, generation_id: GenerationId) -> None:
        self._refusals.forget(generation_id)
        with self._changed:
            self._shelf.forget(generation_id)

    def _start(self) -> None:
        if self._closed:
            raise Unavailable("this process is closing its snapshots; ask another")
        if self._poller is None:
            self._poller = threading.Thread(target=self._run, name="snapshots", daemon=True)
            self._poller.start()

    def _run(self) -> None:
        poll_at = self._clock() + self._poll_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._closed, timeout=max(0.0, poll_at - self._clock()))
                if self._closed:
                    return
                due, self._due = self._due, set()
                if self._clock() >= poll_at:
                    due, poll_at = self._shelf.followed, self._clock() + self._poll_s
            self._look(due)

    def _look(self, generation_ids: Iterable[GenerationId]) -> None:
        try:
            found = pointers(self._catalog, generation_ids)
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever the catalog does
            log.warning(
                "The catalog was not read for new versions: %s", error, extra={"action": "snapshots_not_polled"}
            )
            return
        for generation_id in generation_ids:
            with self._changed:
                snapshot = self._shelf.newest(generation_id)
            seen = found.get(generation_id)
            if snapshot is None or (seen is not None and seen[0] == snapshot.manifest_name):
                continue
            try:
                self._follow(generation_id, tenant=None, deadline=self._clock(), seen=seen)
            except (NotFound, NotYet):
                pass  # deleted, and forgotten by now; or a search is opening it already
            except Exception as error:  # noqa: BLE001  one generation must not keep the others from their versions
                log.warning(
                    "%s stays at its version: %s", generation_id, error, extra={"action": "snapshot_not_opened"}
                )


class _Moved(Exception):
    """Raised when the pointer changed while its old target was opened: look again."""


def _not_found(generation_id: GenerationId) -> NotFound:
    return NotFound(f"there is no generation {generation_id!r}")
