"""The server behind the cache: one script for all that must happen at once, and what is done without an answer."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

PAUSE_S = 5.0  # after a failure: each attempt may cost the client's whole timeout
PREFIX = "penstock:embedding:"
HOLDER = "penstock:embedding-holder:"


@dataclass(frozen=True)
class Counted:
    """What is added to the counts of a scope; ``who`` empty: nothing."""

    who: str = ""
    hits: int = 0
    misses: int = 0
    damaged: int = 0
    saved_tokens: int = 0
    saved_usd: float = 0.0


NOTHING = Counted()


class CacheServer:
    """Asks the server, and leaves it alone for a while when it does not answer. Safe between threads.

    Args:
        client: answers bytes (``decode_responses=False``).
        ttl_s: how long a vector stays after it was written or last found.
        limit_bytes: what all vectors and what belongs to them may take of the server's memory.
        lease_s: how long who embeds is waited for after the last sign of life.
    """

    def __init__(
        self,
        client: "redis.Redis",
        *,
        ttl_s: float,
        limit_bytes: int,
        lease_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._fixed = (max(1, int(ttl_s)), limit_bytes)
        self._lease_ms = max(1, int(lease_s * 1000))
        self._clock = clock
        self._resume_at = -np.inf
        self._warned = False

    @property
    def lease_s(self) -> float:
        return self._lease_ms / 1000

    def read(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the bytes of each name; None for all when there is no answer."""
        values = self._tried(lambda: self._client.mget([PREFIX + name for name in names])) if names else []
        return [None] * len(names) if values is None else cast("list[bytes | None]", values)

    def present(self, names: Sequence[str]) -> list[bool]:
        """Return whether there is something under each name, which is not used by that; False without an answer."""

        def ask() -> list[int]:
            with self._client.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.exists(PREFIX + name)
                return cast("list[int]", pipeline.execute())

        answers = self._tried(ask) if names else []
        return [False] * len(names) if answers is None else [bool(one) for one in answers]

    def look(
        self,
        *,
        found: Sequence[str],
        damaged: Sequence[str] = (),
        missing: Sequence[str] = (),
        token: str,
        counted: Counted = NOTHING,
    ) -> list[int] | None:
        """Note what was found, forget what is damaged, and return for each that is missing whether to embed it now.

        None: there is no answer.
        """
        lists: list[int | str | bytes] = [len(found), *found, len(damaged), *damaged, len(missing), *missing]
        return cast("list[int] | None", self._called("look", token, counted, lists))

    def keep(
        self, entries: Sequence[tuple[str, bytes]], *, token: str, ends: bool, counted: Counted = NOTHING
    ) -> list[int] | None:
        """Keep these vectors, whose flights are over then; ``ends``: the holder has no others. None: no answer."""
        lists: list[int | str | bytes] = [2 * len(entries)]
        for entry in entries:
            lists.extend(entry)
        return cast("list[int] | None", self._called("keep", token, counted, lists, ends=ends))

    def renew(self, token: str) -> None:
        """Say that the holder of this token lives."""
        self._tried(lambda: self._client.pexpire(HOLDER + token, self._lease_ms))

    def release(self, token: str) -> None:
        """End all flights of this token that did not land."""
        self._tried(lambda: self._client.delete(HOLDER + token))

    def trim(self) -> None:
        """Forget what is over the limit, and no longer count what the server forgot on its own."""
        self._called("trim", "", NOTHING, [])

    @cached_property
    def _script(self) -> Callable[..., Any]:
        source = files(__package__).joinpath("data", "cache.lua").read_text(encoding="utf-8")
        return self._client.register_script(source)

    def _called(
        self,
        doing: Literal["look", "keep", "trim"],
        token: str,
        counted: Counted,
        lists: Sequence[int | str | bytes],
        *,
        ends: bool = False,
    ) -> Any | None:
        counts = (counted.who, counted.hits, counted.misses, counted.damaged, counted.saved_tokens)
        usd = f"{counted.saved_usd:.12f}" if counted.saved_usd else "0"
        words = [doing, *self._fixed, token, self._lease_ms, *counts, usd, int(ends), *lists]
        return self._tried(lambda: self._script(keys=[], args=words))

    def _tried(self, call: Callable[[], Any]) -> Any | None:
        """Return what ``call`` returns; None while the server does not answer."""
        import redis  # noqa: PLC0415 not needed by whoever only hashes

        if self._clock() < self._resume_at:
            return None
        try:
            answer = call()
        except redis.OutOfMemoryError as error:  # it keeps nothing more, and still gives what it has
            self._warn(error)
            return None
        except (redis.RedisError, OSError) as error:
            self._resume_at = self._clock() + PAUSE_S
            self._warn(error)
            return None
        self._warned = False
        return answer

    def _warn(self, error: Exception) -> None:
        if not self._warned:  # once per outage, not once per batch
            log.warning(
                "The embedding cache cannot be used; texts are embedded again: %s",
                error,
                extra={"action": "cache_unavailable"},
            )
        self._warned = True
