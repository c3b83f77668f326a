"""Merging changes how chunks are stored and nothing of what is served."""

import os
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hnswlib
import numpy as np
import pytest

from penstock.storage.errors import Conflict, Damaged
from penstock.storage.publishing import graphs, merging, repairing
from penstock.storage.publishing.graphs import build_graph
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.planning import plan_fold, plan_merge
from penstock.storage.publishing.publisher import Swap
from penstock.storage.segments.graph_files import check_links
from penstock.storage.segments.manifests import FileEntry, SegmentEntry
from penstock.storage.segments.sections import open_sections
from penstock.storage.segments.segment import derive_sections, open_segment
from penstock.storage.segments.tombstones import read_deletes

from ..storage_samples import DIMENSIONS, Store, current_manifest, many_rows, new_store, rows_of, unit_vectors
from .test_manifests import entry, sample

GRAPH_ROWS = 40


@pytest.fixture
def store(tmp_path):
    return new_store(tmp_path)


def fill(store: Store, count: int, *, rows: int = 4, prefix: str = "d") -> None:
    for i in range(count):
        additions = many_rows(rows, prefix=f"{prefix}{i}-")
        store.publish(additions=additions, vectors=unit_vectors(rows, seed=i))


def merge(store: Store, segments: list[SegmentEntry] | None = None, **changes: object) -> SegmentEntry:
    """Build a merge of all segments, or these, publish it, and check that the content stays."""
    manifest = current_manifest(store.catalog, store.objects)
    inputs = segments or manifest.segments
    output = build_merge(store.objects, manifest, inputs, threads=2, graph_rows=GRAPH_ROWS)
    check_derived(store, output)
    before = store.content()
    store.publish(swap=Swap([each.id for each in inputs], output), **changes)
    if not changes:
        assert store.content() == before
    return output


def check_derived(store: Store, output: SegmentEntry) -> None:
    """Check that what was merged of the inputs' sections is what the merged documents themselves say."""
    segment = open_segment(store.objects, output, dimensions=DIMENSIONS)
    for name, expected in derive_sections(segment.rows).items():
        np.testing.assert_array_equal(segment.sections.arrays[name], expected, err_msg=name)


def flat(*counts: int) -> list[SegmentEntry]:
    return [entry(number, rows=count) for number, count in enumerate(counts)]


def dead(segment: SegmentEntry, count: int) -> SegmentEntry:
    return replace(segment, deleted_count=count, deletes=FileEntry("tenants/acme/x.deletes", 1, ""))


def planned(segments: list[SegmentEntry], *, taken: Sequence[int] = ()) -> list[int] | None:
    plan = plan_merge(sample(segments=segments), graph_rows=100, taken={segments[i].id for i in taken})
    return plan and [segments.index(chosen) for chosen in plan]


def folded(segments: list[SegmentEntry], *, taken: Sequence[int] = ()) -> list[int] | None:
    chosen = {segments[i].id for i in taken}
    plan = plan_fold(sample(segments=segments), graph_rows=100, fan_in=4, taken=chosen)
    return plan and [segments.index(chosen) for chosen in plan]


def test_few_small_segments_are_left_alone():
    for way in (planned, folded):
        assert way([]) is None
        assert way(flat(1, 1, 1)) is None
        assert way([replace(entry(0, rows=99), kind="graph"), *flat(0, 5, 5, 5)[1:]]) is None


def test_neighbours_of_a_size_class_are_folded_lowest_class_first():
    assert folded(flat(20, 20, 1, 2, 3, 1)) == [2, 3, 4, 5]
    assert folded(flat(4, 1, 5, 6)) == [0, 1, 2, 3]
    assert folded(flat(5, 1, 5, 1, 5, 1)) == [0, 1, 2, 3, 4, 5]


def test_a_large_segment_is_not_rewritten_for_a_few_rows():
    assert folded(flat(1, 1, 20, 1, 1)) is None
    assert folded(flat(60, 1, 1, 1)) is None
    assert folded(flat(60, 1, 1, 1, 1)) == [1, 2, 3, 4]


def test_what_is_enough_for_a_graph_is_not_folded():
    assert folded(flat(24, 24, 24, 24)) == [0, 1, 2, 3]
    assert folded(flat(25, 25, 25, 25)) is None


def test_what_is_being_merged_is_neither_folded_nor_merged_again():
    graphs = of_graphs(5_000, 1_250)

    assert folded(flat(1, 1, 1, 1, 1), taken=[0]) == [1, 2, 3, 4]
    assert folded(flat(1, 1, 1, 1, 1), taken=[2]) is None
    assert planned([*graphs, *flat(0, 0, 60, 40)[2:]], taken=[0, 1]) == [2, 3]
    assert planned([*graphs, *flat(0, 0, 60, 40)[2:]], taken=[0, 1, 2]) is None


def test_what_comes_after_a_small_merge_waits_for_its_end():
    assert planned(flat(500, 500, 60, 40), taken=[0, 1]) == [2, 3]
    assert planned(flat(500, 499, 60, 40), taken=[0, 1]) is None


def test_flat_segments_that_are_large_together_become_a_graph():
    assert planned(flat(60, 40)) == [0, 1]
    assert planned(flat(100)) == [0]
    assert planned([dead(flat(100)[0], 1)]) is None


def test_a_graph_grows_by_the_flat_segments_that_follow_it():
    graph = replace(entry(0, rows=99), kind="graph")

    assert planned([graph, *flat(0, 60, 40)[1:]]) == [0, 1, 2]


def of_graphs(*rows: int) -> list[SegmentEntry]:
    return [replace(entry(i, rows=count), kind="graph") for i, count in enumerate(rows)]


def test_a_large_graph_is_not_written_again_for_few_rows_but_a_young_one_begun():
    assert planned([*of_graphs(800), *flat(0, 60, 40)[1:]]) == [0, 1, 2]
    assert planned([*of_graphs(801), *flat(0, 60, 40)[1:]]) == [1, 2]
    assert planned([*of_graphs(10_000, 900), *flat(0, 0, 60, 40)[2:]]) == [1, 2, 3]


def test_a_young_graph_that_has_grown_is_added_to_the_old_one_with_what_follows():
    assert planned([*of_graphs(10_000, 2_499), *flat(0, 0, 5)[2:]]) is None
    assert planned([*of_graphs(10_000, 2_500), *flat(0, 0, 5)[2:]]) == [0, 1, 2]


def test_rows_are_inserted_about_twice_however_large_the_index_grows():
    """What a million rows in a thousand publishes cost, reckoned by the plans alone."""
    segments: list[SegmentEntry] = []
    inserted = written = 0
    for publish in range(1_000):
        segments.append(replace(entry(publish), row_count=1_000, first_chunk_id=1, last_chunk_id=1_000))
        while chosen := (plan_merge(manifest := replace(sample(), segments=segments)) or plan_fold(manifest)):
            at, rows = segments.index(chosen[0]), sum(each.row_count for each in chosen)
            is_graph = chosen[0].kind == "graph" or rows >= 10_000
            if is_graph:
                inserted += rows - (chosen[0].row_count if chosen[0].kind == "graph" else 0)
            written += rows
            kind = "graph" if is_graph else "flat"
            segments[at : at + len(chosen)] = [replace(chosen[0], kind=kind, row_count=rows)]
        assert len(segments) <= 3 + 2 * 8
    assert inserted <= 2.5 * 1_000_000
    assert written <= 30 * 1_000_000


def test_a_writer_that_publishes_behind_a_long_merge_keeps_few_segments(store):
    for publish in range(200):
        store.add({f"d{publish}": ["text"]}, seed=publish)
    manifest = store.published[-1].manifest

    assert sorted(store.content()) == sorted(f"d{publish}" for publish in range(200))
    assert len(manifest.segments) <= 3 * 7 + 1
    assert all(entry.kind == "flat" for entry in manifest.segments)


def test_a_damaged_segment_stays_apart_and_its_neighbours_are_folded(store, caplog):
    for publish in range(4):
        store.add({f"d{publish}": ["text"]})
    damaged = store.published[-1].manifest.segments[1]
    path = store.objects.local_path(damaged.files[0].name)
    data = bytearray(path.read_bytes())
    data[open_sections(path, kind="segment").places["vectors"]] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)

    for publish in range(4, 100):
        store.add({f"d{publish}": ["text"]})

    manifest = store.published[-1].manifest
    assert damaged in manifest.segments
    assert manifest.live_chunks == 100
    assert len(manifest.segments) <= 2 + 2 * 7 + 1
    assert Path(damaged.files[0].name).name in caplog.text


def test_worn_segments_are_written_anew():
    graph = replace(entry(1, rows=90), kind="graph")

    assert planned([*flat(9), dead(graph, 19), entry(2)]) == [1, 2]
    assert planned([*flat(9), dead(graph, 18), entry(2)]) is None
    assert planned([entry(0), dead(entry(1), 6), entry(2)]) == [1]


def test_flat_segments_merge_into_a_flat_one_without_their_tombstones(store):
    fill(store, 5)
    store.publish(removed_document_ids=["d1-0", "d3-0"])

    output = merge(store)

    assert (output.kind, output.row_count, output.deleted_count) == ("flat", 12, 0)
    assert (output.first_chunk_id, output.last_chunk_id) == (1, 20)


def test_flat_segments_merge_into_a_graph_whose_rows_are_the_labels(store):
    fill(store, 15)

    output = merge(store)

    assert (output.kind, output.row_count) == ("graph", 60)
    segment = open_segment(store.objects, output, dimensions=DIMENSIONS)
    expected = np.concatenate([unit_vectors(4, seed=i) for i in range(15)])
    assert np.array_equal(segment.row_vectors(np.arange(60)), expected)
    assert segment.sections.meta["graph_insertions"] == 60
    check_links(segment.graph, source="graph")
    index = hnswlib.Index("ip", DIMENSIONS)
    index.load_index(str(store.objects.local_path(output.files[1].name)))
    assert index.knn_query(expected, k=1)[0].ravel().tolist() == list(range(60))


def test_a_graph_is_extended_and_keeps_its_tombstoned_rows(store):
    fill(store, 15)
    merge(store)
    fill(store, 10, prefix="e")
    store.publish(removed_document_ids=["d2-0", "e4-0"])

    output = merge(store)

    assert (output.kind, output.row_count, output.deleted_count) == ("graph", 96, 4)
    assert read_deletes(store.objects, output).tolist() == [8, 9, 10, 11]
    segment = open_segment(store.objects, output, dimensions=DIMENSIONS)
    assert segment.sections.meta["graph_insertions"] == 60  # each vector of 36 rows is another one's, too
    check_links(segment.graph, source="graph")


def test_a_worn_graph_is_built_anew_without_its_tombstones(store):
    fill(store, 15)
    merge(store)
    store.publish(removed_document_ids=[f"d{i}-0" for i in range(4)])

    plan = plan_merge(store.published[-1].manifest, graph_rows=GRAPH_ROWS)
    output = merge(store, plan)

    assert (output.kind, output.row_count, output.deleted_count) == ("graph", 44, 0)


def test_a_graph_that_shrank_becomes_flat(store):
    fill(store, 12)
    merge(store)
    store.publish(removed_document_ids=[f"d{i}-0" for i in range(6)])

    assert merge(store).kind == "flat"


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_every_metric_gets_a_graph_that_hnswlib_and_we_read_alike(tmp_path, metric):
    store = new_store(tmp_path, metric=metric)
    rows = many_rows(200)
    vectors = np.random.default_rng(1).standard_normal((200, DIMENSIONS)).astype(np.float32)
    vectors = unit_vectors(200) if metric == "cosine" else vectors
    store.publish(additions=rows, vectors=vectors)

    output = merge(store)

    segment = open_segment(store.objects, output, dimensions=DIMENSIONS)
    assert np.array_equal(segment.row_vectors(np.arange(200)), vectors)


def test_deletes_that_land_during_a_merge_hold_after_the_swap(store):
    fill(store, 15)
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=GRAPH_ROWS)
    store.publish(removed_document_ids=["d3-0"])  # a whole input goes
    store.add({"d5-0": ["changed"], "new": ["fresh"]})  # another one, replaced
    before = store.content()

    swapped = store.publish(swap=Swap([each.id for each in manifest.segments], output))

    assert store.content() == before
    assert [(each.kind, each.deleted_count) for each in swapped.manifest.segments] == [("graph", 8), ("flat", 0)]


def test_a_swap_and_additions_go_into_one_version(store):
    fill(store, 5)
    inputs = current_manifest(store.catalog, store.objects).segments
    output = build_merge(store.objects, current_manifest(store.catalog, store.objects), inputs)
    rows = rows_of({"d0-0": ["changed"], "new": ["fresh"]})

    store.publish(
        swap=Swap([each.id for each in inputs], output),
        additions=rows,
        vectors=unit_vectors(2),
        removed_document_ids=["d1-0"],
    )

    assert sorted(store.content()) == ["d0-0", "d2-0", "d3-0", "d4-0", "new"]
    assert store.content()["d0-0"][0][0] == "changed"


def test_random_writes_merges_and_late_swaps_never_change_what_is_served(store):
    """A model of one generation: documents come, change and go, merges are swapped in some versions late."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    model: dict[str, list[str]] = {}
    waiting: Swap | None = None
    store.fan_in = 3
    for step in range(60):
        texts = {f"d{rng.randrange(25)}": [f"{step}.{i}" for i in range(rng.randrange(1, 5))] for _ in range(3)}
        removed = [document for document in rng.sample(sorted(model), len(model) // 12) if document not in texts]
        if waiting and not set(waiting.inputs) & {each.id for each in store.published[-1].manifest.segments}:
            waiting = None  # all its rows were deleted meanwhile
        swap = waiting if rng.random() < 0.4 else None
        taken = waiting.inputs if waiting else ()
        store.add(texts, seed=step, removed_document_ids=removed, swap=swap, taken=taken)
        model = {name: own for name, own in model.items() if name not in removed} | texts
        waiting = None if swap else waiting
        manifest = store.published[-1].manifest
        plan = plan_merge(manifest, graph_rows=20) if waiting is None else None
        if plan:
            output = build_merge(store.objects, manifest, plan, graph_rows=20)
            waiting = Swap([each.id for each in plan], output)
        if step % 10 == 9:
            assert {name: [text for text, _ in own] for name, own in store.content().items()} == model
    assert any(each.kind == "graph" for published in store.published for each in published.manifest.segments)


def test_a_swap_whose_inputs_are_gone_is_refused(store):
    fill(store, 5)
    manifest = current_manifest(store.catalog, store.objects)
    swap = Swap([each.id for each in manifest.segments], build_merge(store.objects, manifest, manifest.segments))
    half = Swap(
        [each.id for each in manifest.segments[:3]], build_merge(store.objects, manifest, manifest.segments[:3])
    )
    store.publish(swap=swap)
    before = store.content()

    for late in (swap, half):
        with pytest.raises(Conflict, match="gone"):
            store.publish(swap=late)
    assert store.content() == before


def test_a_swap_of_which_another_merge_took_a_part_is_refused(store):
    fill(store, 5)
    manifest = current_manifest(store.catalog, store.objects)
    whole, part = (
        Swap([each.id for each in some], build_merge(store.objects, manifest, some))
        for some in (manifest.segments, manifest.segments[2:4])
    )
    store.publish(swap=part)

    with pytest.raises(Conflict, match="gone"):
        store.publish(swap=whole)


@pytest.mark.parametrize("suffix", [".segment", ".hnsw"])
def test_a_swap_whose_output_was_collected_is_refused(store, suffix):
    fill(store, 12)
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=GRAPH_ROWS)
    before = store.content()
    store.objects.delete(next(file.name for file in output.files if file.name.endswith(suffix)))

    with pytest.raises(Conflict, match="are gone: drop it"):
        store.publish(swap=Swap([each.id for each in manifest.segments], output))
    assert store.content() == before


def test_a_swap_that_would_lose_chunks_is_refused(store):
    fill(store, 5)
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments[:4])

    with pytest.raises(Damaged, match="live chunks"):
        store.publish(swap=Swap([each.id for each in manifest.segments], output))


def test_a_merge_of_nothing_but_deleted_rows_is_dropped_at_the_swap(store):
    fill(store, 3)
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments[:2])
    store.publish(removed_document_ids=["d0-0"])
    store.publish(removed_document_ids=["d1-0"])

    with pytest.raises(Conflict):
        store.publish(swap=Swap([each.id for each in manifest.segments[:2]], output))
    assert sorted(store.content()) == ["d2-0"]


def test_a_damaged_input_is_not_merged(store):
    fill(store, 3)
    manifest = current_manifest(store.catalog, store.objects)
    path = store.objects.local_path(manifest.segments[1].files[0].name)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)

    with pytest.raises(Damaged, match="checksum"):
        build_merge(store.objects, manifest, manifest.segments)


def test_a_merge_leaves_nothing_in_scratch_even_when_it_fails(store, monkeypatch):
    fill(store, 15)
    manifest = current_manifest(store.catalog, store.objects)
    # Walks find most rows, and the repair none of those that they miss.
    monkeypatch.setattr(repairing._Repair, "_missed", lambda _self, records, ef=0: [] if ef else list(records))

    with pytest.raises(Damaged, match="refused"):
        build_merge(store.objects, manifest, manifest.segments, graph_rows=GRAPH_ROWS)
    assert list(store.objects.scratch().iterdir()) == []


def test_a_graph_that_was_not_written_whole_is_refused(tmp_path, monkeypatch):
    class Full(hnswlib.Index):
        def save_index(self, path):
            super().save_index(path)
            os.truncate(path, Path(path).stat().st_size - 4)

    monkeypatch.setattr(graphs.hnswlib, "Index", Full)

    with pytest.raises(Damaged, match="disk full"):
        build_graph(tmp_path / "g", vectors=[unit_vectors(9)], first=np.arange(9), dimensions=8, metric="l2", threads=1)


def test_a_graph_segment_is_as_old_as_its_first_file_however_long_the_building_took(store, monkeypatch):
    """A collector leaves young files alone; that of a graph is written first of all, and dated when it is done."""
    build_graph = merging.build_graph
    built_at: list[float] = []

    def build(*args, **options):
        inserted = build_graph(*args, **options)
        built_at.append(time.time())
        return inserted

    monkeypatch.setattr(merging, "build_graph", build)
    fill(store, 12)
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=GRAPH_ROWS)

    assert output.kind == "graph"
    assert min(store.objects.find(file.name).modified_at for file in output.files) >= built_at[0] - 0.02
