"""Files against their checksums: what a disk cannot read is damaged, what a machine cannot do is not."""

import errno

import pytest

from penstock.storage.inspection.checksums import CheckedFiles
from penstock.storage.inspection.remains import read_remains

from ..storage_samples import DIMENSIONS, InterceptedObjects, current_manifest, new_store


def failing(number: int):
    def before(_number: int, method: str, *_args: object) -> None:
        if method == "get_range":
            raise OSError(number, "the disk says so")

    return before


@pytest.fixture
def store(tmp_path):
    store = new_store(tmp_path)
    store.add({"a": ["one", "two"]})
    return store


def checked(store, *, error: int) -> CheckedFiles:
    return CheckedFiles(InterceptedObjects(store.objects, failing(error)), on_bytes=lambda _: None)


def test_a_file_that_the_disk_cannot_read_is_a_finding_and_is_never_mapped(store):
    """Mapping it would kill the process at the first page that cannot be read."""
    entry = current_manifest(store.catalog, store.objects).segments[0]
    files = checked(store, error=errno.EIO)
    assert files.problem_of(entry.files[0]) == "the disk cannot read it"
    assert not files.is_readable(entry.files[0])
    touched = InterceptedObjects(store.objects, lambda *_: pytest.fail("it was opened"))
    assert read_remains(touched, files, entry, dimensions=DIMENSIONS) is None


def test_a_file_that_may_not_be_read_is_not_taken_for_a_damaged_one(store):
    entry = current_manifest(store.catalog, store.objects).segments[0]
    with pytest.raises(OSError, match="the disk says so"):
        checked(store, error=errno.EACCES).problem_of(entry.files[0])


def test_a_read_that_went_wrong_once_is_not_taken_for_a_damaged_file(store):
    """A repair gives up what it is told is damaged."""
    entry = current_manifest(store.catalog, store.objects).segments[0]
    read, wrong = store.objects.get_range, [b"\1", b"\2"]

    def altered(name, *, offset, size_bytes):
        data = read(name, offset=offset, size_bytes=size_bytes)
        return data[:-1] + wrong.pop() if wrong else data

    store.objects.get_range = altered
    files = CheckedFiles(store.objects, on_bytes=lambda _: None)
    assert files.problem_of(entry.files[0]) == "it does not match its checksum", "it was wrong twice"
    wrong.append(b"\1")
    assert CheckedFiles(store.objects, on_bytes=lambda _: None).is_intact(entry.files[0])
    assert wrong == []
