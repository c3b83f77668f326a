"""The figures of an index, and the probe: right where searches are right, and telling where they are not."""

from dataclasses import replace

import numpy as np
import pytest

from penstock.storage import ledger
from penstock.storage.catalog.generations import generation_info
from penstock.storage.inspection import probing
from penstock.storage.inspection.probing import Probe
from penstock.storage.inspection.statistics import read_statistics
from penstock.storage.ledger.overview import open_merges
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Swap
from penstock.storage.search.snapshots import open_snapshot

from ..storage_samples import GENERATION, Store, current_manifest, many_rows, new_store, unit_vectors

NOW = 5_000.0


def snapshot_of(store: Store):
    return open_snapshot(store.objects, generation_info(store.catalog, GENERATION))


def grown(folder, *, metric: str = "cosine") -> Store:
    """A generation with a graph segment of 400 rows and a flat one of 40, both with tombstones."""
    store = new_store(folder, metric=metric)
    store.publish(additions=many_rows(400), vectors=unit_vectors(400))
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=100)
    store.publish(swap=Swap([manifest.segments[0].id], output), removed_document_ids=["d1"])
    store.publish(additions=many_rows(40, prefix="e"), vectors=unit_vectors(40, seed=1))
    store.publish(removed_document_ids=["e1"])
    return store


def probed(store: Store, *, rows: int = 50):
    probe = Probe(snapshot_of(store), rows=rows, ef=64, now=NOW)
    return probe.result([probe.ask(number) for number in range(len(probe))])


def test_the_figures_are_those_of_the_files_and_add_up(tmp_path):
    store = grown(tmp_path)
    manifest = current_manifest(store.catalog, store.objects)
    figures = read_statistics(snapshot_of(store))
    graph, flat = figures.segments
    assert (graph.kind, graph.rows, graph.live, graph.deleted) == ("graph", 400, 396, 4)
    assert (flat.kind, flat.rows, flat.live, flat.deleted) == ("flat", 40, 36, 4)
    for segment, entry in zip(figures.segments, manifest.segments, strict=True):
        on_disk = sum(store.objects.local_path(file.name).stat().st_size for file in entry.all_files)
        assert segment.size_bytes == on_disk
        assert segment.bytes_per_vector == on_disk / entry.row_count
    assert graph.graph_insertions == 400
    assert figures.insertions_per_vector == 1.0
    assert figures.totals["rows"] == 440
    assert figures.totals["live"] == manifest.live_chunks == 432
    assert figures.bytes_per_vector == figures.totals["size_bytes"] / 432


def test_an_index_without_a_row_has_no_averages(tmp_path):
    figures = read_statistics(snapshot_of(new_store(tmp_path)))
    assert figures.described() == {
        "rows": 0,
        "live": 0,
        "deleted": 0,
        "size_bytes": 0,
        "graph_insertions": 0,
        "bytes_per_vector": None,
        "graph_insertions_per_vector": None,
        "segments": [],
    }


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_sound_index_finds_every_row_and_nearly_every_neighbour(tmp_path, metric):
    result = probed(grown(tmp_path, metric=metric))
    assert (result.wanted, result.asked, result.k, result.ef) == (50, 50, 10, 64)
    assert result.self_recall == 1.0
    assert result.recall > 0.97


def test_rows_with_the_same_vector_count_as_found(tmp_path):
    store = new_store(tmp_path)
    store.publish(additions=many_rows(60), vectors=np.repeat(unit_vectors(2), 30, axis=0))
    result = probed(store)
    assert (result.self_recall, result.recall) == (1.0, 1.0)


def test_a_search_that_misses_rows_is_told(tmp_path, monkeypatch):
    store = grown(tmp_path)
    found = probing.Snapshot.search

    def forgetful(self, *args, **values):
        return [hit for hit in found(self, *args, **values) if hit.chunk_id % 4]

    monkeypatch.setattr(probing.Snapshot, "search", forgetful)
    result = probed(store, rows=200)
    assert 0.6 < result.self_recall < 0.9
    assert 0.6 < result.recall < 0.9


def test_neither_deleted_nor_expired_rows_are_asked(tmp_path):
    store = new_store(tmp_path)
    rows = many_rows(8)
    expiring = [replace(record, expires_at=NOW - 1 if number else None) for number, record in enumerate(rows.documents)]
    store.publish(additions=replace(rows, documents=type(rows.documents).of(expiring)), vectors=unit_vectors(8))
    store.publish(additions=many_rows(4, prefix="e"), vectors=unit_vectors(4, seed=1))
    store.publish(removed_document_ids=["e0"])
    result = probed(store)
    assert (result.wanted, result.asked, result.self_recall) == (4, 4, 1.0)


def test_a_probe_of_nothing_says_that_it_asked_nothing(tmp_path):
    result = probed(new_store(tmp_path))
    assert (result.wanted, result.asked, result.self_recall, result.recall) == (0, 0, None, None)


def test_open_merges_are_told_from_the_ledger(tmp_path):
    store = grown(tmp_path)
    assert open_merges(store.catalog, GENERATION) == []
    manifest = current_manifest(store.catalog, store.objects)
    details = {"segments": [entry.id for entry in manifest.segments]}
    ledger.open_merge(store.catalog, generation_id=GENERATION, details=details, now=NOW)
    (merge,) = open_merges(store.catalog, GENERATION)
    assert (merge.stage, merge.state, merge.segments, merge.attempts, merge.created_at) == ("merge", "ready", 2, 0, NOW)
