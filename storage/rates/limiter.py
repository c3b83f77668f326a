"""Asks the server before each call of a provider: one script, one round trip. Without it, each process goes on alone.

What an endpoint tells of its limits travels with the next question; only a refusal is told at once, for the others
would run into it.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from .alone import UNKNOWN_PEERS, Alone
from .limits import Answer, Asked, Line, Rates, Told

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

PAUSE_S = 5.0  # after a failure: each attempt may cost the client's whole timeout
_NOTHING = Told()


class Limiter:
    """The limiter of one line in one process. Safe between threads.

    Args:
        client: None: there is no server, and this process is the only one that asks.
        process: a name of this process, by which those who ask are counted.
        first_pause_s: the longest pause after a refusal that wishes for none; doubled for each further one.
    """

    def __init__(
        self,
        client: "redis.Redis | None",
        line: Line,
        *,
        process: str,
        first_pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._line = line
        self._process = process
        self._clock = clock
        self._dice = dice
        self._lock = threading.Lock()
        self._first_pause_s = first_pause_s
        self._alone = Alone(first_pause_s=first_pause_s, clock=clock, dice=dice)
        self._told: tuple[Told, float] | None = None
        self._known: tuple[Rates, int] | None = None
        self._resume_at = float("-inf")
        self._warned = False

    def take(self, asked: Asked) -> Answer:
        """Take room for what is about to be sent, or say when to ask again."""
        with self._lock:
            blocked_s = self._alone.blocked_s
            if blocked_s > asked.most_s:  # the server would say the same
                return Answer(False, blocked_s, True, self._rates())
            told, self._told = self._told, None
        line = self._line
        need = (asked.requests, asked.tokens, int(asked.urgent), asked.most_s)
        words = [self._process, line.model, line.endpoint, *need, *self._words(told)]
        answer = self._called("take", words)
        if answer is not None:
            return answer
        with self._lock:
            peers = self._known[1] if self._known else UNKNOWN_PEERS
            return self._alone.take(asked, rates=self._rates(), peers=1 if self._client is None else max(1, peers))

    def confirm(self, asked: Asked, taken: Answer) -> Answer:
        """Say after the wait for what was ``taken`` whether it may still be sent: somebody may have been refused."""
        with self._lock:
            blocked_s = self._alone.blocked_s
        if blocked_s > 0:
            return Answer(False, blocked_s, True, taken.rates)
        answer = self._called("confirm", [asked.requests, asked.tokens]) if taken.taken_at else None
        return answer or Answer(True, 0.0, False, taken.rates)

    def answered(self, told: Told) -> None:
        """Take note of what the endpoint said with an answer."""
        with self._lock:
            self._alone.go_on()
            if not (told.limits.none and told.left.none):
                self._told = (told, self._clock())

    def refused(self, taken: Answer, *, wish_s: float | None, told: Told = _NOTHING) -> float:
        """Tell everybody that the endpoint refused for its limits; return how long nobody asks it.

        ``wish_s``: how long it wishes to be left alone, None when it did not say.
        """
        pause_s = self._first_pause_s * self._dice()
        words = [taken.taken_at, -1 if wish_s is None else wish_s, pause_s, *self._words((told, self._clock()))]
        answer = self._called("refused", words)
        with self._lock:
            return self._alone.block(wish_s if answer is None else answer.wait_s)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _rates(self) -> Rates:
        if self._known is not None:
            return self._known[0]
        return self._line.expected.at_most(self._line.set)

    def _words(self, told: tuple[Told, float] | None) -> list[float]:
        said, at = told if told is not None else (_NOTHING, self._clock())
        limits = [said.limits.requests or 0, said.limits.tokens or 0]
        left = [-1 if amount is None else amount for amount in (said.left.requests, said.left.tokens)]
        return [*limits, *left, max(0.0, self._clock() - at)]

    @cached_property
    def _script(self) -> Callable[..., Any]:
        assert self._client is not None
        source = files(__package__).joinpath("data", "rates.lua").read_text(encoding="utf-8")
        return self._client.register_script(source)

    def _called(self, doing: Literal["take", "refused", "confirm"], words: list[Any]) -> Answer | None:
        """Return the server's answer; None while there is none."""
        import redis  # noqa: PLC0415 not needed by whoever has no server

        if self._client is None or self._clock() < self._resume_at:
            return None
        line = self._line
        limits = [rate or 0 for rate in (line.set.requests, line.set.tokens)]
        limits += [rate or 0 for rate in (line.expected.requests, line.expected.tokens)]
        try:
            said = self._script(keys=[], args=[doing, line.name, *limits, *words])
        except (redis.RedisError, OSError) as error:
            self._lost(error)
            return None
        granted, wait_s, blocked, taken_at, requests, tokens, peers = said
        rates = Rates(float(requests) if requests else None, float(tokens) if tokens else None)
        with self._lock:
            self._known, self._warned = (rates, int(peers)), False
        return Answer(bool(granted), float(wait_s), bool(blocked), rates, float(taken_at))

    def _lost(self, error: Exception) -> None:
        self._resume_at = self._clock() + PAUSE_S
        if not self._warned:  # once per outage
            log.log(
                logging.WARNING if self._known else logging.INFO,  # `penstock up` looks before it starts the server
                "The rate limits cannot be shared; this process asks at half of its own part: %s",
                error,
                extra={"action": "rates_unavailable"},
            )
        self._warned = True
