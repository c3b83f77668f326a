"""Parts of an object in a bucket, each read by one call: an answer that is cut short is an error like the library's.

It tries nothing again: ``calls.py`` does.
"""

from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, GenericError
from obstore.store import S3Store

from .calls import NO_SUCH_RANGE, status_of
from .copies import RANGE_BYTES

if TYPE_CHECKING:
    from obstore import ObjectMeta


class CutShort(GenericError):
    """Raised when an answer has fewer bytes than it announced."""


def read_range(store: S3Store, path: str, *, offset: int, size_bytes: int) -> bytes:
    """Return the bytes from ``offset`` on, fewer or none where the object ends before."""
    try:
        return bytes(obstore.get_range(store, path, start=offset, length=size_bytes))
    except BaseError as error:
        if status_of(error) == NO_SUCH_RANGE:  # it begins after the end
            return b""
        raise


def read_start(store: S3Store, path: str) -> "tuple[bytes, ObjectMeta]":
    """Return the first bytes of an object, up to a range of a download, and what is known of it."""
    found = obstore.get(store, path, options={"range": (0, RANGE_BYTES)})
    start = bytes(found.bytes())
    if len(start) != min(RANGE_BYTES, found.meta["size"]):
        raise CutShort(f"{len(start)} bytes came of the first {RANGE_BYTES}")
    return start, found.meta


def read_part(store: S3Store, path: str, *, e_tag: str, offset: int, size_bytes: int) -> bytes:
    """Return just these bytes of the object that has this tag. Raises PreconditionError: it is another one by now."""
    found = obstore.get(store, path, options={"range": (offset, offset + size_bytes), "if_match": e_tag})
    data = bytes(found.bytes())
    if len(data) != size_bytes:
        raise CutShort(f"{len(data)} bytes came of {size_bytes}")
    return data
