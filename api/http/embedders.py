"""The embedding models this process answers queries with: opened before the first query, not by it."""

import logging
import threading

from penstock.pipeline.embedding import Embedder
from penstock.pipeline.errors import EmbeddingError
from penstock.settings import wiring
from penstock.settings.model import Settings

log = logging.getLogger(__name__)

THREADS = 1  # a query is one short text: more threads only take cores from other searches


class Embedders:
    """One embedder per model. Safe between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: dict[str, Embedder] = {}
        self._lock = threading.Lock()
        self.failures: dict[str, str] = {}

    def get(self, model: str) -> Embedder:
        """Return the embedder of ``model``, opening it when it is new. Raises EmbeddingError."""
        found = self._open.get(model)
        return found if found is not None else self._opened(model)

    def warm(self, model: str) -> None:
        """Open ``model`` and embed with it once; a failure is kept in ``failures`` and tried again when asked for."""
        try:
            self.get(model).embed_query("warm")
        except EmbeddingError as error:
            log.warning("model %s cannot embed queries: %s", model, error, extra={"action": "embedder_failed"})
            self.failures[model] = str(error)

    def _opened(self, model: str) -> Embedder:
        with self._lock:
            if model not in self._open:
                self._open[model] = wiring.open_embedder(self._settings, model, threads=THREADS)
                self.failures.pop(model, None)
            return self._open[model]

    def close(self) -> None:
        with self._lock:
            for embedder in self._open.values():
                embedder.close()
            self._open.clear()
