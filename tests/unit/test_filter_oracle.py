"""The compiled filters against a plain-Python reading of the grammar, on random metadata and filters."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pipeline.filters import parse_filter
from penstock.storage.errors import FilterMismatch
from penstock.storage.search.mismatches import check_kinds
from penstock.storage.segments.fields import FieldIndex, build_index, evaluate
from penstock.storage.segments.records import DocumentRecord

KEYS = ("a", "b", "a.b", "ü")
# Few values, near each other, so that documents and filters often meet at the edges of a comparison.
NUMBERS = [-1, 0, 1, 2, -1.0, -0.0, 0.5, 1.0, 2**53, 2**53 + 1, 2.0**53, 2**63 - 1, -(2**63), 2.0**63, 1e300]
TEXTS = ["", "a", "ab", "b", "1", "2024-01-01", "é", "\uffff", "\U0001f600"]
numbers, texts = st.sampled_from(NUMBERS), st.sampled_from(TEXTS)
scalars = st.one_of(numbers, texts, st.booleans())
values = st.recursive(
    st.one_of(st.none(), scalars),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=2)),
    max_leaves=5,
)
metadata = st.dictionaries(st.sampled_from(KEYS), st.one_of(scalars, scalars, values), min_size=1, max_size=3)
keys = st.sampled_from(["a", "a", "b", "a.b", "a.a", "ü", "missing"])
ordered = st.one_of(numbers, texts)
conditions = st.one_of(
    st.builds(
        lambda op, key, value: {"type": op, "key": key, "value": value}, st.sampled_from(["eq", "ne"]), keys, scalars
    ),
    st.builds(
        lambda op, key, value: {"type": op, "key": key, "value": value},
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        keys,
        ordered,
    ),
    st.builds(
        lambda op, key, several: {"type": op, "key": key, "value": several},
        st.sampled_from(["in", "nin"]),
        keys,
        st.lists(scalars, max_size=3),
    ),
    st.builds(lambda key, value: {"type": "contains", "key": key, "value": value}, keys, scalars),
    st.builds(lambda key, value: {"type": "exists", "key": key, "value": value}, keys, st.booleans()),
)
filters = st.recursive(
    conditions,
    lambda inner: st.builds(
        lambda op, several: {"type": op, "filters": several},
        st.sampled_from(["and", "or"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)


def held(value: Any, path: str, sought: str) -> list[Any]:
    """All scalars of ``value``, which stands at ``path``, that are found at exactly ``sought``."""
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in held(inner, f"{path}.{key}", sought)]
    if isinstance(value, list):
        return [found for inner in value for found in held(inner, path, sought)]
    return [value] if value is not None and path == f".{sought}" else []


def paths_of(value: Any, path: str) -> list[str]:
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in paths_of(inner, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for inner in value for found in paths_of(inner, path)]
    return [] if value is None else [path]


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def oracle(condition: dict[str, Any], document: dict[str, Any]) -> bool:
    op = condition["type"]
    if op in ("and", "or"):
        return (all if op == "and" else any)([oracle(inner, document) for inner in condition["filters"]])
    key, value = condition["key"], condition["value"]
    if op == "exists":
        below = f".{key}."
        return any(path == f".{key}" or path.startswith(below) for path in paths_of(document, "")) is value
    found = held(document, "", key)
    if op in ("in", "nin"):
        return any(kind(x) == kind(v) and x == v for x in found for v in value) is (op == "in")
    same = [x for x in found if kind(x) == kind(value)]
    return {
        "eq": any(x == value for x in same),
        "contains": any(x == value for x in same),
        "ne": not any(x == value for x in same),
        "gt": op == "gt" and any(x > value for x in same),
        "gte": op == "gte" and any(x >= value for x in same),
        "lt": op == "lt" and any(x < value for x in same),
        "lte": op == "lte" and any(x <= value for x in same),
    }[op]


def mismatches(condition: dict[str, Any], documents: list[dict[str, Any]]) -> bool:
    """Whether a condition asks, where some kind is held, for kinds that no document holds."""
    op = condition["type"]
    if op in ("and", "or"):
        return any(mismatches(inner, documents) for inner in condition["filters"])
    if op in ("ne", "nin", "exists"):
        return False
    values = condition["value"] if op == "in" else [condition["value"]]
    there = {kind(value) for document in documents for value in held(document, "", condition["key"])}
    return bool(values) and bool(there) and there.isdisjoint(map(kind, values))


class Part:
    """An index of some documents, of which those numbered in ``deleted`` are not there any more."""

    def __init__(self, documents: list[dict[str, Any]], *, deleted: int = 0) -> None:
        self.index = build_index([record(fields) for fields in documents])
        self.deleted = deleted
        self.kinds = self.index.kinds

    def holds(self, path: str) -> bool:
        return bool(self.index.holding(path, below=False)[self.deleted :].any())


def record(fields: dict[str, Any]) -> DocumentRecord:
    return DocumentRecord("d", "v", 1, "s", None, fields, None, None, 0.0, "text/plain")


@pytest.mark.parametrize("op", ["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains"])
def test_every_two_values_compare_as_they_do_in_python(op: str) -> None:
    held_values: list[Any] = [*NUMBERS, *TEXTS, True, False]
    index = build_index([record({"a": value}) for value in held_values])
    for value in [*held_values, 10**400, -(10**400), 0.1]:
        if isinstance(value, bool) and op.startswith(("g", "l")):
            continue
        condition = {"type": op, "key": "a", "value": [value] if op in {"in", "nin"} else value}
        expected = [oracle(condition, {"a": inner}) for inner in held_values]
        assert evaluate(index, parse_filter(condition)).tolist() == expected, condition


@settings(max_examples=300, deadline=None)
@given(documents=st.lists(metadata, min_size=3, max_size=12), condition=filters)
def test_filters_accept_exactly_what_a_plain_reading_of_the_grammar_accepts(
    documents: list[dict[str, Any]], condition: dict[str, Any]
) -> None:
    index = build_index([record(fields) for fields in documents])
    reopened = FieldIndex.from_arrays(index.to_arrays(), document_count=len(documents))
    expected = [oracle(condition, fields) for fields in documents]
    assert evaluate(reopened, parse_filter(condition)).tolist() == expected


@settings(max_examples=300, deadline=None)
@given(documents=st.lists(metadata, min_size=1, max_size=9), condition=filters, split=st.integers(0, 9))
def test_a_filter_mismatches_exactly_when_other_kinds_are_held_and_the_asked_one_is_not(
    documents: list[dict[str, Any]], condition: dict[str, Any], split: int
) -> None:
    parts = [Part(documents[:split]), Part(documents[split:])]
    if mismatches(condition, documents):
        with pytest.raises(FilterMismatch):
            check_kinds(parse_filter(condition), parts)
    else:
        check_kinds(parse_filter(condition), parts)


@settings(max_examples=300, deadline=None)
@given(documents=st.lists(metadata, min_size=1, max_size=9), condition=filters, deleted=st.integers(0, 9))
def test_deleted_documents_never_make_a_mismatch(
    documents: list[dict[str, Any]], condition: dict[str, Any], deleted: int
) -> None:
    """They may hide one until they are merged away: the kind that is asked for is still in the index."""
    try:
        check_kinds(parse_filter(condition), [Part(documents, deleted=deleted)])
    except FilterMismatch:
        assert mismatches(condition, documents[deleted:])
