"""Looking for every row of a graph by its own vector: what is lost is told, what is not is found cheaply."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from penstock.storage import kernels
from penstock.storage.inspection.examined import is_lossy
from penstock.storage.inspection.reachability import EF, Reached, look_for_rows
from penstock.storage.segments import finders
from penstock.storage.segments.graph_files import GraphView

from ..storage_samples import unit_vectors
from .test_repairing import built, cut_off

ROWS = 1_500


def look(view: GraphView, *, live: np.ndarray | None = None, most: int | None = None, l2: bool = False) -> Reached:
    rows = np.arange(ROWS) if live is None else live
    seen: list[int] = []
    found = look_for_rows(SimpleNamespace(graph=view), live=rows, most=most, l2=l2, on_rows=seen.append)
    assert sum(seen) == found.asked == min(len(rows), most or len(rows))
    return found


@pytest.fixture
def walks(monkeypatch) -> list[int]:
    """How wide each walk was."""
    made: list[int] = []
    walk = kernels.walk

    def counted(graph, query, l2, marks, epoch, best, costs):
        made.append(len(best))
        return walk(graph, query, l2, marks, epoch, best, costs)

    monkeypatch.setattr(kernels, "walk", counted)
    return made


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_rows_that_no_link_leads_to_are_told_and_no_others(tmp_path, metric):
    view = built(tmp_path / "g", unit_vectors(ROWS, dimensions=32), metric=metric)
    assert look(view, l2=metric == "l2").missed.tolist() == []
    lost = cut_off(tmp_path / "g", view, list(range(100, 130)))
    expected = sorted(view.record_rows[sorted(lost)].tolist())
    assert look(view, l2=metric == "l2").missed.tolist() == expected


def test_the_rows_that_no_link_leads_to_are_told_however_few_are_looked_for(tmp_path):
    view = built(tmp_path / "g", unit_vectors(ROWS, dimensions=32))
    assert look(view, most=1).unlinked == 0
    lost = cut_off(tmp_path / "g", view, list(range(100, 130)))
    found = look(view, most=1)
    assert found.missed.tolist() == sorted(view.record_rows[sorted(lost)].tolist())
    assert found.unlinked == len(lost)
    assert is_lossy(found)


def test_rows_that_need_not_be_found_are_not_looked_for(tmp_path):
    view = built(tmp_path / "g", unit_vectors(ROWS, dimensions=32))
    lost = view.record_rows[sorted(cut_off(tmp_path / "g", view, list(range(100, 130))))]
    live = np.setdiff1d(np.arange(ROWS), lost[5:])
    assert look(view, live=live).missed.tolist() == sorted(lost[:5].tolist())
    assert look(view, most=100).asked == 100


def test_nearly_every_row_costs_a_narrow_walk_only(tmp_path, walks):
    view = built(tmp_path / "g", unit_vectors(ROWS, dimensions=32))
    look(view)
    assert len(walks) >= ROWS
    assert walks.count(EF) < ROWS / 50


def test_a_row_that_a_narrow_walk_does_not_find_is_looked_for_widely(tmp_path, walks, monkeypatch):
    view = built(tmp_path / "g", unit_vectors(ROWS, dimensions=32))
    monkeypatch.setattr(finders, "NARROW_EFS", (1,))
    assert look(view).missed.tolist() == []
    assert walks.count(EF) > 0


def test_equal_vectors_crowd_each_other_out_and_are_not_lost(tmp_path):
    vectors = unit_vectors(ROWS, dimensions=32)
    vectors[:600] = vectors[0]  # an island, whose building loses some of the others
    assert all(row >= 600 for row in look(built(tmp_path / "g", vectors)).missed.tolist())


def test_rows_are_looked_for_where_the_system_does_not_tell_which_cores_are_ours(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    assert look(built(tmp_path / "g", unit_vectors(ROWS, dimensions=32))).missed.tolist() == []


def test_more_searches_than_marks_have_epochs_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(finders, "_EPOCHS", 7)
    view = built(tmp_path / "g", unit_vectors(ROWS, dimensions=32))
    assert look(view).missed.tolist() == []
