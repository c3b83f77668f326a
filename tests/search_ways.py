"""Every way of searching a graph, drawn anew for each search: with few rows the planner would always choose a scan."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from penstock.storage.search import planner
from penstock.storage.search.hits import Hit
from penstock.storage.search.versions import SegmentPlan, Snapshot

METHODS = {"scan", "walk", "codes", "walk, then codes"}
RESCORED = 6  # candidates of the codes: fewer than a graph has rows, so that the codes decide something
RECALL = 0.95  # of self-queries, by the ways that are not exact


class SearchWays:
    """Stands in for ``planner.choose``, and counts how graphs were really searched.

    However it is searched, a search for as many rows as there are finds all of them, and no others.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.searched = Counter[str]()  # graphs, by method
        self.sought = Counter[str]()  # rows by their own vectors, where a graph was searched in a way that is not exact
        self.missed = Counter[str]()

    def take_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planner, "choose", self.choose)
        monkeypatch.setattr(planner, "RESCORED", RESCORED)
        monkeypatch.setattr(planner, "RESCORED_PER_HIT", 1)

    def choose(self, _costs: planner.Costs, *, ef: int, **_options: int) -> planner.Choice:
        ways = (
            planner.Choice("scan"),
            planner.Choice("walk", ef=ef, budget=10**9),
            planner.Choice("walk", ef=ef, budget=0),  # given up for the codes, where there is a filter or a delete
            planner.Choice("codes"),
        )
        return self.random.choice(ways)

    def search(self, snapshot: Snapshot, vector: object, **asked: object) -> list[Hit]:
        """Search, and count by which methods graphs were."""
        hits, plans = snapshot.explained(vector, **asked)  # type: ignore[arg-type]
        self.searched.update(plan.method for plan in _graphs(plans))
        return hits

    def finds(self, snapshot: Snapshot, vector: object, *, wanted: object, now: float) -> bool:
        """Say whether a row is the best hit for its own vector; ``wanted`` says so of a hit.

        Where all of it was exact this is asserted. Else it is counted for `check`.
        """
        (best,), plans = snapshot.explained(vector, k=1, ef=4, now=now)  # type: ignore[arg-type]
        found = bool(wanted(best))  # type: ignore[operator]
        rough = {plan.method for plan in _graphs(plans)} - {"scan", "none"}
        assert found or rough, f"{best} came first by an exact search"
        self.searched.update(plan.method for plan in _graphs(plans))
        self.sought.update(rough)
        self.missed.update(() if found else rough)
        return found

    def check(self) -> None:
        """Assert at the end of a run that graphs were searched in every way, and that those not exact had recall."""
        print({method: (self.searched[method], self.sought[method], self.missed[method]) for method in METHODS})
        assert all(self.searched[method] >= 100 for method in METHODS)
        for method in METHODS - {"scan"}:
            assert self.sought[method] >= 50, f"{method} was hardly asked for a row by its own vector"
            assert self.missed[method] <= (1 - RECALL) * self.sought[method], f"{method} misses rows"


def _graphs(plans: Sequence[SegmentPlan]) -> list[SegmentPlan]:
    return [plan for plan in plans if plan.kind == "graph"]
