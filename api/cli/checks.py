"""What `penstock config check` tries: each thing the settings name.

It makes the data directory and writes one object, which it deletes again.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from penstock.settings import wiring
from penstock.settings.model import Settings

from .output import size


@dataclass(frozen=True)
class Finding:
    """What was tried, whether it worked, what was found, and what to do when it did not."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def run_checks(settings: Settings) -> Iterator[Finding]:
    """Yield one finding after the other, in the order in which to mend them."""
    yield Finding("settings", ok=True, found="valid")
    yield _tried("data directory", _data_dir, settings, "make it writable, or set data_dir")
    yield _tried(
        "catalog", _catalog, settings, "see catalog_url; `penstock up` or `penstock migrate` brings it up to date"
    )
    yield _tried("object store", _objects, settings, "see the objects settings; the bucket must exist")
    if wiring.uses_embedded_server(settings):
        yield _tried("queue server", _embedded_server, settings, "see the message; or name a running one in broker_url")
    else:
        yield _tried("broker", _broker, settings, "start it, or correct broker_url")
        yield _tried("cache", _cache, settings, "start it, or correct cache_url")
    yield _tried("embedding", _embedding, settings, "see embedding.model and the embedding settings it names")


def _tried(what: str, look: Callable[[Settings], str], settings: Settings, advice: str) -> Finding:
    try:
        return Finding(what, ok=True, found=look(settings))
    except Exception as error:  # noqa: BLE001 whatever goes wrong is the finding
        setting = getattr(error, "setting", None)  # of a model that a person has to see to
        return Finding(
            what, ok=False, found=f"{error or type(error).__name__}", advice=f"change {setting}" if setting else advice
        )


def _data_dir(settings: Settings) -> str:
    directory = wiring.make_data_dir(settings)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} is not writable")
    stats = os.statvfs(directory)
    return f"{directory}, {size(stats.f_bavail * stats.f_frsize)} free"


def _catalog(settings: Settings) -> str:
    from penstock.storage.catalog.migrations import check_schema

    path = settings.data_dir / "catalog.sqlite3"
    if settings.catalog_url is None and not path.exists():
        return f"SQLite, {path} will be made by `penstock up`"
    catalog = wiring.open_catalog(settings)
    try:
        check_schema(catalog)
        wiring.check_shards(settings, catalog)
        return f"{catalog.dialect}, the schema is this program's"
    finally:
        catalog.dispose()


def _objects(settings: Settings) -> str:
    """Write, read back, try to write over, delete: a store that lets objects be overwritten must not be used."""
    from penstock.storage.errors import AlreadyExists, StorageError

    objects, name = wiring.open_objects(settings), f"checks/{secrets.token_hex(16)}"
    try:
        objects.put(name, [b"written by penstock config check"])
        if objects.get(name) != b"written by penstock config check":
            raise StorageError("it gives back other bytes than it was given")
        try:
            objects.put(name, [b"written once more"])
        except AlreadyExists:
            pass
        else:
            raise StorageError("it lets objects be overwritten: it ignores If-None-Match; use another S3 service")
    finally:
        objects.delete(name)
    where = settings.objects.url or settings.objects.directory or settings.data_dir / "objects"
    return f"{where}: written, read back and deleted"


def _embedded_server(settings: Settings) -> str:
    from ..supervisor.queue_server import find_program

    program = find_program()
    running = wiring.embedded_socket(settings).exists()
    return f"{program} ({'running' if running else 'started by `penstock up`'})"


def _broker(settings: Settings) -> str:
    """Only a Redis is asked here: no interface may speak the queue's other protocols."""
    url = wiring.broker_url(settings)
    if url.startswith("amqp"):
        return _reached(url)
    found, memory = _pinged(wiring.broker_redis_url(settings))
    policy = str(memory.get("maxmemory_policy", ""))
    if policy.startswith("allkeys") and memory.get("maxmemory"):
        raise ValueError(
            f"its maxmemory-policy is {policy}, which throws messages of the queue away when its memory is full: set "
            "noeviction or volatile-lru"
        )
    return found


def _cache(settings: Settings) -> str:
    found, memory = _pinged(wiring.redis_url(settings))
    most, limit = int(memory.get("maxmemory", 0)), settings.embedding.cache_bytes
    if memory.get("maxmemory_policy") == "noeviction" and 0 < most < limit:
        raise ValueError(
            f"its maxmemory is {size(most)}, below embedding.cache_bytes ({size(limit)}): full of vectors it would "
            "take nothing else, messages included; raise the one, or lower the other"
        )
    return found


def _reached(url: str) -> str:
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    with socket.create_connection((parts.hostname or "localhost", port), timeout=5.0):
        return f"{parts.hostname}:{port} accepts connections"


def _pinged(url: str) -> tuple[str, dict[str, Any]]:
    """Return what answers there, and what it says of its memory."""
    import redis

    with redis.Redis.from_url(url, socket_timeout=5.0, socket_connect_timeout=2.0) as client:
        client.ping()
        info = client.info("server")
        memory = client.info("memory")
    name = info.get("server_name", "redis")
    return f"{name} {info.get(f'{name}_version', info.get('redis_version', ''))} answers", memory


def _embedding(settings: Settings) -> str:
    card = wiring.card_of(settings)
    embedder = wiring.open_embedder(settings, card.name, card.dimensions, threads=1)
    try:
        embedder.check()
        return f"{card.name}, {card.dimensions} dimensions"
    finally:
        embedder.close()
