"""What a search found, as a person reads it: the hits with the passage that matched, and how it went."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .output import console, count, plain, table, when

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.client.wire import Hit, SearchResult


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
    dated = None if document.event_time is None else f"of {when(document.event_time)}"
    ends = None if document.expires_at is None else f"until {when(document.expires_at)}"
    place = " · ".join(plain(part) for part in (document.source, page, heading, dated, ends) if part)
    out.print(f"           [dim]{place}[/]")
    from rich.padding import Padding

    passage = marked_passage(hit.text, query, styled=out.is_terminal)
    out.print(Padding(passage, (0, 0, 0, 11), expand=False))
    out.print()


def show_plan(plan: dict[str, Any]) -> None:
    """Write how a search went: what took the time, and how each segment was gone through."""
    out, segments = console(), plan["segments"]
    took = f"{plan['embedding_ms']:.1f} ms for the vector, {plan['waiting_ms']:.1f} ms until the version was there"
    out.print(f"{plain(plan['model'])}, {plan['metric']}: {took}, {plan['searching_ms']:.1f} ms to search")
    for told in _told_of_the_vector(plan):
        out.print(told)
    rows = table("segment", "kind", "rows", "accepted", "by", "visits", right=("rows", "accepted", "visits"))
    for one in segments:
        numbers = [f"{one[name]:,}" for name in ("rows", "accepted", "visits")]
        rows.add_row(plain(one["segment"]), one["kind"], *numbers[:2], one["method"], numbers[2])
    rows.add_section()
    whole = sum(one["rows"] for one in segments), sum(one["accepted"] for one in segments)
    visits = sum(one["visits"] for one in segments)
    rows.add_row(f"[bold]{count(len(segments), 'segment')}[/]", "", f"{whole[0]:,}", f"{whole[1]:,}", "", f"{visits:,}")
    out.print(rows)


def _told_of_the_vector(plan: dict[str, Any]) -> Iterator[str]:
    """Yield what was done with a vector that has other dimensions than the collection."""
    if plan.get("cut_from"):
        yield f"the vector was cut from {plan['cut_from']} to {plan['dimensions']} dimensions, and scaled to length one"
    if plan.get("routed_to"):
        yield f"generation {plan['routed_to']} answered, which served before: it has the dimensions of the vector"
