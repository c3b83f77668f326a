"""`penstock index`: what the index of a collection is made of, and how well searches find what is in it."""

from typing import TYPE_CHECKING, Annotated

import typer

from .connection import connect
from .options import Json, Key, Tenant, Url
from .output import console, count, duration, plain, print_json, size, table, when

if TYPE_CHECKING:
    from rich.table import Table

    from penstock.client.wire import IndexStats, ProbeStats

app = typer.Typer(name="index", help="Look at the index of a collection.", no_args_is_help=True)

NUMBERS = ("rows", "live", "deleted", "size", "per vector", "insertions", "per row")


@app.callback()
def _group() -> None:
    """Look at the index of a collection."""


@app.command("stats")
def stats(
    collection: Annotated[str, typer.Argument(help="Collection to look at.")] = "default",
    probe: Annotated[
        int,
        typer.Option("--probe", min=0, max=200, help="Search for so many of its rows and tell the recall; 0: do not."),
    ] = 50,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show segments, sizes, merges and recall of a collection's index.

    The probe compares searches with exact scans, for at most a few seconds; other searches go on beside it.
    """
    with connect(url, key, tenant) as client:
        found = client.index_stats(collection, probe=probe)
    print_json(found) if as_json else _show(found)


def _show(found: "IndexStats") -> None:
    out = console()
    out.print(
        f"[bold]{found.collection}[/]: {plain(found.model)}, {found.dimensions} dimensions, {found.metric}; "
        f"version {found.version}, published {when(found.published_at)}"
    )
    if not found.segments:
        out.print("the index is empty: nothing was published yet, or everything was deleted")
    else:
        out.print(_segments(found))
    for merge in found.merges:
        what = "being merged into one" if merge.stage == "merge" else "merged, and wait for the writer"
        out.print(f"{count(merge.segments, 'segment')} {what} ({merge.state}, attempt {merge.attempts})")
    if (setback := found.setback) is not None:
        given_up = f"{count(setback.count, 'merge')} given up, the last one {when(setback.given_up_at)}"
        why = plain(setback.error) or "no reason was told"
        out.print(f"[yellow]{given_up}, tried again from {when(setback.again_at)}: {why}[/]")
    if found.probe is not None:
        out.print(_probed(found.probe))


def _segments(found: "IndexStats") -> "Table":
    rows = table("segment", "kind", *NUMBERS, right=NUMBERS)
    for one in found.segments:
        inserted = one.graph_insertions / one.rows if one.kind == "graph" else None
        rows.add_row(
            one.id,
            one.kind,
            *_numbers(one.rows, one.live, one.deleted, one.size_bytes, one.bytes_per_vector),
            f"{one.graph_insertions:,}" if one.kind == "graph" else "-",
            _ratio(inserted),
        )
    rows.add_section()
    rows.add_row(
        f"[bold]{count(len(found.segments), 'segment')}[/]",
        "",
        *_numbers(found.rows, found.live, found.deleted, found.size_bytes, found.bytes_per_vector),
        f"{found.graph_insertions:,}",
        _ratio(found.graph_insertions_per_vector),
    )
    return rows


def _numbers(rows: int, live: int, deleted: int, size_bytes: int, per_vector: float | None) -> tuple[str, ...]:
    each = "-" if per_vector is None else f"{per_vector:,.0f} B"
    return f"{rows:,}", f"{live:,}", f"{deleted:,}", size(size_bytes), each


def _probed(probe: "ProbeStats") -> str:
    if not probe.asked or probe.self_recall is None or probe.recall is None:
        return "no row could be probed" if probe.wanted else "no live row to probe"
    of = f" of {probe.wanted}" if probe.asked < probe.wanted else ""
    return (
        f"probe of {probe.asked}{of} rows at ef {probe.ef}, in {duration(probe.took_s)}: "
        f"self-recall {probe.self_recall:.3f}, recall@{probe.k} {probe.recall:.3f}"
    )


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
