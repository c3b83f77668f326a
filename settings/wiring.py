"""The one place where components are built from settings.

Every function imports what it builds only when called, so that a command pays for nothing it does not use.
Whoever opens a component closes it; nothing here is cached.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InvalidSettings, MissingComponent
from .model import Settings
from .urls import as_kombu, as_redis_py

if TYPE_CHECKING:
    import redis

    from penstock.pipeline.embedding import Embedder, ModelCard
    from penstock.pipeline.embedding.traffic import Traffic
    from penstock.pipeline.parsing import ParseLimits
    from penstock.storage.cache import EmbeddingCache
    from penstock.storage.catalog.engine import Catalog
    from penstock.storage.catalog.recorder import QueryRecorder
    from penstock.storage.figures import Figures
    from penstock.storage.notices import Notices
    from penstock.storage.objects.store import ObjectStore
    from penstock.storage.presence import Presence
    from penstock.storage.search.snapshots import SnapshotCache

SOCKET_PATH_BYTES = 100  # sun_path holds 108 on Linux and 104 on macOS
SOCKET_ROOT = Path("/tmp")  # noqa: S108 TMPDIR is too long on macOS; the directory below is private and checked
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def catalog_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the catalog."""
    if settings.catalog_url is not None:
        return settings.catalog_url.get_secret_value()
    return f"sqlite:///{settings.data_dir / 'catalog.sqlite3'}"


def embedded_socket(settings: Settings) -> Path:
    """Return the socket of the private Valkey of this data directory, the same in every process.

    A data directory too deep for a socket address gets a directory of its user's own under /tmp.
    """
    socket = settings.data_dir / "valkey" / "valkey.sock"
    if len(os.fsencode(socket)) <= SOCKET_PATH_BYTES:
        return socket
    digest = hashlib.blake2b(os.fsencode(settings.data_dir), digest_size=8).hexdigest()
    return SOCKET_ROOT / f"penstock-{os.getuid()}-{digest}" / "valkey.sock"


def uses_embedded_server(settings: Settings) -> bool:
    """Return whether this installation's queue is the private Valkey that `penstock up` starts."""
    return settings.broker_url is None


def broker_url(settings: Settings) -> str:
    """Return the queue's URL as kombu writes it (``redis+socket://`` for a unix socket)."""
    return as_kombu(_broker(settings))


def broker_redis_url(settings: Settings) -> str:
    """Return the queue's URL as redis-py writes it; only for a queue that is a Redis or Valkey."""
    return as_redis_py(_broker(settings))


def redis_url(settings: Settings) -> str:
    """Return the URL, as redis-py writes it, of the server for cached vectors, notifications, presence and results."""
    return as_redis_py(settings.cache_url.get_secret_value() if settings.cache_url else _broker(settings))


def result_url(settings: Settings) -> str:
    """Return the result backend's URL as Celery writes it, on `redis_url`'s server. For the search role alone."""
    return as_kombu(redis_url(settings))


def _broker(settings: Settings) -> str:
    if settings.broker_url is not None:
        return settings.broker_url.get_secret_value()
    return f"unix://{embedded_socket(settings)}"


def open_redis(settings: Settings) -> "redis.Redis":
    """Return a client of `redis_url`'s server: answers bytes, gives up after seconds, connects when first used."""
    import redis

    return redis.Redis.from_url(
        redis_url(settings), socket_timeout=5.0, socket_connect_timeout=2.0, health_check_interval=30
    )


def open_catalog(settings: Settings) -> "Catalog":
    """Return the catalog and ledger. Does not look at the schema: see `storage.catalog.migrations`."""
    from penstock.storage.catalog.engine import LOCK_LOOK_S, LOCK_PAUSE_S, Catalog

    if settings.catalog_url is None:
        make_data_dir(settings)
    gives_way = os.nice(0) > 0  # at the processor, and then at SQLite's lock too: see ``workers/run.py``
    return Catalog.open(catalog_url(settings), lock_pause_s=LOCK_PAUSE_S if gives_way else LOCK_LOOK_S)


def check_shards(settings: Settings, catalog: "Catalog") -> None:
    """Return when every generation of the catalog has a writer under these settings.

    Raises:
        InvalidSettings: ``workers.shards`` was lowered: what was made under a higher shard would never be published.
    """
    from penstock.storage.catalog.collections import highest_shard

    highest, shards = highest_shard(catalog), settings.workers.shards
    if highest is not None and highest >= shards:
        problem = (
            f"workers.shards is {shards}, but there are collections of shard {highest}, which nobody would publish:"
            f" set workers.shards to at least {highest + 1}; a collection keeps the shard it was made in"
        )
        raise InvalidSettings([problem])


def open_objects(settings: Settings) -> "ObjectStore":
    """Return the object store. Nothing is connected before its first use.

    Raises:
        MissingComponent: it is a bucket, and the package for that is not installed.
    """
    from penstock.storage.objects.local import LocalObjects

    if settings.objects.url is not None:
        return _open_bucket(settings)
    if settings.objects.directory is None:
        make_data_dir(settings)
    return LocalObjects(settings.objects.directory or settings.data_dir / "objects")


def _open_bucket(settings: Settings) -> "ObjectStore":
    try:
        from penstock.storage.objects.remote import Bucket, open_bucket
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise MissingComponent(
            "objects.url names a bucket, which needs the package obstore: pip install 'penstock[s3]'"
        ) from error
    from penstock.storage.objects.copies import ObjectCache

    chosen = settings.objects
    if chosen.cache_directory is None:
        make_data_dir(settings)
    bucket, prefix = chosen.bucket_and_prefix
    place = Bucket(
        bucket=bucket,
        prefix=prefix,
        endpoint=chosen.endpoint,
        region=chosen.region,
        access_key_id=chosen.access_key_id.get_secret_value() if chosen.access_key_id else None,
        secret_access_key=chosen.secret_access_key.get_secret_value() if chosen.secret_access_key else None,
    )
    directory = chosen.cache_directory or settings.data_dir / "objects-cache"
    return open_bucket(place, cache=ObjectCache(directory, capacity_bytes=chosen.cache_bytes))


def open_cache(settings: Settings) -> "EmbeddingCache":
    """Return the cache of vectors; with its server down everything is a miss."""
    from penstock.storage.cache import CacheServer, EmbeddingCache

    chosen = settings.embedding
    server = CacheServer(open_redis(settings), ttl_s=chosen.cache_ttl_s, limit_bytes=chosen.cache_bytes)
    return EmbeddingCache(server, shared=chosen.share_cache)


def open_notices(settings: Settings) -> "Notices":
    """Return the notifications between processes."""
    from penstock.storage.notices import Notices

    return Notices(redis_url(settings))


def open_figures(settings: Settings) -> "Figures":
    """Return the sum of what the roles measure."""
    from penstock.storage.figures import Figures

    return Figures(open_redis(settings))


def open_presence(settings: Settings) -> "Presence":
    """Return the heartbeats of the role processes."""
    from penstock.storage.presence import Presence

    return Presence(open_redis(settings))


def card_of(settings: Settings, model: str | None = None, *, dimensions: int | None = None) -> "ModelCard":
    """Return the card that ``model`` has for new collections (default: ``embedding.model``).

    ``dimensions``: to which its vectors are cut; default: the model's own, or as the settings have it.

    Raises:
        ProviderMisconfigured: there is no such model, its dimensions are not known, or cannot be so many.
    """
    from penstock.pipeline.embedding import model_card

    from .providers import options_of

    return model_card(model or settings.embedding.model, dimensions=dimensions, declared=options_of(settings).declared)


def open_embedder(
    settings: Settings,
    model: str,
    dimensions: int,
    *,
    threads: int | None = None,
    most_calls: Callable[[], int | None] = lambda: None,
) -> "Embedder":
    """Return the embedder of ``model`` whose vectors have ``dimensions``. Weights are loaded when first needed.

    ``threads``: for this embedder instead of ``embedding.threads``; a process that embeds single queries needs one.
    ``most_calls``: of a remote model at once; None: any number.
    """
    from penstock.pipeline.embedding import open_embedder

    from .providers import options_of, traffic_of

    def traffic(card: "ModelCard") -> "Traffic":
        return traffic_of(settings, card, redis_url=redis_url(settings), most_calls=most_calls)

    return open_embedder(model, options_of(settings, threads=threads), dimensions=dimensions, traffic=traffic)


def new_snapshots(
    settings: Settings, catalog: "Catalog", objects: "ObjectStore", *, on_refused: Callable[[], object] = lambda: None
) -> "SnapshotCache":
    """Return the reader's cache of opened snapshots. The process may have more files open from here on."""
    from penstock.storage.objects.descriptors import files_for_snapshots, raise_open_files
    from penstock.storage.search.snapshots import SnapshotCache

    return SnapshotCache(
        catalog,
        objects,
        poll_s=settings.search.poll_s,
        capacity_bytes=settings.search.snapshot_cache_bytes,
        capacity_files=files_for_snapshots(raise_open_files()),
        on_refused=on_refused,
    )


def new_recorder(settings: Settings, catalog: "Catalog") -> "QueryRecorder":
    """Return what records some of the searches of one process; nothing, where the settings say so."""
    from penstock.storage.catalog.recorder import QueryRecorder

    return QueryRecorder(catalog, keep=settings.shadow.keep if settings.shadow.record else 0)


def parse_limits(settings: Settings) -> "ParseLimits":
    """Return what a document may be at most."""
    from penstock.pipeline.parsing import ParseLimits

    return ParseLimits(
        max_bytes=settings.limits.max_document_bytes,
        max_pages=settings.limits.max_pages,
        max_characters=settings.limits.max_characters,
        timeout_s=settings.limits.parse_timeout_s,
    )


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables that keep numerical libraries from starting one thread per core in every process.

    They are read when the libraries load, so they belong into a role's environment before it starts.
    """
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def make_data_dir(settings: Settings) -> Path:
    """Create the data directory, readable by its owner alone, and return it.

    Raises:
        MissingComponent: it cannot be created or written.
    """
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MissingComponent(
            f"data_dir {settings.data_dir} cannot be made: {error.strerror}; "
            "choose another with --data-dir or PENSTOCK_DATA_DIR"
        ) from error
    return settings.data_dir
