"""A submitted document's bytes are compared with what was accepted, without a catalog."""

import hashlib
from itertools import accumulate

import pytest

from penstock.storage.errors import Damaged, NotFound
from penstock.storage.ids import BatchId, CollectionId, DocumentId, JobId, VersionId
from penstock.storage.ledger import VersionRow
from penstock.workers.submitted import AT_ONCE_BYTES, SubmittedBytes

from ..memory_objects import MemoryObjects

PACK = "tenants/acme/packs/0"


def version(data: bytes, *, offset: int, pack: str = PACK) -> VersionRow:
    return VersionRow(
        id=VersionId(f"version of {pack} from {offset} to {offset + len(data)}"),
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
        pack=pack,
        pack_offset=offset,
        size_bytes=len(data),
        content_hash=hashlib.blake2b(data, digest_size=32).digest(),
        metadata_hash=b"",
        created_at=0.0,
    )


def read(objects: MemoryObjects, *versions: VersionRow) -> list[bytes]:
    submitted = SubmittedBytes(objects, versions)
    return [submitted.read(one) for one in versions]


def at(data: bytes, offset: int) -> VersionRow:
    return version(data, offset=offset)


def test_a_version_carries_what_its_bytes_are_checked_against():
    objects = MemoryObjects()
    with pytest.raises(NotFound):
        read(objects, version(b"hello", offset=0))
    objects.put(PACK, [b"..", b"hello"])

    assert read(objects, version(b"hello", offset=2)) == [b"hello"]
    for other in (version(b"hallo", offset=2), version(b"hello", offset=1), version(b"hello, all", offset=2)):
        with pytest.raises(Damaged, match="'one'"):
            read(objects, other)


class Counted(MemoryObjects):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int, int]] = []

    def get_range(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        self.asked.append((name, offset, size_bytes))
        return super().get_range(name, offset=offset, size_bytes=size_bytes)


def test_documents_that_lie_close_together_are_read_by_one_call_whatever_lies_between_them():
    objects, other = Counted(), f"{PACK}1"
    objects.put(PACK, [b"one", b"-replaced-", b"two", b"three"])
    objects.put(other, [b"four"])
    several = [version(b"one", offset=0), version(b"two", offset=13), version(b"three", offset=16)]

    assert read(objects, *several, version(b"four", offset=0, pack=other)) == [b"one", b"two", b"three", b"four"]
    assert objects.asked == [(PACK, 0, 21), (other, 0, 4)]


def test_no_more_is_read_at_once_than_a_bound_and_a_larger_document_alone():
    objects = Counted()
    datas = [b"a" * (AT_ONCE_BYTES // 2), b"b" * (AT_ONCE_BYTES // 2), b"c", b"d" * (2 * AT_ONCE_BYTES), b"e"]
    objects.put(PACK, datas)
    offsets = list(accumulate(map(len, datas), initial=0))

    assert read(objects, *map(at, datas, offsets)) == datas
    assert [size for _, _, size in objects.asked] == [AT_ONCE_BYTES, 1, 2 * AT_ONCE_BYTES, 1]


def test_what_is_damaged_costs_its_neighbours_nothing():
    objects = Counted()
    objects.put(PACK, [b"one", b"tWo", b"thr"])  # and the last is cut short
    several = [version(b"one", offset=0), version(b"two", offset=3), version(b"three", offset=6)]
    submitted = SubmittedBytes(objects, several)

    assert submitted.read(several[0]) == b"one"
    for damaged in several[1:]:
        with pytest.raises(Damaged):
            submitted.read(damaged)
