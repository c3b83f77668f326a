"""Two reader processes search without a pause while a writer publishes ten times a second, and merges.

They search graphs in every way, whatever the planner would choose.
"""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.storage.catalog.engine import Catalog
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.planning import plan_merge
from penstock.storage.publishing.publisher import Swap
from penstock.storage.search.snapshots import SnapshotCache

from ..search_ways import METHODS, SearchWays
from ..storage_samples import DIMENSIONS, GENERATION, TENANT, Store, new_store, rows_of, unit_vectors

FOR_S = 60.0
PER_SECOND = 10
GRAPH_ROWS, FAN_IN = 60, 4
PAUSE_S = 0.002  # leaves the writer a share of the processors


def search(folder: str, seed: int, stop: Event, reports: Any) -> None:
    """Search until told to stop; report what was wrong, how many searches there were, of how many versions, and how.

    Each version adds one document and says in two others how many there are: a mixture of versions cannot add up.
    """
    catalog = Catalog.open(f"sqlite:///{Path(folder) / 'catalog.db'}")
    cache = SnapshotCache(catalog, LocalObjects(Path(folder) / "objects"), poll_s=0.05)
    wrong: list[str] = []
    searches, versions, ways = 0, set[int](), SearchWays(seed)
    ways.take_over(pytest.MonkeyPatch())  # for good: this process does nothing else
    while not stop.is_set():
        try:
            with cache.get(TENANT, GENERATION) as snapshot:
                hits = ways.search(snapshot, np.ones(DIMENSIONS), k=1_000, now=2_000.0)
                versions.add(snapshot.version)
            said = {hit.text for hit in hits if hit.document.document_id in {"a", "b"}}
            if said != {str(len(hits) - 2)}:
                wrong.append(f"version {snapshot.version} of reader {seed}: {len(hits)} hits, said {said}")
        except Exception as error:  # noqa: BLE001  whatever it is, no search may fail
            wrong.append(repr(error))
        searches += 1
        time.sleep(PAUSE_S)
    cache.close()
    catalog.dispose()
    reports.put((wrong[:5], searches, len(versions), ways.searched))


def publish(store: Store, number: int) -> None:
    """Version by version: one document more, and two that say how many."""
    texts: dict[str, Sequence[str]] = {f"n{number}": [f"text {number}"], "a": [str(number)], "b": [str(number)]}
    store.publish(additions=rows_of(texts), vectors=unit_vectors(3, seed=number))


def merge(store: Store) -> bool:
    manifest = store.published[-1].manifest
    chosen = plan_merge(manifest, graph_rows=GRAPH_ROWS)
    if chosen:
        output = build_merge(store.objects, manifest, chosen, graph_rows=GRAPH_ROWS)
        store.publish(swap=Swap([entry.id for entry in chosen], output))
    return bool(chosen)


def test_no_search_fails_or_mixes_versions_while_a_writer_publishes_ten_times_a_second(tmp_path):
    store = new_store(tmp_path)
    store.fan_in = FAN_IN
    publish(store, 1)
    context = multiprocessing.get_context("spawn")
    stop, reports = context.Event(), context.Queue()
    readers = [context.Process(target=search, args=(str(tmp_path), seed, stop, reports)) for seed in (1, 2)]
    for reader in readers:
        reader.start()
    merges, number, began = 0, 1, time.monotonic()
    try:
        while (passed_s := time.monotonic() - began) < FOR_S and all(reader.is_alive() for reader in readers):
            number += 1
            publish(store, number)
            merges += merge(store)
            time.sleep(max(0.0, (number - 1) / PER_SECOND - (time.monotonic() - began)))
    finally:
        stop.set()
    found = [reports.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join(timeout=60)

    print(f"{number / passed_s:.1f} versions a second, {merges} merges")
    assert [wrong for wrong, *_ in found] == [[], []]
    assert all(searches > 100 for _, searches, _, _ in found)
    assert all(versions > 20 for _, _, versions, _ in found)
    assert all(searched[method] > 20 for *_, searched in found for method in METHODS)
    assert merges > 5
    assert number > FOR_S * PER_SECOND / 2, "as often as a busy machine can"
    assert passed_s >= FOR_S
