"""A submitted document's bytes are compared with what was accepted, without a catalog."""

import hashlib

import pytest

from penstock.storage.errors import Damaged, NotFound
from penstock.storage.ids import BatchId, CollectionId, DocumentId, JobId, VersionId
from penstock.storage.ledger import VersionRow
from penstock.workers.submitted import read_submitted

from ..memory_objects import MemoryObjects

PACK = "tenants/acme/packs/0"


def version(data: bytes, *, offset: int) -> VersionRow:
    return VersionRow(
        id=VersionId("version_1"),
        collection_id=CollectionId("collection_1"),
        document_id=DocumentId("document_1"),
        job_id=JobId("job_1"),
        batch_id=BatchId("batch_1"),
        action="put",
        number=1,
        source="one",
        filename="one.txt",
        media_type=None,
        title=None,
        metadata={},
        event_time=None,
        expires_at=None,
        pack=PACK,
        pack_offset=offset,
        size_bytes=len(data),
        content_hash=hashlib.blake2b(data, digest_size=32).digest(),
        metadata_hash=b"",
        created_at=0.0,
    )


def test_a_version_carries_what_its_bytes_are_checked_against():
    objects = MemoryObjects()
    with pytest.raises(NotFound):
        read_submitted(objects, version(b"hello", offset=0))
    objects.put(PACK, [b"..", b"hello"])

    assert read_submitted(objects, version(b"hello", offset=2)) == b"hello"
    for other in (version(b"hallo", offset=2), version(b"hello", offset=1), version(b"hello, all", offset=2)):
        with pytest.raises(Damaged, match="'one'"):
            read_submitted(objects, other)
