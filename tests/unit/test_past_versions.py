"""Past versions in the reader's cache: opened when asked for, sharing what is equal, never in the way of the newest."""

import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from penstock.storage.catalog.generations import GenerationInfo, generation_info
from penstock.storage.catalog.manifests import list_manifests
from penstock.storage.catalog.retention import Retention, expire_versions
from penstock.storage.errors import Damaged, NotKept, Unavailable
from penstock.storage.search.snapshots import SnapshotCache

from ..storage_samples import GENERATION, TENANT, InterceptedObjects, Store, new_store

NOW = 5_000.0


@pytest.fixture
def store(tmp_path):
    """Four versions: a; a b; a replaced, b; a gone, b."""
    store = new_store(tmp_path)
    store.add({"a": ["one"]})
    store.add({"b": ["two"]}, seed=1)
    store.add({"a": ["uno"]}, seed=2)
    store.publish(removed_document_ids=["a"])
    return store


@contextmanager
def cache_of(store: Store, **options):
    cache = SnapshotCache(store.catalog, options.pop("objects", store.objects), **{"poll_s": 3600, **options})
    try:
        yield cache
    finally:
        cache.close()


def at(store: Store, version: int) -> GenerationInfo:
    with store.catalog.read() as connection:
        (kept,) = [one for one in list_manifests(connection, GENERATION, limit=99) if one.version == version]
    return replace(generation_info(store.catalog, GENERATION), manifest=kept.name, version=kept.version)


def texts(snapshot) -> list[str]:
    return sorted(hit.text for hit in snapshot.search(np.ones(8), k=9, now=NOW))


def test_every_version_is_searched_as_it_was(store):
    with cache_of(store) as cache:
        found = []
        for version in (1, 2, 3, 4):
            with cache.get_past(at(store, version)) as snapshot:
                found.append((snapshot.version, texts(snapshot)))
    assert found == [(1, ["one"]), (2, ["one", "two"]), (3, ["two", "uno"]), (4, ["two"])]


def test_a_version_from_before_the_first_is_empty(store):
    nothing = replace(generation_info(store.catalog, GENERATION), manifest=None, version=0)
    with cache_of(store) as cache, cache.get_past(nothing) as snapshot:
        assert (snapshot.version, texts(snapshot)) == (0, [])


def test_past_versions_share_opened_files_with_the_newest_and_with_each_other(store):
    with cache_of(store) as cache, cache.get(TENANT, GENERATION) as newest:
        size_bytes = cache.counts().size_bytes
        with cache.get_past(at(store, 3)) as third, cache.get_past(at(store, 2)) as second:
            (b_segment,) = [reader.shared for reader in newest.readers.values()]
            for past in (third, second):
                assert any(reader.shared is b_segment for reader in past.readers.values())
            distinct = {**newest.files, **third.files, **second.files}
            assert size_bytes < cache.counts().size_bytes == sum(distinct.values())


def test_a_past_version_that_is_asked_for_again_is_not_opened_again(store):
    with cache_of(store) as cache:
        for _ in range(3):
            with cache.get_past(at(store, 1)):
                pass
        with cache.get(TENANT, GENERATION), cache.get_past(at(store, 4)):  # which is the newest, open already
            pass
        assert cache.counts().opened == 2


def test_past_versions_leave_before_newest_ones_and_close_when_their_last_search_ends(store):
    newest_bytes = sum(file.size_bytes for entry in store.published[-1].manifest.segments for file in entry.all_files)
    with cache_of(store, capacity_bytes=newest_bytes) as cache, cache.get(TENANT, GENERATION) as newest:
        with cache.get_past(at(store, 1)) as first:
            with cache.get_past(at(store, 2)) as second:
                assert not first.closed
                assert not newest.closed
                assert texts(first) == ["one"]
            assert second.closed
        assert first.closed
        assert cache.counts().size_bytes == newest_bytes
        with cache.get(TENANT, GENERATION) as again:
            assert again is newest
        assert cache.counts().opened == 3


def test_the_newest_is_followed_while_a_past_version_of_it_is_open(store):
    with cache_of(store) as cache, cache.get(TENANT, GENERATION) as former:
        store.add({"c": ["drei"]})
        with cache.get_past(at(store, 5)) as past:  # the reader had not heard of it
            assert texts(past) == ["drei", "two"]
            with cache.get(TENANT, GENERATION, min_version=5) as newest:
                assert (newest.version, former.version) == (5, 4)
                assert texts(past) == texts(newest)
        with cache.get_past(at(store, 5)) as past:
            assert past is newest


def test_a_version_that_ended_while_it_was_opened_is_not_found_and_one_that_is_damaged_is(store):
    first = at(store, 1)
    store.objects.delete(store.published[0].manifest.segments[0].files[0].name)
    with cache_of(store) as cache, pytest.raises(Damaged, match="missing"), cache.get_past(first):
        pass
    with store.catalog.write() as connection:  # the reader above is gone, and keeps nothing any more
        expire_versions(connection, tenant=TENANT, now=1e12, retention=Retention(1, 0.0))
    with (
        cache_of(store) as cache,
        pytest.raises(NotKept, match="version 1 is not kept any more"),
        cache.get_past(first),
    ):
        pass


def test_two_searches_for_one_past_version_open_it_once(store):
    opening, go_on = threading.Event(), threading.Event()

    def before(number, method, *args):
        if method == "get" and "manifests" in args[0]:
            opening.set()
            assert go_on.wait(30)

    objects = InterceptedObjects(store.objects, before)
    found: list[list[str]] = []

    def search() -> None:
        with cache.get_past(first, timeout_s=30) as snapshot:
            found.append(texts(snapshot))

    first = at(store, 1)
    with cache_of(store, objects=objects) as cache:
        searches = [threading.Thread(target=search) for _ in range(4)]
        for each in searches:
            each.start()
        assert opening.wait(30)
        go_on.set()
        for each in searches:
            each.join()
        assert (found, cache.counts().opened) == ([["one"]] * 4, 1)


def test_a_closed_cache_opens_no_past_version(store):
    with cache_of(store) as cache:
        pass
    with pytest.raises(Unavailable, match="closing"), cache.get_past(at(store, 1)):
        pass
