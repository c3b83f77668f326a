"""What is wrong with a request, in a sentence: the same words before it is sent and where it arrives."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

ALTERNATIVES = frozenset({"bool", "dict", "float", "int", "list", "str"})  # of a union; no field is called so
EXPECTED = "Input should be "


@dataclass(frozen=True)
class Problem:
    """The first field that is wrong, as in ``documents[3].source``; empty where the whole request is."""

    path: str
    message: str


def first_problem(error: ValidationError, kind: type[BaseModel]) -> Problem:
    """Return what to tell of a request that is no ``kind``: its first wrong field, and how many more there are."""
    fields: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        fields.setdefault(_path(_field(problem["loc"])), []).append(problem)
    # A misspelt field is also a missing one: the misspelling explains both.
    first, *others = sorted(fields.values(), key=lambda problems: problems[0]["type"] != "extra_forbidden")
    problem, text = _of_alternatives(first)
    path = _path(problem["loc"])
    message = worded_problem(path, problem["type"], text, known=_model_at(kind, problem["loc"][:-1]).model_fields)
    if others:
        message += f" ({len(others)} more {'problem' if len(others) == 1 else 'problems'})"
    return Problem(path, message)


def worded_problem(path: str, kind: str, text: str, *, known: Iterable[str], noun: str = "field") -> str:
    """Return one of pydantic's problems as a sentence. ``known``: the names a misspelt one may mean."""
    if kind == "extra_forbidden":
        name = re.split(r"[.\]]", path)[-1]
        return f"unknown {noun} {path!r}: {_meant(name, list(known), noun=noun)}"
    if kind == "missing":
        return f"{noun} {path!r} is missing"
    text = text[:1].lower() + text[1:].replace(" after validation", "")
    return f"{noun} {path!r}: {text}" if path else text


def _meant(name: str, known: Sequence[str], *, noun: str) -> str:
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f"did you mean {close[0]!r}?"
    return f"the only {noun} here is {known[0]!r}" if len(known) == 1 else f"there are {', '.join(known)}"


def _of_alternatives(problems: Sequence[Any]) -> tuple[Any, str]:
    """Return the problem to tell of a field, and its text: of a field of several kinds, all that it may be.

    Where one of the kinds was meant and something in it is wrong, only that is told.
    """
    inner = [problem for problem in problems if len(problem["loc"]) > len(_field(problem["loc"])) + 1]
    if inner or len(problems) == 1 or not all(problem["msg"].startswith(EXPECTED) for problem in problems):
        told = (inner or problems)[0]
        return told, told["msg"]
    *kinds, last = (problem["msg"].removeprefix(EXPECTED) for problem in problems)
    return problems[0], f"{EXPECTED}{', '.join(kinds)} or {last}"


def _field(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the location up to where alternatives of a union begin."""
    ends = (at for at, part in enumerate(location) if at and isinstance(part, str) and _is_alternative(part))
    return location[: next(ends, len(location))]


def _is_alternative(part: str) -> bool:
    return part in ALTERNATIVES or not part.isidentifier()


def _path(location: tuple[int | str, ...]) -> str:
    """Return ``documents[3].source``. Alternatives of a union are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not path or not _is_alternative(part):
            path += f".{part}" if path else part
    return path


def _model_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str) and part in kind.model_fields:
            kind = _model_in(kind.model_fields[part].annotation) or kind
    return kind


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
