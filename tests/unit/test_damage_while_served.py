"""Files that rot or are lost while versions of them are open: told and counted, and read again once they are mended."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penstock.storage.catalog.generations import GenerationInfo, generation_info
from penstock.storage.catalog.references import Reference, find_version
from penstock.storage.errors import Damaged
from penstock.storage.search.refusals import REFUSED_S
from penstock.storage.search.snapshots import SnapshotCache
from penstock.storage.segments.sections import open_sections

from ..storage_samples import DIMENSIONS, GENERATION, TENANT, Store, new_store
from .test_snapshots import eventually

NOW = 5_000.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path) -> Store:
    """Two versions: a; a b."""
    store = new_store(tmp_path)
    store.add({"a": ["one"]})
    store.add({"b": ["two"]}, seed=1)
    return store


@pytest.fixture
def refused() -> list[bool]:
    return []


@pytest.fixture
def cache(store, clock, refused) -> Iterator[SnapshotCache]:
    cache = SnapshotCache(
        store.catalog, store.objects, poll_s=3_600, clock=clock, on_refused=lambda: refused.append(True)
    )
    try:
        yield cache
    finally:
        cache.close()


def past(store: Store, version: int) -> GenerationInfo:
    kept = find_version(store.catalog, GENERATION, Reference(version=version))
    return replace(generation_info(store.catalog, GENERATION), manifest=kept.name, version=kept.version)


def file_of(store: Store, number: int) -> Path:
    return store.objects.local_path(store.published[number].manifest.segments[number].files[0].name)


def rot(path: Path) -> None:
    """Write over the vectors of a file that may be mapped: what a disk does that loses a block."""
    path.chmod(0o600)
    with path.open("r+b") as opened:
        opened.seek(open_sections(path, kind="segment").places["vectors"])
        opened.write(np.full(DIMENSIONS, np.nan, "<f4").tobytes())


def restore(path: Path, data: bytes) -> None:
    """Put a file back as a restore does: under its name, but with another inode than the one that is mapped."""
    path.unlink()
    path.write_bytes(data)


def search(cache: SnapshotCache, at: GenerationInfo | None = None) -> list[str]:
    with cache.get(TENANT, GENERATION) if at is None else cache.get_past(at) as snapshot:
        return sorted(hit.text for hit in snapshot.search(np.ones(DIMENSIONS), k=9, now=NOW))


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    with pytest.raises(Damaged, match=path.name):
        yield


def told(caplog, action: str) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if getattr(entry, "action", "") == action]


def test_a_damaged_past_version_is_refused_counted_told_once_and_served_when_its_file_is_back(
    store, cache, clock, refused, caplog
):
    first, path = past(store, 1), file_of(store, 0)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    for _ in range(3):  # refused once, and not opened again for each search
        with damaged(path), cache.get_past(first):
            pass
    assert cache.counts().refused == len(refused) == 1
    clock.now += REFUSED_S
    with damaged(path), cache.get_past(first):
        pass
    assert cache.counts().refused == 2
    [only] = told(caplog, "snapshot_refused")
    assert only.startswith(f"Version 1 of {GENERATION} is refused, searches get an error: ")
    path.write_bytes(data)
    clock.now += REFUSED_S
    assert search(cache, first) == ["one"]


def test_a_past_version_that_is_refused_says_nothing_of_the_newest(store, cache):
    store.publish(removed_document_ids=["a"])
    path = file_of(store, 0)
    path.write_bytes(path.read_bytes()[:-1])
    with damaged(path), cache.get_past(past(store, 1)):
        pass
    assert search(cache) == ["two"]
    with damaged(path), cache.get_past(past(store, 2)):
        pass
    assert cache.counts().refused == 2


def test_damage_that_a_search_meets_is_told_and_the_version_opened_anew(store, cache, clock, refused, caplog):
    path = file_of(store, 1)
    data = path.read_bytes()
    assert search(cache) == ["one", "two"]
    rot(path)
    restore(path, data)  # what is mapped is still the rotten one
    with cache.get(TENANT, GENERATION) as rotten, pytest.raises(Damaged):
        search(cache)
    eventually(lambda: cache.counts().opened == 2)
    assert search(cache) == ["one", "two"]
    with cache.get(TENANT, GENERATION) as mended:
        assert mended.version == rotten.version == 2
        assert not {id(reader.shared) for reader in mended.readers.values()} & {
            id(reader.shared) for reader in rotten.readers.values()
        }
    assert cache.counts().refused == len(refused) == 1
    [only] = told(caplog, "snapshot_damaged")
    assert only.startswith(f"Version 2 of {GENERATION} is damaged while it is searched: ")


def test_what_is_open_serves_on_while_its_file_stays_damaged_and_is_not_opened_for_each_search(
    store, cache, clock, caplog
):
    path = file_of(store, 1)
    data = path.read_bytes()
    search(cache)
    rot(path)
    for _ in range(3):
        with damaged(path):
            search(cache)
    eventually(lambda: cache.counts().refused == 2)  # found by a search, and refused when it was opened anew
    with damaged(path):
        search(cache)
    assert cache.counts().refused == 2
    [only] = told(caplog, "snapshot_refused")
    assert only.startswith(f"Version 2 of {GENERATION} is refused, what is open of it serves on: ")
    restore(path, data)
    clock.now += REFUSED_S
    with damaged(path):
        search(cache)
    eventually(lambda: cache.counts().opened == 2)
    assert search(cache) == ["one", "two"]


def test_the_next_version_shares_nothing_with_one_of_which_a_file_was_found_damaged(store, cache):
    path = file_of(store, 0)
    data = path.read_bytes()
    search(cache)
    cache._watch.close()  # so that the next version is the first thing that is opened
    rot(path)
    restore(path, data)
    with pytest.raises(Damaged):
        search(cache)
    store.add({"c": ["drei"]}, seed=2)
    with cache.get(TENANT, GENERATION, min_version=3) as snapshot:
        assert len(snapshot.search(np.ones(DIMENSIONS), k=9, now=NOW)) == 3


def test_a_past_version_that_rots_is_opened_anew_when_it_is_asked_for_again(store, cache):
    first, path = past(store, 1), file_of(store, 0)
    data = path.read_bytes()
    assert search(cache, first) == ["one"]
    rot(path)
    restore(path, data)
    with pytest.raises(Damaged):
        search(cache, first)
    assert search(cache, first) == ["one"]


def test_a_past_version_that_shares_a_rotten_file_with_the_newest_has_both_opened_anew(store, cache):
    first, path = past(store, 1), file_of(store, 0)
    data = path.read_bytes()
    search(cache)
    search(cache, first)
    rot(path)
    restore(path, data)
    with pytest.raises(Damaged):
        search(cache, first)
    eventually(lambda: cache.counts().opened == 3)
    assert search(cache, first) == ["one"]
    assert search(cache) == ["one", "two"]
