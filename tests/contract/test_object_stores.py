"""Every object store keeps the promises that ``ObjectStore`` makes."""

import errno
import fcntl
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from penstock.storage.errors import AlreadyExists, InvalidName, NotFound
from penstock.storage.objects.local import LocalObjects
from penstock.storage.objects.store import ObjectStore

from ..memory_objects import MemoryObjects
from ..s3_server import S3Server, open_objects

NAME = "tenants/acme/packs/0f0f"


@pytest.fixture(params=["local", "memory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    makers: dict[str, Callable[[], ObjectStore]] = {
        "local": lambda: LocalObjects(tmp_path / "objects"),
        "memory": MemoryObjects,
        "s3": lambda: new_s3(request.getfixturevalue("s3_server"), tmp_path),
    }
    return makers[request.param]()


def new_s3(server: S3Server, folder: Path) -> ObjectStore:
    return open_objects(server.endpoint, folder / "cache", prefix=f"test-{secrets.token_hex(6)}/below")


def names(objects: ObjectStore, prefix: str) -> list[str]:
    return sorted(info.name for info in objects.list(prefix))


def test_an_object_is_read_back_as_its_parts_were_given(objects):
    array = np.arange(6, dtype="<f4").reshape(2, 3)

    objects.put(NAME, [b"head", b"", memoryview(array), b"tail"])

    assert objects.get(NAME) == b"head" + array.tobytes() + b"tail"
    assert objects.get_range(NAME, offset=2, size_bytes=4) == b"ad" + array.tobytes()[:2]
    assert objects.local_path(NAME).read_bytes() == objects.get(NAME)
    assert objects.exists(NAME)


def test_more_parts_than_one_system_call_takes_are_all_written(objects):
    parts = [bytes([i % 256]) * (i % 7) for i in range(3_000)]

    objects.put(NAME, parts)

    assert objects.get(NAME) == b"".join(parts)


def test_an_empty_object_exists(objects):
    objects.put(NAME, [])

    assert objects.get(NAME) == b""
    assert [info.size_bytes for info in objects.list(NAME)] == [0]


def test_a_range_beyond_the_end_is_cut(objects):
    objects.put(NAME, [b"abc"])

    assert objects.get_range(NAME, offset=1, size_bytes=100) == b"bc"
    assert objects.get_range(NAME, offset=9, size_bytes=1) == b""


def test_what_was_never_written_is_not_found(objects):
    objects.put(NAME, [b"x"])

    for name in (NAME + "0", "tenants/acme", f"{NAME}/below"):
        with pytest.raises(NotFound):
            objects.get(name)
        with pytest.raises(NotFound):
            objects.get_range(name, offset=0, size_bytes=1)
        with pytest.raises(NotFound):
            objects.local_path(name)
        assert not objects.exists(name)


def test_a_repeated_write_of_the_same_size_keeps_the_first_bytes(objects):
    objects.put(NAME, [b"first"])
    objects.put(NAME, [b"again"])

    assert objects.get(NAME) == b"first"


def test_a_write_of_another_size_is_refused(objects, tmp_path):
    objects.put(NAME, [b"first"])
    built = objects.scratch() / "built"
    built.write_bytes(b"another size")

    with pytest.raises(AlreadyExists):
        objects.put(NAME, [b"another size"])
    with pytest.raises(AlreadyExists):
        objects.adopt(NAME, built)

    assert objects.get(NAME) == b"first"
    assert built.exists()


def test_an_adopted_file_is_an_object_and_is_gone_from_scratch(objects):
    built = objects.scratch() / "built"
    built.write_bytes(b"a graph")

    objects.adopt(NAME, built)

    assert objects.get(NAME) == b"a graph"
    assert not built.exists()


def test_an_open_map_survives_the_deletion_of_its_object(objects):
    objects.put(NAME, [b"mapped"])
    mapped = np.memmap(objects.local_path(NAME), "u1", "r")

    objects.delete(NAME)

    assert mapped.tobytes() == b"mapped"
    assert not objects.exists(NAME)


def test_one_object_is_found_as_the_list_shows_it(objects):
    objects.put(NAME, [b"12345"])

    assert objects.find(NAME) == next(iter(objects.list(NAME)))
    assert objects.find(NAME + "0") is None


def test_deleting_what_is_absent_is_no_error(objects):
    objects.delete(NAME)
    objects.put(NAME, [b"x"])
    objects.delete(NAME)
    objects.delete(NAME)

    assert names(objects, "") == []
    objects.put(NAME, [b"other size, same name"])


def test_a_prefix_lists_objects_and_not_scratch_files(objects):
    for name in ("a/b/one", "a/b/two", "a/bc", "b/one"):
        objects.put(name, [b"12345"])
    (objects.scratch() / "unfinished").write_bytes(b"x")

    assert names(objects, "a/b/") == ["a/b/one", "a/b/two"]
    assert names(objects, "a/b") == ["a/b/one", "a/b/two", "a/bc"]
    assert names(objects, "") == ["a/b/one", "a/b/two", "a/bc", "b/one"]
    assert names(objects, "nothing/") == []
    assert {info.size_bytes for info in objects.list("a/")} == {5}


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "a//b", "../a", "a/../b", "a/.hidden", "a/ b", "a\\b", "x" * 2_000]
)
def test_a_name_that_could_leave_the_store_is_refused(objects, name):
    for operation in (
        objects.get,
        objects.exists,
        objects.delete,
        objects.local_path,
        lambda n: objects.put(n, [b"x"]),
    ):
        with pytest.raises(InvalidName):
            operation(name)


def test_writers_of_one_name_never_show_a_part_of_it(objects):
    block = b"0123456789abcdef" * 4_096

    def write_and_read(_):
        objects.put(NAME, [block, block])
        return objects.get(NAME)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write_and_read, range(32))) == {block + block}


def test_writers_and_collectors_of_one_folder_do_not_trip_over_each_other(objects):
    def write_and_delete(i):
        objects.put(f"staging/batch/{i}", [b"x"])
        objects.delete(f"staging/batch/{i}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_and_delete, range(200)))

    assert names(objects, "staging/") == []


def test_a_repeated_write_counts_as_modified_now(tmp_path):
    objects = LocalObjects(tmp_path)
    objects.put(NAME, [b"pack"])
    os.utime(tmp_path / NAME, (1.0, 1.0))

    objects.put(NAME, [b"pack"])

    assert next(objects.list(NAME)).modified_at > 1.0


def test_a_local_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    objects = LocalObjects(tmp_path)

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OSError, match="No space"):
        objects.put(NAME, [b"x"])

    assert not objects.exists(NAME)
    assert list(objects.scratch().iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "plain"),
    [(None, False), (OSError(errno.ENOTSUP, "not here"), True), (OSError(errno.EIO, "the disk is broken"), None)],
)
def test_where_the_system_can_also_empty_the_cache_of_the_disk_it_is_asked_to(tmp_path, monkeypatch, answer, plain):
    """As on macOS, whose fsync does not. A file system that cannot is synced as elsewhere; a broken disk is told."""
    asked, synced = list[int](), list[int]()

    def fcntl_(descriptor: int, command: int) -> None:
        asked.append(command)
        if answer is not None:
            raise answer

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", fcntl_)
    monkeypatch.setattr(os, "fsync", synced.append)
    objects = LocalObjects(tmp_path)
    if plain is None:
        with pytest.raises(OSError, match="the disk is broken"):
            objects.put(NAME, [b"x"])
    else:
        objects.put(NAME, [b"x"])
        assert bool(synced) == plain
    assert set(asked) == {51}
    assert objects.exists(NAME) == (plain is not None)


def test_a_local_object_is_synced_before_its_name_and_its_folders_after(tmp_path, monkeypatch):
    """The order is the promise: a name must never be durable before its bytes, nor acknowledged before the name is."""
    calls: list[tuple[str, str]] = []
    fsync, link = os.fsync, os.link

    def traced_fsync(descriptor: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").resolve().name))
        fsync(descriptor)

    def traced_link(source: Path, target: Path) -> None:
        calls.append(("link", target.name))
        link(source, target)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "link", traced_link)
    objects = LocalObjects(tmp_path / "parent" / "root")
    objects.put("a/b/name", [b"x"])

    linked = calls.index(("link", "name"))
    assert calls[0][1].startswith("put-")
    assert {name for _, name in calls[1:linked]} == {"a", "root", "parent"}  # where folders were made
    assert calls[linked + 1 :] == [("fsync", "b")]
