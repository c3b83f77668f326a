"""How much memory does a vector take in a query process, and how much a further process?

A process opens the index and searches until it has met nearly all records; what is resident then, less what was
before, counts. float32, and int8 records with float32 comparison of the best. A further process shares the mapped
files: only what is its own counts, by proportional set size over all of them.

Doubts: text and metadata are resident only as far as hits were read. Page tables and the kernel's own cache are not
counted. Linux only.
"""

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import indexes
import report
import vectors as made_up

from penstock.storage.search import planner

K, EF = 10, 64
SEARCHES = 10_000
QUERIES = 1_000


@dataclass(frozen=True)
class Resident:
    """Bytes of one process: resident, and its share of what several have in common."""

    rss: int
    pss: int


def main() -> None:
    flags = report.parser("How much memory does a vector take, and how much a further process?")
    flags.add_argument("--vectors", type=int, default=1_000_000, help="rows of the index")
    given = flags.parse_args()
    count = min(given.vectors, indexes.QUICK_ROWS) if given.quick else given.vectors
    searches = SEARCHES // 5 if given.quick else SEARCHES
    taken = {kind: _measure(count, kind, searches=searches, processes=1) for kind in ("none", "int8")}
    alone, both = taken["none"].total_pss, _measure(count, "none", searches=searches, processes=2).total_pss
    answer = report.Report("memory", {**report.conditions(), "vectors": count, "dimensions": indexes.DIMENSIONS})
    figures = {
        "bytes_per_vector": (taken["none"].per_vector, "bytes", "at most 1,900"),
        "bytes_per_vector_int8": (taken["int8"].per_vector, "bytes", "at most 750"),
        "recall": (taken["none"].recall, "of the 10 nearest", None),
        "recall_int8": (taken["int8"].recall, "of the 10 nearest", "at least 0.95"),
        "growth_per_process": (both / alone - 1, "of one process", "at most 0.15"),
        "process_mb": (alone / 1e6, "MB, one process", None),
    }
    answer.figures = {name: report.Figure(*figure) for name, figure in figures.items()}
    report.show(answer, as_json=given.json)


@dataclass(frozen=True)
class Taken:
    per_vector: float
    recall: float
    total_pss: int


def _measure(count: int, quantization: str, *, searches: int, processes: int) -> Taken:
    index = indexes.built(count, quantization=quantization)
    queries = made_up.queries(QUERIES, dimensions=indexes.DIMENSIONS)
    truth = made_up.nearest(index.vectors, queries, k=K)
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(processes)]
    workers = [context.Process(target=_search, args=[count, quantization, searches, pipe[1]]) for pipe in pipes]
    for worker in workers:
        worker.start()
    answers = [pipe[0].recv() for pipe in pipes]  # every process has searched
    for pipe in pipes:
        pipe[0].send("look")
    looks: list[Resident] = [pipe[0].recv() for pipe in pipes]
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe[0].send("end")
        worker.join()
    before, found = answers[0]
    return Taken((looks[0].rss - before.rss) / count, made_up.recall(found, truth), sum(look.pss for look in looks))


def _search(count: int, quantization: str, searches: int, pipe: Connection) -> None:
    costs = planner.prepare()
    index = indexes.built(count, quantization=quantization)
    queries = made_up.queries(QUERIES, dimensions=indexes.DIMENSIONS)
    more = made_up.sample(searches, dimensions=indexes.DIMENSIONS, seed=31)
    before = _resident()
    snapshot = index.open(costs=costs)
    found = [[hit.chunk_id - 1 for hit in snapshot.search(q, k=K, ef=EF, now=2_000.0)] for q in queries]
    for part in more:
        for query in part:
            snapshot.search(query, k=K, ef=EF, now=2_000.0)
    pipe.send((before, found))
    pipe.recv()
    pipe.send(_resident())
    pipe.recv()


def _resident() -> Resident:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return Resident(rss=sizes["Rss"], pss=sizes["Pss"])


if __name__ == "__main__":
    main()
