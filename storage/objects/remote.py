"""The object store in an S3-compatible bucket; files to be mapped are downloaded into a local cache.

The bucket is the truth and the cache is nobody's only copy. A conditional PUT keeps an object from being written twice
with different bytes; it is atomic, so a reader never sees a part. A PUT whose answer was lost and that is tried again
finds its own object: as long as the size is the same, that is success.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from hashlib import blake2b as new_blake2b
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from ..errors import AlreadyExists, NotFound, Unavailable
from ..paths import checked_object_name
from .calls import NO_SUCH_RANGE, RemoteCalls, status_of
from .copies import ObjectCache, RemoteFile
from .ranges import read_part, read_range, read_start
from .store import ObjectInfo

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode

T = TypeVar("T")
SINGLE_PUT_BYTES = 32 << 20  # above, in parts: which no server lets depend on the absence of the object
PART_BYTES = 16 << 20
_PARTS_MAX = 10_000
_PARALLEL = 4
RENEWED_AFTER_S = 60.0
_RACES_MAX = 8
_SILENCE_S, _CONNECT_S = 30.0, 5.0
_REQUEST_PER_SILENCE = 6  # a request may take so many times as long in all
_PAGE = 1_000
_QUESTIONS = 8  # at once
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Bucket:
    """Where objects lie. What is None is taken from the AWS variables, or from the machine's role."""

    bucket: str
    prefix: str | None = None
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"s3://{self.bucket}{f'/{self.prefix}' if self.prefix else ''}{at}"


def open_bucket(bucket: Bucket, *, cache: ObjectCache, silence_s: float = _SILENCE_S) -> "RemoteObjects":
    """Return the store in ``bucket``. Nothing is connected until the first use.

    ``silence_s``: the longest wait for the next bytes of an answer, and for a part of an upload to be acknowledged.

    Raises:
        Unavailable: the library refuses the address or the credentials as they are written.
    """
    given = {
        "region": bucket.region,
        "endpoint": bucket.endpoint,
        "access_key_id": bucket.access_key_id,
        "secret_access_key": bucket.secret_access_key,
        "session_token": bucket.session_token,
    }
    calls = RemoteCalls(bucket.address)
    try:
        store = S3Store(
            bucket.bucket,
            prefix=bucket.prefix,
            client_options={
                "allow_http": bool(bucket.endpoint and bucket.endpoint.startswith("http://")),
                "timeout": timedelta(seconds=_REQUEST_PER_SILENCE * silence_s),
                "read_timeout": timedelta(seconds=silence_s),
                "connect_timeout": timedelta(seconds=min(_CONNECT_S, silence_s)),
            },
            # Calls are tried again here, where what a second attempt finds is understood.
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=silence_s)},
            **{key: value for key, value in given.items() if value is not None},  # type: ignore[arg-type]
        )
    except (BaseError, ValueError) as error:
        raise Unavailable(f"{bucket.address} cannot be used: {str(error).partition(chr(10))[0]}") from error
    return RemoteObjects(store, calls=calls, cache=cache)


class RemoteObjects:
    """An ``ObjectStore`` in a bucket. ``local_path`` gives copies in ``cache``, which other processes may share."""

    def __init__(
        self, store: S3Store, *, calls: RemoteCalls, cache: ObjectCache, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._calls = calls
        self._cache = cache
        self._clock = clock

    def __repr__(self) -> str:
        return f"RemoteObjects({self._calls.address})"

    def put(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        size_bytes = sum(view.nbytes for view in views)
        if size_bytes > SINGLE_PUT_BYTES:
            self._put_in_parts(name, lambda: iter(views), size_bytes=size_bytes, always=_is_named(name, views))
        else:
            self._put_once(name, b"".join(views))

    def get(self, name: str) -> bytes:
        return self._call(name, lambda path: bytes(obstore.get(self._store, path).bytes()))

    def get_range(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        if not size_bytes:
            self._head(name)
            return b""
        return self._call(name, partial(read_range, self._store, offset=offset, size_bytes=size_bytes))

    def local_path(self, name: str, *, blake2b: str | None = None) -> Path:
        look = partial(self._look, checked_object_name(name))
        return self._cache.local_path(name, blake2b=blake2b, look=look)

    def is_local(self, name: str) -> bool:
        return self._cache.has_checked(checked_object_name(name))

    def drop_damaged_copy(self, name: str, *, blake2b: str) -> bool:
        return self._cache.drop_damaged(checked_object_name(name), blake2b=blake2b)

    def adopt(self, name: str, path: Path) -> None:
        size_bytes = path.stat().st_size
        if size_bytes > SINGLE_PUT_BYTES:
            self._put_in_parts(name, lambda: path, size_bytes=size_bytes, always=False)
        else:
            self._put_once(name, path.read_bytes())
        path.unlink(missing_ok=True)

    def scratch(self) -> Path:
        return self._cache.scratch()

    def exists(self, name: str) -> bool:
        return self.find(name) is not None

    def missing(self, names: Iterable[str]) -> "list[str]":
        asked = list(names)
        if len(asked) < 2:
            return [name for name in asked if not self.exists(name)]
        with ThreadPoolExecutor(min(_QUESTIONS, len(asked)), thread_name_prefix="objects") as pool:
            return [name for name, there in zip(asked, pool.map(self.exists, asked), strict=True) if not there]

    def find(self, name: str) -> ObjectInfo | None:
        try:
            return _info(self._head(name))
        except NotFound:
            return None

    def delete(self, name: str) -> None:
        with suppress(NotFound):
            self._call(name, lambda path: obstore.delete(self._store, path))
        self._cache.drop(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = prefix.rpartition("/")[0] or None  # to the library a prefix ends where a part of a name ends
        # All at once, for a list that broke off must begin anew: not every server continues it after a given name.
        pages = self._calls.call(prefix, lambda: list(obstore.list(self._store, folder, chunk_size=_PAGE)))
        return (_info(found) for page in pages for found in page if found["path"].startswith(prefix))

    def _call(self, name: str, function: Callable[[str], T], *, expected: tuple[type[BaseError], ...] = ()) -> T:
        checked_object_name(name)
        return self._calls.call(name, lambda: function(name), expected=expected)

    def _head(self, name: str) -> "ObjectMeta":
        return self._call(name, lambda path: obstore.head(self._store, path))

    def _put_once(self, name: str, data: bytes) -> None:
        for attempt in range(1, _RACES_MAX + 1):
            try:
                self._put(name, data, mode="create")
            except AlreadyExistsError:
                if self._confirm(name, data):
                    return
                self._calls.wait(attempt)  # a rival's write is under way (409), or what was found is gone again
            else:
                return
        raise Unavailable(f"object {name} appears and disappears while it is being written. Try again.")

    def _confirm(self, name: str, data: bytes) -> bool:
        """Return whether what was found under ``name`` stands for ``data``; False when it is gone again.

        Bytes that the name is the digest of are written over whatever is there: the same ones, or damaged ones.
        """
        found = self.find(name)
        if found is None:
            return False
        if _is_named(name, [data]):
            self._put(name, data, mode="overwrite")
        elif found.size_bytes != len(data):
            raise AlreadyExists(f"object {name} was written before with another size; objects are written once")
        elif self._clock() - found.modified_at > RENEWED_AFTER_S:  # else it is of our own try whose answer was lost
            return self._renew(name)
        return True

    def _renew(self, name: str) -> bool:
        """Date an object now, so that no collector takes it for garbage: write its own bytes over it.

        False: a rival wrote it, or a collector deleted it, at this moment; who looks again knows which.
        """
        with suppress(PreconditionError, NotFound):
            found = self._call(name, lambda path: obstore.get(self._store, path))
            self._put(name, bytes(found.bytes()), mode={"e_tag": found.meta["e_tag"]})
            return True
        return False

    def _put(self, name: str, data: bytes, *, mode: "PutMode") -> None:
        put = partial(obstore.put, mode=mode, use_multipart=False)
        expected = (AlreadyExistsError, PreconditionError) if mode != "overwrite" else ()
        self._call(name, lambda path: put(self._store, path, data), expected=expected)

    def _put_in_parts(
        self, name: str, content: Callable[[], "Path | Iterable[memoryview]"], *, size_bytes: int, always: bool
    ) -> None:
        """Upload a large object; ``always`` over one that is there. Names of large objects are never used by rivals."""
        found = None if always else self.find(name)
        if found is not None:
            if found.size_bytes != size_bytes:
                raise AlreadyExists(f"object {name} was written before with another size; objects are written once")
            return
        part_bytes = max(PART_BYTES, -(-size_bytes // (_PARTS_MAX - 1)))
        upload = partial(obstore.put, use_multipart=True, chunk_size=part_bytes, max_concurrency=_PARALLEL)
        self._call(name, lambda path: upload(self._store, path, content()))

    def _look(self, name: str) -> RemoteFile:
        """Ask for an object and its first bytes, in one call when there are any."""
        try:
            start, meta = self._call(name, partial(read_start, self._store))
        except Unavailable as error:
            if status_of(error.__cause__ or error) != NO_SUCH_RANGE:
                raise
            start, meta = b"", self._head(name)
        e_tag = meta["e_tag"] or ""
        return RemoteFile(name, e_tag, meta["size"], start, partial(self._read_exactly, name, e_tag))

    def _read_exactly(self, name: str, e_tag: str, offset: int, size_bytes: int) -> bytes:
        try:
            read = partial(read_part, self._store, e_tag=e_tag, offset=offset, size_bytes=size_bytes)
            return self._call(name, read, expected=(PreconditionError,))
        except PreconditionError as error:
            raise Unavailable(f"object {name} was written anew while it was being downloaded. Try again.") from error


def _is_named(name: str, parts: Sequence[bytes | memoryview]) -> bool:
    """Return whether ``name`` ends in the digest of these bytes; most names end in none."""
    said = name.rpartition("/")[2]
    if len(said) != 2 * _DIGEST_BYTES:
        return False
    digest = new_blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest() == said


def _info(meta: "ObjectMeta") -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["last_modified"].timestamp())
