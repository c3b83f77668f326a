"""Tells what can be an address. Opens nothing, and needs nothing but the standard library."""

from urllib.parse import urlsplit


def is_http_url(text: str) -> bool:
    """Return whether ``text`` is an http:// or https:// URL of a host."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
