"""The bytes of submitted documents as they were accepted. A pack is read in slices: nothing else would see damage."""

import hashlib

from penstock.storage.errors import Damaged
from penstock.storage.ledger import VersionRow
from penstock.storage.objects.store import ObjectStore


def read_submitted(objects: ObjectStore, version: VersionRow) -> bytes:
    """Return the bytes of one version.

    Raises:
        NotFound: the pack is gone.
        Damaged: the pack is shorter than it was, or holds something else.
    """
    data = objects.get_range(version.pack, offset=version.pack_offset, size_bytes=version.size_bytes)
    if hashlib.blake2b(data, digest_size=32).digest() != version.content_hash:
        raise Damaged(f"object {version.pack} does not hold what was submitted as {version.source!r}")
    return data
