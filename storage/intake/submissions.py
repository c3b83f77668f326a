"""What a producer hands in: checked, hashed, and laid into one pack. It looks nothing up."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import paths
from ..errors import InvalidMetadata, InvalidName
from ..ids import TenantId
from ..limits import (
    EARLIEST_S,
    LATEST_S,
    MAX_FILENAME_CHARACTERS,
    MAX_MEDIA_TYPE_CHARACTERS,
    MAX_SOURCE_BYTES,
    MAX_TITLE_CHARACTERS,
)
from ..metadata import check_metadata
from ..objects.store import ObjectStore

_MOST_CHARACTERS = {
    "filename": MAX_FILENAME_CHARACTERS,
    "title": MAX_TITLE_CHARACTERS,
    "media type": MAX_MEDIA_TYPE_CHARACTERS,
}
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True)
class SubmittedDocument:
    """One document as its producer gives it. ``source`` is the producer's own name for it: a path, a URL, a key."""

    source: str
    filename: str
    data: bytes
    media_type: str | None = None
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    event_time: float | None = None
    expires_at: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A checked document and what tells it from an earlier version: blake2b-256 of its bytes and of the rest."""

    source: str
    submitted: SubmittedDocument
    content_hash: bytes
    metadata_hash: bytes


@dataclass(frozen=True)
class Pack:
    """The object that holds the bytes of one submission; ``offsets`` by source. ``name`` is None when it is empty."""

    name: str | None
    offsets: Mapping[str, int]


def checked(documents: Iterable[SubmittedDocument]) -> list[Candidate]:
    """Return the documents with their hashes, in order.

    Raises:
        InvalidName: a source is empty, too long, or given twice; some text cannot be stored.
        InvalidMetadata: names the field.
    """
    found: dict[str, Candidate] = {}
    for submitted in documents:
        if submitted.source in found:
            raise InvalidName(f"source {submitted.source!r} was given twice: which of the two is newer is unknown")
        found[submitted.source] = _candidate(submitted)
    return list(found.values())


def write_pack(
    objects: ObjectStore, tenant: TenantId, candidates: Sequence[Candidate], *, left_out: Collection[str]
) -> Pack:
    """Write the bytes of all but the sources ``left_out`` as one object, named after its content."""
    parts = [candidate for candidate in candidates if candidate.source not in left_out]
    if not parts:
        return Pack(name=None, offsets={})
    digest = hashlib.blake2b(digest_size=32)
    offsets: dict[str, int] = {}
    size_bytes = 0
    for part in parts:
        offsets[part.source] = size_bytes
        digest.update(part.submitted.data)
        size_bytes += len(part.submitted.data)
    name = paths.pack(tenant, digest=digest.hexdigest())
    objects.put(name, [part.submitted.data for part in parts])  # the same name again is the same bytes again
    return Pack(name=name, offsets=offsets)


def _candidate(submitted: SubmittedDocument) -> Candidate:
    check_described(submitted)
    return Candidate(
        source=submitted.source,
        submitted=submitted,
        content_hash=hashlib.blake2b(submitted.data, digest_size=32).digest(),
        metadata_hash=metadata_hash(submitted),
    )


def check_described(submitted: SubmittedDocument) -> None:
    """Check all that is said about a document. Raises InvalidName, InvalidMetadata."""
    _check_texts(submitted)
    check_times(submitted)
    check_metadata(submitted.metadata)


def check_times(submitted: SubmittedDocument) -> None:
    """Raises InvalidMetadata: a time is none, or so far off that it was meant otherwise."""
    for name, moment in (("event_time", submitted.event_time), ("expires_at", submitted.expires_at)):
        if moment is not None and not EARLIEST_S <= moment <= LATEST_S:  # nor is it a number that is none
            told = f"{name} of {submitted.source!r} is {moment:g}: use seconds since 1970, not milliseconds"
            raise InvalidMetadata(f"{told}, within the years 1 to 9999", param=name)


def metadata_hash(submitted: SubmittedDocument) -> bytes:
    """Return the blake2b-256 of what is said about a document."""
    described = [submitted.media_type, submitted.title, submitted.metadata, submitted.event_time, submitted.expires_at]
    return hashlib.blake2b(_canonical(described).encode(), digest_size=32).digest()


def _check_texts(submitted: SubmittedDocument) -> None:
    named = {"source": submitted.source, "filename": submitted.filename}
    optional = {"title": submitted.title, "media type": submitted.media_type}
    for kind, text in (named | optional).items():
        if text is None:
            continue
        try:
            size_bytes = len(text.encode())
        except UnicodeEncodeError as error:
            raise InvalidName(f"the {kind} of {submitted.source!r} has a lone surrogate: not valid Unicode") from error
        if "\0" in text:
            raise InvalidName(f"the {kind} of {submitted.source!r} has a NUL character, which no catalog can store")
        if kind == "source" and not 0 < size_bytes <= MAX_SOURCE_BYTES:
            raise InvalidName(f"source {text[:80]!r} is not allowed: use 1 to {MAX_SOURCE_BYTES:,} bytes")
        if len(text) > (most := _MOST_CHARACTERS.get(kind, len(text))):
            raise InvalidName(f"the {kind} of {submitted.source!r} has {len(text):,} characters: use at most {most:,}")
