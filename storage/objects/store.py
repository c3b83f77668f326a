"""What an object store does: write-once files under names. It knows nothing of what they mean.

An object that was written is never edited. Readers may map what ``local_path`` returns for as long as they like:
deleting an object removes its name, not the bytes of an open map.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ObjectInfo:
    name: str
    size_bytes: int
    modified_at: float  # seconds since 1970


class ObjectStore(Protocol):
    """A place for write-once objects. Names are those of ``paths``; all methods are safe from several threads."""

    def put(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        """Write an object of these parts, one after the other. When it returns, a power loss cannot undo it.

        A reader never sees a part of an object. Writing a name again is harmless when the size is the same (a retry:
        the first bytes stay, and the object counts as modified a moment ago). Where the name ends in the digest of
        these parts (blake2b-256 in hex) and other bytes are found, those are damaged, and these take their place.

        Raises:
            AlreadyExists: the name holds an object of another size.
        """

    def get(self, name: str) -> bytes:
        """Return the whole object. Raises NotFound."""

    def get_range(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        """Return ``size_bytes`` from ``offset``, fewer where the object ends before. Raises NotFound."""

    def local_path(self, name: str, *, blake2b: str | None = None) -> Path:
        """Return a local file with the object's bytes, to be opened by ``open_to_map`` soon, and never written.

        A store that has to download it compares all of it with ``blake2b`` (256 bits, hex) when it arrives, and never
        again; a local one compares nothing. A downloaded copy may be dropped before it is opened: ask again then. It
        may also outlive its object.

        Raises:
            NotFound: there is no such object.
            Damaged: what arrived does not match.
        """

    def is_local(self, name: str) -> bool:
        """Return whether ``local_path`` with a checksum need not download this object."""

    def drop_damaged_copy(self, name: str, *, blake2b: str) -> bool:
        """Compare a downloaded copy with its checksum, and drop it when it differs, so that it is downloaded again.

        Returns whether it was dropped; False in a local store, which has no copies.
        """

    def adopt(self, name: str, path: Path) -> None:
        """Move a finished file made in ``scratch()`` in under ``name``, as durable as ``put``. ``path`` is gone after.

        Raises:
            AlreadyExists: the name holds an object of another size; ``path`` is left.
        """

    def scratch(self) -> Path:
        """Return a directory on the same file system, to build files in. What a crash leaves there is garbage."""

    def exists(self, name: str) -> bool: ...

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of the names that hold no object, in order; quicker than asking for each."""

    def find(self, name: str) -> ObjectInfo | None:
        """Return what `list` says of one name, without listing its neighbours."""

    def delete(self, name: str) -> None:
        """Remove the name; no error when it is absent."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose names begin with ``prefix``, in no particular order."""
