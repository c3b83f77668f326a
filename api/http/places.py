"""Places for requests that wait on purpose: so many in this process, so many of one tenant. For one event loop.

Who waits holds no thread, but looks again and again. All together look no more often than `LOOKS_PER_S`, so that a
crowd of them keeps nobody else from being answered.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Refused

LOOKS_PER_S = 100.0
RETRY_S = 2
TOO_MANY_WAITS = "too_many_waits"


class Places:
    """The requests that wait.

    Args:
        most: at once; ``most_per_tenant``: of those for one tenant.
    """

    def __init__(self, *, most: int, most_per_tenant: int) -> None:
        self._most = most
        self._most_per_tenant = most_per_tenant
        self._taken: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many there are now."""
        return self._taken.total()

    @property
    def least_pause_s(self) -> float:
        """How long each of them must let pass between two looks."""
        return self.waiting / LOOKS_PER_S

    @contextmanager
    def taken(self, tenant: str) -> Iterator[None]:
        """Wait during the block. Raises Refused (429)."""
        if self.waiting >= self._most or self._taken[tenant] >= self._most_per_tenant:
            raise Refused(
                "too many requests wait here already: ask without waiting, or again later",
                status=429,
                code=TOO_MANY_WAITS,
                headers={"Retry-After": str(RETRY_S)},
            )
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]
