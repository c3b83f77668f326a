"""`penstock search`: hits as a person reads them, with the passage that matched."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.storage.limits import MAX_K

from .connection import connect
from .exits import UsageError
from .options import Collection, Json, Key, Tenant, Url
from .output import console, plain, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.client.wire import Hit, SearchResult

Text = Annotated[list[str], typer.Argument(help="What to search for, in your own words.", show_default=False)]
K = Annotated[int, typer.Option("-k", min=1, max=MAX_K, help="Most hits to return.")]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        help="key=value, also with != > >= < <=, on metadata and $source, $title, $media_type; or a JSON filter. "
        "Repeated: all must hold.",
    ),
]

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
    text: Text,
    k: K = 5,
    filters: Filter = None,
    version: Version = None,
    tag: Tag = None,
    as_of: AsOf = None,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Search a collection by meaning, by default its newest version."""
    query = " ".join(text)
    if not query.strip():
        raise UsageError("the search text is empty: say what to look for")
    with connect(url, key, tenant) as client:
        result = client.search(
            collection,
            query,
            k=k,
            filter=parse_filters(filters or []),
            version=version,
            tag=tag,
            as_of=parse_moment(as_of),
        )
    if as_json:
        print_json(result)
    else:
        show_result(result, query, past=version is not None or as_of is not None)


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


def parse_moment(given: str | None) -> float | str | None:
    """Return seconds as a number; the server reads everything else."""
    try:
        return None if given is None else float(given)
    except ValueError:
        return given


def show_result(result: "SearchResult", query: str, *, past: bool = False) -> None:
    """Write the hits of a search to standard output. ``past``: not the newest version was asked for."""
    out = console()
    if not result.hits:
        out.print("nothing found" if result.version else f"nothing found: the collection {_unpublished(past=past)}")
        return
    for rank, hit in enumerate(result.hits, start=1):
        show_hit(out, hit, query, rank=rank)
    took = f"{result.took_ms:.1f} ms"
    out.print(f"[dim]{len(result.hits)} of the best chunks, version {result.version}, {took}[/]")


def _unpublished(*, past: bool) -> str:
    return "had no published documents then" if past else "has no published documents yet"


def show_hit(out: "Console", hit: "Hit", query: str, *, rank: int) -> None:
    """Write one hit: score and title, where it stands, and the passage with the words of the query marked."""
    from .passages import marked_passage

    document = hit.document
    out.print(
        f"[bold]{rank:2}  [green]{hit.score:.3f}[/]  {plain(document.title or document.source.rsplit('/', 1)[-1])}[/]"
    )
    page = f"page {hit.page}" if hit.page is not None else None
    heading = hit.heading if hit.heading != document.title else None
    place = " · ".join(plain(part) for part in (document.source, page, heading) if part)
    out.print(f"           [dim]{place}[/]")
    from rich.padding import Padding

    passage = marked_passage(hit.text, query, styled=out.is_terminal)
    out.print(Padding(passage, (0, 0, 0, 11), expand=False))
    out.print()
