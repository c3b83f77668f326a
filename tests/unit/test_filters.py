"""The filter grammar: what is accepted, and what a refusal says."""

from typing import Any

import pytest

from penstock.pipeline.errors import InvalidFilter
from penstock.pipeline.filters import parse_filter
from penstock.storage.segments.fields import And, Compare, Contains, Exists, Filter, Member, Or


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"type": "eq", "key": "lang", "value": "en"}, Compare("eq", "lang", "en")),
        ({"type": "gte", "key": "year", "value": 2024}, Compare("gte", "year", 2024)),
        ({"type": "in", "key": "year", "value": [1, 2.5, "x", True]}, Member("in", "year", (1, 2.5, "x", True))),
        ({"type": "nin", "key": "year", "value": []}, Member("nin", "year", ())),
        ({"type": "contains", "key": "tags", "value": "a"}, Contains("tags", "a")),
        ({"type": "exists", "key": "tags"}, Exists("tags")),
        ({"type": "exists", "key": "tags", "value": False}, Exists("tags", present=False)),
        ({"type": "eq", "key": "$source", "value": "a.txt"}, Compare("eq", "$source", "a.txt")),
        (
            {"type": "or", "filters": [{"type": "ne", "key": "a", "value": 1}, {"type": "and", "filters": ["b=x"]}]},
            Or((Compare("ne", "a", 1), And((Compare("eq", "b", "x"),)))),
        ),
    ],
)
def test_the_json_grammar_is_read(written: Any, meant: Filter) -> None:
    assert parse_filter(written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("lang=en", Compare("eq", "lang", "en")),
        ("lang==en", Compare("eq", "lang", "en")),
        ("lang != en", Compare("ne", "lang", "en")),
        ("year>=3", Compare("gte", "year", 3)),
        ("score<0.5", Compare("lt", "score", 0.5)),
        ("day>2024-01-01", Compare("gt", "day", "2024-01-01")),
        ("year=2024", Member("in", "year", (2024, "2024"))),
        ("draft!=true", Member("nin", "draft", (True, "true"))),
        ('year="2024"', Compare("eq", "year", "2024")),
        ('title="a, b AND \\"c\\""', Compare("eq", "title", 'a, b AND "c"')),
        ('title=""', Compare("eq", "title", "")),
        ("a.b=x,c>1", And((Compare("eq", "a.b", "x"), Compare("gt", "c", 1)))),
        ("a=x AND c>1 , d=y", And((Compare("eq", "a", "x"), Compare("gt", "c", 1), Compare("eq", "d", "y")))),
        ("name=Ada Lovelace", Compare("eq", "name", "Ada Lovelace")),
        ("v=NaN", Compare("eq", "v", "NaN")),
        ("v=1e999", Compare("eq", "v", "1e999")),
        ("v=" + "1" * 5_000, Compare("eq", "v", "1" * 5_000)),
        ("a = x  y AND b=ANDY", And((Compare("eq", "a", "x  y"), Compare("eq", "b", "ANDY")))),
        ("a = AND", Compare("eq", "a", "AND")),
        ("a=x AND ", Compare("eq", "a", "x")),
        ("band=Rock and Roll or not", Compare("eq", "band", "Rock and Roll or not")),
        ('name="x OR y=z"', Compare("eq", "name", "x OR y=z")),
        ('{"type": "eq", "key": "a", "value": 1}', Compare("eq", "a", 1)),
        (["a=x", "b=y"], And((Compare("eq", "a", "x"), Compare("eq", "b", "y")))),
    ],
)
def test_the_command_line_grammar_is_read(written: Any, meant: Filter) -> None:
    assert parse_filter(written) == meant


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"type": "like", "key": "title", "value": "x"}, "'title': unknown operator 'like'; use one of eq, ne"),
        ({"type": ["eq"], "key": "title", "value": "x"}, "unknown operator"),
        ({"type": "eq", "value": "x"}, "needs 'key'"),
        ({"type": "eq", "key": 3, "value": "x"}, "needs 'key'"),
        ({"type": "eq", "key": "a", "value": None}, "'a': null compares with nothing; use 'exists'"),
        ({"type": "eq", "key": "a", "value": ["x"]}, "'a': a value is text, a number or a boolean"),
        ({"type": "eq", "key": "a"}, "'a': 'value' is missing: say what 'eq' compares with, or use 'exists'"),
        ({"type": "in", "key": "a"}, "'a': 'value' is missing: say what 'in' compares with"),
        ({"type": "in", "key": "a", "value": True}, "'a': 'in' needs a list of values, not true$"),
        ({"type": "eq", "key": "a", "value": [True, None, "x"]}, r'not \[true, null, "x"\]$'),
        ({"type": True, "key": "a", "value": 1}, "'a': unknown operator true; use"),
        ({"type": "gt", "key": "a", "value": True}, "'a': booleans have no order"),
        ({"type": "gt", "key": "a", "value": float("nan")}, "'a': nan"),
        ({"type": "in", "key": "a", "value": "x"}, "'a': 'in' needs a list"),
        ({"type": "in", "key": "a", "value": [None]}, "'a': null"),
        ({"type": "exists", "key": "a", "value": []}, "'a': 'exists' needs"),
        ({"type": "eq", "key": "$secret", "value": 1}, r"'\$secret': there is no such built-in field; there are"),
        ({"type": "eq", "key": "a", "value": 1, "values": 2}, "'a' has the unknown property 'values'"),
        ({"type": "and", "filters": []}, "'and' needs 'filters'"),
        ({"type": "or", "filters": "a=1"}, "'or' needs 'filters'"),
        ({"type": "or", "filters": ["a=1"], "key": "b"}, "unknown property 'key'"),
        ({"type": "and", "filters": [3]}, "a filter is an object"),
        ({"type": "eq"}, r"needs 'key', the name of a metadata field or \$document_id"),
        ({}, '\'type\' is missing; use one of eq, ne, .*contains, and, or, for example {"type": "eq"'),
        ({"op": "eq", "key": "a", "value": 1}, "filter on 'a': 'type' is missing; use one of eq, ne"),
        ({"type": "like"}, "the filter: unknown operator 'like'; use one of eq, ne"),
        (None, "a filter is an object"),
        ([], "a filter is an object"),
        ("", "cannot read the filter"),
        ("year", "cannot read the filter at 'year'"),
        ("year~3", "with one of = == != > >= < <=; or JSON such as"),
        ("a=1,,b=2", "cannot read the filter at ',b=2'"),
        ("a=", "'a': the value is missing"),
        ("a>true", "'a': booleans have no order"),
        ("a=x OR a=y", "'a': 'x OR a=y' holds another condition: .*, and one of several in JSON, .*quote the value"),
        ("a=x or b>1", "'a': 'x or b>1' holds another condition"),
        ("a=x and b=1", "'a': 'x and b=1' holds another condition"),
        ("a=x OR y", "'a': 'x OR y' holds another condition"),
        ("{a=1}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"type": "eq", "key": "a", "value": ' + "1" * 5_000 + "}", "not valid JSON"),
        ("a=" + " " * 60_000 + '"', "cannot read the filter"),
        ("a=b" + " " * 60_000 + '"', "cannot read the filter"),
        ("a=" + "b " * 30_000 + '"', "cannot read the filter"),
        ("a" * 60_000, "cannot read the filter"),
    ],
)
def test_a_filter_that_is_not_well_formed_is_refused_by_name(written: Any, says: str) -> None:
    with pytest.raises(InvalidFilter, match=says):
        parse_filter(written)


def test_a_filter_nested_too_deep_is_refused() -> None:
    written: Any = "a=1"
    for _ in range(3_000):
        written = {"type": "and", "filters": [written]}
    with pytest.raises(InvalidFilter, match="levels deep"):
        parse_filter(written)


def test_a_filter_with_too_many_values_is_refused() -> None:
    parse_filter({"type": "in", "key": "a", "value": list(range(1_000))})
    with pytest.raises(InvalidFilter, match="1,001 conditions"):
        parse_filter({"type": "in", "key": "a", "value": list(range(1_001))})
