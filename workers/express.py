"""The express role: short batches from bytes to vectors, and nothing else, so that none waits behind a long one.

A few documents of one tenant are done while the processes that work on another's many are in the middle of a batch.
It comes before those at the processor too (``niceness`` in ``run.py``).
"""

from collections.abc import Callable, Mapping
from typing import Any

from penstock.settings.model import Settings

from . import routes
from .chunk import Chunker
from .embed import Embedding
from .liveness import Liveness


class Express:
    """The role's process: `Role` of ``roles.py``."""

    def __init__(self, settings: Settings, *, liveness: Liveness) -> None:
        self._chunker = Chunker(settings, liveness=liveness)
        self._embedding = Embedding(settings, liveness=liveness)

    def open(self) -> None:
        self._chunker.open()
        self._embedding.open()

    def close(self) -> None:
        self._chunker.close()
        self._embedding.close()

    def tasks(self) -> Mapping[str, Callable[..., Any]]:
        return {routes.CHUNK: self.chunk, routes.EMBED: self._embedding.embed}

    def chunk(self, batch_id: str) -> None:
        """Bring one chunk batch to its end, and what was made of it too, without the way through the queue.

        Whatever keeps that from being done here, the dispatcher sends.
        """
        for made in self._chunker.chunk(batch_id):
            self._embedding.embed(made)
