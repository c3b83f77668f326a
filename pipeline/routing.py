"""Which generation answers a query vector: the one whose dimensions it has. Reads nothing and opens nothing.

A collection is searched in its active generation. While the one before it is kept, vectors of that one's model are
answered by that one, so that applications that bring vectors can change over after the switch and not at that moment.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InvalidQuery

if TYPE_CHECKING:
    from penstock.storage.catalog.generations import GenerationInfo

LARGEST_COMPONENT = 1e15  # the square of a larger one may not be a float32

Query = NDArray[np.float32]


@dataclass(frozen=True)
class Routed:
    """A query and the generation that answers it. ``cut_from``: the dimensions it came with; None: it was not cut."""

    query: Query
    generation: "GenerationInfo"
    cut_from: int | None = None


def route_vector(
    vector: ArrayLike | None,
    generation: "GenerationInfo",
    *,
    others: Callable[[], Sequence["GenerationInfo"]],
    full_dimensions_of: Callable[["GenerationInfo"], int | None],
) -> Routed:
    """Return what answers a vector: ``generation``, or one of the ``others`` whose dimensions it has.

    A vector as long as the model makes them, where the generation's are cut to fewer, is cut and scaled to length one.

    Args:
        others: the generations beside it; asked for only where the vector does not fit.
        full_dimensions_of: what the model of a generation makes, where its vectors are cut to fewer; None otherwise.

    Raises:
        InvalidQuery: it is no list of numbers, or too large ones; or it fits nowhere, and the dimensions that would do
            are told.
    """
    query = _numbers(vector)
    if query.shape == (generation.dimensions,):
        return Routed(_checked(query, generation), generation)
    beside = [other for other in others() if other.id != generation.id] if query.ndim == 1 else []
    for other in beside:
        if is_served(other) and query.shape == (other.dimensions,):
            return Routed(_checked(query, other), other)
    full = full_dimensions_of(generation)
    if full is not None and query.shape == (full,):
        cut = _checked(query, generation)[: generation.dimensions]
        return Routed(_unit(cut), generation, cut_from=full)
    raise _fits_nowhere(query, generation, full=full, beside=beside)


def is_served(generation: "GenerationInfo") -> bool:
    """Say whether a generation beside the active one may answer: it served before, and is kept up to date."""
    return generation.state == "retired" and generation.manifest is not None


def _numbers(vector: ArrayLike | None) -> Query:
    try:
        with np.errstate(over="ignore"):  # becomes infinite, which is refused
            return np.asarray(vector, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidQuery(f"the vector is not a list of numbers: {error}", param="vector") from error


def _checked(query: Query, generation: "GenerationInfo") -> Query:
    if not (np.abs(query) <= LARGEST_COMPONENT).all():
        raise InvalidQuery(f"the vector has a component that is not within ±{LARGEST_COMPONENT:g}", param="vector")
    if generation.metric == "cosine" and not query.any():
        raise InvalidQuery("the vector is zero, which has no direction", param="vector")
    return query


def _unit(query: Query) -> Query:
    length = float(np.linalg.norm(query.astype(np.float64)))
    if not length:
        raise InvalidQuery(
            f"the first {len(query)} components of the vector are zero, and the collection's vectors are cut to those",
            param="vector",
        )
    return (query / np.float32(length)).astype(np.float32)


def _fits_nowhere(
    query: Query, generation: "GenerationInfo", *, full: int | None, beside: Iterable["GenerationInfo"]
) -> InvalidQuery:
    length = "x".join(map(str, query.shape)) or "no"
    cut = "" if full is None else f", or {full} to be cut to those"
    would_do = [f"{generation.dimensions} (model {generation.model!r}{cut})"]
    would_do += [f"{one.dimensions} (model {one.model!r}, which served before)" for one in beside if is_served(one)]
    have = f"{length} dimension{'' if length == '1' else 's'}"
    told = f"the vector has {have}, the collection has {' or '.join(would_do)}"
    built = [one for one in beside if one.state == "building" and query.shape == (one.dimensions,)]
    if built:
        told += f"; those of {built[0].model!r} will do once the generation that is being built has taken over"
    return InvalidQuery(told, param="vector")
