"""What the roles measure, added up in Redis for whoever is asked for metrics. Losing it sets the counters back to zero.

A role forks, dies and is killed at will, and has no port; so it adds to one hash instead of keeping numbers of its own.
Labels are our own words only, never a name or a text, so the hash is small however much is measured.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import redis

log = logging.getLogger(__name__)

KEY = "penstock:figures"
QUIET_S = 5.0  # after a failure nothing is added for this time, so that a dead server slows nobody down
SHORT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LONG_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 86_400.0)


@dataclass(frozen=True)
class Family:
    """A histogram where it has ``buckets_s``, else a counter."""

    help: str
    labels: tuple[str, ...] = ()
    buckets_s: tuple[float, ...] = ()


FAMILIES: Mapping[str, Family] = {
    "penstock_stage_seconds": Family("Time of one attempt, from its claim to its end", ("stage",), SHORT_S),
    "penstock_dispatch_lag_seconds": Family("Time from when a batch was due to its claim", ("stage",), LONG_S),
    "penstock_publish_lag_seconds": Family("Time from the acceptance of a document to its version", (), LONG_S),
    "penstock_attempts": Family("Attempts on batches that ended so", ("stage", "outcome")),
    "penstock_embedded_chunks": Family("Chunks that got their vectors, by where from", ("source",)),
    "penstock_failed_documents": Family("Documents that a role found bad", ("stage",)),
    "penstock_refused_versions": Family("Versions that the search role refused as damaged"),
    "penstock_schedule_runs": Family("Runs of schedules that ended so", ("action", "outcome")),
    "penstock_webhook_attempts": Family("Attempts to tell a receiver that ended so", ("outcome",)),
}


@dataclass(frozen=True)
class Figure:
    """``value`` is what was measured, and ``times`` how often; of a counter only the latter counts."""

    name: str
    labels: tuple[str, ...] = ()
    value: float = 0.0
    times: int = 1


class Figures:
    """Adds figures, and reads what all processes added. Safe between threads. ``client`` None: nobody is to know."""

    def __init__(self, client: "redis.Redis | None", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._quiet_until = -QUIET_S

    def add(self, figures: Iterable[Figure]) -> None:
        """Add these in one round trip. Never raises because of the server."""
        if self._client is None or self._clock() < self._quiet_until:
            return
        counts, sums = _fields(figures)
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for field, by in counts.items():
                    pipeline.hincrby(KEY, field, by)
                for field, value in sums.items():
                    pipeline.hincrbyfloat(KEY, field, value)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            self._quiet_until = self._clock() + QUIET_S
            log.debug("Figures were not added: %s", error, extra={"action": "figures_lost"})

    def read(self) -> dict[tuple[str, tuple[str, ...]], dict[str, float]]:
        """Return by name and labels: a counter's ``count``, or a histogram's ``sum`` and the count of each bound.

        Raises:
            redis.RedisError: the server does not answer, so nobody knows.
        """
        found: dict[tuple[str, tuple[str, ...]], dict[str, float]] = {}
        for key, value in (self._client.hgetall(KEY) if self._client is not None else {}).items():
            name, *labels, part = _text(key).split("|")
            family = FAMILIES.get(name)
            if family is not None and len(labels) == len(family.labels):  # else another program's
                found.setdefault((name, tuple(labels)), {})[part] = float(value)
        return found

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def bound_of(value: float, bounds: Sequence[float]) -> str:
    """Return the bound of the bucket that ``value`` falls into, as Prometheus writes it."""
    return next((str(bound) for bound in bounds if value <= bound), "+Inf")


def _fields(figures: Iterable[Figure]) -> tuple[Counter[str], Counter[str]]:
    counts: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for figure in figures:
        family = FAMILIES[figure.name]
        place = "|".join((figure.name, *figure.labels))
        if family.buckets_s:
            counts[f"{place}|{bound_of(figure.value, family.buckets_s)}"] += figure.times
            sums[f"{place}|sum"] += figure.value * figure.times  # type: ignore[assignment] # it counts in fractions
        elif figure.times:
            counts[f"{place}|count"] += figure.times
    return counts, sums


def _text(key: bytes | str) -> str:
    return key.decode() if isinstance(key, bytes) else key
