"""The field index: what documents hold, compared exactly."""

import random
from itertools import pairwise

import numpy as np
import pytest

from penstock.storage.errors import Damaged, InvalidMetadata
from penstock.storage.metadata import check_metadata, flatten
from penstock.storage.segments.columns import merge
from penstock.storage.segments.fields import (
    And,
    Compare,
    Contains,
    Exists,
    FieldIndex,
    Filter,
    Member,
    Or,
    build_index,
    evaluate,
)
from penstock.storage.segments.records import DocumentRecord


def document(number: int = 0, /, **metadata: object) -> DocumentRecord:
    return DocumentRecord(
        document_id=f"doc_{number}",
        version_id=f"ver_{number}",
        number=1,
        source=f"notes/{number}.txt",
        title=f"Title {number}" if number % 2 else None,
        metadata=metadata,
        event_time=None,
        expires_at=100.5 + number if number % 2 else None,
        ingested_at=1000.0 + number,
        media_type="text/plain",
    )


def accepted(condition: Filter, *documents: DocumentRecord) -> list[bool]:
    return evaluate(build_index(documents), condition).tolist()


def test_equal_compares_text_numbers_and_booleans_with_their_own_kind_only() -> None:
    documents = [document(v=1), document(v=1.0), document(v=True), document(v="1"), document()]
    assert accepted(Compare("eq", "v", 1), *documents) == [True, True, False, False, False]
    assert accepted(Compare("eq", "v", True), *documents) == [False, False, True, False, False]
    assert accepted(Compare("eq", "v", "1"), *documents) == [False, False, False, True, False]
    assert accepted(Compare("ne", "v", 1), *documents) == [False, False, True, True, True]


def test_integers_beyond_the_exact_floats_compare_exactly() -> None:
    big = 2**53
    documents = [document(v=big), document(v=big + 1), document(v=float(big)), document(v=2**63 - 1)]
    assert accepted(Compare("eq", "v", big), *documents) == [True, False, True, False]
    assert accepted(Compare("gt", "v", big), *documents) == [False, True, False, True]
    assert accepted(Compare("gt", "v", float(big)), *documents) == [False, True, False, True]
    assert accepted(Compare("lt", "v", 10**400), *documents) == [True] * 4


def test_ranges_order_text_by_code_point_so_that_iso_dates_order_by_time() -> None:
    documents = [document(day=day) for day in ("2023-12-31", "2024-01-01", "2024-02-30", "é", "z")]
    assert accepted(Compare("gte", "day", "2024-01-01"), *documents) == [False, True, True, True, True]
    assert accepted(Compare("lt", "day", "2024-02"), *documents) == [True, True, False, False, False]
    assert accepted(Compare("gt", "day", "z"), *documents) == [False, False, False, True, False]


def test_a_range_on_another_kind_matches_nothing() -> None:
    assert accepted(Compare("gte", "day", 3), document(day="2024"), document(day=True)) == [False, False]


def test_lists_match_when_any_element_does_and_negations_when_none_does() -> None:
    documents = [document(tags=["a", "b"]), document(tags="a"), document(tags=[]), document(tags=None), document()]
    assert accepted(Compare("eq", "tags", "b"), *documents) == [True, False, False, False, False]
    assert accepted(Contains("tags", "a"), *documents) == [True, True, False, False, False]
    assert accepted(Member("nin", "tags", ("b", "c")), *documents) == [False, True, True, True, True]
    assert accepted(Member("in", "tags", ()), *documents) == [False] * 5
    assert accepted(Exists("tags"), *documents) == [True, True, False, False, False]
    assert accepted(Exists("tags", present=False), *documents) == [False, False, True, True, True]


def test_nested_objects_and_lists_of_objects_are_reached_by_dotted_paths() -> None:
    documents = [
        document(author={"name": "Ada"}),
        document(author=[{"name": "Bob"}, {"name": "Cy"}]),
        document(author="x"),
    ]
    assert accepted(Member("in", "author.name", ("Cy", "Ada")), *documents) == [True, True, False]
    assert accepted(Exists("author"), *documents) == [True, True, True]
    assert accepted(Exists("author.name"), *documents) == [True, True, False]
    assert accepted(Exists("auth"), *documents) == [False, False, False]


def test_a_path_is_not_mistaken_for_one_that_it_begins() -> None:
    documents = [document(a=1), document(**{"a b": 1}), document(**{"a.b": 1}), document(**{"a/b": 1}), document(ab=1)]
    assert accepted(Compare("eq", "a", 1), *documents) == [True, False, False, False, False]
    assert accepted(Exists("a"), *documents) == [True, False, True, False, False]


def test_built_in_fields_are_addressed_with_a_dollar() -> None:
    documents = [document(0), document(1), document(2)]
    assert accepted(Compare("eq", "$source", "notes/1.txt"), *documents) == [False, True, False]
    assert accepted(Compare("ne", "$title", "Title 1"), *documents) == [True, False, True]
    assert accepted(Member("in", "$document_id", ("doc_0", "doc_2")), *documents) == [True, False, True]
    assert accepted(Compare("gt", "$ingested_at", 1000), *documents) == [False, True, True]
    assert accepted(Compare("lte", "$expires_at", 101.5), *documents) == [False, True, False]
    assert accepted(Compare("eq", "$media_type", "text/plain"), *documents) == [True] * 3


def test_and_or_nest_and_take_any_number_of_filters() -> None:
    documents = [document(a=i % 2, b=i) for i in range(6)]
    nested = And((Compare("eq", "a", 0), Or((Compare("lt", "b", 2), Compare("gte", "b", 4)))))
    assert accepted(nested, *documents) == [True, False, False, False, True, False]
    assert accepted(And(()), *documents) == [True] * 6
    assert accepted(Or(()), *documents) == [False] * 6


def test_not_a_number_compares_with_nothing() -> None:
    documents = [document(v=float("nan")), document(v=1.0)]
    assert accepted(Compare("eq", "v", float("nan")), *documents) == [False, False]
    assert accepted(Compare("ne", "v", float("nan")), *documents) == [True, True]
    assert accepted(Exists("v"), *documents) == [False, True]


def test_an_index_of_no_documents_answers_with_no_documents() -> None:
    assert accepted(Or((Compare("eq", "v", 1), Exists("v", present=False)))) == []


def test_the_number_of_sections_does_not_grow_with_the_number_of_fields() -> None:
    arrays = build_index([document(**{f"field {i}": i for i in range(500)})]).to_arrays()
    assert sorted(arrays) == [f"fields/{name}" for name in ("columns", "offsets", "postings", "text", "values")]


def test_stored_sections_open_to_the_same_answers() -> None:
    documents = [document(i, a=i % 3, b=[i, str(i)], c=i / 2) for i in range(50)]
    index = build_index(documents)
    reopened = FieldIndex.from_arrays(index.to_arrays(), document_count=50)
    for condition in (Compare("eq", "a", 1), Compare("lt", "c", 7.5), Contains("b", "4"), Exists("$title")):
        np.testing.assert_array_equal(evaluate(reopened, condition), evaluate(index, condition))


def test_kinds_tells_what_documents_hold_at_a_path_itself() -> None:
    index = build_index([document(v=1), document(v=2.5), document(v="x"), document(v={"below": True})])
    assert index.kinds("v") == {"integer", "real", "string"}
    assert index.kinds("v.below") == {"boolean"}
    assert index.kinds("w") == set()


@pytest.mark.parametrize("name", ["columns", "values", "offsets", "postings", "text"])
def test_a_missing_or_cut_section_is_damaged(name: str) -> None:
    arrays = build_index([document(v=1)]).to_arrays()
    missing = {section: array for section, array in arrays.items() if section != f"fields/{name}"}
    with pytest.raises(Damaged, match=name):
        FieldIndex.from_arrays(missing, document_count=1)
    if name != "text":  # a cut in the text cannot be told from its length alone; its checksum tells
        with pytest.raises(Damaged):
            FieldIndex.from_arrays({**arrays, f"fields/{name}": arrays[f"fields/{name}"][:-1]}, document_count=1)


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"a": {"id": 2**63}}, "'a.id' is an integer outside 64 bits"),
        ({"a": [1, -(2**63) - 1]}, "'a'"),
        ({"a": float("inf")}, "'a' is inf"),
        ({"a": "\ud800"}, "lone surrogate"),
        ({"a": {"": 1}}, "''"),
        ({"a": {3: 1}}, "the key 3"),
        ({"a": b"bytes"}, "'a' is a bytes"),
        ({"$source": 1}, "'\\$source'"),
        ({"a": "x" * 70_000}, "too large"),
    ],
)
def test_metadata_that_could_not_be_compared_exactly_is_refused_by_name(metadata: dict, named: str) -> None:
    with pytest.raises(InvalidMetadata, match=named):
        check_metadata(metadata)


def test_metadata_nested_too_deep_is_refused() -> None:
    nested: dict = {}
    for _ in range(5_000):
        nested = {"a": nested}
    with pytest.raises(InvalidMetadata, match="levels deep"):
        check_metadata(nested)


def test_any_ordinary_json_object_is_allowed() -> None:
    check_metadata({"a": [1, 2.5, None, {"b": True}], "ü": "é\U0001f600", "n": -(2**63), "empty": {}})


def test_flatten_yields_every_value_under_its_path() -> None:
    metadata = {"a": [1, [True, None], {"b": "x"}], "c": {"d": {"e": 2.5}}, "f": {}, "g": []}
    assert list(flatten(metadata)) == [("a", 1), ("a", True), ("a.b", "x"), ("c.d.e", 2.5)]


def test_a_merged_index_is_that_of_its_documents():
    seed = random.randrange(2**32)
    print("seed", seed)
    numbers = random.Random(seed)

    def any_value() -> object:
        return numbers.choice(
            [numbers.randrange(5), numbers.random(), 2.0, True, "text", "é", "", ["a", 1, "b"], {"x": [1, {"y": "z"}]}]
        )

    documents = [
        document(i, **{f"m{numbers.randrange(6)}": any_value() for _ in range(numbers.randrange(5))})
        for i in range(120)
    ]
    cuts = sorted(numbers.sample(range(120), 3))
    parts = [documents[a:b] for a, b in pairwise([0, *cuts, 120])]
    kept = [[numbers.random() < 0.7 for _ in part] for part in parts]
    left = [one for part, keeps in zip(parts, kept, strict=True) for one, keep in zip(part, keeps, strict=True) if keep]
    ordinals, first = [], 0
    for keeps in kept:
        ordinals.append(np.where(keeps, first + np.cumsum(keeps) - 1, -1))
        first += sum(keeps)

    merged = merge([build_index(part) for part in parts], ordinals=ordinals, document_count=len(left))

    expected = build_index(left).to_arrays()
    for name, array in merged.to_arrays().items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name])
