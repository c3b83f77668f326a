"""How much does the pipeline cost beside the embedder? Chunks per second from accepted to searchable.

Starts `penstock up` with all its processes in a temporary directory, submits documents over HTTP and waits until all
are searchable. The embedder alone is measured in the same run, on the same chunks, before and after.

Doubts: the clock starts with the first request, so the time to submit counts, and so does this script's own work while
it waits; texts are made up from a small vocabulary, which tokenizes faster than real prose; nothing is in the cache.
"""

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import report
from installation import Installation
from rich.progress import Progress

from penstock.client import Chunking, Job, NewDocument
from penstock.pipeline.chunking import ChunkingConfig, chunk, resolve
from penstock.pipeline.embedding import EmbeddingOptions, open_embedder
from penstock.settings.model import cores

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
class Run:
    """What came out: of the installation, and of the embedder alone."""

    chunks: int
    pipeline_s: float
    embedder_s: float

    @property
    def chunks_per_s(self) -> float:
        return self.chunks / self.pipeline_s

    @property
    def overhead_ratio(self) -> float:
        return self.embedder_s / self.pipeline_s


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


def measure(load: Load, *, bar: Progress, seed: int) -> Run:
    """Measure one model: the installation, and the embedder alone before and after it, of which the mean counts."""
    texts = texts_of(load, seed=seed)
    config = resolve(
        ChunkingConfig(strategy="recursive", size_tokens=CHUNK_TOKENS, overlap_tokens=OVERLAP_TOKENS), limit=None
    )
    chunks = [text[piece.start : piece.end] for text in texts for piece in chunk(text, config)]
    # The machine is shared: a sample on each side of the pipeline's run, so that a slow minute hits both.
    sample = chunks if load.model == "hash" else chunks[: max(64, len(chunks) // 3)]
    before = embedder_alone_s(load.model, sample, threads=cores()) / len(sample)
    task = bar.add_task(f"{load.model}: {load.documents} documents", total=len(chunks))
    count, pipeline_s = through_the_pipeline(load, texts, on_progress=lambda done: bar.update(task, completed=done))
    after = embedder_alone_s(load.model, sample, threads=cores()) / len(sample)
    return Run(count, pipeline_s, (before + after) / 2 * count)


def through_the_pipeline(load: Load, texts: list[str], *, on_progress: Callable[[int], None]) -> tuple[int, float]:
    """Return the chunks indexed and the seconds from the first request until all are searchable."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-perf-") as folder,
        Installation(
            Path(folder) / "data", settings={"EMBEDDING__MODEL": load.model, "LOG__LEVEL": "warning"}
        ) as installation,
        installation.client() as client,
    ):
        chunking = Chunking(strategy="recursive", size_tokens=CHUNK_TOKENS, overlap_tokens=OVERLAP_TOKENS)
        client.create_collection("perf", chunking=chunking)
        client.submit(
            "perf", [NewDocument(source="warm", text="A first document, so that every process has worked once.")]
        )
        client.wait(client.jobs().data[0].id, timeout_s=TIMEOUT_S)
        documents = [NewDocument(source=str(number), text=text) for number, text in enumerate(texts)]
        requests = [
            documents[first : first + DOCUMENTS_PER_REQUEST]
            for first in range(0, len(documents), DOCUMENTS_PER_REQUEST)
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
    flags.add_argument("--documents-hash", type=int, default=4000, help="documents for the hash model")
    flags.add_argument("--documents-minilm", type=int, default=120, help="documents for minilm")
    flags.add_argument("--words", type=int, default=900, help="words per document")
    flags.add_argument("--seed", type=int, default=1)
    chosen = flags.parse_args()
    loads = [
        Load("hash", 800 if chosen.quick else chosen.documents_hash, chosen.words),
        Load("minilm", 12 if chosen.quick else chosen.documents_minilm, chosen.words),
    ]
    found = report.Report("pipeline", report.conditions(["celery", "onnxruntime", "numpy", "sqlalchemy"]))
    found.conditions |= {
        "words_per_document": chosen.words,
        "chunk_tokens": CHUNK_TOKENS,
        "documents_per_request": DOCUMENTS_PER_REQUEST,
        "seed": chosen.seed,
    }
    with report.progress(quiet=chosen.json) as bar:
        for load in loads:
            run = measure(load, bar=bar, seed=chosen.seed)
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
