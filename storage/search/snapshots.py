"""The reader's cache of snapshots: it follows the catalog from version to version while searches go on.

A new version is opened and checked beside the one in use, then one reference is swapped; one that is damaged is
refused and the former serves on. A version is learnt from a notification or, when that is lost, by polling. Past
versions are opened when they are asked for, and share with the newest one what they have in common. A version of which
a search finds a file damaged is opened again behind the searches, for the file may have been restored. Nothing here
writes anything, and no search waits for the opening of a version that it did not ask for.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from ..catalog.engine import Catalog
from ..catalog.generations import GenerationInfo
from ..errors import Damaged, NotYet
from ..ids import GenerationId, TenantId
from ..objects.store import ObjectStore
from .following import Follower, not_found
from .hits import Hit
from .opening import Opener
from .planner import prepare
from .reader_leases import ReaderLeases
from .refusals import Refusals
from .shelf import Shelf
from .versions import SegmentPlan, Snapshot, open_snapshot
from .watch import VersionWatch

__all__ = ["Hit", "SegmentPlan", "Snapshot", "SnapshotCache", "SnapshotCounts", "open_snapshot"]

SWITCH_S = (
    0.0001  # two searching threads wait for each other as long as that, and a search for one that opens a version
)
LOOK_AGAIN_S = 0.05  # a search that waits for its version looks for itself: a notification may be lost


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
        on_refused: called for each version that is refused, and for each of which a search finds a file damaged.
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
        on_refused: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = leases or ReaderLeases(catalog)
        self._clock = clock
        self._shelf = shelf = Shelf(capacity_bytes=capacity_bytes, capacity_files=capacity_files)
        self._refusals = refusals = Refusals(clock=clock, on_refused=on_refused)
        self._changed = changed = threading.Condition()  # guards the shelf
        self._opener = opener = Opener(
            catalog, objects, leases=self._leases, refusals=refusals, segments=shelf.segments, clock=clock
        )
        self._follower = Follower(catalog, shelf=shelf, changed=changed, opener=opener, refusals=refusals, clock=clock)
        self._watch = VersionWatch(look=self._follower.look, followed=self._followed, poll_s=poll_s, clock=clock)

    def prepare(self) -> None:
        """Compile what a search runs, and measure what it costs on this machine: before the first search.

        For the whole process: threads take turns more often, so that no search waits 5 ms for one that opens a version.
        """
        sys.setswitchinterval(SWITCH_S)
        self._opener.costs = prepare()

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
        with self._released(self._held(tenant, generation_id, min_version=min_version, timeout_s=timeout_s)) as held:
            yield held

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
        with (
            self._leases.using((generation.id, generation.version)) if generation.manifest else nullcontext(),
            self._released(self._held_past(generation, deadline=deadline)) as held,
        ):
            yield held

    def refresh(self, generation_id: GenerationId) -> None:
        """Look soon for a new version, if the generation is in use here; returns at once."""
        with self._changed:
            followed = self._shelf.newest(generation_id) is not None
        if followed:
            self._watch.tell(generation_id)

    def counts(self) -> SnapshotCounts:
        with self._changed:
            shelf = self._shelf
            return SnapshotCounts(len(shelf), shelf.size_bytes, shelf.opened, self._refusals.count, shelf.evicted)

    def close(self) -> None:
        """Stop looking for new versions and close every snapshot as soon as its last search ends."""
        with self._changed:
            self._shelf.close()
            self._changed.notify_all()
        self._watch.close()
        self._leases.close()

    def _held(self, tenant: TenantId, generation_id: GenerationId, *, min_version: int, timeout_s: float) -> Snapshot:
        deadline = self._clock() + timeout_s
        while True:
            snapshot = self._cached(generation_id)
            if snapshot is None or snapshot.version < min_version:
                snapshot = self._follower.follow(generation_id, tenant=tenant, deadline=deadline)
            if snapshot.tenant_id != tenant:
                raise not_found(generation_id)
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
            found = self._shelf.use(generation_id)
        self._watch.start()
        return found

    def _held_past(self, generation: GenerationInfo, *, deadline: float) -> Snapshot:
        key, what = (generation.id, generation.version), f"version {generation.version} of {generation.id}"
        while True:
            if (found := self._hold_past(generation)) is not None:
                return found
            with self._opener.alone(key, what=what, deadline=deadline):
                if (found := self._hold_past(generation)) is None:
                    return self._open_past(generation)
                found.release()  # somebody else opened it meanwhile

    def _hold_past(self, generation: GenerationInfo) -> Snapshot | None:
        with self._changed:
            found = self._shelf.use(generation.id, generation.version)
        return found if found is not None and found.manifest_name == generation.manifest and found.hold() else None

    def _open_past(self, generation: GenerationInfo) -> Snapshot:
        with self._changed:
            newest = self._shelf.newest(generation.id)
        snapshot = self._opener.open_past(generation, newest=newest)
        with self._changed:
            snapshot.hold()
            self._shelf.put_past(snapshot)
        return snapshot

    @contextmanager
    def _released(self, held: Snapshot) -> Iterator[Snapshot]:
        """Give the snapshot up at the end of the block. Damage that is met in the block is told, and gone into."""
        try:
            yield held
        except Damaged as error:
            if self._refusals.found(held.generation, error):
                self._open_again(held)
            raise
        finally:
            held.release()

    def _open_again(self, snapshot: Snapshot) -> None:
        """Have what shares files with a version opened anew, for one is damaged; a past one when it is asked for."""
        with self._changed:
            newest = self._shelf.newest(snapshot.generation_id)
            self._shelf.distrust(snapshot)
        if newest is not None and newest.files.keys() & snapshot.files.keys():
            self._follower.distrust(snapshot.generation_id)
            self._watch.tell(snapshot.generation_id)

    def _followed(self) -> set[GenerationId]:
        with self._changed:
            return self._shelf.followed
