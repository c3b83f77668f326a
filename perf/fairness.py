"""Does a tenant with a huge backlog delay another's few documents? Time of ten beside it, over their time when idle.

Starts `penstock up` with all its processes in a temporary directory. One tenant submits its flood while it is paused,
so that all of it waits, and is resumed. The other submits ten documents at a time and waits until a search finds them:
first while nothing else goes on, then beside the flood, as long as that lasts. The figure is the ratio of the medians.

Doubts: both tenants use one machine, so the ten documents also share its cores with the processes that work on the
flood, and those of two cores are more than two; fair turns cannot give that time back. The flood is made of documents
of one kind. A run that ends before the flood does says so, for what came after it would be measured on an idle system.
Beside other programs on the machine both medians grow, but not by the same factor.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import report
from installation import Installation
from texts import Load, texts_of

from penstock.client import Chunking, NewDocument, Penstock
from pipeline import CHUNK_TOKENS

FEW = 10
FLOOD_WORDS, FEW_WORDS = 150, 150  # three or four chunks each
DOCUMENTS_PER_REQUEST = 500
VARIETY = 1_000  # texts of the flood; each document adds its number to every sentence, so that none is in the cache
PAUSE_S = 0.2  # between two submissions of the few: a person's, not a second flood
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Two:
    """The installation with its two tenants."""

    flood: Penstock
    few: Penstock

    def waiting(self) -> int:
        """Return how many documents of the flood are in no batch yet."""
        return self.flood.get_tenant("flood").waiting_documents


@contextmanager
def running(model: str) -> Iterator[Two]:
    """Start an installation in a temporary directory, and let both tenants have worked once."""
    settings = {"EMBEDDING__MODEL": model, "LOG__LEVEL": "warning", "TENANTS__CREATE": "default,flood,few"}
    with (
        tempfile.TemporaryDirectory(prefix="penstock-perf-") as folder,
        Installation(Path(folder) / "data", settings=settings) as installation,
        installation.client("flood") as flood,
        installation.client("few") as few,
    ):
        for client in (flood, few):
            chunking = Chunking(strategy="recursive", size_tokens=CHUNK_TOKENS, overlap_tokens=0)
            client.create_collection("perf", chunking=chunking)
            client.submit("perf", [NewDocument(source="warm", text="A first document: every process has worked once.")])
            client.wait(client.jobs().data[0].id, timeout_s=TIMEOUT_S)
        yield Two(flood, few)


class Few:
    """Submits ten documents again and again; never the same."""

    def __init__(self, client: Penstock, *, seed: int) -> None:
        self._client = client
        self._texts = texts_of(Load("", VARIETY, FEW_WORDS), seed=seed)
        self._submitted = 0

    def seconds(self) -> float:
        """Return how long it takes from the request until a search finds ten documents."""
        numbers = range(self._submitted, self._submitted + FEW)
        self._submitted += FEW
        documents = [
            NewDocument(source=f"few-{at}", text=_numbered(self._texts[at % VARIETY], at), title=f"Number {at}")
            for at in numbers
        ]
        began = time.perf_counter()
        job = self._client.submit("perf", documents).job
        done = self._client.wait(job.id, timeout_s=TIMEOUT_S, every_s=0.02)
        self._client.search("perf", "anything", k=1, min_token=done.token)
        took_s = time.perf_counter() - began
        if done.documents != {"indexed": FEW}:
            raise RuntimeError(f"not every document was indexed: {done.documents}")
        time.sleep(PAUSE_S)
        return took_s


def _numbered(text: str, number: int) -> str:
    return text.replace(".", f" {number}.")


def submit_flood(two: Two, documents: int, *, seed: int, on_progress: Callable[[int], None]) -> None:
    """Accept the whole flood while its tenant is paused."""
    two.flood.pause_tenant("flood")
    texts = texts_of(Load("", min(documents, VARIETY), FLOOD_WORDS), seed=seed)
    job_id = None
    for first in range(0, documents, DOCUMENTS_PER_REQUEST):
        numbers = range(first, min(documents, first + DOCUMENTS_PER_REQUEST))
        some = [NewDocument(source=f"flood-{at}", text=_numbered(texts[at % len(texts)], at)) for at in numbers]
        job_id = two.flood.submit("perf", some, job_id=job_id).job.id
        on_progress(numbers.stop)


def main() -> None:
    flags = report.parser("Does a tenant with a huge backlog delay another's few documents?")
    flags.add_argument("--documents", type=int, default=200_000, help="documents of the flood")
    flags.add_argument("--turns", type=int, default=30, help="how often the few are submitted, idle and beside it")
    flags.add_argument("--model", choices=["hash", "static"], default="hash")
    flags.add_argument("--seed", type=int, default=1)
    chosen = flags.parse_args()
    documents, turns = (6_000, 6) if chosen.quick else (chosen.documents, chosen.turns)
    with report.progress(quiet=chosen.json) as bar, running(chosen.model) as two:
        few = Few(two.few, seed=chosen.seed)
        for _ in range(3):
            few.seconds()
        task = bar.add_task("idle", total=turns)
        idle = [_counted(few, bar.advance, task) for _ in range(turns)]
        task = bar.add_task(f"submitting {documents:,}", total=documents)
        submit_flood(two, documents, seed=chosen.seed + 1, on_progress=lambda done: bar.update(task, completed=done))
        two.flood.resume_tenant("flood")
        task = bar.add_task("beside the flood", total=turns)
        beside: list[float] = []
        while len(beside) < turns:
            took_s = _counted(few, bar.advance, task)
            if not two.waiting():
                break
            beside.append(took_s)
        left = two.waiting()
    if not beside:
        raise SystemExit("the flood ended before anything could be measured: make it larger with --documents")
    found = report.Report("fairness", report.conditions(["celery", "numpy", "sqlalchemy"]))
    found.conditions |= {
        "model": chosen.model,
        "documents_of_the_flood": documents,
        "left_of_it": left,
        "few": FEW,
        "turns_idle": len(idle),
        "turns_beside": len(beside),
        "seed": chosen.seed,
    }
    medians = statistics.median(idle), statistics.median(beside)
    found.figures = {
        "slowdown": report.Figure(medians[1] / medians[0], "beside the flood / idle", "at most 2"),
        "idle_p50_ms": report.Figure(1e3 * medians[0], "ms"),
        "beside_p50_ms": report.Figure(1e3 * medians[1], "ms"),
        "beside_max_ms": report.Figure(1e3 * max(beside), "ms"),
    }
    report.show(found, as_json=chosen.json)


def _counted(few: Few, advance: Callable[..., None], task: object) -> float:
    took_s = few.seconds()
    advance(task)
    return took_s


if __name__ == "__main__":
    main()
