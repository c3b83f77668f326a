"""What submitting documents now would take: everything an ingest would do but store, enqueue and call the provider."""

import base64
import struct
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.client.wire import Chunking, NewCollection
from penstock.pipeline.embedding import ModelCard
from penstock.pipeline.embedding.cached import name_in_cache
from penstock.pipeline.errors import ParseError
from penstock.pipeline.estimating import CutChunk, Estimated, estimate
from penstock.settings.providers import check_economy
from penstock.storage.cache import Wanted
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.costs import read_speed
from penstock.storage.errors import Damaged, NotFound
from penstock.storage.ids import TenantId
from penstock.storage.intake.comparison import Compared, compare
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.segments.kept_vectors import kept_identities
from penstock.storage.segments.manifests import read_manifest

from ..errors import Refused
from .components import Components
from .configurations import configuration
from .cutting import ToCut
from .lookups import find_collection, find_tenant
from .queries import EstimateQuery
from .uploads import Arrived

TOLD_UNREADABLE = 20
_TEXT = struct.Struct("<8sI")
_NEITHER_KNOWN = Compared(frozenset(), {})


@dataclass(frozen=True)
class _Place:
    """Where documents would go: a collection, or what one would be that is made for them."""

    tenant: TenantId
    model: str
    dimensions: int
    chunking: dict[str, Any]
    collection: CollectionInfo | None


def estimated(
    components: Components, tenant: str, name: str, query: EstimateQuery, submission: Arrived, *, left: threading.Event
) -> dict[str, Any]:
    """Return the answer. Nothing is stored, enqueued, or paid for.

    ``left``: nobody waits for the answer any more.

    Raises:
        Refused: what a submission would be refused for, and 409 where the collection is made otherwise.
    """
    documents = submission.read(components.settings.limits).documents
    place = _place(components, tenant, name, query)
    if query.priority == "economy":
        check_economy(components.settings, place.model)
    known = _NEITHER_KNOWN
    if place.collection is not None:
        known = compare(components.catalog, place.collection.id, documents)
    changed = [one for one in documents if one.source not in known.unchanged]
    cut, unreadable = _cut(components, place, changed, left=left)
    card = components.embedders.of(place.model, place.dimensions).card
    ids = {source: known.ids[source] for source, _ in cut if source in known.ids}
    found = estimate(
        [(ids.get(source, source), chunks) for source, chunks in cut],
        kept=_kept(components, place, ids.values()),
        cached=_cached(components, place, card),
    )
    counts = {"documents": len(documents), "unchanged": len(documents) - len(changed), "failed": len(unreadable)}
    told = {**counts, "unreadable": unreadable[:TOLD_UNREADABLE], **_told(components, place, card, found, query)}
    return told | ({"texts": _packed(found.new)} if query.texts else {})


def _place(components: Components, tenant: str, name: str, query: EstimateQuery) -> _Place:
    asked = query.model_dump(include={"strategy", "size_tokens", "overlap_tokens"}, exclude_none=True)
    chunking = Chunking.model_validate(asked) if asked else None
    try:
        info = find_collection(components.catalog, tenant, name)
    except Refused as error:
        if error.code != "unknown_collection":
            raise
        new = NewCollection(name=name, model=query.model, chunking=chunking)
        made = configuration(new, components.settings)
        return _Place(find_tenant(components.catalog, tenant), made.model, made.dimensions, made.chunking, None)
    there = info.generation
    if query.model is not None or chunking is not None:
        wanted = configuration(NewCollection(name=name, model=query.model, chunking=chunking), components.settings)
        if (wanted.model, wanted.chunking) != (there.model, dict(there.chunking)):
            told = f"collection {name!r} exists, with model {there.model} and {dict(there.chunking)}: leave those out"
            raise Refused(told, status=409, code="other_configuration", param="model")
    return _Place(info.tenant_id, there.model, there.dimensions, dict(there.chunking), info)


def _cut(
    components: Components, place: _Place, documents: Sequence[SubmittedDocument], *, left: threading.Event
) -> tuple[list[tuple[str, list[CutChunk]]], list[dict[str, str]]]:
    """Return source and chunks of what can be read, and of the rest why not."""
    cut: list[tuple[str, list[CutChunk]]] = []
    unreadable: list[dict[str, str]] = []
    for one in documents:
        if left.is_set():
            raise Refused("nobody waits for the estimate any more", status=499, code="cancelled")
        asked = ToCut(one.data, one.filename, one.media_type, place.model, place.dimensions, place.chunking)
        try:
            cut.append((one.source, components.cutter.cut(asked)))
        except ParseError as error:
            unreadable.append({"source": one.source, "code": error.code, "reason": error.message})
    return cut, unreadable


def _kept(components: Components, place: _Place, ids: Collection[str]) -> set[tuple[str, bytes]]:
    """Return the chunks whose vectors the index has; none where it cannot be read just now, as an ingest would do."""
    name = None if place.collection is None else place.collection.generation.manifest
    if name is None or not ids:
        return set()
    try:
        manifest = read_manifest(components.objects, name)
        return kept_identities(components.objects, manifest, document_ids={str(one) for one in ids})
    except (NotFound, Damaged, OSError):
        return set()


def _cached(
    components: Components, place: _Place, card: ModelCard
) -> Callable[[Mapping[bytes, int]], Collection[bytes]]:
    def cached(texts: Mapping[bytes, int]) -> Collection[bytes]:
        digests, ones = list(texts), np.ones(len(texts), np.int64)
        wanted = Wanted(place.tenant, name_in_cache(card), card.dimensions, digests, ones, ones)
        return [digest for digest, here in zip(digests, components.cache.has(wanted), strict=True) if here]

    return cached


def _told(
    components: Components, place: _Place, card: ModelCard, found: Estimated, query: EstimateQuery
) -> dict[str, Any]:
    price, speed = card.order_price_per_million_tokens, None  # how long an order takes nobody knows
    if query.priority != "economy":
        price = card.price_per_million_tokens
        speed = read_speed(components.catalog, model=place.model, dimensions=place.dimensions)
    return {
        "model": place.model,
        "chunks": found.chunks,
        "chunks_reused": found.reused,
        "cache_hits": found.hits,
        "repeated": found.repeated,
        "embedded": len(found.new),
        "tokens": found.tokens,
        "price_per_million_tokens": price,
        "cost_usd": None if price is None else found.tokens * price / 1e6,
        "duration_s": None if speed is None else found.tokens / speed,
    }


def _packed(texts: Mapping[bytes, int]) -> str:
    return base64.b64encode(b"".join(_TEXT.pack(digest[:8], tokens) for digest, tokens in texts.items())).decode()
