"""Look-ups: which vectors are here, which of the others the caller embeds, and which somebody else embeds just now.

Of those who need a text at the same time, in any process, one embeds it. It says every few seconds that it lives; one
that does not for the time of a lease has lost what it had in hand, and the next who asks embeds it.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .entries import Wanted, scope_of, seal, unseal
from .patience import Patience
from .server import NOTHING, CacheServer, Counted

log = logging.getLogger(__name__)

AT_ONCE = 256  # entries in one call: the server answers nobody else meanwhile
PATIENCE_S = 60.0  # as long as one answer of a provider may take
FREE_PATIENCE_S = 5.0  # with a model that runs here: embedding twice costs a little time, and so does waiting
RENEWALS = 3  # within a lease


@dataclass
class Lookup:
    """A block around the embedding of what is ``mine``: when it ends, whoever waits for the rest of it goes on.

    ``vectors``: f32[n, d], zeros where ``found``, bool[n], is False. ``mine``, bool[n]: the caller embeds these.
    """

    wanted: Wanted
    names: list[str]
    vectors: NDArray[np.float32]
    found: NDArray[np.bool_]
    mine: NDArray[np.bool_]
    server: CacheServer
    token: str
    _over: threading.Event = field(default_factory=threading.Event)
    _landed: bool = False

    def __enter__(self) -> Self:
        if self.mine.any():
            threading.Thread(target=self._renew, name="cache-flight", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self.mine.any() and not self._landed:
            self.server.release(self.token)

    def land(self, vectors: NDArray[np.float32]) -> None:
        """Keep float32[m, d], the vectors of what is ``mine`` in its order, for everybody."""
        rows = np.flatnonzero(self.mine)
        if vectors.shape != (len(rows), self.wanted.dimensions):
            expected = (len(rows), self.wanted.dimensions)
            raise ValueError(f"vectors of shape {vectors.shape} for texts that need {expected}")
        counted = Counted(scope_of(self.wanted.tenant), misses=int(self.wanted.texts[rows].sum()))
        for first in range(0, len(rows), AT_ONCE):
            some = range(first, min(first + AT_ONCE, len(rows)))
            entries = [(self.names[rows[place]], seal(vectors[place])) for place in some]
            last = first + AT_ONCE >= len(rows)
            self._landed = self.server.keep(entries, token=self.token, ends=last, counted=counted) is not None
            counted = NOTHING

    def _renew(self) -> None:
        while not self._over.wait(self.server.lease_s / RENEWALS):
            try:
                self.server.renew(self.token)
            except ValueError:  # the client was closed under it, as when a process ends
                return


class EmbeddingCache:
    """Vectors by tenant, model, dimensions and text. Several threads may use it at once.

    Args:
        shared: whether tenants find each other's vectors; timing then tells one that another has a text.
        patience_s: how long a caller waits for texts that another pays for, however alive that one is.
        free_patience_s: the same where nothing is paid.
    """

    def __init__(
        self,
        server: CacheServer,
        *,
        shared: bool = False,
        patience_s: float = PATIENCE_S,
        free_patience_s: float = FREE_PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._server = server
        self._shared = shared
        self._patience_s = (free_patience_s, patience_s)
        self._clock, self._sleep = clock, sleep

    def patience(self, *, paid: bool) -> Patience:
        """Return what tells a caller how long to wait for others; ``paid``: the model's provider takes money."""
        return Patience(self._patience_s[paid], clock=self._clock, sleep=self._sleep)

    def has(self, wanted: Wanted) -> NDArray[np.bool_]:
        """Return as bool[n] what is here. Nothing is counted, held, or used by that; one may be damaged."""
        names = wanted.names(shared=self._shared)
        pages = [names[first : first + AT_ONCE] for first in range(0, len(names), AT_ONCE)]
        return np.array([there for page in pages for there in self._server.present(page)], np.bool_)

    def look_up(self, wanted: Wanted, *, wait: bool = True) -> Lookup:
        """Return what is here. What is neither ``found`` nor ``mine`` is embedded by another: look again.

        Without ``wait``, and without an answer of the server, all that is not found is ``mine``.
        """
        names = wanted.names(shared=self._shared)
        vectors = np.zeros((len(wanted), wanted.dimensions), np.float32)
        found, mine = np.zeros(len(wanted), np.bool_), np.zeros(len(wanted), np.bool_)
        look = Lookup(wanted, names, vectors, found, mine, self._server, token=secrets.token_hex(8))
        for first in range(0, len(wanted), AT_ONCE):
            self._look(look, np.arange(first, min(first + AT_ONCE, len(wanted))), wait=wait)
        return look

    def _look(self, look: Lookup, rows: NDArray[np.int64], *, wait: bool) -> None:
        """Fill in some rows: two round trips."""
        damaged = []
        for row, value in zip(rows.tolist(), self._server.read([look.names[row] for row in rows]), strict=True):
            vector = None if value is None else unseal(value, dimensions=look.wanted.dimensions)
            if vector is not None:
                look.vectors[row], look.found[row] = vector, True
            elif value is not None:
                damaged.append(row)
        if damaged:
            log.warning(
                "%d damaged vectors in the cache are made again.", len(damaged), extra={"action": "cache_damaged"}
            )
        missing = rows[~look.found[rows]]
        answer = self._server.look(
            found=[look.names[row] for row in rows[look.found[rows]]],
            damaged=[look.names[row] for row in damaged],
            missing=[look.names[row] for row in missing] if wait else [],
            token=look.token,
            counted=_counted(look, rows, damaged=len(damaged)),
        )
        look.mine[missing] = np.array(answer, np.bool_) if answer is not None and wait else True


def _counted(look: Lookup, rows: NDArray[np.int64], *, damaged: int) -> Counted:
    hits = rows[look.found[rows]]
    if not (len(hits) or damaged):
        return NOTHING
    tokens = int(look.wanted.tokens[hits].sum())
    return Counted(
        scope_of(look.wanted.tenant),
        hits=int(look.wanted.texts[hits].sum()),
        damaged=damaged,
        saved_tokens=tokens,
        saved_usd=tokens * look.wanted.usd_per_token,
    )
