"""`penstock tenants`: who uses this installation, and with which share."""

from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import NO_BUDGET, parse_new_budget
from .connection import connect
from .exits import UsageError
from .options import Json, Key, Url
from .output import console, count, money, print_json, size, table, when

if TYPE_CHECKING:
    from penstock.client.wire import Tenant

app = typer.Typer(name="tenants", help="List, make and change tenants.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the tenant.", show_default=False)]
DEFAULT = "default"


@app.command("list")
def list_(url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List the tenants of the installation."""
    with connect(url, key, "default") as client:
        tenants = client.tenants()
    if as_json:
        print_json(tenants)
        return
    rows = table("tenant", "made", "weight", "waiting", "limit", "", right=("weight", "waiting"))
    for one in tenants:
        rows.add_row(one.name, when(one.created_at), f"{one.weight:g}", _waiting(one), _limit(one), _paused(one))
    console().print(rows)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Name: a-z, 0-9, '-' and '_'.", show_default=False)],
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Make a tenant; one of that name stays as it is."""
    with connect(url, key, "default") as client:
        made = client.create_tenant(name)
    print_json(made) if as_json else console().print(f"tenant {made.name!r} is there")


@app.command("show")
def show(name: Name, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Show one tenant: its share, its limits, what waits of it, and what it cost this month."""
    with connect(url, key, "default") as client:
        found = client.get_tenant(name)
    print_json(found) if as_json else _show(found)


@app.command("set")
def change(
    name: Name,
    weight: Annotated[
        str | None,
        typer.Option("--weight", help="Share of the workers beside the other tenants, 0.01 to 100; default: 1."),
    ] = None,
    max_backlog: Annotated[
        str | None,
        typer.Option(
            "--max-backlog", help="Most documents that may wait; 'default': limits.max_backlog_documents of the server."
        ),
    ] = None,
    max_backlog_bytes: Annotated[
        str | None,
        typer.Option(
            "--max-backlog-bytes", help="Most bytes that may wait; 'default': limits.max_backlog_bytes of the server."
        ),
    ] = None,
    monthly_budget: Annotated[
        str | None,
        typer.Option("--monthly-budget", help="US dollars that embedding may cost it in a month (UTC), or 'none'."),
    ] = None,
    record_queries: Annotated[
        bool | None,
        typer.Option(
            "--record-queries/--no-record-queries",
            help="Whether some of its searches may be recorded; with no, those that were are forgotten.",
            show_default=False,
        ),
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Change a tenant's share and limits, and whether its searches are recorded. What is left out stays."""
    values: dict[str, float | None] = {}
    if weight is not None:
        values["weight"] = _number("--weight", weight, kind=float)
    if max_backlog is not None:
        values["max_backlog_documents"] = _number("--max-backlog", max_backlog, kind=int)
    if max_backlog_bytes is not None:
        values["max_backlog_bytes"] = _number("--max-backlog-bytes", max_backlog_bytes, kind=int)
    if monthly_budget is not None:
        wanted = NO_BUDGET if monthly_budget == DEFAULT else monthly_budget
        values["monthly_budget_usd"] = parse_new_budget("--monthly-budget", wanted)
    if record_queries is not None:
        values["record_queries"] = record_queries
    if not values:
        raise UsageError(
            "nothing to change: give --weight, --max-backlog, --max-backlog-bytes, --monthly-budget, --record-queries "
            "or --no-record-queries"
        )
    with connect(url, key, "default") as client:
        changed = client.change_tenant(name, **values)
    print_json(changed) if as_json else _show(changed)


def _number(option: str, text: str, *, kind: type[int] | type[float]) -> float | None:
    if text == DEFAULT:
        return None
    try:
        return kind(text)
    except ValueError:
        kinds = "a whole number" if kind is int else "a number"
        raise UsageError(f"{option} {text}: write {kinds}, or {DEFAULT!r}") from None


def _show(tenant: "Tenant") -> None:
    rows = table("tenant", tenant.name)
    rows.add_row("made", when(tenant.created_at))
    rows.add_row("weight", f"{tenant.weight:g}")
    rows.add_row("waiting", _waiting(tenant))
    rows.add_row("may wait", _limit(tenant))
    rows.add_row("this month", _spent(tenant))
    rows.add_row("paused", _paused(tenant) or "no")
    rows.add_row("queries", "recorded, if the server does" if tenant.record_queries else "never recorded")
    console().print(rows)


def _waiting(tenant: "Tenant") -> str:
    return f"{count(tenant.waiting_documents, 'document')}, {size(tenant.waiting_bytes)}"


def _limit(tenant: "Tenant") -> str:
    documents, size_bytes = tenant.max_backlog_documents, tenant.max_backlog_bytes
    own = [] if documents is None else [count(documents, "document")]
    own += [] if size_bytes is None else [size(size_bytes)]
    return ", ".join(own) or "the server's limits"


def _spent(tenant: "Tenant") -> str:
    aside = f", {money(tenant.month_reserved_usd)} set aside" if tenant.month_reserved_usd else ""
    budget = "" if tenant.monthly_budget_usd is None else f" of {money(tenant.monthly_budget_usd)}"
    return f"{money(tenant.month_spent_usd)}{budget} spent{aside}"


def _paused(tenant: "Tenant") -> str:
    return "" if tenant.paused_at is None else f"[yellow]paused since {when(tenant.paused_at)}[/]"
