"""The embedding models this process answers queries with: opened before the first query, not by it."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from penstock.pipeline.embedding import Embedders
from penstock.pipeline.errors import EmbeddingError
from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.settings.providers import options_of

log = logging.getLogger(__name__)

THREADS = 1  # a query is one short text: more threads only take cores from other searches
MENDED_EVERY_S = 10.0


class QueryEmbedders(Embedders):
    """`Embedders` that knows what cannot embed: ``failures`` has the reasons by name.

    The name is the model's, with the dimensions where they are not those of new collections.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(partial(wiring.open_embedder, settings, threads=THREADS))
        self._settings = settings
        self._clock = clock
        self._mending = threading.Lock()
        self._mended_at = -MENDED_EVERY_S
        self._failed: dict[str, tuple[str, int | None]] = {}
        self.failures: dict[str, str] = {}
        self.declared = options_of(settings).declared

    def warm_all(self, in_use: Iterable[tuple[str, int]]) -> None:
        """Warm the model of new collections and those in use, each once."""
        everything = [(self._settings.embedding.model, None), *in_use]
        for model, dimensions in {self._name(*pair): pair for pair in everything}.values():
            self.warm(model, dimensions)

    def warm(self, model: str, dimensions: int | None = None) -> None:
        """Open ``model`` and embed with it once, so that no query waits for its weights. A failure is only kept.

        ``dimensions``: of the vectors that are there; not needed for the model of new collections.
        """
        name = self._name(model, dimensions)
        try:
            self.of(model, dimensions or wiring.card_of(self._settings).dimensions).check()
        except EmbeddingError as error:
            log.warning("model %s cannot embed queries: %s", name, error, extra={"action": "embedder_failed"})
            self._failed[name] = (model, dimensions)
            self.failures[name] = str(error)
        else:
            self.failures.pop(name, None)

    def mend(self) -> None:
        """Try failed models again, in the background and not too often."""
        with self._mending:
            if not self.failures or self._clock() < self._mended_at + MENDED_EVERY_S:
                return
            self._mended_at = self._clock()
        for name in list(self.failures):
            asked = self._failed.get(name, (name, None))
            threading.Thread(target=self.warm, args=asked, name="mend", daemon=True).start()

    def _name(self, model: str, dimensions: int | None) -> str:
        usual = None
        if model == self._settings.embedding.model:
            with suppress(EmbeddingError):
                usual = wiring.card_of(self._settings).dimensions
        return model if dimensions in {None, usual} else f"{model} of {dimensions} dimensions"
