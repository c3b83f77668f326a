"""What the roles work with, built from settings once in each process that runs tasks. Decides nothing."""

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from penstock.pipeline.embedding import Embedders
from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage.catalog.engine import Catalog
from penstock.storage.figures import Figures
from penstock.storage.notices import Notices
from penstock.storage.objects.store import ObjectStore


def new_owner(role: str) -> str:
    """Return a name of this process for leases, which no other has or had."""
    return f"{role}@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


@dataclass(frozen=True)
class Components:
    """What every role needs. ``owner`` names this process in leases and is never used twice."""

    settings: Settings
    catalog: Catalog
    objects: ObjectStore
    notices: Notices
    embedders: Embedders
    figures: Figures
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
            embedders=_embedders(settings, role=role, threads=embed_threads),
            figures=wiring.open_figures(settings),
            owner=new_owner(role),
        )

    def close(self) -> None:
        self.embedders.close()
        self.notices.close()
        self.figures.close()
        self.catalog.dispose()


def _embedders(settings: Settings, *, role: str, threads: int | None) -> Embedders:
    """Return the embedders of a process. Where batches of several models come, none may take every thread."""

    def most_calls() -> int | None:
        return max(1, settings.workers.embed_threads - 1) if role == "embed" and embedders.count > 1 else None

    embedders = Embedders(partial(wiring.open_embedder, settings, threads=threads, most_calls=most_calls))
    return embedders
