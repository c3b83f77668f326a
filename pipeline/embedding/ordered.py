"""An embedder for texts whose vectors were ordered before, or are to be ordered rather than made at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.storage.cache import text_digest

from ..errors import InputRejected
from .embedder import Embedder, ModelCard, Vectors


class ToBeOrdered(Exception):
    """Raised instead of embedding: these ``texts`` are to be ordered, of so many ``tokens`` together."""

    def __init__(self, texts: Sequence[str], tokens: int) -> None:
        super().__init__(f"{len(texts)} texts are to be ordered")
        self.texts = list(texts)
        self.tokens = tokens


@dataclass
class Ordered:
    """`Embedder` that takes from what was ``delivered``, float32[d] by `text_digest`, and gives ``inner`` the rest.

    ``orders``: the rest is to be ordered, and ToBeOrdered raised, once ``inner`` finds nothing wrong with it.
    """

    inner: Embedder
    delivered: Mapping[bytes, Vectors]
    orders: bool

    @property
    def card(self) -> ModelCard:
        return self.inner.card

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        found = [self.delivered.get(text_digest(text)) for text in texts]
        rest = [place for place, vector in enumerate(found) if vector is None]
        missing = [texts[place] for place in rest]
        vectors: Vectors = np.zeros((len(texts), self.card.dimensions), np.float32)
        try:
            if missing and self.orders:
                self._check(missing)
                raise ToBeOrdered(missing, sum(self.inner.count_tokens(missing)))
            if missing:
                vectors[rest] = self.inner.embed_passages(missing)
        except InputRejected as error:
            raise InputRejected(str(error), index=None if error.index is None else rest[error.index]) from error
        for place, vector in enumerate(found):
            if vector is not None:
                vectors[place] = vector
        return vectors

    def embed_query(self, text: str) -> Vectors:
        return self.inner.embed_query(text)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.inner.count_tokens(texts)

    def check(self) -> None:
        self.inner.check()

    def close(self) -> None:
        self.inner.close()

    def _check(self, texts: Sequence[str]) -> None:
        from .orders import TakesOrders  # noqa: PLC0415 it is no provider's module

        if isinstance(self.inner, TakesOrders):
            self.inner.check_passages(texts)
