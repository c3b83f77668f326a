"""Addresses: what can be one, and how others write them. Opens nothing, and needs nothing but the standard library."""

from urllib.parse import urlsplit


def is_http_url(text: str) -> bool:
    """Return whether ``text`` is an http:// or https:// URL of a host."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def as_kombu(url: str) -> str:
    """Return a broker's or a Redis server's URL as kombu writes it."""
    return _translated(url, {"unix": "redis+socket", "valkey": "redis", "valkeys": "rediss"}, "db=", "virtual_host=")


def as_redis_py(url: str) -> str:
    """Return a Redis server's URL as redis-py writes it."""
    return _translated(url, {"redis+socket": "unix", "valkey": "redis", "valkeys": "rediss"}, "virtual_host=", "db=")


def _translated(url: str, schemes: dict[str, str], theirs: str, ours: str) -> str:
    """``redis+socket:///path?virtual_host=1`` and ``unix:///path?db=1`` are the same server."""
    parts = urlsplit(url)
    query = parts.query.replace(theirs, ours) if parts.scheme in ("unix", "redis+socket") else parts.query
    # urlunsplit would drop the empty host of redis+socket:///path.
    rest = url.partition("://")[2].removesuffix(f"?{parts.query}") if parts.query else url.partition("://")[2]
    return f"{schemes.get(parts.scheme, parts.scheme)}://{rest}{f'?{query}' if query else ''}"
