"""How many documents differ between two versions: counted once, for versions never change."""

import threading
from collections import OrderedDict
from concurrent.futures import Future

from penstock.storage.segments.differences import ChangeCounts, Comparison

REMEMBERED = 4_096  # comparisons; a count is a few numbers

_Names = tuple[str | None, str | None]  # of two manifests; None: a version without any document


class Comparisons:
    """Remembers counts of differences, so that a page of them costs about a page. Safe between threads.

    Who asks while another counts waits for that count. It decides nothing about who may see what: whoever asks has
    found both versions in his own collection.
    """

    def __init__(self, *, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._counts: OrderedDict[_Names, Future[ChangeCounts]] = OrderedDict()
        self._lock = threading.Lock()

    def counts(self, names: _Names, comparison: Comparison) -> ChangeCounts:
        """Return the counts of ``comparison``, which is of the manifests called ``names``. Raises Damaged."""
        with self._lock:
            found = self._counts.get(names)
            if found is None:
                counting = self._counts[names] = Future()
                while len(self._counts) > self._remembered:
                    self._counts.popitem(last=False)
            else:
                self._counts.move_to_end(names)
        if found is not None:
            return found.result()
        try:
            counts = comparison.counts()
        except BaseException as error:
            with self._lock:  # the next one counts anew: a file may come back
                if self._counts.get(names) is counting:
                    del self._counts[names]
            counting.set_exception(error)
            raise
        counting.set_result(counts)
        return counts
