"""The values of rate limiting: who is limited, what is asked for, what was answered. Data only."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """So many requests and tokens a minute; ``None``: no limit is known."""

    requests: float | None = None
    tokens: float | None = None

    def part(self, share: float) -> "Rates":
        """Return ``share`` times as much."""
        return Rates(*(None if rate is None else rate * share for rate in (self.requests, self.tokens)))

    def at_most(self, other: "Rates") -> "Rates":
        """Return the lower of each."""
        return Rates(_least(self.requests, other.requests), _least(self.tokens, other.tokens))

    @property
    def none(self) -> bool:
        return self.requests is None and self.tokens is None


@dataclass(frozen=True, slots=True)
class Line:
    """A model at an endpoint, asked with one key. ``set``: by a person, never exceeded. ``expected``: until the
    endpoint says how much it takes. ``key_digest``: of the key, which itself is kept nowhere.
    """

    model: str
    endpoint: str
    key_digest: str
    set: Rates = Rates()
    expected: Rates = Rates()

    @property
    def name(self) -> str:
        told = f"{self.endpoint} {self.key_digest} {self.model}"
        return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()


def key_digest(key: str) -> str:
    """Return what a provider's key is known by."""
    return hashlib.blake2b(key.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller is about to send. ``urgent``: a search, which goes before everything else.

    ``most_s``: how long it would wait at most.
    """

    requests: int
    tokens: int
    urgent: bool
    most_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """``granted``: it may be sent after ``wait_s``; else nothing was taken, and it may be asked for again after that.

    ``blocked``: the endpoint wished to be left alone. ``rates``: what all processes may ask together now. ``taken_at``:
    by the server's clock; 0 without it.
    """

    granted: bool
    wait_s: float
    blocked: bool
    rates: Rates
    taken_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Told:
    """What an endpoint said with an answer: its ``limits``, and how much of them was ``left`` then."""

    limits: Rates = Rates()
    left: Rates = Rates()


def _least(first: float | None, second: float | None) -> float | None:
    return min((one for one in (first, second) if one is not None), default=None)
