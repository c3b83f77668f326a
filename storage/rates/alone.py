"""What a process may ask when nobody can tell what the others do: its part of half the rate, by a bucket of its own."""

from collections.abc import Callable

from .limits import Answer, Asked, Rates

HALF = 0.5
UNKNOWN_PEERS = 4  # that are assumed before the server ever said how many ask
BURST_S = 10.0
LONGEST_BLOCK_S, LONGEST_PAUSE_S = 3_600.0, 60.0


class Alone:
    """Buckets of requests and tokens of one process. Not safe between threads: its caller sees to that.

    A search may overdraw them by what came in ``BURST_S``; the rest waits until that is made good.
    """

    def __init__(self, *, first_pause_s: float, clock: Callable[[], float], dice: Callable[[], float]) -> None:
        self._first_pause_s = first_pause_s
        self._clock, self._dice = clock, dice
        self._levels: dict[str, float] = {}
        self._at = clock()
        self._blocked_until = 0.0
        self._strikes = 0

    @property
    def blocked_s(self) -> float:
        """How long the endpoint wishes to be left alone still."""
        return max(0.0, self._blocked_until - self._clock())

    def block(self, wish_s: float | None) -> float:
        """Ask nothing for as long as the endpoint wishes, or for a random time that grows; return how long."""
        self._strikes += 1
        pause_s = min(LONGEST_PAUSE_S, self._dice() * self._first_pause_s * 2.0 ** min(self._strikes - 1, 30))
        wait_s = pause_s if wish_s is None else min(wish_s, LONGEST_BLOCK_S)
        self._blocked_until = max(self._blocked_until, self._clock() + wait_s)
        return self.blocked_s

    def go_on(self) -> None:
        """Take note that the endpoint answered."""
        self._strikes = 0

    def take(self, asked: Asked, *, rates: Rates, peers: int) -> Answer:
        """Take from this process's part of ``rates``, of which there are ``peers``."""
        mine = rates.part(HALF / peers)
        now = self._clock()
        passed, self._at = max(0.0, now - max(self._at, self._blocked_until)), max(now, self._at)
        wait_s = self.blocked_s
        needs = (("requests", mine.requests, asked.requests), ("tokens", mine.tokens, asked.tokens))
        for name, per_minute, need in needs:
            if per_minute is None:
                self._levels.pop(name, None)
                continue
            most = max(1.0, per_minute / 60 * BURST_S)
            level = min(most, self._levels.get(name, 0.0) + per_minute / 60 * passed)
            self._levels[name] = level
            lacks = min(need, most) - level - (most if asked.urgent else 0.0)
            wait_s = max(wait_s, self.blocked_s + lacks / (per_minute / 60))
        if wait_s > asked.most_s:
            return Answer(False, wait_s, self.blocked_s > 0, mine)
        for name, _, need in needs:
            if name in self._levels:
                self._levels[name] -= need
        return Answer(True, wait_s, self.blocked_s > 0, mine)
