"""What is limited now, for whoever asks how the installation is. Changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Unavailable

if TYPE_CHECKING:
    import redis

NAMES = "penstock:rates"


@dataclass(frozen=True)
class RateStatus:
    """A model at an endpoint. ``requests_per_minute`` and ``tokens_per_minute``: its limits, None where none is known.

    ``percent``: of them that is asked for now, less after the endpoint refused. ``blocked_s``: how long nobody asks it
    because it wished so. Counts are of calls since the server kept them: those that went at once (``granted``), after a
    wait (``delayed``), or were put off (``held``), and those that the endpoint ``refused`` for its limits.
    """

    model: str
    endpoint: str
    requests_per_minute: float | None
    tokens_per_minute: float | None
    percent: float
    blocked_s: float
    granted: int
    delayed: int
    held: int
    refused: int


def read_rates(client: "redis.Redis") -> list[RateStatus]:
    """Return every line that was asked for lately, by model and endpoint.

    Raises:
        Unavailable: the server does not answer.
    """
    import redis  # noqa: PLC0415 as in limiter.py

    try:
        names = sorted(_text(name) for name in client.smembers(NAMES))
        with client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for name in names:
                pipeline.hgetall(f"{NAMES}:{name}")
            (seconds, micros), *found = pipeline.execute()
        gone = [name for name, fields in zip(names, found, strict=True) if not fields]
        if gone:
            client.srem(NAMES, *gone)
    except (redis.RedisError, OSError) as error:
        raise Unavailable("the server of rate limits does not answer: ask again later") from error
    now = seconds + micros / 1e6
    lines = [_status({_text(name): _text(value) for name, value in fields.items()}, now) for fields in found if fields]
    return sorted(lines, key=lambda line: (line.model, line.endpoint))


def _status(fields: Mapping[str, str], now: float) -> RateStatus:
    def number(name: str) -> float:
        return float(fields.get(name, 0.0))

    def limit(kind: str) -> float | None:
        return number(f"whole_{kind}") or None

    return RateStatus(
        model=fields.get("model", ""),
        endpoint=fields.get("endpoint", ""),
        requests_per_minute=limit("r"),
        tokens_per_minute=limit("t"),
        percent=round(100 * min(1.0, number("share")), 1) if limit("r") or limit("t") else 100.0,
        blocked_s=max(0.0, number("until") - now),
        granted=int(number("granted")),
        delayed=int(number("delayed")),
        held=int(number("held")),
        refused=int(number("refused")),
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
