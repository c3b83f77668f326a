"""How long does a search take, beside hnswlib on the same file at the same ef, and how much does it find?

Both return rows and scores of the ten nearest, ours from the mapped file, hnswlib's after loading it; they take turns,
query by query. ``p50_ms`` and ``p99_ms`` are of a whole search: query checked, segments searched, and the best rows
decoded into hits with text and metadata.

Doubts: everything is in memory and nothing else runs; made-up vectors (see vectors.py); a server adds its own time.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import hnswlib
import indexes
import numpy as np
import report
import vectors as made_up
from numpy.typing import NDArray

from penstock.storage.search import planner
from penstock.storage.search.versions import Snapshot

K, EF = 10, 64
ROUNDS = 3
NOW = 2_000.0
SCALING_TURNS = 25

Search = Callable[[NDArray[np.float32]], list[int]]


@dataclass(frozen=True)
class Timed:
    """Milliseconds of each search, and the rows that each found."""

    ms: NDArray[np.float64]
    found: list[list[int]]

    @property
    def p50(self) -> float:
        return float(np.median(self.ms))

    @property
    def p99(self) -> float:
        return float(np.quantile(self.ms, 0.99))


def main() -> None:
    flags = report.parser("How long does a search take, beside hnswlib, and how much does it find?")
    flags.add_argument("--vectors", type=int, default=1_000_000, help="rows of the index")
    flags.add_argument("--queries", type=int, default=1_000)
    given = flags.parse_args()
    count = min(given.vectors, indexes.QUICK_ROWS) if given.quick else given.vectors
    costs = planner.prepare()
    index = indexes.built(count)
    queries = made_up.queries(given.queries, dimensions=indexes.DIMENSIONS)
    queries.flags.writeable = False
    truth = made_up.nearest(index.vectors, queries, k=K)
    rounded = indexes.built(count, quantization="int8").open(costs=costs)
    ways: dict[str, Search] = {
        "rows": _rows(index.open(costs=costs)),
        "hnswlib": _theirs(index),
        "int8": _rows(rounded),
        "hits": _hits(index.open(costs=costs)),
    }
    timed = _in_turns(ways, queries)
    rates = _rates(index.open(costs=costs), queries)
    show(timed, truth, rates=rates, count=count, as_json=given.json)


def show(
    timed: dict[str, Timed], truth: NDArray[np.int64], *, rates: NDArray[np.float64], count: int, as_json: bool
) -> None:
    rows, int8, hits, theirs = timed["rows"], timed["int8"], timed["hits"], timed["hnswlib"]
    answer = report.Report("search", {**report.conditions(["numba", "hnswlib"]), "vectors": count, "k": K, "ef": EF})
    alone, together = np.median(rates, axis=0)
    figures = {
        "latency_ratio": (rows.p50 / theirs.p50, "ours / hnswlib", "at most 1.1"),
        "latency_ratio_hits": (hits.p50 / theirs.p50, "whole search / hnswlib", None),
        "p50_ms": (hits.p50, "ms", None),
        "p99_ms": (hits.p99, "ms", None),
        "recall": (made_up.recall(rows.found, truth), "of the 10 nearest", None),
        "qps": (float(alone), "searches/s, 1 thread", None),
        "qps_2_threads": (float(together), "searches/s", None),
        "scaling": (float(np.median(rates[:, 1] / rates[:, 0])), "searches/s, 2 threads / 1", "at least 1.8"),
        "latency_ratio_int8": (int8.p50 / theirs.p50, "ours / hnswlib", None),
        "recall_int8": (made_up.recall(int8.found, truth), "of the 10 nearest", "at least 0.95"),
        "p50_ms_hnswlib": (theirs.p50, "ms", None),
        "p99_ms_hnswlib": (theirs.p99, "ms", None),
        "recall_hnswlib": (made_up.recall(theirs.found, truth), "of the 10 nearest", None),
    }
    answer.figures = {name: report.Figure(*figure) for name, figure in figures.items()}
    report.show(answer, as_json=as_json)


def _rows(snapshot: Snapshot) -> Search:
    reader = next(iter(snapshot.readers.values()))

    def search(query: NDArray[np.float32]) -> list[int]:
        return reader.search(query, k=K, ef=EF, now=NOW).rows[:K].tolist()

    return search


def _hits(snapshot: Snapshot) -> Search:
    return lambda query: [hit.chunk_id - 1 for hit in snapshot.search(query, k=K, ef=EF, now=NOW)]


def _theirs(index: indexes.Index) -> Search:
    peer = hnswlib.Index("ip", indexes.DIMENSIONS)
    peer.load_index(str(index.graph_path))
    peer.set_num_threads(1)
    peer.set_ef(EF)
    return lambda query: peer.knn_query(query, K)[0][0].tolist()


def _in_turns(ways: dict[str, Search], queries: NDArray[np.float32]) -> dict[str, Timed]:
    """Ask every query of every way, another one first each time; the first round only warms up."""
    names = list(ways)
    ms: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[list[int]]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for number, query in enumerate(queries):
            first = (number + turn) % len(names)
            for name in names[first:] + names[:first]:
                search, own = ways[name], query
                if name == "hits":  # of another query, for what `rows` has just read would be in the caches
                    own = queries[number - len(queries) // 2]
                began = time.perf_counter()
                rows = search(own)
                took = time.perf_counter() - began
                if turn:
                    ms[name].append(1e3 * took)
                else:
                    found[name].append(rows)
    return {name: Timed(np.array(ms[name]), found[name]) for name in ways}


def _rates(snapshot: Snapshot, queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return f64[turns, 2], searches per second by one thread and by two: many turns, as machines vary."""
    turns = [[_throughput(snapshot, queries, threads=threads) for threads in (1, 2)] for _ in range(SCALING_TURNS)]
    return np.array(turns)


def _throughput(snapshot: Snapshot, queries: NDArray[np.float32], *, threads: int, for_s: float = 0.25) -> float:
    counts = [0] * threads
    ends_at = time.perf_counter() + for_s

    def work(own: int) -> None:
        search = _hits(snapshot)
        while time.perf_counter() < ends_at:
            search(queries[(counts[own] * threads + own) % len(queries)])
            counts[own] += 1

    workers = [threading.Thread(target=work, args=[own]) for own in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / for_s


if __name__ == "__main__":
    main()
