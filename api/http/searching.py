"""One search, from the checked request to the bytes of the answer. Runs in a search thread: the hot path."""

import base64
import binascii
import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from penstock.client.wire import SearchQuery
from penstock.pipeline.embedding.billing import billed_for_searches
from penstock.pipeline.filters import parse_filter
from penstock.pipeline.references import chosen_reference
from penstock.pipeline.retrieval import MAX_EF, retrieve
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.references import generation_at
from penstock.storage.errors import NotFound, NotKept

from ..errors import Refused, refusal
from .components import Components

REMOTE = "openai/"  # models whose every query is a request to somebody else


def threads_for(components: Components, tenant: str, name: str, asked: SearchQuery) -> ThreadPoolExecutor:
    """Return where to run a search, so that those which wait for others do not hold up those which only compute."""
    info = components.lookups.remembered(tenant, name)
    if info is None:
        return components.patient
    if asked.version is not None or asked.tag is not None or asked.as_of is not None:
        return components.patient  # the catalog has to be asked which version that is
    if asked.vector is not None and not _fits(asked.vector, info.generation.dimensions):
        return components.patient  # likewise, which other generations there are
    remote = info.generation.model.startswith(REMOTE)
    return components.patient if remote and asked.query is not None else components.searches


def _fits(given: list[float] | str, dimensions: int) -> bool:
    """Say whether a vector has so many dimensions, by its length alone."""
    return len(given) == (dimensions if isinstance(given, list) else 4 * math.ceil(4 * dimensions / 3))


def search(components: Components, tenant: str, name: str, asked: SearchQuery) -> bytes:
    """Return the answer of a search as JSON.

    Raises:
        Refused: the collection does not exist, or the vector is not base64.
        InvalidQuery, InvalidFilter, EmbeddingError, StorageError: as they come; OverBudget is one of them.
    """
    try:
        return _search(components, components.lookups.collection(tenant, name), asked)
    except NotKept as error:
        named = next((name for name in ("version", "tag", "as_of") if getattr(asked, name) is not None), None)
        raise refusal(error, param=named) or error from error
    except NotFound:  # the generation went since the collection was looked up
        components.lookups.forget(tenant, name)
        return _search(components, components.lookups.collection(tenant, name), asked)


def _search(components: Components, info: CollectionInfo, asked: SearchQuery) -> bytes:
    began, chosen, now = time.perf_counter(), components.settings.search, components.clock()
    wanted = chosen_reference(
        version=asked.version, tag=asked.tag, as_of=asked.as_of, now=now, min_token=asked.min_token
    )
    found = retrieve(
        billed_for_searches(components.embedders.of, components.search_costs, info),
        components.snapshots,
        info,
        text=asked.query,
        vector=None if asked.vector is None else _given_vector(asked.vector),
        k=asked.k,
        max_k=chosen.max_k,
        filter=None if asked.filter is None else parse_filter(asked.filter),
        ef=asked.ef or min(MAX_EF, max(chosen.ef, 2 * asked.k)),
        at=None if wanted is None else generation_at(components.catalog, info.generation, wanted),
        now=now if wanted is None or wanted.as_of is None else wanted.as_of,
        explain=asked.explain,
        others=(lambda: components.lookups.generations(info)) if asked.min_token is None else tuple,
        declared=components.embedders.declared,
    )
    if wanted is None:  # what was asked of a past version says little of the next
        components.recorder.note(info.tenant_id, info.id, text=asked.query, filter=asked.filter)
    return to_json(found.described(began=began))


def _given_vector(given: list[float] | str) -> list[float] | NDArray[np.float32]:
    if not isinstance(given, str):
        return given
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"the vector is not base64: {error}", code="invalid_base64", param="vector") from error
    if len(data) % 4:
        raise Refused(
            f"the vector is {len(data)} bytes, not a number of float32", code="invalid_base64", param="vector"
        )
    return np.frombuffer(data, "<f4").astype(np.float32)
