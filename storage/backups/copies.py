"""Copies objects from one store to another, each read once and compared with what it has to be."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from ..errors import Damaged, NotFound
from ..objects.store import ObjectStore

PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class Copy:
    """An object of a backup."""

    size_bytes: int
    blake2b: str


def copy_object(
    name: str, source: ObjectStore, target: ObjectStore, *, expected: str | None, go_on: Callable[[], None]
) -> Copy:
    """Copy one object, durably. ``expected``: its blake2b-256 in hex, if anything says it.

    Raises:
        NotFound: the source has it not. Damaged: it is not what it has to be; the target has no copy of it.
    """
    path = target.scratch() / f"copy-{secrets.token_hex(8)}"
    try:
        copied = _written(name, source, path, go_on=go_on)
        if expected is not None and copied.blake2b != expected:
            raise Damaged(f"object {name} is not what its checksum says")
        target.adopt(name, path)
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
    return copied


def copy_there(name: str, target: ObjectStore, *, former: Mapping[str, Copy], go_on: Callable[[], None]) -> Copy | None:
    """Return what an earlier backup left of an object, None when it has to be copied.

    What no finished backup tells of, an interrupted one left; then it is read once.
    """
    found = target.find(name)
    if found is None:
        return None
    known = former.get(name)
    if known is not None:
        return known if known.size_bytes == found.size_bytes else None
    return measured(name, target, go_on=go_on)


def measured(name: str, store: ObjectStore, *, go_on: Callable[[], None]) -> Copy:
    """Read an object whole. Raises NotFound."""
    return _written(name, store, None, go_on=go_on)


def _written(name: str, source: ObjectStore, path: Path | None, *, go_on: Callable[[], None]) -> Copy:
    info = source.find(name)
    if info is None:
        raise NotFound(f"there is no object {name}")
    digest, offset = blake2b(digest_size=32), 0
    with nullcontext() if path is None else path.open("wb") as file:
        while offset < info.size_bytes:
            go_on()
            piece = source.get_range(name, offset=offset, size_bytes=min(PIECE_BYTES, info.size_bytes - offset))
            if not piece:
                raise Damaged(f"object {name} ends after {offset:,} of {info.size_bytes:,} bytes")
            digest.update(piece)
            if file is not None:
                file.write(piece)
            offset += len(piece)
    return Copy(info.size_bytes, digest.hexdigest())
