"""When a provider is left alone because it does not answer, so that what waits for it does not hold up everything else.

Of one model in one process: what one process cannot reach, another may.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

FAILURES = 3  # in a row
HANGING_S, HANGING_TIMES = 10.0, 4.0  # without an answer, and so much longer than usual: nobody else asks then
LONGEST_S = 60.0
_USUAL_WEIGHT = 0.2
_DOUBLINGS_MAX = 30

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Begun:
    """A call that may be made. ``trying``: the provider failed before, and this call is to find out."""

    number: int
    trying: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call may not be made, and for how long still. ``full``: only because enough are under way."""

    reason: str
    wait_s: float
    full: bool = False


class Breaker:
    """Closed while the provider answers. After some failures in a row it is open for a while that doubles, then half
    open: one caller tries, and the others are still refused. Safe between threads.

    Args:
        first_s: how long it is open at first.
        most_calls: how many calls may be under way at once; None: any number.
    """

    def __init__(
        self,
        *,
        first_s: float = 5.0,
        most_calls: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._most_calls = most_calls
        self._clock, self._dice = clock, dice
        self._changed = threading.Condition()
        self._failures = 0
        self._open_until = 0.0
        self._trying = False
        self._moved_at: dict[int, float] = {}  # of the calls under way
        self._numbers = 0
        self._usual_s = 0.0

    @property
    def state(self) -> State:
        if self._failures < FAILURES:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    def begin(self, *, patience_s: float = 0.0) -> Begun | Refusal:
        """Return a call that may be made now, to be told to `end`; or why it may not.

        ``patience_s``: how long to wait for one of too many calls to end.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._is_full(), timeout=patience_s)
            refusal = self._refusal()
            if refusal is not None:
                return refusal
            self._trying = self.state == "half_open"
            self._numbers += 1
            self._moved_at[self._numbers] = self._clock()
            return Begun(self._numbers, self._trying)

    def moved(self, begun: Begun) -> None:
        """Take note that one of the requests of a call was answered."""
        with self._changed:
            now = self._clock()
            self._usual_s += _USUAL_WEIGHT * (now - self._moved_at[begun.number] - self._usual_s)
            self._moved_at[begun.number] = now

    def end(self, begun: Begun, *, answered: bool | None) -> None:
        """Take note whether the provider ``answered``, be it with a refusal; None: it was not asked."""
        with self._changed:
            del self._moved_at[begun.number]
            self._trying = self._trying and not begun.trying
            if answered:
                self._failures = 0
            elif answered is not None:
                self._failures += 1
                if self._failures >= FAILURES:
                    self._open_until = self._clock() + self._pause_s()
            self._changed.notify_all()

    def _is_full(self) -> bool:
        most = self._most_calls()
        return most is not None and len(self._moved_at) >= most

    def _refusal(self) -> Refusal | None:
        state, now = self.state, self._clock()
        failed = f"did not answer {self._failures} times in a row"
        if state == "open":
            return Refusal(failed, self._open_until - now)
        if state == "half_open" and self._trying:
            return Refusal(f"{failed}, and is being tried", self._first_s)
        still_s = now - min(self._moved_at.values(), default=now)
        if still_s > max(HANGING_S, HANGING_TIMES * self._usual_s):
            return Refusal("has kept a call waiting for long", self._first_s)
        return Refusal("has all calls that leave room for other models", 0.0, full=True) if self._is_full() else None

    def _pause_s(self) -> float:
        """Return how long it is open: a time that doubles, of which a random part is left out."""
        whole_s = min(LONGEST_S, self._first_s * 2.0 ** min(self._failures - FAILURES, _DOUBLINGS_MAX))
        return whole_s * (0.5 + 0.5 * self._dice())
