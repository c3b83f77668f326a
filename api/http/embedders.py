"""The embedding models this process answers queries with: opened before the first query, not by it."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from penstock.pipeline.embedding import Embedders
from penstock.pipeline.errors import EmbeddingError
from penstock.settings import wiring
from penstock.settings.model import Settings

log = logging.getLogger(__name__)

THREADS = 1  # a query is one short text: more threads only take cores from other searches
MENDED_EVERY_S = 10.0


class QueryEmbedders(Embedders):
    """`Embedders` that knows which models cannot embed: ``failures`` has the reason by the model's name."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(partial(wiring.open_embedder, settings, threads=THREADS))
        self._settings = settings
        self._clock = clock
        self._mending = threading.Lock()
        self._mended_at = -MENDED_EVERY_S
        self._failed: dict[str, int | None] = {}
        self.failures: dict[str, str] = {}

    def warm(self, model: str, dimensions: int | None = None) -> None:
        """Open ``model`` and embed with it once, so that no query waits for its weights. A failure is only kept.

        ``dimensions``: of the vectors that are there; not needed for the model of new collections.
        """
        try:
            self.of(model, dimensions or wiring.default_card(self._settings).dimensions).check()
        except EmbeddingError as error:
            log.warning("model %s cannot embed queries: %s", model, error, extra={"action": "embedder_failed"})
            self._failed[model] = dimensions
            self.failures[model] = str(error)
        else:
            self.failures.pop(model, None)

    def mend(self) -> None:
        """Try failed models again, in the background and not too often."""
        with self._mending:
            if not self.failures or self._clock() < self._mended_at + MENDED_EVERY_S:
                return
            self._mended_at = self._clock()
        for model in list(self.failures):
            asked = (model, self._failed.get(model))
            threading.Thread(target=self.warm, args=asked, name="mend", daemon=True).start()
