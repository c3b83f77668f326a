"""Every worker role is killed once while the example corpus goes through; nothing is lost, nothing is there twice."""

import os
import signal
import time
from pathlib import Path

from installation import Installation

from penstock.client import Document, Penstock

from ..postgres_server import new_database

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "examples/corpus/documents"
WORKERS = ("chunk", "embed", "index", "search", "maintenance", "beat")
RETURN_S = 60.0
QUICK = {"WORKERS__LEASE_S": "5", "WORKERS__RESEND_AFTER_S": "5"}  # what a dead worker held goes out within seconds


def chunks_found(client: Penstock, collection: str, document: Document) -> list[int]:
    """Return the ids of all chunks that a search finds of one document."""
    only = {"type": "eq", "key": "$document_id", "value": document.id}
    return [hit.chunk_id for hit in client.search(collection, "anything", k=1000, filter=only).hits]


def kill(installation: Installation, role: str) -> None:
    """Kill a role's main process and wait until its successor has said that it lives."""
    victims = installation.pids(role)
    assert victims, f"no {role} process to kill"
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + RETURN_S
    while not set(installation.pids(role)) - set(victims):
        assert time.monotonic() < deadline, f"{role} did not come back:\n{installation.tail()}"
        time.sleep(0.2)


def test_every_document_is_searchable_once_after_each_role_was_killed(installed):
    # Short leases, so that what a dead worker held is handed out again within seconds.
    ingest_and_kill(installed(EMBEDDING__MODEL="hash", **QUICK))


def test_the_same_with_postgresql_as_the_catalog(installed, postgres_url):
    with new_database(postgres_url) as url:
        ingest_and_kill(installed(CATALOG_URL=url, EMBEDDING__MODEL="hash", **QUICK))


def ingest_and_kill(installation: Installation) -> None:
    """Kill every role once while the corpus goes through, and look for each chunk."""
    files = sorted(path for path in CORPUS.rglob("*") if path.is_file())

    submitted = installation.penstock("ingest", str(CORPUS), "--collection", "corpus", "--no-wait", "--json")
    assert submitted.returncode == 0, submitted.stderr
    for role in WORKERS:
        kill(installation, role)

    with installation.client() as client:
        job = client.jobs().data[0]
        finished = client.wait(job.id, timeout_s=240)
        documents = list(client.all_documents("corpus"))
        found = {document.source: chunks_found(client, "corpus", document) for document in documents}

    assert finished.documents == {"indexed": len(files)}
    assert len(documents) == len(files)
    assert {document.source: len(set(found[document.source])) for document in documents} == {
        document.source: document.chunks for document in documents
    }
    assert all(len(ids) == len(set(ids)) for ids in found.values())
    everything = [chunk for ids in found.values() for chunk in ids]
    assert len(everything) == len(set(everything))


def test_killing_the_supervisor_leaves_no_process_and_the_next_start_finishes_the_work(installed):
    installation = installed(EMBEDDING__MODEL="hash", **QUICK)
    pids = {role: installation.pids(role) for role in WORKERS}
    installation.penstock("ingest", str(CORPUS), "--collection", "corpus", "--no-wait")

    installation.kill()

    deadline = time.monotonic() + 10
    while alive := [pid for group in pids.values() for pid in group if _runs(pid)]:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.1)
    installation.start()
    with installation.client() as client:
        job = client.jobs().data[0]
        finished = client.wait(job.id, timeout_s=120)
    assert set(finished.documents) == {"indexed"}


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
