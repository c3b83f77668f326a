"""The bytes of submitted documents as they were accepted. A pack is read in slices: nothing else would see damage."""

import hashlib
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.tables import versions
from penstock.storage.catalog.values import slices
from penstock.storage.errors import Damaged
from penstock.storage.ids import VersionId
from penstock.storage.ledger import VersionRow
from penstock.storage.objects import ObjectStore


def content_hashes(catalog: Catalog, ids: Sequence[VersionId]) -> dict[VersionId, bytes]:
    """Return the blake2b-256 of each version's bytes; those that are gone since are missing."""
    found: dict[VersionId, bytes] = {}
    wanted = sa.select(versions.c.id, versions.c.content_hash)
    with catalog.read() as connection:
        for some in slices(list(ids)):
            rows = connection.execute(wanted.where(versions.c.id.in_(some)))
            found |= {VersionId(row.id): row.content_hash for row in rows}
    return found


def read_submitted(objects: ObjectStore, version: VersionRow, *, hashes: Mapping[VersionId, bytes]) -> bytes:
    """Return the bytes of one version.

    Raises:
        NotFound: the pack is gone.
        Damaged: the pack is shorter than it was, or holds something else.
    """
    data = objects.get_range(version.pack, offset=version.pack_offset, size_bytes=version.size_bytes)
    if hashlib.blake2b(data, digest_size=32).digest() != hashes.get(version.id):
        raise Damaged(f"object {version.pack} does not hold what was submitted as {version.source!r}")
    return data
