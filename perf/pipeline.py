"""How many chunks a second go from accepted to searchable, at what cost beside the embedder, and in how much memory?

Starts `penstock up` with all its processes in a temporary directory. With `hash`, which costs next to nothing: while
its tenant is paused, many small documents are accepted, half of them as plain HTTP requests whose bodies are ready,
half by the Python client, in turns; then the large ones. The clock runs from the end of the pause until a search finds
everything, with nothing embedded before and nothing in the cache. With `minilm`: from the first request, and the
embedder alone is measured in the same run, on the same chunks, before and after each round.

Doubts: everything is on one machine, this script's polling included; texts are made up from a small vocabulary, which
tokenizes faster than real prose; one connection submits. ``chunks_per_s_hash_with_submission`` counts the time of
accepting too, although nothing else was done meanwhile. What a process maps of files is not in its peak memory, and a
peak between two samples is missed. The cache of vectors has a server of its own, or the queue's would hold both.
"""

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import report
from installation import Installation
from rich.progress import Progress, TaskID
from roles import MemoryWatch, broker_peak_mb, cache_server
from texts import Load, texts_of

from penstock.client import Chunking, Job, NewDocument, Penstock
from penstock.client.wire import Submission, Submitted
from penstock.pipeline.chunking import ChunkingConfig, chunk, resolve
from penstock.pipeline.embedding import EmbeddingOptions, open_embedder
from penstock.storage.machine import cores

CHUNK_TOKENS = 200
OVERLAP_TOKENS = 0
DOCUMENTS_PER_REQUEST = 250
LARGE_PER_REQUEST = 10
TENANT, COLLECTION = "default", "perf"
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Flow:
    """A backlog of documents that was accepted, and then went through an installation with `hash`."""

    chunks: int
    by_http: tuple[int, float]  # documents and seconds
    by_sdk: tuple[int, float]
    accepted_s: float  # of all
    searchable_s: float
    broker_mb: float
    peaks_mb: dict[str, float]


@dataclass(frozen=True)
class Round:
    """One share of the documents: through the installation, and what its embedder alone takes for the same chunks."""

    chunks: int
    pipeline_s: float
    embedder_s: float


def flow(small: Sequence[str], large: Sequence[str], *, bar: Progress) -> Flow:
    """Accept everything while nothing is worked on, then let it go."""
    task = bar.add_task(f"hash: {len(small)} documents and {len(large)} large ones", total=None)
    with (
        cache_server() as cache,
        started("hash", settings={"CACHE_URL": cache}) as (installation, client),
        MemoryWatch(installation) as memory,
    ):
        client.pause_tenant(TENANT)
        began = time.perf_counter()
        backlog = Backlog(installation, client)
        for turn, documents in enumerate(requests_of(small, size=DOCUMENTS_PER_REQUEST)):
            (backlog.by_sdk if turn % 2 else backlog.by_http)(documents)
        by_http, by_sdk = backlog.taken["http"], backlog.taken["sdk"]
        for documents in requests_of(large, size=LARGE_PER_REQUEST):
            backlog.by_sdk(documents)
        accepted_s = time.perf_counter() - began
        began = time.perf_counter()
        client.resume_tenant(TENANT)
        job = searchable(client, backlog.job_id or "", on_progress=partial(_shown, bar, task, 0))
        searchable_s = time.perf_counter() - began
        _check(job, len(small) + len(large))
        broker_mb = broker_peak_mb(installation)
    return Flow(job.chunks_indexed, by_http, by_sdk, accepted_s, searchable_s, broker_mb, dict(memory.peaks_mb))


class Backlog:
    """Submits documents to one job in two ways. ``taken``: documents and seconds of each."""

    def __init__(self, installation: Installation, client: Penstock) -> None:
        self._client = client
        self._http = httpx.Client(
            base_url=installation.url, headers={"Authorization": f"Bearer {installation.key}"}, timeout=TIMEOUT_S
        )
        self.job_id: str | None = None
        self.taken: dict[str, tuple[int, float]] = {"http": (0, 0.0), "sdk": (0, 0.0)}

    def by_http(self, documents: list[NewDocument]) -> None:
        """POST a body that is ready: what the server takes, and little of this process."""
        body = Submission(documents=documents, job_id=self.job_id).model_dump_json(exclude_none=True)
        path = f"/v1/tenants/{TENANT}/collections/{COLLECTION}/documents"
        began = time.perf_counter()
        answer = self._http.post(path, content=body, headers={"Content-Type": "application/json"})
        took_s = time.perf_counter() - began
        self._took("http", Submitted.model_validate_json(answer.raise_for_status().content), took_s)

    def by_sdk(self, documents: list[NewDocument]) -> None:
        began = time.perf_counter()
        submitted = self._client.submit(COLLECTION, documents, job_id=self.job_id)
        self._took("sdk", submitted, time.perf_counter() - began)

    def _took(self, way: str, submitted: Submitted, took_s: float) -> None:
        self.job_id = submitted.job.id
        documents, seconds = self.taken[way]
        self.taken[way] = (documents + submitted.accepted, seconds + took_s)


def beside_the_embedder(load: Load, *, rounds: int, bar: Progress, seed: int) -> list[Round]:
    """Measure one model in rounds: the embedder alone, a share through the pipeline, the embedder alone, and so on.

    The machine may be shared: a share counts against the mean of the embedder's times before and after it.
    """
    texts = texts_of(load, seed=seed)
    config = resolve(
        ChunkingConfig(strategy="recursive", size_tokens=CHUNK_TOKENS, overlap_tokens=OVERLAP_TOKENS), limit=None
    )
    chunks = [text[piece.start : piece.end] for text in texts for piece in chunk(text, config)]
    sample = chunks[: max(64, len(chunks) // (3 * rounds))]
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
    return found


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


def _shown(bar: Progress, task: TaskID, done: int, job: Job) -> None:
    bar.update(task, completed=done + job.chunks_indexed)


@contextmanager
def running(model: str) -> Iterator[Penstock]:
    """Start an installation in a temporary directory and let every process work once."""
    with started(model) as (_, client):
        yield client


@contextmanager
def started(model: str, *, settings: dict[str, str] | None = None) -> Iterator[tuple[Installation, Penstock]]:
    """Give the installation too; ``settings`` as `Installation` takes them."""
    chosen = {"EMBEDDING__MODEL": model, "LOG__LEVEL": "warning", **(settings or {})}
    with (
        tempfile.TemporaryDirectory(prefix="penstock-perf-") as folder,
        Installation(Path(folder) / "data", settings=chosen) as installation,
        installation.client(TENANT) as client,
    ):
        chunking = Chunking(strategy="recursive", size_tokens=CHUNK_TOKENS, overlap_tokens=OVERLAP_TOKENS)
        client.create_collection(COLLECTION, chunking=chunking)
        client.submit(COLLECTION, [NewDocument(source="warm", text="A first document: every process has worked once.")])
        client.wait(client.jobs().data[0].id, timeout_s=TIMEOUT_S)
        yield installation, client


def requests_of(texts: Sequence[str], *, size: int) -> list[list[NewDocument]]:
    documents = [NewDocument(source=hashlib.sha256(text.encode()).hexdigest(), text=text) for text in texts]
    return [documents[first : first + size] for first in range(0, len(documents), size)]


def through_the_pipeline(
    client: Penstock, texts: list[str], *, on_progress: Callable[[Job], None]
) -> tuple[int, float]:
    """Return the chunks indexed and the seconds from the first request until all are searchable."""
    requests = requests_of(texts, size=DOCUMENTS_PER_REQUEST)
    began = time.perf_counter()
    job_id = client.submit(COLLECTION, requests[0]).job.id
    for some in requests[1:]:
        client.submit(COLLECTION, some, job_id=job_id)
    job = searchable(client, job_id, on_progress=on_progress)
    took_s = time.perf_counter() - began
    _check(job, len(texts))
    return job.chunks_indexed, took_s


def searchable(client: Penstock, job_id: str, *, on_progress: Callable[[Job], None]) -> Job:
    """Return the job once a search has found all of it."""
    job = client.wait(job_id, timeout_s=TIMEOUT_S, on_progress=on_progress)
    client.search(COLLECTION, "anything", k=1, min_token=job.token)
    return job


def _check(job: Job, count: int) -> None:
    if job.documents != {"indexed": count}:
        raise RuntimeError(f"not every document was indexed: {job.documents}")


def figures_of(seen: Flow) -> dict[str, report.Figure]:
    """Return what is told of a flow."""
    rates = {"http": seen.by_http[0] / seen.by_http[1], "sdk": seen.by_sdk[0] / seen.by_sdk[1]}
    whole_s = seen.accepted_s + seen.searchable_s
    found = {
        "chunks_per_s_hash": report.Figure(seen.chunks / seen.searchable_s, "chunks/s", "at least 3000"),
        "chunks_per_s_hash_with_submission": report.Figure(seen.chunks / whole_s, "chunks/s"),
        "accepted_per_s_http": report.Figure(rates["http"], "documents/s"),
        "accepted_per_s_sdk": report.Figure(rates["sdk"], "documents/s"),
        "broker_peak_mb": report.Figure(seen.broker_mb, "MB", "at most 20"),
    }
    peaks = {f"peak_mb_{role}": report.Figure(size_mb, "MB") for role, size_mb in sorted(seen.peaks_mb.items())}
    return found | peaks


def main() -> None:
    flags = report.parser(__doc__.splitlines()[0])
    flags.add_argument("--small", type=int, default=20_000, help="small documents for the hash model")
    flags.add_argument("--small-words", type=int, default=200, help="words of each: about four chunks")
    flags.add_argument("--large", type=int, default=200, help="large documents for the hash model")
    flags.add_argument("--large-words", type=int, default=15_000, help="words of each: about 300 chunks")
    flags.add_argument("--documents-minilm", type=int, default=240, help="documents for minilm, 0 for none")
    flags.add_argument("--words", type=int, default=900, help="words per document for minilm")
    flags.add_argument("--seed", type=int, default=1)
    chosen = flags.parse_args()
    small, large, few, rounds = (chosen.small, chosen.large, chosen.documents_minilm, 3)
    if chosen.quick:
        small, large, few, rounds = small // 20, large // 20, few // 20, 1
    found = report.Report("pipeline", report.conditions(["celery", "onnxruntime", "numpy", "sqlalchemy"]))
    found.conditions |= {
        "small_documents": small,
        "words_per_small_document": chosen.small_words,
        "large_documents": large,
        "words_per_large_document": chosen.large_words,
        "chunk_tokens": CHUNK_TOKENS,
        "documents_per_request": DOCUMENTS_PER_REQUEST,
        "seed": chosen.seed,
    }
    with report.progress(quiet=chosen.json) as bar:
        texts = [
            texts_of(Load("hash", count, words), seed=chosen.seed + number)
            for number, (count, words) in enumerate([(small, chosen.small_words), (large, chosen.large_words)])
        ]
        seen = flow(*texts, bar=bar)
        found.conditions["chunks_hash"] = seen.chunks
        found.figures |= figures_of(seen)
        if few:
            again = beside_the_embedder(Load("minilm", few, chosen.words), rounds=rounds, bar=bar, seed=chosen.seed)
            _add_minilm(found, again, words=chosen.words)
    report.show(found, as_json=chosen.json)


def _add_minilm(found: report.Report, rounds: Sequence[Round], *, words: int) -> None:
    chunks = sum(one.chunks for one in rounds)
    found.conditions |= {"chunks_minilm": chunks, "words_per_document_minilm": words, "rounds_minilm": len(rounds)}
    rate = chunks / sum(one.pipeline_s for one in rounds)
    ratio = statistics.median(one.embedder_s / one.pipeline_s for one in rounds)
    found.figures["chunks_per_s_minilm"] = report.Figure(rate, "chunks/s")
    found.figures["overhead_ratio_minilm"] = report.Figure(ratio, "embedder alone / pipeline", "at least 0.9")


if __name__ == "__main__":
    main()
