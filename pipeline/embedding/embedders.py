"""The embedders that a process has open. Opens each once; knows no provider and no setting."""

import threading
from collections.abc import Callable

from .embedder import Embedder


class Embedders:
    """One embedder per model and dimensions, opened when first asked for. Safe from several threads.

    ``open_one``: `open_embedder` of a model name and the dimensions of the vectors that are there.
    """

    def __init__(self, open_one: Callable[[str, int], Embedder]) -> None:
        self._open_one = open_one
        self._open: dict[tuple[str, int], Embedder] = {}
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many models were asked for so far."""
        return len(self._open)

    def of(self, model: str, dimensions: int) -> Embedder:
        """Return the embedder of ``model``. Raises what opening it raises, each time until it succeeds."""
        found = self._open.get((model, dimensions))
        return found if found is not None else self._opened(model, dimensions)

    def close(self) -> None:
        with self._lock:
            for embedder in self._open.values():
                embedder.close()
            self._open.clear()

    def _opened(self, model: str, dimensions: int) -> Embedder:
        with self._lock:
            if (model, dimensions) not in self._open:
                self._open[model, dimensions] = self._open_one(model, dimensions)
            return self._open[model, dimensions]
