"""Opening versions for searches: each by one thread, sharing what is open already, the past ones under a lease.

It keeps no snapshot and follows nothing: which version is wanted, and how long it stays, is decided by snapshots.py.
"""

import threading
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from contextlib import contextmanager, nullcontext
from functools import partial
from weakref import WeakValueDictionary

from ..catalog.engine import Catalog
from ..catalog.generations import GenerationInfo
from ..catalog.manifests import is_kept
from ..errors import Damaged, NotKept, NotYet, Unavailable, Unsupported
from ..objects.store import ObjectStore
from .planner import TYPICAL, Costs
from .reader_leases import ReaderLeases
from .refusals import Refusals
from .searchable import SearchableSegment
from .versions import Snapshot, open_snapshot


class Opener:
    """Opens versions of all generations for one cache. Safe between threads.

    Args:
        segments: what snapshots of this cache have opened, by the name of the first file.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        catalog: Catalog,
        objects: ObjectStore,
        *,
        leases: ReaderLeases,
        refusals: Refusals,
        segments: MutableMapping[str, SearchableSegment],
        clock: Callable[[], float],
    ) -> None:
        self.costs: Costs = TYPICAL
        self._catalog = catalog
        self._objects = objects
        self._leases = leases
        self._refusals = refusals
        self._segments = segments
        self._clock = clock
        self._lock = threading.Lock()
        self._openings: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()

    @contextmanager
    def alone(self, key: Hashable, *, what: str, deadline: float) -> Iterator[None]:
        """Let one thread open what ``key`` names; the others wait until ``deadline``. Raises NotYet."""
        with self._lock:
            opening = self._openings.setdefault(key, threading.Lock())
        if not opening.acquire(timeout=max(0.0, deadline - self._clock())):
            raise NotYet(f"{what} is still being opened; try again in a moment")
        try:
            yield
        finally:
            opening.release()

    def open(self, generation: GenerationInfo, *, former: Snapshot | None) -> Snapshot:
        """Open the version that the generation points to, with what ``former`` and others have open of it already.

        Raises:
            Damaged, Unsupported: it cannot be served.
            NotKept: it ended before its files were downloaded.
        """
        return open_snapshot(
            self._objects,
            generation,
            former=former,
            opened=self._segments,
            costs=self.costs,
            leased=partial(self._leases.using, (generation.id, generation.version), opening=True),
        )

    def open_past(self, generation: GenerationInfo, *, newest: Snapshot | None) -> Snapshot:
        """Open a past version, which shares what it can with the newest one.

        Raises:
            NotKept: the version went since it was looked up.
            Damaged, Unsupported: it cannot be served.
            Unavailable: the object store could not be read.
        """
        if (refused := self._refusals.standing(generation, past=True)) is not None:
            raise refused
        leased = self._leases.using((generation.id, generation.version), opening=True)
        try:
            with nullcontext() if generation.manifest is None else leased:  # what was before the first has no files
                snapshot = self.open(generation, former=newest)
        except (Damaged, Unsupported) as error:
            if is_kept(self._catalog, generation.id, generation.version):
                self._refusals.add(generation, error, past=True)
                raise
            raise NotKept(
                f"version {generation.version} is not kept any more: list the versions, and choose another"
            ) from error
        except OSError as error:
            raise Unavailable(f"generation {generation.id} could not be read: {error}. Try again.") from error
        self._refusals.forget(generation.id, generation.version)
        return snapshot
