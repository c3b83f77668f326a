"""Files against their checksums: every byte read from the object store itself, each file once.

A copy in a cache proves nothing about the object, so none is used.
"""

import errno
from collections.abc import Callable
from hashlib import blake2b

from ..errors import NotFound
from ..objects.store import ObjectStore
from ..segments.manifests import CHECKSUM_BYTES, FileEntry

READ_BYTES = 8 << 20


class CheckedFiles:
    """Remembers what is wrong with the files that were asked for.

    Args:
        on_bytes: told after each piece how many bytes were read.
    """

    def __init__(self, objects: ObjectStore, *, on_bytes: Callable[[int], None]) -> None:
        self._objects = objects
        self._on_bytes = on_bytes
        self._problems: dict[str, str | None] = {}
        self._unreadable: set[str] = set()
        self.count = 0
        self.size_bytes = 0

    def problem_of(self, file: FileEntry) -> str | None:
        """Return what is wrong with a file, in a few words; None when it is just what was written."""
        if file.name not in self._problems:
            # What is mapped from now on is a copy, where the store is remote: one that rotted tells of nothing.
            self._objects.drop_damaged_copy(file.name, blake2b=file.blake2b)
            self._problems[file.name] = self._look(file.name, size_bytes=file.size_bytes, digest=file.blake2b)
        return self._problems[file.name]

    def problem_of_named(self, name: str) -> str | None:
        """Return what is wrong with an object whose name ends in the digest of its bytes, such as a pack."""
        if name not in self._problems:
            found = self._objects.find(name)
            size_bytes = found.size_bytes if found else 0
            self._problems[name] = self._look(name, size_bytes=size_bytes, digest=name.rpartition("/")[2])
        return self._problems[name]

    def is_intact(self, file: FileEntry) -> bool:
        return self.problem_of(file) is None

    def is_readable(self, file: FileEntry) -> bool:
        """Say whether every byte can be read, right or wrong: who maps what a disk cannot read is killed by it."""
        self.problem_of(file)
        return file.name not in self._unreadable

    def _look(self, name: str, *, size_bytes: int, digest: str) -> str | None:
        found = self._objects.find(name)
        if found is None:
            return "it is missing"
        if found.size_bytes != size_bytes:
            return f"it has {found.size_bytes:,} bytes where {size_bytes:,} were written"
        try:
            # Twice: a repair gives up what is damaged, and it may have been the reading that went wrong.
            intact = any(self._digest(name, size_bytes=size_bytes) == digest for _ in range(2))
        except NotFound:
            return "it is missing"
        except OSError as error:
            if error.errno != errno.EIO:  # the machine's trouble, not the file's
                raise
            self._unreadable.add(name)
            return "the disk cannot read it"
        self.count += 1
        return None if intact else "it does not match its checksum"

    def _digest(self, name: str, *, size_bytes: int) -> str:
        digest = blake2b(digest_size=CHECKSUM_BYTES)
        for offset in range(0, size_bytes, READ_BYTES):
            part = self._objects.get_range(name, offset=offset, size_bytes=min(READ_BYTES, size_bytes - offset))
            digest.update(part)
            self.size_bytes += len(part)
            self._on_bytes(len(part))
        return digest.hexdigest()
