"""The filter grammar: what a caller writes, in JSON or on a command line, becomes a filter of storage/fields.py.

JSON is OpenAI's grammar, ``{"type": "eq", "key": "year", "value": 2024}`` and ``{"type": "and", "filters": [...]}``,
plus ``exists`` and ``contains``. On a command line it is conditions that must all hold, ``year>=2024,lang=en``.
The built-in times compare with numbers and dates (moments.py).
It must not look at any document: a filter is well formed or not, whatever is stored.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, get_args

from penstock.storage.metadata import Scalar, worded
from penstock.storage.segments.fields import (
    BUILT_IN,
    And,
    Compare,
    CompareOp,
    Contains,
    Exists,
    Filter,
    Member,
    MemberOp,
    Or,
)

from .errors import InvalidFilter
from .moments import TIMES, among_times, compared_in_time, not_among_times

MAX_DEPTH = 16
MAX_CONDITIONS = 1_000  # values of `in` and `nin` count too
COMPARE_OPS: tuple[CompareOp, ...] = get_args(CompareOp)
MEMBER_OPS: tuple[MemberOp, ...] = get_args(MemberOp)
OPERATORS = (*COMPARE_OPS, *MEMBER_OPS, "exists", "contains", "and", "or")
EXAMPLE = '{"type": "eq", "key": "lang", "value": "en"}'
SYMBOLS: dict[str, CompareOp] = {"=": "eq", "==": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}

# A condition of the command line: a key, a symbol, and a value that is quoted or has no comma. Nothing in it is ever
# tried twice (possessive quantifiers), or a long text that fits nowhere would hold up the process.
CONDITION = re.compile(
    r'\s*+([^\s=!<>,"]++)\s*+(==|!=|>=|<=|=|>|<)\s*+'
    r'("(?:[^"\\]|\\.)*+"|(?:[^\s,"]++(?:\s++(?!AND\s)[^\s,"]++)*+)?+)'
    r"(?:\s*+,|\s++AND\s++|\s*+$)"
)

# What looks like a second condition in a value without quotes: as text it would be found nowhere, and nobody told.
SWALLOWED = re.compile(r'\s(?:(?:AND|and|OR|or)\s++[^\s=!<>,"]++\s*+[=!<>]|OR\s)')


def parse_filter(value: Any) -> Filter:
    """Return the filter that ``value`` means: an object of the grammar, text, or a list of these that must all hold.

    Text is an object as JSON, or conditions ``key=value``, also with ``!= > >= < <=``, joined by ``,`` or ``AND``.
    There an unquoted ``2024`` or ``true`` equals the number or boolean as well as the text; a quoted one is text.

    Raises:
        InvalidFilter: it is not well formed; the message names the field.
    """
    parsed = _parse(value, depth=0)
    if (size := _size(parsed)) > MAX_CONDITIONS:
        raise InvalidFilter(f"the filter has {size:,} conditions and values: keep it within {MAX_CONDITIONS:,}")
    return parsed


def _parse(value: Any, *, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"the filter is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return _parse_object(value, depth=depth)
    if isinstance(value, str):
        return _parse_text(value, depth=depth)
    if isinstance(value, Sequence) and value:
        return _joined([_parse(inner, depth=depth + 1) for inner in value])
    raise InvalidFilter(f"a filter is an object such as {EXAMPLE}, or text such as 'year>=2024', not {_shown(value)}")


def _parse_object(value: Mapping[str, Any], *, depth: int) -> Filter:
    operator = value.get("type")
    if operator in ("and", "or"):
        _check_properties(value, allowed={"type", "filters"}, about=f"filter {operator!r}")
        inner = value.get("filters")
        if not isinstance(inner, Sequence) or isinstance(inner, str) or not inner:
            raise InvalidFilter(f"filter {operator!r} needs 'filters', a list of at least one filter")
        filters = tuple(_parse(each, depth=depth + 1) for each in inner)
        return And(filters) if operator == "and" else Or(filters)
    if not isinstance(operator, str) or operator not in OPERATORS:
        _refuse_operator(value)
    key = _checked_key(value.get("key"), operator=operator)
    _check_properties(value, allowed={"type", "key", "value"}, about=f"filter on {key!r}")
    if "value" not in value and operator != "exists":
        _refuse(key, f"'value' is missing: say what {operator!r} compares with, or use 'exists' to ask for any value")
    return _condition(operator, key, value.get("value"))


def _refuse_operator(value: Mapping[str, Any]) -> NoReturn:
    key, operator = value.get("key"), value.get("type")
    about = f"filter on {key!r}" if isinstance(key, str) and key else "the filter"
    problem = f"unknown operator {_shown(operator)}" if "type" in value else "'type' is missing"
    raise InvalidFilter(f"{about}: {problem}; use one of {', '.join(OPERATORS)}, for example {EXAMPLE}")


def _condition(operator: str, key: str, value: Any) -> Filter:
    return _in_time(_untimed(operator, key, value))


def _in_time(condition: Filter) -> Filter:
    """Return the condition with its dates read, where it compares a built-in time."""
    if not isinstance(condition, Compare | Contains | Member) or condition.key not in TIMES:
        return condition
    try:
        match condition:
            case Compare(op, key, value):
                return compared_in_time(op, key, value)
            case Contains(key, value):
                return compared_in_time("eq", key, value)
            case Member(op, key, values):
                return among_times(key, values) if op == "in" else not_among_times(key, values)
    except ValueError as error:
        _refuse(condition.key, str(error))


def _untimed(operator: str, key: str, value: Any) -> Filter:
    for compare_op in COMPARE_OPS:
        if operator == compare_op:
            return Compare(compare_op, key, _checked_value(key, value, ordered=operator not in {"eq", "ne"}))
    for member_op in MEMBER_OPS:
        if operator == member_op:
            if not isinstance(value, list | tuple):
                _refuse(key, f"{operator!r} needs a list of values, not {_shown(value)}")
            return Member(member_op, key, tuple(_checked_value(key, each) for each in value))
    if operator == "contains":
        return Contains(key, _checked_value(key, value))
    if not (value is None or isinstance(value, bool)):
        _refuse(key, f"'exists' needs true, false or no value, not {_shown(value)}")
    return Exists(key, present=value is not False)


def _checked_key(key: Any, *, operator: Any) -> str:
    if not isinstance(key, str) or not key:
        raise InvalidFilter(
            f"a filter of type {_shown(operator)} needs 'key', the name of a metadata field or {', '.join(BUILT_IN)}"
        )
    if key.startswith("$") and key not in BUILT_IN:
        _refuse(key, f"there is no such built-in field; there are {', '.join(BUILT_IN)}")
    return key


def _checked_value(key: str, value: Any, *, ordered: bool = False) -> Scalar:
    if value is None:
        _refuse(key, "null compares with nothing; use 'exists' to ask for a missing value")
    if not isinstance(value, str | bool | int | float):
        _refuse(key, f"a value is text, a number or a boolean, not {_shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(key, f"{value} is not a JSON number")
    if ordered and isinstance(value, bool):
        _refuse(key, "booleans have no order; use 'eq' or 'ne'")
    return value


def _check_properties(value: Mapping[str, Any], *, allowed: set[str], about: str) -> None:
    if unknown := sorted(map(str, value.keys() - allowed)):
        raise InvalidFilter(f"{about} has the unknown property {unknown[0]!r}; it takes {', '.join(sorted(allowed))}")


def _parse_text(text: str, *, depth: int) -> Filter:
    if text.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: of a number of thousands of digits, too
            raise InvalidFilter(f"the filter {_shown(text)} is not valid JSON: {error}") from error
        return _parse(value, depth=depth + 1)
    conditions, position = list[Filter](), 0
    while position < len(text) or not conditions:
        match = CONDITION.match(text, position)
        if match is None or match.end() == position:
            rest = _shown(text[position:])
            raise InvalidFilter(
                f"cannot read the filter at {rest}: write conditions such as lang=en, joined by ',', "
                f"with one of {' '.join(SYMBOLS)}; or JSON such as {EXAMPLE}"
            )
        conditions.append(_written(_checked_key(match[1], operator=match[2]), SYMBOLS[match[2]], match[3]))
        position = match.end()
    return _joined(conditions)


def _written(key: str, operator: CompareOp, literal: str) -> Filter:
    if literal == "":
        _refuse(key, 'the value is missing; write "" for empty text')
    if SWALLOWED.search(literal) and not literal.startswith('"'):
        either = '{"type": "or", "filters": [...]}'
        _refuse(
            key,
            f"{_shown(literal)} holds another condition: all must hold when joined by ',' or AND, and one "
            f"of several in JSON, {either}; quote the value if it is text",
        )
    try:
        value = json.loads(literal)
    except ValueError:  # no JSON, or a number of thousands of digits
        value = literal
    if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        value = literal
    if isinstance(value, str) or operator not in {"eq", "ne"} or key in TIMES:
        return _in_time(Compare(operator, key, _checked_value(key, value, ordered=operator not in {"eq", "ne"})))
    return Member("in" if operator == "eq" else "nin", key, (value, literal))


def _joined(filters: Sequence[Filter]) -> Filter:
    return filters[0] if len(filters) == 1 else And(tuple(filters))


def _size(filter: Filter) -> int:  # noqa: A002  (the word of the grammar)
    if isinstance(filter, And | Or):
        return 1 + sum(map(_size, filter.filters))
    return max(1, len(filter.values)) if isinstance(filter, Member) else 1


def _shown(value: Any) -> str:
    shown = worded(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _refuse(key: str, problem: str) -> NoReturn:
    raise InvalidFilter(f"filter on {key!r}: {problem}")
