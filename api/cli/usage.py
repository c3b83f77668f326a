"""`penstock usage`: what calls of providers cost, as a table with a chart, as CSV, or as JSON."""

import csv
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from .connection import connect
from .exits import UsageError
from .options import Json, Key, Tenant, Url
from .output import console, count, money, plain, print_json, table

if TYPE_CHECKING:
    from penstock.client.wire import Usage, UsageGroup, UsageRow, UsageSum

CHART_WIDTH = 24
EIGHTHS = " ▏▎▍▌▋▊▉█"
COLUMNS = ("calls", "failed", "tokens", "cost", "cached", "saved")

By = Annotated[
    list[str] | None,
    typer.Option("--by", help="day, tenant, collection, job or model; several together when given several times."),
]
Since = Annotated[
    str | None,
    typer.Option("--from", help="Date or time in ISO 8601 (UTC), or seconds since 1970.", show_default=False),
]
Until = Annotated[str | None, typer.Option("--to", help="Likewise; a date is included.", show_default=False)]
AllTenants = Annotated[bool, typer.Option("--all-tenants", help="The costs of every tenant.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV, and nothing else, on standard output.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Most rows.")]


def usage(
    by: By = None,
    since: Since = None,
    until: Until = None,
    all_tenants: AllTenants = False,
    limit: Limit = 1000,
    as_csv: Csv = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show what calls of embedding providers cost: tokens, price, and what the cache saved.

    A price that is not known is said, and is not 0. Models that run here cost nothing. Days are those of UTC.
    """
    if as_csv and as_json:
        raise UsageError("--csv and --json: choose one of them")
    groups = _groups(by or ["day"])
    with connect(url, key, tenant) as client:
        found = client.usage(by=groups, since=since, until=until, limit=limit, all_tenants=all_tenants)
    if as_json:
        print_json(found)
    elif as_csv:
        _print_csv(found)
    else:
        _show(found, whose="all tenants" if all_tenants else f"tenant {tenant!r}")


def _groups(words: Sequence[str]) -> "list[UsageGroup]":
    from penstock.client.wire import UsageGroup

    known: tuple[UsageGroup, ...] = get_args(UsageGroup)
    if unknown := [word for word in words if word not in known]:
        raise UsageError(f"--by {unknown[0]}: choose among {', '.join(known)}")
    return [group for group in known if group in words]


def _print_csv(found: "Usage") -> None:
    """Write one line for each row; an unknown price is empty."""
    names = {"collection": ("collection", "collection_id")}
    named = [name for group in found.by for name in names.get(group, (group,))]
    amounts = list(type(found.total).model_fields)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*named, *amounts])
    for row in found.data:
        writer.writerow(["" if (value := getattr(row, name)) is None else value for name in (*named, *amounts)])


def _show(found: "Usage", *, whose: str) -> None:
    out = console()
    if not found.data:
        out.print(f"{whose}: no calls of a provider in this time")
        return
    lengths = _measured(found.data)
    rows = table(*found.by, *COLUMNS, "", right=COLUMNS)
    for row, length in zip(found.data, lengths, strict=True):
        rows.add_row(*(_name(row, group) for group in found.by), *_cells(row), _bar(length, max(lengths)))
    rows.add_section()
    rows.add_row("all", *[""] * (len(found.by) - 1), *_cells(found.total), "")
    out.print(rows)
    if found.total.cost_usd is None:
        told = count(found.total.unpriced_tokens, "token")
        out.print(f"the price of {told} is not known: set embedding.openai_usd_per_million_tokens")
    if found.has_more:
        out.print("[dim]there are more rows: --limit, or a shorter time[/]")


def _name(row: "UsageRow", group: str) -> str:
    name = getattr(row, group)
    return "[dim]searches[/]" if name is None and group == "job" else plain(name)


def _cells(row: "UsageSum") -> tuple[str, ...]:
    return (
        f"{row.calls:,}",
        f"{row.failed_calls:,}",
        f"{row.tokens:,}",
        _price(row.cost_usd, row.priced_usd),
        f"{row.cache_hits:,}",
        "not known" if row.saved_usd is None else money(row.saved_usd),
    )


def _price(usd: float | None, priced_usd: float) -> str:
    if usd is not None:
        return money(usd)
    return f"{money(priced_usd)} and more" if priced_usd else "not known"


def _measured(rows: "Sequence[UsageRow]") -> list[float]:
    """Return what the chart shows of each row: what it cost; where nothing did, its tokens."""
    if any(row.priced_usd for row in rows):
        return [row.priced_usd for row in rows]
    return [float(row.tokens) for row in rows]


def _bar(value: float, most: float) -> str:
    eighths = round(8 * CHART_WIDTH * value / most) if most else 0
    return f"[cyan]{EIGHTHS[8] * (eighths // 8)}{EIGHTHS[eighths % 8].strip()}[/]"
