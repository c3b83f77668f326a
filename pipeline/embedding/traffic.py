"""Whether a remote model is asked now, a little later, or not by this caller: its limits, and whether it answers.

It waits a little itself. Who would have to wait longer is told so, for the work may be done later as well, or a person
waits for the answer.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from penstock.storage.rates import Answer, Asked, Rates, Told

from ..errors import EmbeddingError, ProviderHeld, ProviderUnavailable, RateLimited
from .breaker import Begun, Breaker, Refusal

WAIT_S = 2.0  # of passages: their batch goes back to the ledger
SEARCH_WAIT_S = 3.0
_FREELY = Answer(True, 0.0, False, Rates())


class Limits(Protocol):
    """What is needed of `storage.rates.Limiter`."""

    def take(self, asked: Asked) -> Answer: ...
    def confirm(self, asked: Asked, taken: Answer) -> Answer: ...
    def answered(self, told: Told) -> None: ...
    def refused(self, taken: Answer, *, wish_s: float | None, told: Told) -> float: ...
    def close(self) -> None: ...


@dataclass
class Call:
    """One call of a provider: ``trying`` when nobody knows whether it answers. `Traffic.call` gives it out."""

    traffic: "Traffic"
    begun: Begun
    urgent: bool
    left: int = 0
    taken: Answer = _FREELY

    @property
    def trying(self) -> bool:
        return self.begun.trying

    def take(self, *, requests: int, tokens: int) -> None:
        """Take room for so many requests at once. Raises ProviderHeld."""
        self.taken = self.traffic.take(requests=requests, tokens=tokens, urgent=self.urgent)
        self.left += requests

    def request(self, tokens: int) -> None:
        """Say before each request that it is made; one for which no room was taken takes it now."""
        if not self.left:
            self.take(requests=1, tokens=tokens)
        self.left -= 1

    def answered(self, told: Told) -> None:
        """Say after each request what the provider told of its limits."""
        self.traffic.answered(self.begun, told)


class Traffic:
    """The calls of one model at one endpoint in this process. Safe between threads.

    Args:
        where: what is asked, for people.
        limits: None: none are kept.
    """

    def __init__(
        self,
        where: str,
        *,
        limits: Limits | None = None,
        breaker: Breaker | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._where = where
        self._limits = limits
        self._breaker = breaker or Breaker()
        self._sleep = sleep

    @contextmanager
    def call(self, *, urgent: bool) -> Iterator[Call]:
        """Give a call, and learn from how the block ends. ``urgent``: a search.

        Raises:
            ProviderHeld: the provider has not answered for a while, or has enough calls.
        """
        begun = self._breaker.begin(patience_s=WAIT_S)
        if isinstance(begun, Refusal):
            raise ProviderHeld(f"{self._where} {begun.reason}: it is tried again later", retry_after_s=begun.wait_s)
        call, answered = Call(self, begun, urgent), None
        try:
            yield call
            answered = True
        except RateLimited as error:
            answered = True
            self._refused(call, error)
            raise
        except ProviderHeld:
            raise
        except ProviderUnavailable:
            answered = False
            raise
        except EmbeddingError:  # of a text, or of a setting: it does answer
            answered = True
            raise
        finally:
            self._breaker.end(begun, answered=answered)

    def take(self, *, requests: int, tokens: int, urgent: bool) -> Answer:
        """Take room for requests, wait a little for it, or raise ProviderHeld."""
        if self._limits is None:
            return _FREELY
        asked = Asked(requests, tokens, urgent, SEARCH_WAIT_S if urgent else WAIT_S)
        taken = self._limits.take(asked)
        if taken.granted and taken.wait_s > 0:
            self._sleep(taken.wait_s)
            confirmed = self._limits.confirm(asked, taken)
            taken = taken if confirmed.granted else confirmed
        if not taken.granted:
            raise ProviderHeld(self._held(taken), retry_after_s=taken.wait_s)
        return taken

    def answered(self, begun: Begun, told: Told) -> None:
        self._breaker.moved(begun)
        if self._limits is not None:
            self._limits.answered(told)

    def close(self) -> None:
        if self._limits is not None:
            self._limits.close()

    def _refused(self, call: Call, error: RateLimited) -> None:
        if self._limits is not None:
            self._limits.refused(call.taken, wish_s=error.retry_after_s, told=error.told)

    def _held(self, answer: Answer) -> str:
        if answer.blocked:
            return f"{self._where} was asked too often, and is left alone for as long as it wishes"
        rates = answer.rates
        told = [
            f"{amount:,.0f} {noun}" if amount >= 10 else f"{amount:.2g} {noun}"
            for amount, noun in ((rates.requests, "requests"), (rates.tokens, "tokens"))
            if amount is not None
        ]
        return f"{self._where} takes {' and '.join(told)} a minute now, and others came first"
