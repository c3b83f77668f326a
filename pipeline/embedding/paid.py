"""Vectors that were paid for in a call that was refused as a whole, until the next call that wants them.

One refused text among many ends its call, and the caller comes again without it: what was answered before must not be
paid for twice. What one account paid for, another pays for itself: it must not learn what the first one embeds. Knows
no provider.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from .embedder import Vectors


class PaidVectors:
    """The newest ``most`` of them, by account and text; each is given out once. Safe between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], Vectors] = OrderedDict()

    def keep(self, account: str, vectors: Mapping[str, Vectors]) -> None:
        """Keep float32[d] by text; beyond ``most`` the oldest are forgotten."""
        with self._lock:
            self._kept.update({(account, text): vector for text, vector in vectors.items()})
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def take(self, account: str, texts: Sequence[str]) -> dict[int, Vectors]:
        """Return what the account has of ``texts`` by its place, and keep it no longer."""
        with self._lock:
            if not self._kept:
                return {}
            names = [(account, text) for text in texts]
            return {place: self._kept.pop(name) for place, name in enumerate(names) if name in self._kept}
