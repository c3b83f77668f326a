"""Which files manifests name, remembered between passes of the collector: a manifest never changes.

It asks no catalog, so it knows nothing of which versions are kept.
"""

import sys
from collections import OrderedDict
from collections.abc import Collection

from .objects.store import ObjectStore
from .segments.manifests import read_manifest

CAPACITY = 200_000  # names of files, each counted once per manifest: up to 30 MB, for neighbours share most of theirs


class NamedFiles:
    """Reads each manifest once. Between passes it remembers the latest used ones that name ``capacity`` files together.

    Within a pass, which is one tenant's, it holds all that it was asked about: what is garbage depends on every version
    that is kept. What bounds that is how many versions the retention and tags of the tenant's collections keep, and how
    many segments each has, which merges keep at some tens: 3 MB for a thousand versions of a collection of 40 segments
    (a million documents), each with a segment and ten files of tombstones of its own. That is less than the list of the
    tenant's objects, which the pass holds too, so to hold less here would not bound the pass.

    What was read was whole. That a manifest rotted or went since is for an examination to tell; what it named is known.
    Not safe between threads.
    """

    def __init__(self, objects: ObjectStore, *, capacity: int = CAPACITY) -> None:
        self._objects = objects
        self._capacity = capacity
        self._files: OrderedDict[str, tuple[str, ...]] = OrderedDict()  # least recently used first
        self._count = 0  # of names, kept: a pass of each of thousands of tenants must not look at what is known of all

    def unread(self, manifests: Collection[str]) -> list[str]:
        """Return those of these manifests that nobody has read yet."""
        return [name for name in manifests if name not in self._files]

    def read(self, manifests: Collection[str]) -> None:
        """Read those of these manifests that nobody has read yet. Raises Damaged or Unsupported: one cannot be."""
        for name in self.unread(manifests):
            # Interned and in a tuple, a name takes 8 bytes where another manifest has it too; in a set, some 100.
            named = tuple(map(sys.intern, read_manifest(self._objects, name).file_names))
            self._files[name] = named
            self._count += len(named)

    def among(self, objects: Collection[str], *, manifests: Collection[str]) -> set[str]:
        """Return those of the objects that are one of these manifests, which were read, or named by one."""
        wanted = frozenset(objects)
        found = set(wanted.intersection(manifests))
        for name in manifests:
            found |= wanted.intersection(self._files[name])
            self._files.move_to_end(name)
        return found

    def trim(self) -> None:
        """Forget what is more than is to be remembered: a pass is over."""
        while self._count > self._capacity:
            self._count -= len(self._files.popitem(last=False)[1])
