"""Reads what a person types for a structured value. Says what to write instead, in the words of the option."""

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from .exits import UsageError

if TYPE_CHECKING:
    from penstock.client import Chunking
    from penstock.client.wire import DocumentState, Metric, Quantization

MOST_USD = 1e9
NO_BUDGET = "none"  # in the place of an amount
Word = TypeVar("Word", bound=str)


def parse_path(given: str) -> Path:
    """Return a path. Raises UsageError for an empty one, which would be the current folder."""
    if not given:
        raise UsageError("the path is empty: write . for the current folder")
    return Path(given)


def parse_metadata(given: list[str]) -> dict[str, Any]:
    """Return the fields of ``key=value`` words and of JSON objects; of two for one field the later one.

    A value is what it is as JSON, null included, and text where it is no JSON: ``x=5`` is a number, ``x="5"`` text.

    Raises:
        UsageError: a word is neither.
    """
    fields: dict[str, Any] = {}
    for word in given:
        if word.lstrip().startswith("{"):
            try:
                fields |= _strictly(word)
            except ValueError as error:
                raise UsageError(f"--metadata {word}: not a JSON object: {error}") from error
            continue
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--metadata {word}: write key=value, or a JSON object")
        fields[key.strip()] = _value(value)
    return fields


def parse_budget(option: str, given: str) -> float:
    """Return an amount of US dollars. Raises UsageError."""
    try:
        usd = float(given.removeprefix("$"))
    except ValueError:
        usd = math.nan
    if not 0 <= usd <= MOST_USD:
        raise UsageError(f"{option} {given}: write US dollars as a number from 0, such as 2.50")
    return usd


def parse_new_budget(option: str, given: str) -> float | None:
    """Return an amount of US dollars, None for the word that takes a budget away. Raises UsageError."""
    return None if given == NO_BUDGET else parse_budget(option, given)


def parse_object(option: str, given: str) -> dict[str, Any]:
    """Return a JSON object. Raises UsageError."""
    try:
        value = _strictly(given)
    except ValueError as error:
        raise UsageError(f"{option} {given}: not a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f'{option} {given}: not a JSON object; write one such as {{"lang": "en"}}')
    return value


BARE_DATE = re.compile(r"(19|20|21)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")  # as ISO 8601 allows it too


def parse_moment(option: str, given: str) -> float:
    """Return seconds since 1970 of a number, or of a date or time in ISO 8601, which is UTC unless it says otherwise.

    Raises:
        UsageError: it is neither, or may be both.
    """
    if BARE_DATE.fullmatch(given):
        raise UsageError(
            f"{option} {given}: is that a date or seconds since 1970? Write {given[:4]}-{given[4:6]}-{given[6:]}, or "
            f"{given}.0 for seconds"
        )
    try:
        return float(given)
    except ValueError:
        pass
    from penstock.pipeline.moments import instant  # the server reads times so too

    try:
        return instant(given)
    except ValueError as error:
        raise UsageError(
            f"{option} {given}: write a date or time in ISO 8601, such as 2026-03-01 or 2026-03-01T12:00:00+01:00, "
            "or seconds since 1970"
        ) from error


PERIOD = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def parse_period(option: str, given: str) -> float:
    """Return seconds of ``90s``, ``30m``, ``6h``, ``7d`` or ``2w``. Raises UsageError."""
    found = PERIOD.fullmatch(given.strip())
    if found is None:
        raise UsageError(f"{option} {given}: write a number and its unit, s, m, h, d or w: 90s, 30m, 6h, 7d")
    return float(found[1]) * SECONDS[found[2]]


def parse_chunking(given: str | None) -> "Chunking | None":
    """Return ``strategy[:size_tokens[:overlap_tokens]]`` as the client's `Chunking`.

    Raises:
        UsageError: it is not of that form.
    """
    if given is None:
        return None
    from pydantic import ValidationError

    from penstock.client import Chunking

    strategy, *sizes = given.split(":")
    names = ("size_tokens", "overlap_tokens")
    try:
        if len(sizes) > len(names):
            raise ValueError("too many parts")  # noqa: TRY301 one message for all that is wrong
        return Chunking.model_validate({"strategy": strategy} | dict(zip(names, map(int, sizes), strict=False)))
    except (ValueError, ValidationError) as error:
        raise UsageError(
            f"--chunking {given}: write auto, recursive or tokens, or with size (from 4) and overlap in tokens, "
            "for example recursive:200:20"
        ) from error


def parse_metric(given: str | None) -> "Metric | None":
    """Return the metric, checked. Raises UsageError."""
    from penstock.client.wire import Metric

    known: tuple[Metric, ...] = get_args(Metric)
    return _one_of(known, given, option="--metric")


def parse_quantization(given: str | None) -> "Quantization | None":
    """Return the quantization, checked. Raises UsageError."""
    from penstock.client.wire import Quantization

    known: tuple[Quantization, ...] = get_args(Quantization)
    return _one_of(known, given, option="--quantization")


def parse_state(given: str | None) -> "DocumentState | None":
    """Return the state of a document, checked. Raises UsageError."""
    from penstock.client.wire import DocumentState

    known: tuple[DocumentState, ...] = get_args(DocumentState)
    return _one_of(known, given, option="--state")


def _one_of(known: tuple[Word, ...], given: str | None, *, option: str) -> Word | None:
    for word in known:
        if word == given:
            return word
    if given is None:
        return None
    raise UsageError(f"{option} {given}: choose one of {', '.join(known)}")


def _strictly(text: str) -> Any:
    """Return JSON without Python's NaN and Infinity, which no server takes. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):  # what Python makes of 1e999
        raise ValueError(f"{word} is too large a number")
    return number


def _value(text: str) -> Any:
    try:
        return _strictly(text)
    except ValueError:
        return text
