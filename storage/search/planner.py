"""Which way to search a graph segment, from how many of its rows a filter accepts. It searches nothing itself.

There are three ways, and none of them is ever wrong about which rows count:

* *scan*: compare every accepted row. Exact; the cost grows with the rows.
* *walk*: go through the graph and keep accepted rows, until ``ef`` of them are nearest. The fewer rows are accepted,
  the more records it visits; and where a filter goes with the geometry (one author, one month) it may visit very many,
  so it has a budget.
* *codes*: estimate every accepted row from its 1-bit code, and compare the best few. The recall does not depend on the
  filter; the cost grows with the rows, at a twentieth of a scan.

What each costs depends on the machine: ``calibrate`` measures it once, before the first search.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .. import code_kernels, kernels
from ..segments.codes import words_of

Method = Literal["none", "scan", "walk", "codes", "walk, then codes"]

VISITS_PER_EF = 12  # records a walk visits per place of `ef`; by the root of the share that is accepted, more
WALKED_SHARE = 0.25  # of rows accepted; below it a walk misses rows where the filter goes with the geometry
WIDENED = 2.0  # times `ef`, where a quarter of the rows or more is refused
BUDGET_SHARE = 0.5  # of what the codes would cost: then a walk is given up
RESCORED = 200  # candidates of the codes to compare by their vectors, for ten hits
RESCORED_PER_HIT = 5  # for more
UNWALKED = 5  # times as many where the graph is not walked: what walks miss, codes tell apart less well too

_ROWS = 16_384
_ROUNDS = 3


@dataclass(frozen=True)
class Costs:
    """Nanoseconds: to compare one row's vector out of order, per component; to look at a code, per word.

    The defaults are those of a server core of 2021.
    """

    component_ns: float = 0.4
    word_ns: float = 4.0

    def scan_ns(self, rows: int, *, dimensions: int) -> float:
        return rows * dimensions * self.component_ns

    def codes_ns(self, rows: int, *, dimensions: int, candidates: int) -> float:
        words = words_of(dimensions)[0] + 1
        return rows * words * self.word_ns + self.scan_ns(candidates, dimensions=dimensions)


TYPICAL = Costs()


class Choice(NamedTuple):
    """A walk keeps ``ef`` rows; after ``budget`` visits it is given up for the codes."""

    method: Literal["scan", "walk", "codes"]
    ef: int = 0
    budget: int = 0


def rescored(hits: int, *, walked: bool = True) -> int:
    """Return how many candidates of the codes to compare by their vectors."""
    return max(RESCORED, RESCORED_PER_HIT * hits) * (1 if walked else UNWALKED)


def choose(costs: Costs, *, accepted: int, count: int, dimensions: int, k: int, ef: int, walked: bool = True) -> Choice:
    """Choose how to search a graph of ``count`` rows of which ``accepted`` may be found.

    ``walked``: whether its walks find its rows; else it is not walked.
    """
    if walked and accepted == count and VISITS_PER_EF * ef < count:
        return Choice("walk", ef=ef, budget=count)
    scan_ns = costs.scan_ns(accepted, dimensions=dimensions)
    codes_ns = costs.codes_ns(accepted, dimensions=dimensions, candidates=rescored(k, walked=walked))
    cheapest = min(scan_ns, codes_ns)
    visit_ns = costs.scan_ns(1, dimensions=dimensions)
    share = accepted / count
    wide = int(ef * min(WIDENED, 1 + (WIDENED - 1) * 4 * (1 - share)))
    visits = VISITS_PER_EF * wide / math.sqrt(share)
    if walked and share >= WALKED_SHARE and visits * visit_ns < cheapest:
        return Choice("walk", ef=wide, budget=int(max(2 * visits, BUDGET_SHARE * cheapest / visit_ns)))
    return Choice("scan" if scan_ns <= codes_ns else "codes")


def prepare() -> Costs:
    """Compile every kernel of a search and measure what they cost here. Takes seconds after an installation only."""
    kernels.warm()
    code_kernels.warm()
    return calibrate()


def calibrate(clock: Callable[[], float] = time.perf_counter) -> Costs:
    """Measure what the kernels cost here, in a tenth of a second. They must have been compiled: ``kernels.warm``."""
    dimensions, words = 256, 5
    numbers = np.random.default_rng(0)
    floats = np.zeros(4 * _ROWS * dimensions, np.float32)  # more than a cache holds, as the vectors of a graph are
    floats[:: 4096 // 4] = 1
    floats.flags.writeable = False
    places = numbers.permutation(4 * _ROWS)[:_ROWS] * dimensions
    query, best, found = np.ones(dimensions, np.float32), np.empty(10, np.int64), np.empty(10, np.float32)
    query.flags.writeable = False
    codes = np.zeros((8 * _ROWS, words), np.uint64)
    factors = codes.view(np.float32)
    rows = np.sort(numbers.permutation(len(codes))[:_ROWS])
    planes, weights = np.zeros((code_kernels.QUERY_BITS + 1, words - 1), np.uint64), np.zeros(4, np.float32)
    scan_s = _least(lambda: kernels.scan(floats, places, query, False, best, found), clock)
    limit, room, costs = np.float32(-1), np.empty(_ROWS, np.int64), np.empty(_ROWS, np.float32)
    codes_s = _least(
        lambda: code_kernels.estimate_heads(codes, factors, rows, planes, weights, limit, room, costs), clock
    )
    return Costs(component_ns=scan_s / _ROWS / dimensions * 1e9, word_ns=codes_s / _ROWS / words * 1e9)


def _least(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the least time of a few runs: other work can only make it longer."""
    times = []
    for _ in range(_ROUNDS):
        began = clock()
        run()
        times.append(clock() - began)
    return min(times)
