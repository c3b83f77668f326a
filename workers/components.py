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
            embedders=Embedders(partial(wiring.open_embedder, settings, threads=embed_threads)),
            figures=wiring.open_figures(settings),
            owner=new_owner(role),
        )

    def close(self) -> None:
        self.embedders.close()
        self.notices.close()
        self.figures.close()
        self.catalog.dispose()
