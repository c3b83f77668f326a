"""What does a filter cost, and what does it lose, however many rows it accepts and wherever they lie?

Filters that are independent of the vectors, and two kinds that go with them: rows on one side of a half-space, and rows
nearest to one passage. hnswlib's own filter is a Python function that it calls for every record it meets.

Doubts: made-up vectors (see vectors.py); every filter is evaluated anew for every search, as nothing is remembered
between them; every search is timed the second time, when its pages are mapped.
"""

import time
from dataclasses import dataclass

import hnswlib
import indexes
import numpy as np
import report
import vectors as made_up
from numpy.typing import NDArray

from penstock.storage.search import planner
from penstock.storage.search.versions import Snapshot
from penstock.storage.segments.fields import Compare, Filter

K, EF = 10, 64
NOW = 2_000.0
SHARES = (0.9, 0.5, 0.3, 0.2, 0.1, 0.03, 0.01, 0.001)
FEW_ROWS = 10


@dataclass(frozen=True)
class Measured:
    field: str
    accepted: int
    p50_ms: float
    p99_ms: float
    recall: float
    method: str


def main() -> None:
    flags = report.parser("What does a filter cost, and what does it lose?")
    flags.add_argument("--vectors", type=int, default=1_000_000, help="rows of the index")
    flags.add_argument("--queries", type=int, default=200)
    given = flags.parse_args()
    count = min(given.vectors, indexes.QUICK_ROWS) if given.quick else given.vectors
    costs = planner.prepare()
    index = indexes.built(count)
    snapshot = index.open(costs=costs)
    queries = made_up.queries(given.queries, dimensions=indexes.DIMENSIONS)
    unfiltered = _timed(snapshot, queries, None)[0]
    measured: list[Measured] = []
    cases = [(field, share) for field in ("uniform", "half", "cluster") for share in (*SHARES, FEW_ROWS / count)]
    with report.progress(quiet=given.json) as bar:
        for field, share in bar.track(cases, description="filters"):
            measured.append(_measure(snapshot, index, queries, field=field, share=share))
    speedup = _against_callback(index, snapshot, queries[: given.queries // 10])
    if not given.json:
        _print(measured, unfiltered)
    conditions = {**report.conditions(["numba", "hnswlib"]), "vectors": count, "k": K, "ef": EF}
    answer = report.Report("filters", conditions)
    base = float(np.median(unfiltered))
    independent = [each for each in measured if each.field == "uniform"]
    correlated = [each for each in measured if each.field != "uniform"]
    figures = {
        "min_recall": (min(each.recall for each in independent), "of the 10 nearest", "at least 0.98"),
        "min_recall_correlated": (min(each.recall for each in correlated), "of the 10 nearest", "at least 0.98"),
        "worst_over_unfiltered": (max(each.p50_ms for each in measured) / base, "p50 / p50", "at most 10"),
        "worst_p99_over_unfiltered": (max(each.p99_ms for each in measured) / base, "p99 / p50", "at most 40"),
        "speedup_over_callback_1pct": (speedup, "hnswlib / ours", "at least 20"),
        "unfiltered_p50_ms": (base, "ms", None),
        "component_ns": (costs.component_ns, "measured", None),
        "word_ns": (costs.word_ns, "measured", None),
    }
    answer.figures = {name: report.Figure(*figure) for name, figure in figures.items()}
    report.show(answer, as_json=given.json)


def _measure(
    snapshot: Snapshot, index: indexes.Index, queries: NDArray[np.float32], *, field: str, share: float
) -> Measured:
    values = _values(snapshot, field)
    rows = np.flatnonzero(values < share)
    truth = made_up.nearest(index.vectors, queries, k=min(K, len(rows)), rows=rows)
    ms, found, methods = _timed(snapshot, queries, Compare("lt", field, share))
    method = ", ".join(sorted(methods))
    return Measured(
        field, len(rows), float(np.median(ms)), float(np.quantile(ms, 0.99)), made_up.recall(found, truth), method
    )


def _values(snapshot: Snapshot, field: str) -> NDArray[np.float64]:
    """Return what each row holds, as it was stored: rounded."""
    shared = next(iter(snapshot.readers.values())).shared
    fields = shared.fields
    values = np.empty(fields.document_count)
    for path, _, first, end in fields.spans():
        if path == field.encode():
            some = fields.values[first:end].view(np.float64)
            held = np.diff(fields.offsets[first : end + 1])
            values[fields.postings[fields.offsets[first] : fields.offsets[end]]] = np.repeat(some, held)
    return values


def _timed(
    snapshot: Snapshot, queries: NDArray[np.float32], condition: Filter | None
) -> tuple[NDArray[np.float64], list[list[int]], set[str]]:
    for query in queries:  # the first time, records are met whose pages nobody has touched
        snapshot.search(query, k=K, ef=EF, filter=condition, now=NOW)
    ms, found, methods = [], [], set()
    for query in queries:
        began = time.perf_counter()
        hits, plans = snapshot.explained(query, k=K, ef=EF, filter=condition, now=NOW)
        ms.append(1e3 * (time.perf_counter() - began))
        found.append([hit.chunk_id - 1 for hit in hits])
        methods |= {plan.method for plan in plans}
    return np.array(ms), found, methods


def _against_callback(index: indexes.Index, snapshot: Snapshot, queries: NDArray[np.float32]) -> float:
    peer = hnswlib.Index("ip", indexes.DIMENSIONS)
    peer.load_index(str(index.graph_path))
    peer.set_num_threads(1)
    peer.set_ef(EF)
    accepted = _values(snapshot, "uniform") < 0.01
    theirs = []
    for query in queries:
        began = time.perf_counter()
        peer.knn_query(query, K, filter=lambda label: bool(accepted[label]))
        theirs.append(1e3 * (time.perf_counter() - began))
    ours, _, _ = _timed(snapshot, queries, Compare("lt", "uniform", 0.01))
    return float(np.median(theirs) / np.median(ours))


def _print(measured: list[Measured], unfiltered: NDArray[np.float64]) -> None:
    table = report.Table(title="filters, one by one", title_justify="left")
    for column in ("filter", "accepted", "p50 ms", "p99 ms", "recall", "how"):
        table.add_column(column, justify="left" if column in {"filter", "how"} else "right")
    table.add_row("none", "all", f"{np.median(unfiltered):.2f}", f"{np.quantile(unfiltered, 0.99):.2f}", "", "walk")
    for each in measured:
        times = (f"{each.p50_ms:.2f}", f"{each.p99_ms:.2f}", f"{each.recall:.3f}")
        table.add_row(each.field, f"{each.accepted:,}", *times, each.method)
    report.Console().print(table)


if __name__ == "__main__":
    main()
