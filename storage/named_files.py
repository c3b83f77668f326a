"""Which files manifests name, remembered between passes of the collector: a manifest never changes.

It asks no catalog, so it knows nothing of which versions are kept.
"""

import sys
from collections import OrderedDict
from collections.abc import Collection

from .objects.store import ObjectStore
from .segments.manifests import read_manifest

CAPACITY = 200_000  # names of files, each counted once per manifest: some 20 MB, for neighbours share most of theirs


class NamedFiles:
    """Reads each manifest once, and remembers the latest used ones until they name ``capacity`` files together.

    What was read was whole. That a manifest rotted or went since is for an examination to tell; what it named is known.
    Not safe between threads.
    """

    def __init__(self, objects: ObjectStore, *, capacity: int = CAPACITY) -> None:
        self._objects = objects
        self._capacity = capacity
        self._files: OrderedDict[str, frozenset[str]] = OrderedDict()  # least recently used first

    def unread(self, manifests: Collection[str]) -> list[str]:
        """Return those of these manifests that nobody has read yet."""
        return [name for name in manifests if name not in self._files]

    def read(self, manifests: Collection[str]) -> None:
        """Read those of these manifests that nobody has read yet. Raises Damaged or Unsupported: one cannot be."""
        for name in self.unread(manifests):
            self._files[name] = frozenset(map(sys.intern, read_manifest(self._objects, name).file_names))

    def among(self, objects: Collection[str], *, manifests: Collection[str]) -> set[str]:
        """Return those of the objects that are one of these manifests, which were read, or named by one."""
        wanted = frozenset(objects)
        found = set(wanted.intersection(manifests))
        for name in manifests:
            found |= wanted & self._files[name]
            self._files.move_to_end(name)
        return found

    def trim(self) -> None:
        """Forget what is more than is to be remembered."""
        count = sum(map(len, self._files.values()))
        while count > self._capacity:
            count -= len(self._files.popitem(last=False)[1])
