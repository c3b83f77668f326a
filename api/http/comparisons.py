"""How many documents differ between two versions: counted once, for versions never change."""

import threading
from collections import OrderedDict

from penstock.storage.segments.differences import ChangeCounts, Comparison

REMEMBERED = 4_096  # comparisons; a count is a few numbers

_Names = tuple[str | None, str | None]  # of two manifests; None: a version without any document


class Comparisons:
    """Remembers counts of differences, so that a page of them costs about a page. Safe between threads.

    It decides nothing about who may see what: whoever asks has found both versions in his own collection.
    """

    def __init__(self, *, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._counts: OrderedDict[_Names, ChangeCounts] = OrderedDict()
        self._lock = threading.Lock()

    def counts(self, names: _Names, comparison: Comparison) -> ChangeCounts:
        """Return the counts of ``comparison``, which is of the manifests called ``names``. Raises Damaged."""
        with self._lock:
            if names in self._counts:
                self._counts.move_to_end(names)
                return self._counts[names]
        counts = comparison.counts()
        with self._lock:
            self._counts[names] = counts
            while len(self._counts) > self._remembered:
                self._counts.popitem(last=False)
        return counts
