"""Re-embeds a live collection from the model static to minilm, while searches and ingests run; then goes back.

It starts a whole Penstock in a temporary directory, and ends with an error if a search fails, if one finds less than
the collection holds, or if a document is lost. Nothing is left running.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.client import Chunking, ClientError, NewDocument, Penstock
from penstock.client.wire import Reembedding

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "examples" / "corpus"
COLLECTION = "handbook"
START_S, PATIENCE_S, STOP_S = 180.0, 300.0, 90.0
SEARCH_EVERY_S, INGEST_EVERY_S = 0.02, 0.5


def main() -> int:
    """Run the example and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="penstock-reembed-") as folder, _installation(Path(folder)) as connected:
        url, key = connected
        with Penstock(url, key) as client:
            return _reembed(client, url, key)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _reembed(client: Penstock, url: str, key: str) -> int:
    client.create_collection(COLLECTION, model="static", chunking=Chunking(size_tokens=128))
    documents = [
        NewDocument(source=str(path.relative_to(CORPUS)), text=path.read_text("utf-8", errors="replace"))
        for path in sorted((CORPUS / "documents").rglob("*"))
        if path.suffix in (".md", ".txt")
    ]
    job = client.wait(client.submit(COLLECTION, documents).job.id, timeout_s=PATIENCE_S)
    _say(f"{job.total} documents, {job.chunks_indexed} chunks, embedded with {client.collection(COLLECTION).model}")
    with _busy(url, key) as work:
        begun = client.reembed(COLLECTION, model="minilm", keep_s=3600)
        _say(f"re-embedding {begun.chunks_total} chunks with {begun.other.model}, beside searches and ingests")
        switched = _until(client, "switched")
        _tell(switched)
        work.must_go_on(client)
        client.return_to_former(COLLECTION)
        returned = _until(client, "returned")
        _say(f"rolled back: {returned.serving.model} serves again, {returned.other.model} follows it")
        work.must_go_on(client)
    return _judge(client, work, documents=len(documents))


def _until(client: Penstock, state: str) -> Reembedding:
    found = client.wait_for_reembedding(COLLECTION, states=(state, "refused", "cancelled"), timeout_s=PATIENCE_S)
    if found.state == "refused":
        _say(f"the check refused it: {found.report}")
        client.switch_generations(COLLECTION, force=True)
        return client.wait_for_reembedding(COLLECTION, states=(state,), timeout_s=PATIENCE_S)
    if found.state != state:
        raise SystemExit(f"the re-embedding is {found.state}: {found.error}")
    return found


def _tell(found: Reembedding) -> None:
    report = found.report or {}
    _say(f"the check: {json.dumps({name: report.get(name) for name in ('passed', 'overlap', 'rank_agreement')})}")
    for side in ("old", "new"):
        told = report.get(side, {})
        _say(f"  {side}: {told.get('model')}, median {told.get('latency', {}).get('p50_ms')} ms")
    _say(f"switched: {found.serving.model} serves, {found.other.model} follows it")


@dataclass
class _Work:
    """What ran beside: how many searches answered with which model, what failed, and which documents came."""

    searches: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    ingested: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def search(self, client: Penstock, questions: list[str]) -> None:
        number = 0
        while not self.stop.wait(SEARCH_EVERY_S):
            number += 1
            try:
                found = client.search(COLLECTION, questions[number % len(questions)], k=5, explain=True)
            except ClientError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                continue
            if len(found.hits) < 5:
                self.failures.append(f"a search found {len(found.hits)} of 5")
            model = str((found.explain or {}).get("model"))
            self.searches[model] = self.searches.get(model, 0) + 1

    def ingest(self, client: Penstock) -> None:
        while not self.stop.is_set():
            source = f"live-{len(self.ingested)}.txt"
            text = f"Note {len(self.ingested)} of the live feed tells that the gate of this penstock was opened again."
            client.submit(COLLECTION, [NewDocument(source=source, text=text)])
            self.ingested.append(source)
            self.stop.wait(INGEST_EVERY_S)

    def must_go_on(self, client: Penstock) -> None:
        """Return when a document that is submitted now is found, which is served by whichever model serves now."""
        job = client.submit(COLLECTION, [NewDocument(source="now.txt", text=f"It is {time.time()} o'clock.")]).job
        if client.wait(job.id, timeout_s=PATIENCE_S).failed:
            raise SystemExit("a document failed")


@contextmanager
def _busy(url: str, key: str) -> Iterator[_Work]:
    """Search and ingest in other threads for the time of the block."""
    lines = (CORPUS / "questions.jsonl").read_text("utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines if line.strip()]
    work = _Work()
    with Penstock(url, key) as client:
        threads = [
            threading.Thread(target=work.search, args=[client, questions]),
            threading.Thread(target=work.ingest, args=[client]),
        ]
        for thread in threads:
            thread.start()
        try:
            yield work
        finally:
            work.stop.set()
            for thread in threads:
                thread.join()


def _judge(client: Penstock, work: _Work, *, documents: int) -> int:
    """Say what came of it; 1 when something was lost or a search failed."""
    deadline = time.monotonic() + PATIENCE_S
    expected = documents + len(work.ingested) + 1
    while (counts := client.collection(COLLECTION).documents) != {"indexed": expected}:
        if time.monotonic() > deadline:
            _say(f"{expected} documents were submitted, there are {counts}")
            return 1
        time.sleep(0.2)
    asked = ", ".join(f"{count} by {model}" for model, count in sorted(work.searches.items()))
    _say(f"{sum(work.searches.values())} searches answered ({asked}), {len(work.failures)} failed")
    _say(f"{len(work.ingested)} documents came meanwhile; all {expected} are searchable")
    for failure in work.failures[:5]:
        _say(f"  {failure}")
    return 1 if work.failures or not {"static", "minilm"} <= work.searches.keys() else 0


@contextmanager
def _installation(folder: Path) -> Iterator[tuple[str, str]]:
    """Run `penstock up` in ``folder`` and yield its address and key."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("PENSTOCK_")}
    environment |= {"PENSTOCK_DATA_DIR": str(folder), "PENSTOCK_EMBEDDING__MODEL": "static"}
    log = folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.api.cli", "up", "--port", "0", "--json"],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        url = _ready(process, log)["url"]
        yield url, (folder / "admin.key").read_text("utf-8").strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)


def _ready(process: "subprocess.Popen[bytes]", log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("{") and '"ready"' in line:
                entry: dict[str, Any] = json.loads(line)
                if entry.get("event") == "ready":
                    return entry
        time.sleep(0.1)
    raise SystemExit(f"penstock up did not start:\n{log.read_text('utf-8', errors='replace')[-4000:]}")


if __name__ == "__main__":
    sys.exit(main())
