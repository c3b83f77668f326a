"""Opened snapshots by generation and version, as many as fit into a number of bytes and of files. It opens nothing.

Two kinds stand here: of each generation the newest one that serves, and past versions that somebody searched. A past
version never displaces a newest one, and a file that several snapshots share counts once.
"""

import sys
from collections import Counter, OrderedDict
from collections.abc import MutableMapping
from weakref import WeakValueDictionary

from ..errors import Unavailable
from ..ids import GenerationId, ManifestVersion
from .searchable import SearchableSegment
from .versions import Snapshot

_Key = tuple[GenerationId, ManifestVersion]


class Shelf:
    """Not safe between threads: whoever uses it holds a lock. What is taken off closes when its last search ends.

    Raises Unavailable whatever it is asked for when it was closed.
    """

    def __init__(self, *, capacity_bytes: int, capacity_files: int = sys.maxsize) -> None:
        self.segments: MutableMapping[str, SearchableSegment] = WeakValueDictionary()  # in use somewhere, by file
        self.size_bytes = 0
        self.opened = 0
        self.evicted = 0
        self.closed = False
        self._capacity_bytes = capacity_bytes
        self._capacity_files = capacity_files
        self._snapshots: OrderedDict[_Key, Snapshot] = OrderedDict()  # least recently used first
        self._newest: dict[GenerationId, ManifestVersion] = {}
        self._past: OrderedDict[_Key, None] = OrderedDict()  # those that are not the newest, in the same order
        self._users: Counter[str] = Counter()  # snapshots per file

    def __len__(self) -> int:
        return len(self._snapshots)

    @property
    def followed(self) -> set[GenerationId]:
        """The generations of which a newest snapshot is here."""
        return set(self._newest)

    def newest(self, generation_id: GenerationId) -> Snapshot | None:
        """Return the newest snapshot of a generation."""
        version = self._newest.get(generation_id)
        return None if version is None else self._snapshots[generation_id, version]

    def use(self, generation_id: GenerationId, version: ManifestVersion | None = None) -> Snapshot | None:
        """Return the snapshot of a version, by default the newest; it counts as used now."""
        self._require_open()
        wanted = self._newest.get(generation_id) if version is None else version
        if wanted is None or (generation_id, wanted) not in self._snapshots:
            return None
        self._snapshots.move_to_end((generation_id, wanted))
        if (generation_id, wanted) in self._past:
            self._past.move_to_end((generation_id, wanted))
        return self._snapshots[generation_id, wanted]

    def put_newest(self, snapshot: Snapshot) -> None:
        """Let the snapshot serve its generation, instead of the one that did."""
        self._require_open()
        former = self._newest.get(snapshot.generation_id)
        if former is not None:
            self._take(snapshot.generation_id, former)
        self._newest[snapshot.generation_id] = snapshot.version
        self._put(snapshot)

    def put_past(self, snapshot: Snapshot) -> None:
        """Keep a version beside the newest one. Hold it first: it may leave at once."""
        self._require_open()
        self._put(snapshot)

    def forget(self, generation_id: GenerationId) -> None:
        """Take all snapshots of a generation off."""
        for key in [key for key in self._snapshots if key[0] == generation_id]:
            self._take(*key)

    def distrust(self, snapshot: Snapshot) -> None:
        """Let nothing that is opened from now on share a segment with this one; a past version leaves.

        Somebody holds the snapshot.
        """
        for reader in snapshot.readers.values():
            name = reader.entry.files[0].name
            if self.segments.get(name) is reader.shared:
                del self.segments[name]
        key = (snapshot.generation_id, snapshot.version)
        is_newest = self.newest(snapshot.generation_id) is snapshot
        if self._snapshots.get(key) is snapshot and not is_newest:
            self._take(*key)

    def close(self) -> None:
        """Take all off, and from now on nothing in."""
        self.closed = True
        for key in list(self._snapshots):
            self._take(*key)

    def _require_open(self) -> None:
        if self.closed:
            raise Unavailable("this process is closing its snapshots; ask another")

    def _put(self, snapshot: Snapshot) -> None:
        self.opened += 1
        key = (snapshot.generation_id, snapshot.version)
        if key in self._snapshots:
            newest = self._newest.get(snapshot.generation_id)
            self._take(*key)
            if newest is not None:
                self._newest[snapshot.generation_id] = newest
        self._snapshots[key] = snapshot
        if self._newest.get(key[0]) != key[1]:
            self._past[key] = None
        for name, size_bytes in snapshot.files.items():
            self.size_bytes += 0 if self._users[name] else size_bytes
            self._users[name] += 1
        while self._is_overfull() and len(self._snapshots) > 1:
            self._take(*next(iter(self._past or self._snapshots)))
            self.evicted += 1

    def _is_overfull(self) -> bool:
        return self.size_bytes > self._capacity_bytes or len(self._users) > self._capacity_files

    def _take(self, generation_id: GenerationId, version: ManifestVersion) -> None:
        snapshot = self._snapshots.pop((generation_id, version))
        self._past.pop((generation_id, version), None)
        if self._newest.get(generation_id) == version:
            del self._newest[generation_id]
        for name, size_bytes in snapshot.files.items():
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name]
                self.size_bytes -= size_bytes
        snapshot.retire()
