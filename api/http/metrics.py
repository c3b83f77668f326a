"""Counts requests for /metrics. Labels are our own words only: templates of paths, never a path, a name or a text."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
METHODS = frozenset({"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"})


class Metrics:
    """The counters of one application, in a registry of its own. Safe between threads."""

    def __init__(self, collectors: Iterable[Collector] = ()) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "penstock_http_requests", "Requests answered", ("route", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "penstock_http_request_seconds",
            "Time to answer, long polls left out",
            ("route", "method"),
            buckets=SECONDS,
            registry=self._registry,
        )
        for collector in collectors:
            self._registry.register(collector)

    def observe(self, *, route: str, method: str, status: int, seconds: float | None) -> None:
        """Count one request; ``seconds`` is None when it waited on purpose."""
        method = method if method in METHODS else "other"  # callers may invent methods without end
        self._requests.labels(route, method, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(route, method).observe(seconds)

    def exposition(self) -> bytes:
        """Return everything in the Prometheus text format. Asks the collectors: not for the event loop."""
        return generate_latest(self._registry)
