"""One search, from the checked request to the bytes of the answer. Runs in a search thread: the hot path."""

import base64
import binascii
import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from penstock.client.wire import SearchQuery
from penstock.pipeline.filters import parse_filter
from penstock.storage.catalog.collections import CollectionInfo, GenerationInfo
from penstock.storage.errors import NotFound
from penstock.storage.hits import Hit
from penstock.storage.ids import ManifestVersion
from penstock.storage.versions import SegmentPlan, Snapshot

from ..errors import Refused
from . import answers
from .components import Components

WAIT_S = 10.0  # for the snapshot that `min_token` asks for


def check_query(asked: SearchQuery, *, max_k: int) -> None:
    """Refuse what can be refused without looking anything up."""
    if (asked.query is None) == (asked.vector is None):
        raise Refused("a search needs exactly one of 'query' and 'vector'", param="query")
    if asked.query is not None and not asked.query.strip():
        raise Refused("the query is empty", param="query")
    if asked.k > max_k:
        raise Refused(f"k is {asked.k}: this server gives at most {max_k:,} hits", param="k")


def wait_for_token(components: Components, tenant: str, name: str, text: str) -> None:
    """Return when the snapshot covers the token. Not for a search thread: it may take `WAIT_S`.

    Raises:
        Refused: it is no token, or of another generation of the collection.
        NotYet: the snapshot does not cover it in time.
    """
    version = _wanted_version(components, tenant, name, text)
    generation = components.lookups.collection(tenant, name).generation
    with components.snapshots.get(generation.tenant_id, generation.id, min_version=version, timeout_s=WAIT_S):
        pass


def _wanted_version(components: Components, tenant: str, name: str, text: str) -> ManifestVersion:
    try:
        generation_id, version = answers.read_token(text)
    except ValueError as error:
        raise Refused(
            "min_token is not a token: take it from a job, a collection or a search", param="min_token"
        ) from error
    if components.lookups.collection(tenant, name).generation.id != generation_id:
        components.lookups.forget(tenant, name)
        if components.lookups.collection(tenant, name).generation.id != generation_id:
            raise Refused(
                "min_token belongs to another collection, or to a generation that is not active any more",
                status=409,
                code="other_generation",
                param="min_token",
            )
    return version


def search(components: Components, tenant: str, name: str, asked: SearchQuery) -> bytes:
    """Return the answer of a search as JSON.

    Raises:
        Refused: the collection does not exist, or the vector does not fit it.
        InvalidFilter, EmbeddingError, StorageError: as they come.
    """
    try:
        return _search(components, components.lookups.collection(tenant, name), asked)
    except NotFound:  # the generation went since the collection was looked up
        components.lookups.forget(tenant, name)
        return _search(components, components.lookups.collection(tenant, name), asked)


def _search(components: Components, info: CollectionInfo, asked: SearchQuery) -> bytes:
    started = time.perf_counter()
    wanted = None if asked.filter is None else parse_filter(asked.filter)
    vector = _vector(components, info, asked)
    embedded = time.perf_counter()
    generation = info.generation
    with components.snapshots.get(generation.tenant_id, generation.id) as snapshot:
        hits, plans = snapshot.explained(
            vector,
            k=asked.k,
            filter=wanted,
            ef=asked.ef or components.settings.search.ef,
            now=components.clock(),
        )
        answer = _answer(snapshot, hits)
    finished = time.perf_counter()
    answer["took_ms"] = _ms(finished - started)
    if asked.explain:
        answer["explain"] = _explanation(
            generation, plans, embedding_s=embedded - started, searching_s=finished - embedded
        )
    return to_json(answer)


def _vector(components: Components, info: CollectionInfo, asked: SearchQuery) -> NDArray[np.float32]:
    if asked.query is not None:
        return components.embedders.get(info.generation.model).embed_query(asked.query)
    vector = _given_vector(asked.vector)
    dimensions = info.generation.dimensions
    if vector.shape != (dimensions,):
        raise Refused(
            f"the vector has {vector.size} dimensions, collection {info.name!r} has {dimensions}",
            code="wrong_dimension",
            param="vector",
        )
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not math.isfinite(length):
        raise Refused("the vector has a component that is not a finite float32", param="vector")
    if length == 0 and info.generation.metric == "cosine":
        raise Refused("the vector is zero, which has no direction", param="vector")
    return vector


def _given_vector(given: list[float] | str | None) -> NDArray[np.float32]:
    if not isinstance(given, str):
        with np.errstate(over="ignore"):  # becomes infinite, which is refused
            return np.array(given, np.float32)
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"the vector is not base64: {error}", code="invalid_base64", param="vector") from error
    if len(data) % 4:
        raise Refused(
            f"the vector is {len(data)} bytes, not a number of float32", code="invalid_base64", param="vector"
        )
    return np.frombuffer(data, "<f4").astype(np.float32)


def _answer(snapshot: Snapshot, hits: list[Hit]) -> dict[str, Any]:
    return {
        "hits": [_hit(hit) for hit in hits],
        "version": snapshot.version,
        "token": answers.token(snapshot.generation_id, snapshot.version),
        "took_ms": 0.0,
        "explain": None,
    }


def _hit(hit: Hit) -> dict[str, Any]:
    document = hit.document
    return {
        "chunk_id": hit.chunk_id,
        "score": hit.score,
        "text": hit.text,
        "start": hit.start,
        "end": hit.end,
        "page": hit.page,
        "heading": hit.heading,
        "document": {
            "id": document.document_id,
            "source": document.source,
            "title": document.title,
            "metadata": document.metadata,
            "version": document.number,
            "media_type": document.media_type,
        },
    }


def _explanation(
    generation: GenerationInfo, plans: list[SegmentPlan], *, embedding_s: float, searching_s: float
) -> dict[str, Any]:
    return {
        "model": generation.model,
        "metric": generation.metric,
        "query_ms": _ms(embedding_s),
        "search_ms": _ms(searching_s),
        "segments": [asdict(plan) for plan in plans],
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
