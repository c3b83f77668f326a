"""The bytes of submitted documents as they were accepted. A pack is read in slices: nothing else would see damage."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.storage.errors import Damaged
from penstock.storage.ids import VersionId
from penstock.storage.ledger import VersionRow
from penstock.storage.objects.store import ObjectStore

AT_ONCE_BYTES = 1 << 20  # a full batch of small documents; a larger document is read alone


@dataclass(frozen=True)
class _Stretch:
    pack: str
    offset: int
    size_bytes: int


class SubmittedBytes:
    """Reads the bytes of ``versions``, best in their order: what lies close together in a pack comes by one call.

    In a bucket each call takes as long as some documents take to be cut. Up to `AT_ONCE_BYTES` are held.
    """

    def __init__(self, objects: ObjectStore, versions: Sequence[VersionRow]) -> None:
        self._objects = objects
        self._stretches = _stretches(versions)
        self._held: tuple[_Stretch, bytes] | None = None

    def read(self, version: VersionRow) -> bytes:
        """Return the bytes of one of the versions.

        Raises:
            NotFound: the pack is gone.
            Damaged: the pack is shorter than it was, or holds something else.
        """
        stretch = self._stretches[version.id]
        if self._held is None or self._held[0] is not stretch:
            self._held = None  # not two at once
            found = self._objects.get_range(stretch.pack, offset=stretch.offset, size_bytes=stretch.size_bytes)
            self._held = stretch, found
        start = version.pack_offset - stretch.offset
        data = self._held[1][start : start + version.size_bytes]
        if hashlib.blake2b(data, digest_size=32).digest() != version.content_hash:
            raise Damaged(f"object {version.pack} does not hold what was submitted as {version.source!r}")
        return data


def _stretches(versions: Sequence[VersionRow]) -> dict[VersionId, _Stretch]:
    """Return for each version which part of its pack is read for it: the same for neighbours."""
    found: dict[VersionId, _Stretch] = {}
    together: list[VersionRow] = []
    for version in versions:
        if together and not _fits(together, version):
            found |= _stretch(together)
            together = []
        together.append(version)
    return found | _stretch(together)


def _fits(together: Sequence[VersionRow], version: VersionRow) -> bool:
    first, last = together[0], together[-1]
    follows = version.pack == last.pack and version.pack_offset >= last.pack_offset + last.size_bytes
    return follows and version.pack_offset + version.size_bytes - first.pack_offset <= AT_ONCE_BYTES


def _stretch(together: Sequence[VersionRow]) -> dict[VersionId, _Stretch]:
    if not together:
        return {}
    first, last = together[0], together[-1]
    size_bytes = last.pack_offset + last.size_bytes - first.pack_offset
    return dict.fromkeys([version.id for version in together], _Stretch(first.pack, first.pack_offset, size_bytes))
