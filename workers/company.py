"""Who works side by side in a process. A batch that may kill it works alone, and so costs nobody else an attempt."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from penstock.storage import ledger


class Company:
    """The batches that threads of one process work on at once."""

    def __init__(self) -> None:
        self._door = threading.Lock()  # held while a batch is claimed, and by one that works alone until it is over
        self._left = threading.Condition()
        self._inside = 0

    @contextmanager
    def joined(self, claim: Callable[[bool], ledger.Claim | None]) -> Iterator[ledger.Claim | None]:
        """Give what ``claim`` takes, which is told whether it comes into company. A suspect waits until there is none.

        Until it is over nobody else claims here: a claim counts an attempt.
        """
        with ExitStack() as door:
            door.enter_context(self._door)
            try:
                taken = claim(self._inside > 0)
            except ledger.MustBeAlone:
                self._wait_for_the_others()
                taken = claim(False)
            if taken is not None and taken.suspect:
                yield taken
                return
            with self._counted():  # before the next one looks
                door.close()
                yield taken

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._left:
            self._inside += 1
        try:
            yield
        finally:
            with self._left:
                self._inside -= 1
                self._left.notify()

    def _wait_for_the_others(self) -> None:
        with self._left:
            self._left.wait_for(lambda: not self._inside)
