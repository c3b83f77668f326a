"""How much faster than LlamaIndex is the same ingestion, at first and when one document in a hundred has changed?

LlamaIndex's `IngestionPipeline` with its document store and its cache on, into a Chroma collection on disk; Penstock as
`penstock up` with all its processes, from the first request until everything is searchable. Both get the same texts,
cut at the same number of tokens, and the same embedder, `hash`, which costs next to nothing: what is compared is the
pipeline, its parsing of sentences included. They run one after the other, twice, in turns.

LlamaIndex lives in an environment of its own, see `--help`. Doubts: LlamaIndex works in one process, as its users run
it by default, and Penstock on all cores; its document store and cache stay in memory and are written nowhere, which is
in its favour; the two cut at different places, so the chunks differ in number; made-up texts (see pipeline.py).
"""

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import report
from texts import Load, texts_of

import pipeline as ours
from penstock.api.cli.uploading import ASKED_AT_ONCE
from penstock.client import NewDocument, Penstock, content_hash
from penstock.storage.catalog.values import slices

MODEL = "hash"
CHANGED_EVERY = 100
DOCUMENTS = 2_000
WORDS = 900
SETUP = (
    "Set it up once: python3 -m venv .venv-peers && .venv-peers/bin/pip install -e '.[peers]', "
    "then give --peer-python .venv-peers/bin/python"
)


@dataclass(frozen=True)
class Ingested:
    """What one system did: chunks at first, and seconds for all documents and for the second time."""

    chunks: int
    first_s: float
    again_s: float
    versions: str = ""

    @property
    def chunks_per_s(self) -> float:
        return self.chunks / self.first_s


def main() -> None:
    flags = report.parser(__doc__.splitlines()[0])
    flags.add_argument("--documents", type=int, default=DOCUMENTS)
    flags.add_argument("--words", type=int, default=WORDS, help="words per document")
    flags.add_argument("--rounds", type=int, default=2)
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--peer-python", default=".venv-peers/bin/python", help=f"where LlamaIndex is. {SETUP}")
    given = flags.parse_args()
    count, rounds = (200, 1) if given.quick else (given.documents, given.rounds)
    texts = texts_of(Load(MODEL, count, given.words), seed=given.seed)
    changed = [changed_text(text) if number % CHANGED_EVERY == 0 else text for number, text in enumerate(texts)]
    mine: list[Ingested] = []
    theirs: list[Ingested] = []
    with report.progress(quiet=given.json) as bar:
        for _ in bar.track(range(rounds), description="rounds"):
            theirs.append(by_llamaindex(texts, changed, python=given.peer_python))
            mine.append(by_penstock(texts, changed))
    show(mine, theirs, documents=count, words=given.words, as_json=given.json)


def show(mine: Sequence[Ingested], theirs: Sequence[Ingested], *, documents: int, words: int, as_json: bool) -> None:
    answer = report.Report("peers", report.conditions(["celery", "numpy"]))
    answer.conditions |= {
        "documents": documents,
        "words_per_document": words,
        "chunk_tokens": ours.CHUNK_TOKENS,
        "rounds": len(mine),
        "chunks": mine[0].chunks,
        "chunks_llamaindex": theirs[0].chunks,
        "peer": theirs[0].versions,
    }
    pairs = list(zip(mine, theirs, strict=True))
    figures = {
        "speedup_over_llamaindex": (
            statistics.mean(own.chunks_per_s / other.chunks_per_s for own, other in pairs),
            "chunks/s, ours / theirs",
            "at least 3",
        ),
        "reingest_speedup_over_llamaindex": (
            statistics.mean(other.again_s / own.again_s for own, other in pairs),
            "seconds, theirs / ours, 1 % changed",
            None,
        ),
        "chunks_per_s": (statistics.mean(own.chunks_per_s for own in mine), "chunks/s", None),
        "chunks_per_s_llamaindex": (statistics.mean(other.chunks_per_s for other in theirs), "chunks/s", None),
        "reingest_s": (statistics.mean(own.again_s for own in mine), "s", None),
        "reingest_s_llamaindex": (statistics.mean(other.again_s for other in theirs), "s", None),
    }
    answer.figures = {name: report.Figure(*figure) for name, figure in figures.items()}
    report.show(answer, as_json=as_json)


def changed_text(text: str) -> str:
    """Return the text with another first word, as a correction changes one paragraph."""
    return "Corrected: " + text


def by_penstock(texts: Sequence[str], changed: Sequence[str]) -> Ingested:
    with ours.running(MODEL) as client:
        chunks, first_s = _ingest(client, texts)
        _, again_s = _ingest(client, changed)
        return Ingested(chunks, first_s, again_s)


def _ingest(client: Penstock, texts: Sequence[str]) -> tuple[int, float]:
    """Submit what the server does not know, as `penstock ingest` does, and wait until all of it is searchable."""
    named = {f"text-{number}": text for number, text in enumerate(texts)}
    began = time.perf_counter()
    hashes = {source: content_hash(text.encode()) for source, text in named.items()}
    new: list[str] = []
    for sources in slices(list(named), ASKED_AT_ONCE):
        known = client.known("perf", {source: hashes[source] for source in sources})
        new += [source for source in sources if source not in known]
    job_id: str | None = None
    for sources in slices(new, ours.DOCUMENTS_PER_REQUEST):
        some = [NewDocument(source=source, text=named[source]) for source in sources]
        job_id = client.submit("perf", some, job_id=job_id).job.id
    assert job_id is not None
    job = client.wait(job_id, timeout_s=ours.TIMEOUT_S)
    client.search("perf", "anything", k=1, min_token=job.token)
    took_s = time.perf_counter() - began
    if set(job.documents) - {"indexed"}:
        raise RuntimeError(f"not every document was indexed: {job.documents}")
    return job.chunks_indexed, took_s


def by_llamaindex(texts: Sequence[str], changed: Sequence[str], *, python: str) -> Ingested:
    """Let the other environment do it: LlamaIndex and Celery need different versions of one package."""
    with tempfile.TemporaryDirectory(prefix="penstock-peers-") as folder:
        given = Path(folder) / "texts.json"
        cut = {"chunk_tokens": ours.CHUNK_TOKENS, "overlap_tokens": ours.OVERLAP_TOKENS, "model": MODEL}
        given.write_text(json.dumps({**cut, "first": list(texts), "again": list(changed)}))
        command = [python, str(Path(__file__).with_name("llamaindex.py")), str(given)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python} could not do it: {done.stderr.strip()[-600:]}\n{SETUP}")
    return Ingested(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
