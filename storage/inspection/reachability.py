"""Whether the rows of a graph can be reached: links lead to every one, and a walk with its own vector finds it.

Links are followed to all rows, in about a second for a million; walks are as those of searches, and may be of a sample.
Rows of flat segments are reached by construction. Tombstoned rows are walked through, and need not be found.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..machine import cores
from ..segments.finders import missed_records
from ..segments.graph_files import GraphView
from ..segments.segment import OpenSegment

EF = 200  # as the probe of a new graph


@dataclass(frozen=True)
class Reached:
    """What was found out of the rows of a graph that must be found.

    Attributes:
        asked: how many were looked for by their own vectors.
        missed: i64, ascending; those of them that were not found, and of all rows those that no link leads to.
        unlinked: to how many of all rows no link leads.
    """

    asked: int
    missed: NDArray[np.int64]
    unlinked: int = 0


def look_for_rows(
    segment: OpenSegment,
    *,
    live: NDArray[np.int64],
    most: int | None,
    l2: bool,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Reached:
    """Look for rows of an opened graph segment, on all cores.

    Args:
        live: i64, the rows that must be found.
        most: how many of them to look for by their own vectors, chosen evenly; None: all.
        on_rows: told after each piece how many were looked for.
    """
    view = segment.graph
    assert view is not None
    chosen = live
    if most is not None and most < len(live):
        chosen = np.random.default_rng(len(live)).choice(live, most, replace=False)
    records = np.sort(view.row_records[chosen].astype(np.int64))  # as they lie in the file
    missed = missed_records(view, records, ef=EF, l2=l2, threads=cores(), on_records=on_rows)
    unlinked = _unlinked(view, live)
    unfound = view.record_rows[np.array(missed, np.int64)].astype(np.int64)
    return Reached(len(records), np.union1d(unfound, unlinked), len(unlinked))


def _unlinked(view: GraphView, live: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of ``live`` to which no links lead from the entry point, on the level that has all rows."""
    seen, queue = np.zeros(view.count, np.bool_), np.empty(view.count, np.int64)
    kernels.reach(view.words, view.stride, view.max_m0, view.entry_point, seen, queue)
    return live[~seen[view.row_records[live]]]
