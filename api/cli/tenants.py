"""`penstock tenants`: who uses this installation."""

from typing import Annotated

import typer

from .connection import connect
from .options import Json, Key, Url
from .output import console, print_json, table, when

app = typer.Typer(name="tenants", help="List and make tenants.", no_args_is_help=True)


@app.command("list")
def list_(url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List the tenants of the installation."""
    with connect(url, key, "default") as client:
        tenants = client.tenants()
    if as_json:
        print_json(tenants)
        return
    rows = table("tenant", "made")
    for one in tenants:
        rows.add_row(one.name, when(one.created_at))
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
