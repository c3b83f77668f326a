"""Repairing graphs: every row of a graph that is published can be found by its own vector."""

from pathlib import Path

import hnswlib
import numpy as np
import pytest

from penstock.storage import kernels
from penstock.storage.errors import Damaged
from penstock.storage.publishing import repairing
from penstock.storage.publishing.graphs import build_graph
from penstock.storage.publishing.repairing import Repaired, repair
from penstock.storage.publishing.twins import first_rows
from penstock.storage.segments.graph_files import HEADER_BYTES, GraphView, check_links, open_built

from ..storage_samples import unit_vectors


def built(path: Path, vectors: np.ndarray, *, metric: str = "cosine") -> GraphView:
    count, dimensions = vectors.shape
    first = first_rows([vectors], count=count)
    build_graph(path, vectors=[vectors], first=first, dimensions=dimensions, metric=metric, threads=1)
    return open_built(path, dimensions=dimensions)


def cut_off(path: Path, view: GraphView, records: list[int]) -> set[int]:
    """Let no link lead to these records, an island as hnswlib leaves them; but for those that upper levels lead to."""
    upper = np.flatnonzero(view.upper[view.upper_at.astype(np.int64) - 1]).tolist()
    lost = set(records) - {view.entry_point, *upper}
    words = np.memmap(path, "<u4", "r+", HEADER_BYTES, (view.count, view.stride))
    for record in set(range(view.count)) - lost:
        links = words[record, 1 : 1 + (words[record, 0] & 0xFFFF)]
        kept = [link for link in links.tolist() if link not in lost]
        words[record, 0] = len(kept)
        words[record, 1 : 1 + len(kept)] = kept
    return lost


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_rows_that_no_search_finds_are_linked_in(tmp_path, metric):
    seed = 3  # one graph, always the same: a repair promises 99.5 %, and this one comes to 99.9
    view = built(tmp_path / "g", unit_vectors(2_000, dimensions=32, seed=seed), metric=metric)
    lost = cut_off(tmp_path / "g", view, np.random.default_rng(seed).permutation(2_000)[:60].tolist())

    repaired = repair(tmp_path / "g", view, l2=metric == "l2")

    assert repaired.unreachable == len(lost) > 20
    assert repaired.linked >= 1
    check_links(view, source="g")
    index = hnswlib.Index("l2" if metric == "l2" else "ip", 32)
    index.load_index(str(tmp_path / "g"))
    index.set_ef(200)
    labels, _ = index.knn_query(view.row_vectors(np.arange(2_000)), k=1)
    assert (labels.ravel() == np.arange(2_000)).mean() > 0.999
    assert repair(tmp_path / "g", view, l2=metric == "l2").unreachable == 0


def test_a_record_whose_neighbours_have_no_room_takes_the_place_of_a_link_that_others_have(tmp_path):
    view = built(tmp_path / "g", unit_vectors(2_000, dimensions=8))
    lost = cut_off(tmp_path / "g", view, list(range(40)))
    words = np.memmap(tmp_path / "g", "<u4", "r+", HEADER_BYTES, (view.count, view.stride))
    for record in range(view.count):  # full of links, some of them twice
        count = words[record, 0] & 0xFFFF
        words[record, 1 : 1 + view.max_m0] = np.resize(words[record, 1 : 1 + count], view.max_m0)
        words[record, 0] = view.max_m0

    assert repair(tmp_path / "g", view, l2=False).unreachable >= len(lost)
    assert repair(tmp_path / "g", view, l2=False).unreachable == 0


def test_a_row_that_loses_its_last_link_while_others_are_linked_in_is_linked_in_too(tmp_path, monkeypatch):
    view = built(tmp_path / "g", unit_vectors(2_000, dimensions=32))
    missed, lost = repairing._Repair._missed, set[int]()

    def displaced(self, records, **options):
        """What making room for a link may do, after all records were reached once."""
        if not lost:
            lost.update(cut_off(tmp_path / "g", view, [400, 401, 402]))
        return missed(self, [record for record in records if record not in lost], **options)

    monkeypatch.setattr(repairing._Repair, "_missed", displaced)
    repair(tmp_path / "g", view, l2=False)
    monkeypatch.undo()
    assert lost
    assert repair(tmp_path / "g", view, l2=False).unreachable == 0


def test_where_every_row_is_searched_for_nearly_all_cost_a_narrow_walk(tmp_path, monkeypatch):
    """Of a million rows it is as much work as building the graph was."""
    view = built(tmp_path / "g", unit_vectors(2_000, dimensions=32))
    widths, walk = list[int](), kernels.walk
    monkeypatch.setattr(kernels, "walk", lambda *given: widths.append(len(given[-1])) or walk(*given))
    monkeypatch.setattr(repairing, "SEARCHED_SHARE", -1.0)
    repair(tmp_path / "g", view, l2=False, threads=2)
    assert len(widths) >= 2_000 + 2 * repairing.PROBED_ROWS
    assert widths.count(repairing.EF) < 100


def test_a_graph_whose_walks_find_too_little_is_told_and_neither_searched_for_every_row_nor_refused(
    tmp_path, monkeypatch
):
    """It is what its vectors are like: more links would not help, and searches will not walk it."""
    view = built(tmp_path / "g", unit_vectors(2_000, dimensions=32))
    asked, missed = list[int](), repairing.missed_records

    def half(view, records, **options):
        asked.append(len(records))
        return missed(view, records, **options) if len(records) < 500 else list(records[::2])

    monkeypatch.setattr(repairing, "missed_records", half)
    repaired = repair(tmp_path / "g", view, l2=False)
    assert repaired.found == 0.5
    assert max(asked) == repairing.PROBED_ROWS == 1_000


def test_equal_vectors_are_not_taken_for_lost_rows(tmp_path):
    view = built(tmp_path / "g", np.repeat(unit_vectors(1), 60, axis=0))

    assert repair(tmp_path / "g", view, l2=False) == Repaired(unreachable=0, probed=60, missed=0, linked=0)


def test_a_graph_whose_rows_stay_lost_is_refused(tmp_path, monkeypatch):
    view = built(tmp_path / "g", unit_vectors(500, dimensions=32))
    monkeypatch.setattr(repairing._Repair, "_link", lambda _self, _record: False)
    assert cut_off(tmp_path / "g", view, [1, 2, 3, 4, 5])

    with pytest.raises(Damaged, match="cannot be reached"):
        repair(tmp_path / "g", view, l2=False)
