"""What searches of this process cost, added up in memory and written every few seconds: a search runs no SQL for it.

A tenant with a budget gets an allowance in advance, and is refused when there is none left. A process that is killed
forgets what it has not written: a few seconds of searches of tenants without a budget; an allowance is charged in full.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import sqlalchemy as sa

from ..catalog.engine import Catalog
from ..catalog.tables import tenants
from ..errors import OverBudget, StorageError
from ..ids import CollectionId, TenantId
from .amounts import Amounts
from .bills import UNRESERVED, settle
from .payees import Payee
from .reservations import Until, reserve

log = logging.getLogger(__name__)
FLUSH_S = 5.0
ALLOWANCE_TOKENS = 20_000  # a thousand queries or so
ALLOWANCE_S = 120.0  # after its making it is charged in full, unless it was settled
REFUSED_S = 1.0  # for so long nobody looks again whether there is money


class _Key(NamedTuple):
    tenant_id: TenantId
    collection_id: CollectionId
    model: str
    price: float | None


@dataclass
class _Open:
    """What is not written yet: ``parts`` by reservation, the ``newest`` has ``left`` tokens until ``until``."""

    parts: dict[str, Amounts] = field(default_factory=dict)
    newest: str = UNRESERVED
    left: int = 0
    until: float = 0.0


class SearchCosts:
    """One per process that searches. Safe between threads."""

    def __init__(self, catalog: Catalog, *, clock: Callable[[], float] = time.time) -> None:
        self._catalog = catalog
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[_Key, _Open] = {}
        self._refused: dict[_Key, tuple[OverBudget, float]] = {}
        self._budgeted: frozenset[str] = frozenset()
        self._known = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="costs", daemon=True)

    def payer(self, tenant: TenantId, collection: CollectionId, *, model: str, price: float | None) -> "SearchPayer":
        """Return who pays for a search: `Payer` of the embedders. Its `reserve` raises OverBudget, Unavailable."""
        return SearchPayer(self, _Key(tenant, collection, model, price))

    def start(self) -> None:
        """Write every few seconds from here on, until it closes."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and write what is left."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def flush(self) -> None:
        """Write what was spent so far. What cannot be written now is written later."""
        with self._lock:
            taken, self._open = self._open, {}
            self._refused.clear()
        try:
            self._budgeted, self._known = self._look(), True
            if taken:
                with self._catalog.write("search_costs") as connection:
                    for key in sorted(taken, key=lambda one: one[:3]):
                        settle(connection, _payee(key), taken[key].parts, at=self._clock())
        except StorageError as error:
            log.warning("What searches cost is written later: %s", error, extra={"action": "costs_kept"})
            self._put_back(taken)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self.flush()

    def _look(self) -> frozenset[str]:
        with self._catalog.read() as connection:
            return frozenset(
                connection.scalars(sa.select(tenants.c.id).where(tenants.c.monthly_budget_usd.is_not(None)))
            )

    def _put_back(self, taken: dict[_Key, _Open]) -> None:
        with self._lock:
            for key, one in taken.items():
                into = self._open.setdefault(key, _Open())
                for name, amounts in one.parts.items():
                    into.parts[name] = into.parts.get(name, Amounts()) + amounts

    def reserve(self, key: _Key, tokens: int) -> None:
        """Make sure that there is an allowance for so many tokens more, and take them from it."""
        if key.price == 0:
            return
        if not self._known:
            self._budgeted, self._known = self._look(), True
        if key.tenant_id not in self._budgeted or self._take(key, tokens):
            return
        refused, until = self._refused.get(key, (None, 0.0))
        if refused is not None and self._clock() < until:
            raise refused
        try:
            granted, made = self._grant(key, tokens)
        except OverBudget as error:
            self._refused[key] = (error, self._clock() + REFUSED_S)
            raise
        with self._lock:
            one = self._open.setdefault(key, _Open())
            one.parts[made] = Amounts()
            one.newest, one.left, one.until = made, granted - tokens, self._clock() + ALLOWANCE_S / 2

    def _take(self, key: _Key, tokens: int) -> bool:
        with self._lock:
            one = self._open.get(key)
            if one is None or one.left < tokens or self._clock() > one.until:
                return False
            one.left -= tokens
            return True

    def _grant(self, key: _Key, tokens: int) -> tuple[int, str]:
        now = self._clock()
        held = Until(now + ALLOWANCE_S)
        if tokens < ALLOWANCE_TOKENS:
            try:
                return ALLOWANCE_TOKENS, reserve(self._catalog, _payee(key), ALLOWANCE_TOKENS, held=held, now=now)
            except OverBudget:
                pass  # so much is not left, but perhaps enough for this one
        return tokens, reserve(self._catalog, _payee(key), tokens, held=held, now=now)

    def paid(self, key: _Key, tokens: int, *, answered: bool) -> None:
        """Take note of one call."""
        with self._lock:
            one = self._open.setdefault(key, _Open())
            call = Amounts.of_call(tokens, key.price, answered=answered)
            one.parts[one.newest] = one.parts.get(one.newest, Amounts()) + call


@dataclass(frozen=True)
class SearchPayer:
    """Who pays for searches in one collection of a tenant."""

    costs: SearchCosts
    key: _Key

    @property
    def account(self) -> str:
        return self.key.tenant_id

    def reserve(self, tokens: int) -> None:
        self.costs.reserve(self.key, tokens)

    def paid(self, tokens: int, *, answered: bool = True) -> None:
        self.costs.paid(self.key, tokens, answered=answered)


def _payee(key: _Key) -> Payee:
    return Payee(key.tenant_id, key.collection_id, key.model, key.price)
