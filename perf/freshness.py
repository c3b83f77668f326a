"""How soon is a small document searchable on a system that has nothing else to do?

Starts `penstock up` with all its processes in a temporary directory and the `static` embedder, whose weights are small
and whose vectors cost nearly nothing, so that what is measured is the pipeline. One document of a few sentences at a
time is submitted over HTTP by the client; the clock runs from before the request until a search has found it, asked
with the token of its job.

``accepted_*`` is the part until the reply, ``job_*`` the part from there until the job is done as the server stamps it
(the same machine's clock). Between two documents there is a pause by chance, so that no timer is hit always at the
same place.

Doubts: everything is on one machine, so nothing crosses a network; this script's own work counts, and takes one of the
cores; the file system's sync decides about several of the steps.
"""

import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import report
from installation import Installation

from penstock.client import NewDocument, Penstock

MODEL = "static"
COLLECTION = "fresh"
WORDS = ["river", "gate", "water", "turbine", "valve", "pressure", "dam", "head", "flow", "pipe", "wheel", "power"]
TIMEOUT_S = 30.0
WARM = 5  # documents before the first that counts: every process has then worked


def text_of(number: int, rng: random.Random) -> str:
    sentences = [f"Sentence {n} of note {number}: {' '.join(rng.choices(WORDS, k=12))}." for n in range(4)]
    return " ".join(sentences)


@contextmanager
def running() -> Iterator[Penstock]:
    settings = {"EMBEDDING__MODEL": MODEL, "LOG__LEVEL": "warning"}
    with (
        tempfile.TemporaryDirectory(prefix="penstock-perf-") as folder,
        Installation(Path(folder) / "data", settings=settings) as installation,
        installation.client() as client,
    ):
        client.create_collection(COLLECTION)
        yield client


def searchable_s(client: Penstock, *, number: int, rng: random.Random) -> dict[str, float]:
    """Submit one document and return the seconds of each part, until a search has found it."""
    source, text = f"note-{number}", text_of(number, rng)
    began_at, began = time.time(), time.perf_counter()
    submitted = client.submit(COLLECTION, [NewDocument(source=source, text=text)])
    accepted_s = time.perf_counter() - began
    job = client.wait(submitted.job.id, timeout_s=TIMEOUT_S, every_s=TIMEOUT_S)
    only = {"type": "eq", "key": "$source", "value": source}
    found = client.search(COLLECTION, text, k=1, filter=only, min_token=job.token)
    took_s = time.perf_counter() - began
    if [hit.document.source for hit in found.hits] != [source]:
        raise RuntimeError(f"{source} was not found after its job was done: {job}")
    assert job.finished_at is not None
    return {"": took_s, "accepted_": accepted_s, "job_": job.finished_at - began_at - accepted_s}


def percentile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1]


def main() -> None:
    flags = report.parser(__doc__.splitlines()[0])
    flags.add_argument("--documents", type=int, default=200, help="documents, one after the other")
    flags.add_argument("--pause", type=float, default=0.4, help="longest pause between two, in seconds")
    flags.add_argument("--seed", type=int, default=1)
    chosen = flags.parse_args()
    count = 30 if chosen.quick else chosen.documents
    rng = random.Random(chosen.seed)
    found = report.Report("freshness", report.conditions(["celery", "wordllama", "sqlalchemy"]))
    found.conditions |= {"model": MODEL, "documents": count, "longest_pause_s": chosen.pause, "seed": chosen.seed}
    parts: dict[str, list[float]] = defaultdict(list)
    with running() as client, report.progress(quiet=chosen.json) as bar:
        task = bar.add_task("documents", total=WARM + count)
        for number in range(WARM + count):
            for part, took_s in searchable_s(client, number=number, rng=rng).items():
                parts[part].append(1e3 * took_s)
            bar.advance(task)
            time.sleep(rng.uniform(0.0, chosen.pause))
    for part, values in parts.items():
        counted = values[WARM:]
        goals = ("at most 400", "at most 1000") if not part else (None, None)
        found.figures[f"{part}p50_ms"] = report.Figure(percentile(counted, 0.50), "ms", goals[0])
        found.figures[f"{part}p95_ms"] = report.Figure(percentile(counted, 0.95), "ms", goals[1])
    report.show(found, as_json=chosen.json)


if __name__ == "__main__":
    main()
