"""Snapshots and their cache: whole versions, opened beside the one in use, exact under every filter."""

import gc
import os
import random
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from penstock.storage import kernels
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.generations import generation_info
from penstock.storage.catalog.retention import Retention, expire_versions
from penstock.storage.catalog.tables import generations
from penstock.storage.errors import Damaged, FilterMismatch, NotFound, NotKept, NotYet, Unavailable
from penstock.storage.ids import GenerationId, TenantId
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Publisher, Swap
from penstock.storage.search import planner, readers, versions, warming
from penstock.storage.search.mismatches import check_kinds
from penstock.storage.search.searchable import SearchableSegment
from penstock.storage.search.snapshots import SnapshotCache, open_snapshot
from penstock.storage.search.warming import touch
from penstock.storage.segments import blocks, checks
from penstock.storage.segments import segment as opening
from penstock.storage.segments.fields import And, Compare, Exists, FieldIndex, Member, Or
from penstock.storage.segments.rows import Rows, chunk_identity
from penstock.storage.segments.sections import open_sections

from ..storage_samples import (
    DIMENSIONS,
    GENERATION,
    TENANT,
    InterceptedObjects,
    Store,
    add_generation,
    current_manifest,
    new_store,
    record,
    rows_of,
    unit_vectors,
)

NOW = 5_000.0


@pytest.fixture
def store(tmp_path):
    return new_store(tmp_path)


@contextmanager
def cache_of(store: Store, **options):
    cache = SnapshotCache(store.catalog, options.pop("objects", store.objects), **{"poll_s": 3600, **options})
    try:
        yield cache
    finally:
        cache.close()


@pytest.fixture
def cache(store):
    with cache_of(store) as opened:
        yield opened


def snapshot_of(store: Store):
    return open_snapshot(store.objects, generation_info(store.catalog, GENERATION))


def sources(hits) -> list[str]:
    return [hit.document.source for hit in hits]


def documents(count: int, *, per_document: int = 3, first: int = 0, metadata=lambda number: {}) -> Rows:
    owners = np.repeat(np.arange(count), per_document)
    texts = [f"text {first + owner} {i % per_document}" for i, owner in enumerate(owners)]
    return Rows.build(
        [
            record(f"d{first + i}", metadata=metadata(first + i), expires_at=None if i % 5 else 6_000.0 + first + i)
            for i in range(count)
        ],
        document=owners,
        ordinal=np.tile(np.arange(per_document), count),
        start=np.zeros(len(owners)),
        end=np.full(len(owners), 5),
        page=np.full(len(owners), 2),
        tokens=np.full(len(owners), 2),
        identity=[chunk_identity(text, chunking={}) for text in texts],
        texts=texts,
        headings=["Heading"] * len(owners),
    )


def test_a_hit_tells_where_in_which_document_it_stands(store):
    store.publish(additions=documents(2), vectors=unit_vectors(6))
    hit = snapshot_of(store).search(unit_vectors(6)[4], k=1, now=NOW)[0]
    assert (hit.chunk_id, hit.document.document_id, hit.ordinal, hit.text) == (5, "d1", 1, "text 1 1")
    assert (hit.start, hit.end, hit.page, hit.heading) == (0, 5, 2, "Heading")
    assert hit.score == pytest.approx(1.0)


def test_a_generation_that_was_never_published_is_an_empty_snapshot(cache):
    with cache.get(TENANT, GENERATION) as snapshot:
        assert (snapshot.version, snapshot.chunk_count, snapshot.document_count) == (0, 0, 0)
        assert snapshot.search(unit_vectors(1)[0], k=5, now=NOW) == []


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_scores_are_inner_products_or_negated_squared_distances(tmp_path, metric):
    store = new_store(tmp_path, metric=metric)
    vectors = unit_vectors(12)
    query = unit_vectors(1, seed=9)[0] * 3
    store.publish(additions=documents(4), vectors=vectors)
    hits = snapshot_of(store).search(query, k=12, now=NOW)
    exact = {
        "cosine": vectors @ (query / np.linalg.norm(query)),
        "dot": vectors @ query,
        "l2": -((vectors - query) ** 2).sum(axis=1),
    }[metric]
    assert [hit.chunk_id for hit in hits] == (np.argsort(-exact) + 1).tolist()
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(exact)[::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        (np.ones(DIMENSIONS + 1), "8 dimensions"),
        (np.ones((1, DIMENSIONS)), "8 dimensions"),
        (np.full(DIMENSIONS, np.nan), "not finite"),
        (np.zeros(DIMENSIONS), "zero"),
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused(store, vector, says):
    with pytest.raises(ValueError, match=says):
        snapshot_of(store).search(vector, k=1, now=NOW)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_many_small_segments_give_what_each_of_them_gives_alone(tmp_path, metric):
    store = new_store(tmp_path, metric=metric)
    for number in range(5):
        store.publish(
            additions=documents(3 + number, first=10 * number), vectors=unit_vectors(9 + 3 * number, seed=number)
        )
    store.publish(removed_document_ids=["d1"])
    snapshot = snapshot_of(store)
    for k in (1, 4, 30, 1_000):
        for now in (NOW, 6_000.0):  # then a row of the first of them expires, and of no other
            query = unit_vectors(1, seed=k)[0]
            hits, plans = snapshot.explained(query, k=k, now=now)
            assert hits == snapshot.exactly(query, k=k, now=now)
            assert len(hits) == min(k, sum(plan.accepted for plan in plans))
            assert [plan.segment for plan in plans] == [entry.id for entry in snapshot.manifest.segments]


def test_a_vector_of_a_small_segment_that_rots_while_it_is_served_is_named(store):
    for number in range(3):
        store.publish(additions=documents(2, first=10 * number), vectors=unit_vectors(6, seed=number))
    snapshot = snapshot_of(store)
    file = snapshot.manifest.segments[1].files[0]
    path = store.objects.local_path(file.name)
    path.chmod(0o600)
    with path.open("r+b") as opened:
        opened.seek(open_sections(path, kind="segment").places["vectors"])
        opened.write(np.full(DIMENSIONS, np.nan, "<f4").tobytes())

    with pytest.raises(Damaged, match=Path(file.name).name):
        snapshot.search(unit_vectors(1)[0], k=2, now=NOW)


def test_equal_scores_come_in_the_order_of_chunk_ids_across_segments(store):
    same = np.tile(unit_vectors(1), (60, 1))
    for first in (0, 20, 40):
        store.publish(additions=documents(20, first=first), vectors=same)
    hits = snapshot_of(store).search(same[0], k=150, now=NOW)
    assert [hit.chunk_id for hit in hits] == list(range(1, 151))


def test_deleted_and_replaced_chunks_are_never_found(store):
    store.publish(additions=documents(4), vectors=unit_vectors(12))
    store.publish(additions=documents(1, per_document=1), vectors=unit_vectors(1, seed=5), removed_document_ids=["d2"])
    snapshot = snapshot_of(store)
    found = snapshot.search(unit_vectors(1)[0], k=100, now=NOW)
    assert sorted(hit.chunk_id for hit in found) == [4, 5, 6, 10, 11, 12, 13]
    assert (snapshot.chunk_count, snapshot.document_count) == (7, 3)


def test_a_document_is_found_until_the_second_it_expires(store):
    store.publish(additions=documents(6, per_document=1), vectors=unit_vectors(6))
    snapshot = snapshot_of(store)
    found = {now: sorted(hit.document.document_id for hit in snapshot.search(np.ones(8), k=9, now=now)) for now in
             (5_999.9, 6_000.0, 6_004.9, 6_005.0)}  # fmt: skip
    assert len(found[5_999.9]) == 6
    assert found[6_000.0] == found[6_004.9] == ["d1", "d2", "d3", "d4", "d5"]
    assert found[6_005.0] == ["d1", "d2", "d3", "d4"]


def test_what_expired_and_left_the_index_has_no_search_look_at_times_any_more(store):
    store.publish(additions=documents(6, per_document=1), vectors=unit_vectors(6))
    reader = first_reader(store)
    assert np.count_nonzero(reader.accepted(None, now=6_004.9).mask) == 5  # every row is looked at
    store.publish(removed_document_ids=["d0"])
    reader = first_reader(store)
    first, second = (reader.accepted(None, now=now) for now in (NOW, 6_004.9))
    assert first.mask is second.mask is not None  # the tombstones, and nothing that was made for this search
    assert np.count_nonzero(reader.accepted(None, now=6_005.0).mask) == 4
    store.publish(removed_document_ids=["d5"])
    assert first_reader(store).first_expiry == np.inf


def first_reader(store: Store):
    return next(iter(snapshot_of(store).readers.values()))


def grown(store: Store, *, graph: bool, count: int = 90) -> None:
    """Two segments, the first a graph if asked for, with deletes in both."""

    def metadata(number: int) -> dict:
        return {"number": number, "even": number % 2 == 0, "tags": [f"t{number % 7}"]}

    store.publish(additions=documents(count, metadata=metadata), vectors=unit_vectors(3 * count, seed=1))
    if graph:
        manifest = current_manifest(store.catalog, store.objects)
        output = build_merge(store.objects, manifest, manifest.segments, graph_rows=1)
        assert output.kind == "graph"
        store.publish(swap=Swap([entry.id for entry in manifest.segments], output))
    store.publish(
        additions=documents(10, first=count, metadata=metadata),
        vectors=unit_vectors(30, seed=2),
        removed_document_ids=["d3", "d10"],
    )
    store.publish(removed_document_ids=["d4", f"d{count + 1}"])


WAYS = {
    "scan": planner.Choice("scan"),
    "walk": planner.Choice("walk", ef=400, budget=10**9),
    "codes": planner.Choice("codes"),
    "walk, then codes": planner.Choice("walk", ef=400, budget=0),
}


@pytest.fixture(params=[None, *WAYS])
def way(request, monkeypatch):
    """The way in which a graph is searched; None: there is none, all segments are flat."""
    monkeypatch.setattr(planner, "choose", lambda _costs, **_options: WAYS[request.param])
    return request.param


@pytest.mark.parametrize(("metric", "int8"), [("cosine", False), ("cosine", True), ("l2", False), ("l2", True)])
def test_filters_expiry_and_deletes_give_exactly_the_nearest_that_remain(tmp_path, way, metric, int8):
    store = new_store(tmp_path, metric=metric, quantization="int8" if int8 else "none")
    graph = way is not None
    grown(store, graph=graph)
    vectors = np.concatenate([unit_vectors(270, seed=1), unit_vectors(30, seed=2)])
    snapshot = snapshot_of(store)
    assert sorted(entry.kind for entry in snapshot.manifest.segments) == (
        ["flat", "graph"] if graph else ["flat", "flat"]
    )
    seed = random.randrange(2**32)
    print("seed", seed)
    numbers = random.Random(seed)
    gone = {3, 4, 10, 91}
    for _ in range(60):
        limit, now = numbers.randrange(100), numbers.choice([NOW, 6_000.0, 6_050.0, 9_999.0])
        condition, keeps = numbers.choice(
            [
                (None, lambda n: True),
                (Compare("lt", "number", limit), lambda n, limit=limit: n < limit),
                (Compare("eq", "even", True), lambda n: n % 2 == 0),
                (Member("nin", "tags", ("t1", "t2")), lambda n: n % 7 not in (1, 2)),
                (And((Compare("eq", "tags", "t3"), Compare("gte", "number", limit))),
                 lambda n, limit=limit: n % 7 == 3 and n >= limit),
                (Or((Exists("missing"), Compare("eq", "number", limit))), lambda n, limit=limit: n == limit),
            ]
        )  # fmt: skip
        k, query = numbers.choice([1, 7, 400]), unit_vectors(1, seed=numbers.randrange(1000))[0]
        expiry = [6_000.0 + n if (n if n < 90 else n - 90) % 5 == 0 else np.inf for n in range(100)]
        rows = [r for r in range(300) if (n := r // 3) not in gone and expiry[n] > now and keeps(n)]
        hits = snapshot.search(query, k=k, filter=condition, ef=300, now=now)
        # Vectors have unit length, so that distances order as products do; rounding may swap the nearly equal.
        products = {f"d{r // 3}/{r % 3}": float(vectors[r] @ query) for r in rows}
        found = [products.pop(f"{hit.document.document_id}/{hit.ordinal}") for hit in hits]
        assert len(found) == min(k, len(rows))
        assert found == pytest.approx(sorted(found, reverse=True), abs=1e-5)
        assert max(products.values(), default=-1) <= min(found, default=1) + 1e-5


def test_a_filter_mismatches_by_what_all_segments_hold_and_what_is_deleted_holds_nothing(store):
    store.publish(additions=documents(2, metadata=lambda number: {"v": number}), vectors=unit_vectors(6))
    asked = {"k": 3, "filter": Compare("gt", "v", "a"), "now": NOW}
    with pytest.raises(FilterMismatch, match="'v': documents hold numbers there, and 'a' is text"):
        snapshot_of(store).search(unit_vectors(1)[0], **asked)
    with pytest.raises(FilterMismatch, match="'v': documents hold numbers there, and true is a boolean"):
        snapshot_of(store).search(unit_vectors(1)[0], k=3, filter=Compare("eq", "v", True), now=NOW)
    store.publish(additions=documents(1, first=2, metadata=lambda _number: {"v": "b"}), vectors=unit_vectors(3, seed=1))
    assert sources(snapshot_of(store).search(unit_vectors(1)[0], **asked)) == ["folder/d2.txt"] * 3
    assert snapshot_of(store).search(unit_vectors(1)[0], k=3, filter=Compare("gt", "w", "a"), now=NOW) == []
    store.publish(removed_document_ids=["d2"], additions=documents(1, first=3), vectors=unit_vectors(3, seed=2))
    with pytest.raises(FilterMismatch, match="numbers"):
        snapshot_of(store).search(unit_vectors(1)[0], **asked)
    store.publish(removed_document_ids=["d0"])
    with pytest.raises(FilterMismatch, match="numbers"):
        snapshot_of(store).search(unit_vectors(1)[0], **asked)
    # d3 is the last that holds it; its segment stays, for d4 lives there.
    store.publish(
        additions=documents(2, first=3, metadata=lambda n: {"v": n} if n == 3 else {}), vectors=unit_vectors(6)
    )
    store.publish(removed_document_ids=["d1", "d3"])
    assert snapshot_of(store).search(unit_vectors(1)[0], **asked) == []


def test_a_document_without_rows_gives_its_verdict_to_no_other(store, monkeypatch):
    monkeypatch.setattr(readers, "LISTED_DOCUMENTS", 0)
    store.add({"a": ["one", "two"], "b": []})
    hits = snapshot_of(store).search(np.ones(8), k=9, filter=Compare("eq", "$document_id", "a"), now=NOW)
    assert sorted(hit.text for hit in hits) == ["one", "two"]


def test_kinds_that_were_looked_up_are_remembered_and_no_document_is_asked(store, monkeypatch):
    store.publish(additions=documents(500, metadata=lambda n: {"v": n, f"own{n}": n}), vectors=unit_vectors(1_500))
    readers_of_it = list(snapshot_of(store).readers.values())
    condition = And(tuple(Compare("gt", "v", number) for number in range(5)))
    asked: list[str] = []
    kinds = FieldIndex.kinds
    monkeypatch.setattr(FieldIndex, "kinds", lambda index, path: asked.append(path) or kinds(index, path))
    monkeypatch.setattr(FieldIndex, "holding", lambda *_args, **_options: pytest.fail("every document was looked at"))
    for _ in range(3):
        check_kinds(condition, readers_of_it)
    assert asked == ["v"]


def test_a_search_never_finds_fewer_than_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(planner, "choose", lambda _costs, **_options: planner.Choice("walk", ef=20, budget=50))
    store = new_store(tmp_path)
    grown(store, graph=True)
    snapshot = snapshot_of(store)
    for ef in (1, 5, 20):
        hits, plans = snapshot.explained(np.ones(8), k=5, filter=Compare("eq", "number", 80), ef=ef, now=NOW)
        assert len(hits) == 3
        assert plans[0].method == "walk, then codes"
        assert (plans[0].accepted, plans[1].accepted) == (3, 0)
        assert plans[1].method == "none"


def test_the_plan_says_how_each_segment_was_searched(tmp_path, monkeypatch):
    store = new_store(tmp_path)
    grown(store, graph=True)
    monkeypatch.setattr(planner, "choose", lambda _costs, **_options: WAYS["walk"])
    _, plans = snapshot_of(store).explained(np.ones(8), k=5, now=NOW)
    assert [(plan.kind, plan.method, plan.rows, plan.accepted) for plan in plans] == [
        ("graph", "walk", 270, 261),
        ("flat", "scan", 30, 27),
    ]
    assert plans[0].visits > 0


def test_a_graph_whose_walks_miss_too_many_of_its_rows_is_not_walked(store, monkeypatch):
    grown(store, graph=True)
    asked = {"k": 5, "ef": 8, "now": NOW}
    assert snapshot_of(store).explained(unit_vectors(1)[0], **asked)[1][0].method == "walk"
    monkeypatch.setattr(opening, "WALKED_FOUND", 1.1)
    snapshot = snapshot_of(store)
    hits, plan = snapshot.explained(unit_vectors(1)[0], **asked)
    assert plan[0].method == "scan"  # of so few rows cheaper than their codes
    assert hits == snapshot.exactly(unit_vectors(1)[0], k=5, now=NOW)


def test_marks_of_an_earlier_search_never_count_as_visited_when_the_epoch_wraps():
    scratch = readers._Scratch()
    scratch.begin(10)
    scratch.epoch = readers.EPOCHS - 1
    marks, epoch = scratch.begin(10)
    assert epoch == readers.EPOCHS
    marks[:] = 1
    marks, epoch = scratch.begin(10)
    assert epoch == 1
    assert not marks.any()
    larger, epoch = scratch.begin(20)
    assert (len(larger), larger.any(), epoch) == (20, False, 1)
    assert len(scratch.begin(5)[0]) == 20


@pytest.mark.parametrize("read_along", [False, True])
def test_threads_search_the_same_snapshot_with_the_same_results(tmp_path, monkeypatch, read_along):
    """A walk takes long enough to meet another one; a visited buffer, or room for texts, of both would mix them up."""
    monkeypatch.setattr(planner, "choose", lambda _costs, **_options: planner.Choice("walk", ef=64, budget=10**9))
    if read_along:
        monkeypatch.setattr(opening, "MAPPED_BYTES", 0)
    store = new_store(tmp_path)
    store.publish(additions=documents(2_000), vectors=unit_vectors(6_000))
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=1, threads=2)
    store.publish(swap=Swap([manifest.segments[0].id], output))
    snapshot = snapshot_of(store)
    queries = unit_vectors(300, seed=8)

    def found() -> list[list[tuple]]:
        return [[(hit.chunk_id, hit.text) for hit in snapshot.search(query, k=20, now=5.0)] for query in queries]

    expected, results = found(), []
    threads = [threading.Thread(target=lambda: results.append(found())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * len(threads)


# The cache


def test_a_snapshot_in_use_is_given_without_a_look_at_the_catalog(store, cache, monkeypatch):
    store.add({"a": ["one"]})
    with cache.get(TENANT, GENERATION) as first:
        pass
    monkeypatch.setattr("penstock.storage.search.following.generation_info", None)
    with cache.get(TENANT, GENERATION) as second:
        assert second is first


def test_another_tenants_generation_is_not_found_cached_or_not(store, cache):
    store.add({"a": ["one"]})
    for _ in range(2):
        with pytest.raises(NotFound, match="gen_1"), cache.get(TenantId("rival"), GENERATION):
            pass
        with cache.get(TENANT, GENERATION):
            pass
    with pytest.raises(NotFound), cache.get(TENANT, GenerationId("gen_2")):
        pass


def test_a_notice_brings_the_next_version_without_waiting_for_the_poll(store, cache):
    store.add({"a": ["one"]})
    with cache.get(TENANT, GENERATION) as snapshot:
        assert snapshot.version == 1
    store.add({"b": ["two"]})
    cache.refresh(GENERATION)
    eventually(lambda: version_of(cache) == 2)


def test_a_lost_notice_costs_at_most_the_poll_interval(store):
    with cache_of(store, poll_s=0.02) as cache:
        assert version_of(cache) == 0
        store.add({"a": ["one"]})
        eventually(lambda: version_of(cache) == 1)


def test_a_notice_for_a_generation_that_is_not_in_use_opens_nothing(store, cache):
    cache.refresh(GENERATION)
    assert not cache._watch._due
    assert cache.counts().open == 0


def test_a_search_waits_for_the_version_it_must_cover(store, cache):
    assert version_of(cache) == 0
    store.add({"a": ["one"]})
    with cache.get(TENANT, GENERATION, min_version=1, timeout_s=5) as snapshot:
        assert sources(snapshot.search(np.ones(8), k=1, now=NOW)) == ["folder/a.txt"]


def test_a_search_that_waited_in_vain_says_so(store, cache):
    started = time.monotonic()
    with (
        pytest.raises(NotYet, match="version 7 is not served yet, version 0 is"),
        cache.get(TENANT, GENERATION, min_version=7, timeout_s=0.1),
    ):
        pass
    assert time.monotonic() - started >= 0.1


def test_a_search_keeps_its_version_while_the_next_is_swapped_in_and_then_releases_it(store, cache):
    store.add({"a": ["one"]})
    with cache.get(TENANT, GENERATION) as old:
        store.add({"b": ["two"]}, removed_document_ids=["a"])
        with cache.get(TENANT, GENERATION, min_version=2) as new:
            assert sources(old.search(np.ones(8), k=9, now=NOW)) == ["folder/a.txt"]
            assert sources(new.search(np.ones(8), k=9, now=NOW)) == ["folder/b.txt"]
        assert not old.closed
    assert old.closed
    with pytest.raises(ValueError, match="closed"):
        old.search(np.ones(8), k=9, now=NOW)


def test_the_maps_of_a_version_go_when_its_last_search_ends(store, cache):
    store.add({"a": ["one"]})
    with cache.get(TENANT, GENERATION) as old:
        segment = weakref.ref(next(iter(old.readers.values())).segment)
        store.publish(removed_document_ids=["a"])
        with cache.get(TENANT, GENERATION, min_version=2):
            pass
        assert segment() is not None
    gc.collect()
    assert segment() is None


def test_a_new_version_shares_the_segments_it_has_in_common(store, cache):
    store.add({"a": ["one"], "b": ["two"]})
    store.add({"c": ["three"]}, seed=1)
    with cache.get(TENANT, GENERATION) as old:
        before = list(old.readers.values())
        store.publish(removed_document_ids=["a"])
        with cache.get(TENANT, GENERATION, min_version=3) as new:
            after = list(new.readers.values())
            assert after[0] is not before[0]
            assert after[0].shared is before[0].shared
            assert after[1] is before[1]


def cut(store: Store, name: str) -> None:
    path = store.objects.local_path(name)
    path.write_bytes(path.read_bytes()[:-1])


def flip(store: Store, name: str) -> None:
    path = store.objects.local_path(name)
    data = bytearray(path.read_bytes())
    data[next(at for at in range(len(data) // 2, len(data)) if data[at])] ^= 1  # what is zero may be padding
    path.write_bytes(data)


def test_a_wrong_bit_in_a_vector_of_a_small_segment_is_noticed_before_it_is_served(store):
    published = store.publish(additions=documents(2), vectors=unit_vectors(6))
    path = store.objects.local_path(published.manifest.segments[0].files[0].name)
    data = bytearray(path.read_bytes())
    data[-10] ^= 1  # the last section is the vectors, six of 32 bytes: no padding behind them
    path.write_bytes(data)
    with pytest.raises(Damaged, match="'vectors' does not match its checksum"):
        snapshot_of(store)


@pytest.mark.parametrize("file", [0, 1])
def test_a_large_file_that_was_written_over_is_noticed_when_it_is_opened(store, monkeypatch, file):
    """Neither its size nor its structure tells; a sample of its blocks does."""
    monkeypatch.setattr(checks, "VERIFIED_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 10)
    store.publish(additions=documents(40), vectors=unit_vectors(120))
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=50)
    store.publish(swap=Swap([manifest.segments[0].id], output))
    assert snapshot_of(store).chunk_count == 120
    path = store.objects.local_path(output.files[file].name)
    data = path.read_bytes()
    # The text of the one; of the other a vector, which no structure tells from others.
    view = snapshot_of(store).readers[output.id].segment
    part = view.sections.arrays["text_bytes"].tobytes() if file == 0 else view.graph.vectors[60].tobytes()
    at = data.index(part)
    path.write_bytes(data[:at] + bytes(len(part)) + data[at + len(part) :])
    refusals = []
    for _ in range(200):
        try:
            snapshot_of(store)
        except Damaged as error:
            refusals.append(str(error))
    assert refusals
    assert all("does not match" in refusal for refusal in refusals)


def test_a_field_index_that_rotted_while_it_was_mapped_is_named_as_damaged(store):
    store.publish(additions=documents(2), vectors=unit_vectors(6))
    snapshot = snapshot_of(store)
    shared = next(iter(snapshot.readers.values())).shared
    shared.fields = replace(shared.fields, postings=shared.fields.postings + 77)
    with pytest.raises(Damaged, match="field index contradicts itself"):
        snapshot.search(np.ones(8), k=1, filter=Exists("$source"), now=NOW)


def test_the_reading_side_never_loads_the_library_that_builds_graphs():
    modules = "penstock.pipeline.retrieval, penstock.storage.search.snapshots"
    program = f"import sys, {modules}; assert 'hnswlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("harm", [cut, flip, lambda store, name: store.objects.delete(name)])
@pytest.mark.parametrize("which", ["manifest", "segment", "deletes"])
def test_a_damaged_new_version_is_refused_and_the_former_serves_on(store, cache, caplog, harm, which):
    store.add({"a": ["one"], "b": ["two"]})
    assert version_of(cache) == 1
    published = store.add({"c": ["three"]}, removed_document_ids=["a"])
    names = {
        "manifest": published.name,
        "segment": published.manifest.segments[1].files[0].name,
        "deletes": published.manifest.segments[0].deletes.name,
    }
    harm(store, names[which])
    cache.refresh(GENERATION)
    eventually(lambda: cache.counts().refused == 1)
    with cache.get(TENANT, GENERATION) as snapshot:
        assert snapshot.version == 1
        assert sorted(sources(snapshot.search(np.ones(8), k=9, now=NOW))) == ["folder/a.txt", "folder/b.txt"]
    with pytest.raises(NotYet, match="version 1 is: "), cache.get(TENANT, GENERATION, min_version=2, timeout_s=0.1):
        pass
    refusals = [entry for entry in caplog.records if getattr(entry, "action", "") == "snapshot_refused"]
    assert len(refusals) == 1
    assert names[which].rpartition("/")[2] in refusals[0].getMessage()
    assert refusals[0].getMessage().startswith(f"Version 2 of {GENERATION} is refused, version 1 serves on: ")
    assert cache.counts().refused == 1  # asked again and again, opened once


def test_a_refused_version_is_served_once_its_files_are_back(store):
    now = [0.0]
    with cache_of(store, clock=lambda: now[0]) as cache:
        store.add({"a": ["one"]})
        assert version_of(cache) == 1
        published = store.add({"b": ["two"]})
        path = store.objects.local_path(published.manifest.segments[1].files[0].name)
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(NotYet), cache.get(TENANT, GENERATION, min_version=2, timeout_s=0):
            pass
        path.write_bytes(data)
        now[0] += 11
        with cache.get(TENANT, GENERATION, min_version=2, timeout_s=0) as snapshot:
            assert snapshot.version == 2


def test_without_a_former_version_a_damaged_one_is_an_error_that_names_the_file(store, cache, caplog):
    published = store.add({"a": ["one"]})
    name = published.manifest.segments[0].files[0].name
    cut(store, name)
    for _ in range(2):
        with pytest.raises(Damaged, match=name.rpartition("/")[2]), cache.get(TENANT, GENERATION):
            pass
    [told] = [entry.getMessage() for entry in caplog.records if getattr(entry, "action", "") == "snapshot_refused"]
    assert told.startswith(f"Version 1 of {GENERATION} is refused, searches get an error: ")


def test_a_manifest_of_another_generation_is_refused(store):
    store.add({"a": ["one"]})
    info = generation_info(store.catalog, GENERATION)
    with pytest.raises(Damaged, match="is not that of"):
        open_snapshot(store.objects, replace(info, version=9))
    with pytest.raises(Damaged, match="is not that of"):
        open_snapshot(store.objects, replace(info, tenant_id=TenantId("rival")))


def test_a_version_that_was_replaced_and_collected_while_it_was_opened_is_no_damage(store):
    store.add({"a": ["one"]})
    first = store.published[0].name
    done = []

    def before(number, method, name="", *rest):
        if name == first and not done:
            done.append(True)
            store.add({"b": ["two"]})
            store.objects.delete(first)

    with cache_of(store, objects=InterceptedObjects(store.objects, before)) as cache:
        assert version_of(cache) == 2
        assert cache.counts().refused == 0


def test_a_store_that_does_not_answer_is_unavailable_and_refuses_nothing(store):
    store.add({"a": ["one"]})
    failing = [OSError(5, "Input/output error")]

    def before(number, method, *rest):
        if failing:
            raise failing[0]

    with cache_of(store, objects=InterceptedObjects(store.objects, before)) as cache:
        with pytest.raises(Unavailable, match="Input/output error"), cache.get(TENANT, GENERATION):
            pass
        failing.clear()
        assert version_of(cache) == 1
        assert cache.counts().refused == 0


def test_the_least_used_snapshots_are_closed_above_the_capacity(tmp_path):
    store = new_store(tmp_path)
    others = [GenerationId(f"gen_{i}") for i in range(2, 5)]
    for other in others:
        add_generation(store.catalog, tenant=TENANT, generation_id=other)
    store.add({"a": ["one"]})
    size_bytes = sum(snapshot_of(store).files.values())
    with cache_of(store, capacity_bytes=size_bytes) as cache:
        with cache.get(TENANT, others[0]), cache.get(TENANT, GENERATION) as held:
            pass
        assert cache.counts().evicted == 0  # empty ones take no room
        point(store, others[1])
        with cache.get(TENANT, GENERATION) as held:
            with cache.get(TENANT, others[1]):
                pass
            assert (cache.counts().evicted, held.closed) == (2, False)
            assert sources(held.search(np.ones(8), k=1, now=NOW)) == ["folder/a.txt"]
        assert held.closed
        assert cache.counts().size_bytes <= size_bytes


def test_the_least_used_snapshots_are_closed_above_the_number_of_files(tmp_path):
    store = new_store(tmp_path)
    store.add({"a": ["one"]})
    others = [GenerationId(f"gen_{i}") for i in range(2, 6)]
    for other in others:
        add_generation(store.catalog, tenant=TENANT, generation_id=other)
        point(store, other)
    with cache_of(store, capacity_files=2) as cache:
        gone = []
        for other in others:
            with cache.get(TENANT, other) as snapshot:
                assert len(snapshot.files) == 1
                gone.append(weakref.ref(next(iter(snapshot.readers.values())).segment))
        del snapshot
        assert (cache.counts().open, cache.counts().evicted) == (2, 2)
        gc.collect()
        assert [segment() is None for segment in gone] == [True, True, False, False]


def point(store: Store, generation_id: GenerationId) -> None:
    """Publish to another generation of the same store."""
    publisher = Publisher(store.catalog, store.objects, clock=store.clock)
    publisher.publish(
        generation_id, epoch=store.epoch, shard=0, additions=rows_of({"z": ["z"]}), vectors=unit_vectors(1)
    )


def test_a_deleted_generation_is_not_found_once_that_was_noticed(store, cache):
    store.add({"a": ["one"]})
    assert version_of(cache) == 1
    delete_collection(store.catalog, tenant=TENANT, name=GENERATION)
    cache.refresh(GENERATION)

    def gone() -> bool:
        try:
            version_of(cache)
        except NotFound:
            return True
        return False

    eventually(gone)
    assert cache.counts().open == 0


def test_a_catalog_that_does_not_answer_leaves_the_snapshot_in_use(store, monkeypatch):
    with cache_of(store, poll_s=0.01) as cache:
        store.add({"a": ["one"]})
        assert version_of(cache) == 1
        asked = []

        def unavailable(*_):
            asked.append(True)
            raise Unavailable("the catalog did not answer")

        with monkeypatch.context() as patched:
            patched.setattr("penstock.storage.search.following.pointers", unavailable)
            eventually(lambda: len(asked) > 2)
            assert version_of(cache) == 1
        store.add({"b": ["two"]})
        eventually(lambda: version_of(cache) == 2)


def test_a_pointer_that_was_set_back_is_followed(store, cache):
    first = store.add({"a": ["one"]})
    store.add({"b": ["two"]})
    with cache.get(TENANT, GENERATION, min_version=2):
        pass
    with store.catalog.write() as connection:
        connection.execute(update(generations).values(manifest=first.name, version=1))
    cache.refresh(GENERATION)
    eventually(lambda: version_of(cache) == 1)


def test_a_closed_cache_says_so_and_leaves_running_searches_alone(store):
    store.add({"a": ["one"]})
    cache = SnapshotCache(store.catalog, store.objects)
    with cache.get(TENANT, GENERATION) as snapshot:
        cache.close()
        assert len(snapshot.search(np.ones(8), k=1, now=NOW)) == 1
    assert snapshot.closed
    with pytest.raises(Unavailable, match="closing"), cache.get(TENANT, GENERATION):
        pass


def test_searches_go_on_while_a_new_version_is_being_opened(store):
    opening, go_on = threading.Event(), threading.Event()
    store.add({"a": ["one"]})

    def before(number, method, name="", *rest):
        if opening_second and method == "get":
            opening.set()
            assert go_on.wait(30)

    opening_second = False
    with cache_of(store, objects=InterceptedObjects(store.objects, before)) as cache:
        assert version_of(cache) == 1
        store.add({"b": ["two"]})
        opening_second = True
        cache.refresh(GENERATION)
        assert opening.wait(30)
        assert version_of(cache) == 1
        with (
            pytest.raises(NotYet, match="still being opened"),
            cache.get(TENANT, GENERATION, min_version=2, timeout_s=0.05),
        ):
            pass
        go_on.set()
        with cache.get(TENANT, GENERATION, min_version=2, timeout_s=30) as snapshot:
            assert snapshot.version == 2


def test_no_search_mixes_versions_or_fails_while_versions_follow_each_other(store):
    store.add({"a": ["0"], "b": ["0"]})
    stop, wrong, seen = threading.Event(), [], set()

    def search(cache: SnapshotCache) -> None:
        while not stop.is_set():
            with cache.get(TENANT, GENERATION) as snapshot:
                hits = snapshot.search(np.ones(8), k=9, now=NOW)
                texts = {hit.text for hit in hits}
                if len(hits) != 2 or texts != {str(snapshot.version - 1)}:
                    wrong.append((snapshot.version, hits))
                seen.add(snapshot.version)

    with cache_of(store, poll_s=0.005) as cache:
        threads = [threading.Thread(target=search, args=(cache,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for version in range(1, 25):
            store.add({"a": [str(version)], "b": [str(version)]}, seed=version)
            cache.refresh(GENERATION)
        with cache.get(TENANT, GENERATION, min_version=25):
            stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert len(seen) > 2


def version_of(cache: SnapshotCache) -> int:
    with cache.get(TENANT, GENERATION) as snapshot:
        return snapshot.version


def eventually(holds, *, within_s: float = 20.0) -> None:
    """Wait for another thread's work to show; there is no event to wait for from outside."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.002)


def test_a_past_version_that_is_being_searched_is_kept_and_one_that_is_over_is_refused(store, cache):
    for number in range(3):
        store.add({f"d{number}": [f"text {number}"]})
    first, second = (kept_version(store, version) for version in (1, 2))
    with cache.get_past(first) as snapshot:
        assert expire_all(store) == [second.manifest]
        assert snapshot.version == 1
    with pytest.raises(NotKept), cache.get_past(second):
        raise AssertionError
    cache._leases.renew()
    cache._leases.renew()
    assert expire_all(store) == [first.manifest]


def test_a_long_download_keeps_its_version(store, monkeypatch):
    """Retention may be shorter than the download of gigabytes."""
    store.add({"a": ["one"]})
    monkeypatch.setattr(versions, "LEASED_BYTES", 0)
    monkeypatch.setattr(store.objects, "is_local", lambda _name: False)
    other = SnapshotCache(store.catalog, store.objects)
    read, ended = store.objects.local_path, []

    def slowly(name, **options):
        monkeypatch.setattr(store.objects, "local_path", read)
        store.add({"b": ["two"]})
        ended.append(expire_all(store))
        return read(name, **options)

    monkeypatch.setattr(store.objects, "local_path", slowly)
    with other.get(TENANT, GENERATION) as snapshot:
        assert (snapshot.version, ended) == (1, [[]])
    other.close()
    assert len(expire_all(store)) == 1


def kept_version(store: Store, version: int):
    generation = generation_info(store.catalog, GENERATION)
    return replace(generation, version=version, manifest=store.published[version - 1].name)


def expire_all(store: Store) -> list[str]:
    """End all versions but the current one that nothing keeps."""
    with store.catalog.write() as connection:
        return expire_versions(connection, tenant=TENANT, now=1e12, retention=Retention(1, 0.0))


def add_walked(store: Store, monkeypatch) -> None:
    """A version of nothing but a graph of 120 rows without deletes, which is walked."""
    store.publish(additions=documents(40), vectors=unit_vectors(120))
    manifest = current_manifest(store.catalog, store.objects)
    store.publish(
        swap=Swap([manifest.segments[0].id], build_merge(store.objects, manifest, manifest.segments, graph_rows=1))
    )
    monkeypatch.setattr(planner, "choose", lambda _costs, **_options: WAYS["walk"])


@pytest.mark.parametrize("room", [None, 0, 100])
def test_texts_that_a_walk_reads_along_the_way_are_those_that_are_asked_for(store, monkeypatch, room):
    add_walked(store, monkeypatch)
    mapped = snapshot_of(store).search(unit_vectors(1)[0], k=30, now=NOW)
    monkeypatch.setattr(opening, "MAPPED_BYTES", 0)
    if room is not None:  # not all of them have room
        monkeypatch.setattr(readers._scratch, "texts", np.empty(room, np.uint8))
    read = snapshot_of(store)
    (segment,) = read.readers.values()
    kernels.warm()
    compiled = len(kernels.walk_and_read.signatures)
    query = unit_vectors(1)[0]
    query.flags.writeable = False
    found = segment.search(query, k=30, ef=64, now=NOW, read=30)

    assert len(kernels.walk_and_read.signatures) == compiled, "no search waits for a compiler"
    assert (len(found.texts) == 30) == (room is None)
    assert (len(found.texts) == 0) == (room == 0)
    assert read.search(unit_vectors(1)[0], k=30, now=NOW) == mapped
    assert [hit.text.encode() for hit in mapped[: len(found.texts)]] == list(found.texts)

    store.publish(additions=documents(10, first=40), vectors=unit_vectors(30, seed=5))
    both = snapshot_of(store).search(unit_vectors(1)[0], k=30, now=NOW)
    monkeypatch.undo()
    assert snapshot_of(store).search(unit_vectors(1)[0], k=30, ef=400, now=NOW) == both


def test_what_is_read_from_a_large_segment_is_what_small_ones_map(store, monkeypatch):
    store.publish(additions=documents(40), vectors=unit_vectors(120))
    asked = {"k": 30, "now": NOW}
    mapped = snapshot_of(store).search(unit_vectors(1)[0], **asked)
    monkeypatch.setattr(opening, "MAPPED_BYTES", 0)
    read = snapshot_of(store)

    assert next(iter(read.readers.values())).segment.payload is not None
    assert read.search(unit_vectors(1)[0], **asked) == mapped
    assert read.search(unit_vectors(1)[0], **asked) == mapped, "records are remembered"


def test_a_large_segment_that_lost_its_end_while_it_was_open_is_named_as_damaged(store, monkeypatch):
    store.publish(additions=documents(40), vectors=unit_vectors(120))
    monkeypatch.setattr(opening, "MAPPED_BYTES", 0)
    snapshot = snapshot_of(store)
    segment = next(iter(snapshot.readers.values())).segment
    with pytest.raises(Damaged, match="shorter"):
        segment.payload.read([("text_bytes", np.array([0]), np.array([segment.sections.size_bytes]))])


@pytest.mark.parametrize("way", ["mapped", "read", "read by the walk"])
@pytest.mark.parametrize("column", ["text_offsets", "document_offsets", "document"])
def test_places_of_texts_that_rot_while_they_are_served_are_named_as_damaged(store, monkeypatch, way, column):
    if way == "read by the walk":
        add_walked(store, monkeypatch)
    else:
        store.publish(additions=documents(40), vectors=unit_vectors(120))
    if way != "mapped":
        monkeypatch.setattr(opening, "MAPPED_BYTES", 0)
    snapshot = snapshot_of(store)
    [path] = [store.objects.local_path(name) for name in snapshot.files if name.endswith(".segment")]
    sections = open_sections(path, kind="segment")
    rotten = np.frombuffer(sections.arrays[column].tobytes(), sections.arrays[column].dtype).copy()
    rotten[5::2] ^= 1 << 18
    path.chmod(0o600)
    with path.open("r+b") as opened:
        opened.seek(sections.places[column])
        opened.write(rotten.tobytes())

    with pytest.raises(Damaged, match=f"{path.name}.*does not lie where its place is told"):
        snapshot.search(unit_vectors(1)[0], k=120, now=NOW)


@pytest.mark.parametrize("rotten", ["ranges that end before they begin", "ranges of others"])
def test_owners_that_do_not_ascend_any_more_are_named_as_damaged_by_a_filter(store, rotten):
    """They are looked up by halves, which leads anywhere among what does not ascend."""
    store.publish(additions=documents(40), vectors=unit_vectors(120))
    snapshot = snapshot_of(store)
    [reader] = snapshot.readers.values()
    [path] = [store.objects.local_path(name) for name in snapshot.files if name.endswith(".segment")]
    sections = open_sections(path, kind="segment")
    owners = sections.arrays["document"].copy()
    if rotten == "ranges of others":
        owners = owners[::-1]
    else:
        owners[52] = 0
    path.chmod(0o600)
    with path.open("r+b") as opened:
        opened.seek(sections.places["document"])
        opened.write(owners.tobytes())

    asked = Member("in", "$document_id", tuple(f"d{number}" for number in range(10, 30)))
    assert reader.shared.in_order
    with pytest.raises(Damaged, match=f"{path.name}.*do not stand together"):
        snapshot.search(unit_vectors(1)[0], k=5, filter=asked, now=NOW)


def test_equal_scores_come_in_the_order_of_chunk_ids_from_scanned_and_from_searched_segments(store):
    vectors = np.tile(unit_vectors(1), (6, 1))
    for number in range(4):
        store.publish(additions=documents(2, first=10 * number), vectors=vectors)
    store.publish(removed_document_ids=["d11"])  # so that this one is searched alone

    for k in (2, 9, 12):
        hits = snapshot_of(store).search(unit_vectors(1)[0], k=k, now=NOW)
        assert [hit.chunk_id for hit in hits] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15][:k]


def test_a_new_version_is_warmed_before_it_takes_over_but_never_the_first(store, monkeypatch):
    warmed: list[tuple[int, int]] = []
    store.publish(additions=documents(3), vectors=unit_vectors(9))
    with_cache = SnapshotCache(store.catalog, store.objects, poll_s=60)
    warm = SearchableSegment.warm

    def watched(shared):
        warmed.append((shared.segment.entry.row_count, version_of_served(with_cache)))
        warm(shared)

    monkeypatch.setattr(SearchableSegment, "warm", watched)
    assert version_of(with_cache) == 1
    store.publish(additions=documents(1, first=3), vectors=unit_vectors(3, seed=1))
    with_cache.refresh(GENERATION)
    eventually(lambda: version_of(with_cache) == 2)
    with_cache.close()

    assert warmed == [(3, 1)], "only the new segment, while the first version served"


def version_of_served(cache: SnapshotCache) -> int:
    newest = cache._shelf.newest(GENERATION)
    assert newest is not None
    return newest.version


def test_a_filter_is_not_misled_by_a_document_without_rows(store):
    rows = documents(3)  # three rows each
    kept = np.array([0, 1, 6])  # two of the first, none of the second, one of the third: as many rows as documents
    trimmed = replace(rows.take(kept), documents=rows.documents, document=np.array([0, 0, 2], "<u4"))
    store.publish(additions=trimmed, vectors=unit_vectors(3))
    for number, count in ((0, 2), (1, 0), (2, 1)):
        wanted = Compare("eq", "$document_id", f"d{number}")
        assert len(snapshot_of(store).search(unit_vectors(1)[0], k=9, filter=wanted, now=NOW)) == count


def test_touching_maps_the_pages_of_an_array(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(3 << 20))
    mapped = np.memmap(path, np.uint8, "r")
    part = mapped[1 << 20 :]  # begins on a page that the first one does not
    assert resident_bytes(path) < 1 << 20, "nothing was read of it"

    assert touch(part) == (sys.platform == "linux" and kernel_version() >= (5, 14))

    if touch(part):
        assert resident_bytes(path) >= part.nbytes
    assert touch(part[:0]) is False


def test_where_the_system_cannot_map_pages_at_once_touching_says_so(monkeypatch):
    array = np.zeros(1 << 20, np.uint8)
    monkeypatch.setattr(warming, "_POPULATE_READ", 9_999)  # as an older Linux answers to what it does not know
    assert touch(array) is False
    monkeypatch.setattr(warming, "_libc", None)
    assert touch(array) is False


def kernel_version() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


def resident_bytes(path: Path) -> int:
    """Return how much of a mapped file this process has mapped pages of, by Linux's word; 0 elsewhere."""
    told = Path("/proc/self/smaps")
    lines = iter(told.read_text().splitlines() if told.exists() else ())
    for line in lines:
        if line.endswith(str(path)):
            return next(int(each.split()[1]) * 1_024 for each in lines if each.startswith("Rss:"))
    return 0
