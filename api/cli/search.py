"""`penstock search`: a question in words or as a vector, and what is asked with it."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.storage.limits import MAX_EF, MAX_K

from .connection import connect
from .exits import UsageError
from .options import FILTERED, Collection, Json, Key, MinToken, Tenant, Url
from .output import print_json

Text = Annotated[list[str] | None, typer.Argument(help="What to search for, in your own words.", show_default=False)]
Vector = Annotated[
    str | None,
    typer.Option("--vector", help="Search by this vector and not by words: a JSON list, @FILE that holds one, or -."),
]
K = Annotated[int, typer.Option("-k", min=1, max=MAX_K, help="Most hits to return.")]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        help=f"key=value, also with != > >= < <=, on {FILTERED}; or a JSON filter. Repeated: all must hold.",
    ),
]
Ef = Annotated[
    int | None,
    typer.Option("--ef", min=1, max=MAX_EF, help="How wide a graph is searched: more finds more, and is slower."),
]
Explain = Annotated[bool, typer.Option("--explain", help="Tell how each segment was searched, and what took the time.")]
Version = Annotated[int | None, typer.Option("--version", min=0, help="Search this version of the collection.")]
Tag = Annotated[str | None, typer.Option("--tag", help="Search the version that has this tag.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        help="Search what was current, and not expired, then: a date or time in ISO 8601 (UTC unless it says "
        "otherwise), or seconds since 1970.",
    ),
]


def search(
    text: Text = None,
    vector: Vector = None,
    k: K = 5,
    filters: Filter = None,
    ef: Ef = None,
    version: Version = None,
    tag: Tag = None,
    as_of: AsOf = None,
    min_token: MinToken = None,
    explain: Explain = False,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Search a collection by meaning, by default its newest version."""
    query = " ".join(text) if text else None
    if (query is None) == (vector is None):
        raise UsageError("say what to look for, in words or by --vector, and not both")
    if query is not None and not query.strip():
        raise UsageError("the search text is empty: say what to look for")
    with connect(url, key, tenant) as client:
        result = client.search(
            collection,
            query,
            vector=None if vector is None else parse_vector(vector),
            k=k,
            filter=parse_filters(filters or []),
            ef=ef,
            version=version,
            tag=tag,
            as_of=as_seconds(as_of),
            min_token=min_token,
            explain=explain,
        )
    if as_json:
        print_json(result)
        return
    from .hits import show_plan, show_result

    show_result(result, query or "", past=version is not None or as_of is not None)
    if result.explain is not None:
        show_plan(result.explain)


def parse_vector(given: str) -> list[float]:
    """Return the numbers of a JSON list, of a file that holds one (``@FILE``), or of standard input (``-``).

    Raises:
        UsageError: there is no such file, or what there is is something else.
    """
    where = "--vector" if given[:1] not in ("@", "-") else f"--vector {given}"
    try:
        if given == "-":
            given = sys.stdin.read()
        elif given.startswith("@"):
            given = Path(given[1:]).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        numbers = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error}; write a list such as [0.1, -0.2], @FILE or -") from error
    if not isinstance(numbers, list) or not all(type(number) in (int, float) for number in numbers):
        raise UsageError(f"{where} is not a list of numbers: write a list such as [0.1, -0.2]")
    try:
        return [float(number) for number in numbers]
    except OverflowError as error:
        raise UsageError(f"{where} has a number that is too large for a vector") from error


def parse_filters(given: list[str]) -> dict[str, Any] | str | None:
    """Return one filter of all that were given. The server reads the short form; JSON is only parsed here.

    Raises:
        UsageError: one is empty, is JSON that is none, or they are mixed.
    """
    if not all(word.strip() for word in given):
        raise UsageError("--filter is empty: write for example lang=en, or leave it out")
    parsed = [word for word in given if word.lstrip().startswith("{")]
    if not parsed:
        return ",".join(given) or None
    if len(parsed) != len(given):
        raise UsageError("--filter: write all filters as JSON or none")
    try:
        trees = [json.loads(word) for word in parsed]
    except ValueError as error:
        raise UsageError(
            f'--filter is not JSON: {error}; write for example {{"type": "eq", "key": "lang", "value": "en"}}'
        ) from error
    return trees[0] if len(trees) == 1 else {"type": "and", "filters": trees}


def as_seconds(given: str | None) -> float | str | None:
    """Return seconds as a number; the server reads everything else."""
    try:
        return None if given is None else float(given)
    except ValueError:
        return given
