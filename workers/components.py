"""What the roles work with, built from settings once in each process that runs tasks. Decides nothing."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.pipeline.embedding import Embedder
from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage.catalog.engine import Catalog
from penstock.storage.notices import Notices
from penstock.storage.objects import ObjectStore


class Embedders:
    """One embedder per model, opened when first asked for. Safe from several threads."""

    def __init__(self, settings: Settings, *, threads: int | None = None) -> None:
        self._settings = settings
        self._threads = threads
        self._open: dict[str, Embedder] = {}
        self._lock = threading.Lock()

    def of(self, model: str) -> Embedder:
        """Return the embedder of ``model``. Raises what opening it raises, each time until it succeeds."""
        with self._lock:
            if model not in self._open:
                self._open[model] = wiring.open_embedder(self._settings, model, threads=self._threads)
            return self._open[model]

    def close(self) -> None:
        with self._lock:
            for embedder in self._open.values():
                embedder.close()
            self._open.clear()


@dataclass(frozen=True)
class Components:
    """What every role needs. ``owner`` names this process in leases and is never used twice."""

    settings: Settings
    catalog: Catalog
    objects: ObjectStore
    notices: Notices
    embedders: Embedders
    owner: str
    clock: Callable[[], float] = field(default=time.time)

    @classmethod
    def open(cls, settings: Settings, *, role: str, embed_threads: int | None = None) -> "Components":
        """Build everything. Nothing connects before its first use."""
        return cls(
            settings=settings,
            catalog=wiring.open_catalog(settings),
            objects=wiring.open_objects(settings),
            notices=wiring.open_notices(settings),
            embedders=Embedders(settings, threads=embed_threads),
            owner=f"{role}@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
        )

    def close(self) -> None:
        self.embedders.close()
        self.notices.close()
        self.catalog.dispose()
