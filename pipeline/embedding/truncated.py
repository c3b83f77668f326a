"""Vectors of a Matryoshka model cut to their first dimensions, and scaled to length one again (arXiv 2205.13147)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .billing import Billable, Payer
from .embedder import Embedder, ModelCard, Vectors
from .orders import Provider, TakesOrders
from .vectors import unit_rows


def truncated(whole: Embedder, card: ModelCard) -> "Truncated":
    """Return an embedder of the first dimensions of what ``whole`` makes; `Billable` where that is."""
    return BilledTruncated(whole, card) if isinstance(whole, Billable) else Truncated(whole, card)


class Truncated:
    """`Embedder` of a model that makes more dimensions than are wanted. ``card``: says how many that are."""

    def __init__(self, whole: Embedder, card: ModelCard) -> None:
        self._whole = whole
        self.card = replace(card, fingerprint=whole.card.fingerprint)

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        return self._cut(self._whole.embed_passages(texts))

    def embed_query(self, text: str) -> Vectors:
        vector: Vectors = self._cut(self._whole.embed_query(text)[None])[0]
        return vector

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._whole.count_tokens(texts)

    def check(self) -> None:
        self._whole.check()

    def close(self) -> None:
        self._whole.close()

    def _cut(self, vectors: Vectors) -> Vectors:
        return unit_rows(np.ascontiguousarray(vectors[:, : self.card.dimensions]))


class BilledTruncated(Truncated):
    """`Truncated`, of a model whose calls are paid for, and that may be ordered from: `Billable`, `TakesOrders`."""

    def billed_to(self, payer: Payer) -> "BilledTruncated":
        assert isinstance(self._whole, Billable)
        return BilledTruncated(self._whole.billed_to(payer), self.card)

    def provider(self, cut: Callable[[Vectors], Vectors] | None = None) -> Provider | None:
        """Return who takes orders, whose vectors are cut as they come."""
        assert isinstance(self._whole, TakesOrders)
        return self._whole.provider(cut or self._cut)

    def check_passages(self, texts: Sequence[str]) -> None:
        assert isinstance(self._whole, TakesOrders)
        self._whole.check_passages(texts)
