"""`penstock queries`: the searches of a collection that were recorded, to judge a re-embedding by."""

import json
from typing import Annotated, Any

import typer

from .connection import connect
from .exits import need_consent
from .options import Collection, Json, Key, Limit, Tenant, Url, Yes
from .output import console, plain, print_json, table, when

app = typer.Typer(name="queries", help="List and forget the searches that were recorded.", no_args_is_help=True)


@app.command("list")
def list_(
    collection: Collection = "default",
    limit: Limit = 100,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List the newest recorded searches of a collection, with how often each was asked."""
    with connect(url, key, tenant) as client:
        found = client.recorded_queries(collection, limit=limit)
    if as_json:
        print_json(found)
        return
    rows = table("query", "filter", "times", "last asked", right=("times",))
    for one in found.data:
        rows.add_row(plain(one.text), plain(_told(one.filter)), f"{one.times:,}", when(one.last_at))
    out = console()
    out.print(rows if found.data else f"no searches of {collection!r} by text are recorded")
    if found.by_vector:
        out.print(f"[dim]{found.by_vector:,} more by vector, which are only counted[/]")
    if not found.recording:
        out.print("[dim]none are recorded any more: shadow.record of the server, or the tenant, says so[/]")


@app.command("clear")
def clear(
    collection: Annotated[str, typer.Argument(help="Name of the collection.", show_default=False)],
    yes: Yes = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Forget the recorded searches of a collection. `penstock tenants set --no-record-queries` records no more."""
    need_consent("forget the recorded searches", given=yes, as_json=as_json)
    if not yes:
        typer.confirm(f"Forget the recorded searches of collection {collection!r} of tenant {tenant!r}?", abort=True)
    with connect(url, key, tenant) as client:
        gone = client.forget_queries(collection)
    print_json(gone) if as_json else console().print(f"{gone.forgotten:,} recorded searches are forgotten")


def _told(filter_: Any) -> str:
    return "" if filter_ is None else filter_ if isinstance(filter_, str) else json.dumps(filter_, ensure_ascii=False)
