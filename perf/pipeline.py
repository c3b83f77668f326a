"""How much does the pipeline cost beside the embedder? Chunks per second from accepted to searchable.

Starts `penstock up` with all its processes in a temporary directory, submits documents over HTTP and waits until all
are searchable. The embedder alone is measured in the same run, on the same chunks, before and after each round.

Doubts: the clock starts with the first request, so the time to submit counts, and so does this script's own work while
it waits; texts are made up from a small vocabulary, which tokenizes faster than real prose; nothing is in the cache.
"""

import hashlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import report
from installation import Installation
from rich.progress import Progress, TaskID

from penstock.client import Chunking, Job, NewDocument, Penstock
from penstock.pipeline.chunking import ChunkingConfig, chunk, resolve
from penstock.pipeline.embedding import EmbeddingOptions, open_embedder
from penstock.settings.groups import cores

CHUNK_TOKENS = 200
OVERLAP_TOKENS = 0
DOCUMENTS_PER_REQUEST = 250
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Load:
    """What is submitted. ``words`` is the length of one document; 150 words are about one chunk."""

    model: str
    documents: int
    words: int


@dataclass(frozen=True)
class Round:
    """One share of the documents: through the installation, and what its embedder alone takes for the same chunks."""

    chunks: int
    pipeline_s: float
    embedder_s: float


@dataclass(frozen=True)
class Run:
    """What came out for one model."""

    rounds: list[Round]

    @property
    def chunks(self) -> int:
        return sum(one.chunks for one in self.rounds)

    @property
    def chunks_per_s(self) -> float:
        return self.chunks / sum(one.pipeline_s for one in self.rounds)

    @property
    def overhead_ratio(self) -> float:
        return statistics.median(one.embedder_s / one.pipeline_s for one in self.rounds)


def texts_of(load: Load, *, seed: int) -> list[str]:
    """Return the documents: paragraphs of sentences over a vocabulary with Zipf's distribution."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghilmnoprstuvwy", k=rng.randint(2, 9))) for _ in range(5000)]
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    return [_document(rng.choices(vocabulary, weights, k=load.words), rng) for _ in range(load.documents)]


def _document(words: list[str], rng: random.Random) -> str:
    sentences = []
    while words:
        length = rng.randint(6, 18)
        sentences.append(" ".join(words[:length]).capitalize() + ".")
        words = words[length:]
    return "\n\n".join(" ".join(sentences[first : first + 5]) for first in range(0, len(sentences), 5))


def embedder_alone_s(model: str, chunks: list[str], *, threads: int) -> float:
    """Return the time the embedder needs for these texts, in calls of the size the embed role makes."""
    embedder = open_embedder(model, EmbeddingOptions(threads=threads))
    try:
        embedder.embed_passages(chunks[:8])
        calls = [chunks[first : first + 64] for first in range(0, len(chunks), 64)]
        began = time.perf_counter()
        for call in calls:
            embedder.embed_passages(call)
        return time.perf_counter() - began
    finally:
        embedder.close()


def measure(load: Load, *, rounds: int, bar: Progress, seed: int) -> Run:
    """Measure one model in rounds: the embedder alone, a share through the pipeline, the embedder alone, and so on.

    The machine may be shared: a share counts against the mean of the embedder's times before and after it.
    """
    texts = texts_of(load, seed=seed)
    config = resolve(
        ChunkingConfig(strategy="recursive", size_tokens=CHUNK_TOKENS, overlap_tokens=OVERLAP_TOKENS), limit=None
    )
    chunks = [text[piece.start : piece.end] for text in texts for piece in chunk(text, config)]
    sample = chunks if load.model == "hash" else chunks[: max(64, len(chunks) // (3 * rounds))]
    task = bar.add_task(f"{load.model}: {load.documents} documents", total=len(chunks))

    def alone() -> float:
        return embedder_alone_s(load.model, sample, threads=cores()) / len(sample)

    found: list[Round] = []
    with running(load.model) as client:
        before = alone()
        for number in range(rounds):
            done = sum(one.chunks for one in found)
            count, pipeline_s = through_the_pipeline(
                client, texts[number::rounds], on_progress=partial(_shown, bar, task, done)
            )
            after = alone()
            found.append(Round(count, pipeline_s, (before + after) / 2 * count))
            before = after
    return Run(found)


def _shown(bar: Progress, task: TaskID, done: int, count: int) -> None:
    bar.update(task, completed=done + count)


@contextmanager
def running(model: str) -> Iterator[Penstock]:
    """Start an installation in a temporary directory and let every process work once."""
    settings = {"EMBEDDING__MODEL": model, "LOG__LEVEL": "warning"}
    with (
        tempfile.TemporaryDirectory(prefix="penstock-perf-") as folder,
        Installation(Path(folder) / "data", settings=settings) as installation,
        installation.client() as client,
    ):
        chunking = Chunking(strategy="recursive", size_tokens=CHUNK_TOKENS, overlap_tokens=OVERLAP_TOKENS)
        client.create_collection("perf", chunking=chunking)
        client.submit("perf", [NewDocument(source="warm", text="A first document: every process has worked once.")])
        client.wait(client.jobs().data[0].id, timeout_s=TIMEOUT_S)
        yield client


def through_the_pipeline(
    client: Penstock, texts: list[str], *, on_progress: Callable[[int], None]
) -> tuple[int, float]:
    """Return the chunks indexed and the seconds from the first request until all are searchable."""
    documents = [NewDocument(source=hashlib.sha256(text.encode()).hexdigest(), text=text) for text in texts]
    requests = [
        documents[first : first + DOCUMENTS_PER_REQUEST] for first in range(0, len(documents), DOCUMENTS_PER_REQUEST)
    ]
    began = time.perf_counter()
    job_id = client.submit("perf", requests[0]).job.id
    for some in requests[1:]:
        client.submit("perf", some, job_id=job_id)
    job = client.wait(job_id, timeout_s=TIMEOUT_S, on_progress=lambda seen: on_progress(seen.chunks_indexed))
    client.search("perf", "anything", k=1, min_token=job.token)
    took_s = time.perf_counter() - began
    _check(job, len(texts))
    return job.chunks_indexed, took_s


def _check(job: Job, count: int) -> None:
    if job.documents != {"indexed": count}:
        raise RuntimeError(f"not every document was indexed: {job.documents}")


def main() -> None:
    flags = report.parser(__doc__.splitlines()[0])
    flags.add_argument("--documents-hash", type=int, default=6000, help="documents for the hash model")
    flags.add_argument("--documents-minilm", type=int, default=240, help="documents for minilm")
    flags.add_argument("--words", type=int, default=900, help="words per document")
    flags.add_argument("--seed", type=int, default=1)
    chosen = flags.parse_args()
    rounds = 1 if chosen.quick else 3
    loads = [
        Load("hash", 800 if chosen.quick else chosen.documents_hash, chosen.words),
        Load("minilm", 12 if chosen.quick else chosen.documents_minilm, chosen.words),
    ]
    found = report.Report("pipeline", report.conditions(["celery", "onnxruntime", "numpy", "sqlalchemy"]))
    found.conditions |= {
        "words_per_document": chosen.words,
        "chunk_tokens": CHUNK_TOKENS,
        "documents_per_request": DOCUMENTS_PER_REQUEST,
        "rounds": rounds,
        "seed": chosen.seed,
    }
    with report.progress(quiet=chosen.json) as bar:
        for load in loads:
            run = measure(load, rounds=rounds, bar=bar, seed=chosen.seed)
            found.conditions[f"chunks_{load.model}"] = run.chunks
            rate_goal = "at least 1500" if load.model == "hash" else None
            ratio_goal = "at least 0.9" if load.model == "minilm" else None
            found.figures[f"chunks_per_s_{load.model}"] = report.Figure(run.chunks_per_s, "chunks/s", rate_goal)
            found.figures[f"overhead_ratio_{load.model}"] = report.Figure(
                run.overhead_ratio, "embedder alone / pipeline", ratio_goal
            )
    report.show(found, as_json=chosen.json)


if __name__ == "__main__":
    main()
