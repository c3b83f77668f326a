"""The embedding models this process answers queries with: opened before the first query, not by it."""

import logging
import threading
import time
from collections.abc import Callable

from penstock.pipeline.embedding import Embedder
from penstock.pipeline.errors import EmbeddingError
from penstock.settings import wiring
from penstock.settings.model import Settings

log = logging.getLogger(__name__)

THREADS = 1  # a query is one short text: more threads only take cores from other searches
MENDED_EVERY_S = 10.0


class Embedders:
    """One embedder per model. Safe between threads. ``failures`` says which models cannot embed, and why."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._open: dict[str, Embedder] = {}
        self._lock = threading.Lock()
        self._mended_at = -MENDED_EVERY_S
        self.failures: dict[str, str] = {}

    def get(self, model: str) -> Embedder:
        """Return the embedder of ``model``, opening it when it is new. Raises EmbeddingError."""
        found = self._open.get(model)
        return found if found is not None else self._opened(model)

    def warm(self, model: str) -> None:
        """Open ``model`` and embed with it once, so that no query waits for its weights. A failure is only kept."""
        try:
            self.get(model).check()
        except EmbeddingError as error:
            log.warning("model %s cannot embed queries: %s", model, error, extra={"action": "embedder_failed"})
            self.failures[model] = str(error)
        else:
            self.failures.pop(model, None)

    def mend(self) -> None:
        """Try failed models again, in the background and not too often."""
        with self._lock:
            if not self.failures or self._clock() < self._mended_at + MENDED_EVERY_S:
                return
            self._mended_at = self._clock()
        for model in list(self.failures):
            threading.Thread(target=self.warm, args=[model], name="mend", daemon=True).start()

    def _opened(self, model: str) -> Embedder:
        with self._lock:
            if model not in self._open:
                self._open[model] = wiring.open_embedder(self._settings, model, threads=THREADS)
            return self._open[model]

    def close(self) -> None:
        with self._lock:
            for embedder in self._open.values():
                embedder.close()
            self._open.clear()
