"""`penstock pause` and `penstock resume`: nothing more is begun, for a tenant or for all, until it goes on."""

from typing import Annotated

import typer

from .connection import connect
from .options import Json, Key, Url
from .output import console, plain, print_json, when

Tenant = Annotated[str | None, typer.Option("--tenant", help="This tenant only; default: everything.")]


def pause(tenant: Tenant = None, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Begin nothing more. What is in hand is finished; submissions are accepted and searches answered all the same."""
    with connect(url, key, "default") as client:
        found = client.pause() if tenant is None else client.pause_tenant(tenant)
    if as_json:
        print_json(found)
        return
    what, again = ("everything", "") if tenant is None else (f"tenant {plain(tenant)!r}", f" --tenant {plain(tenant)}")
    console().print(f"{what} is paused since {when(found.paused_at)}; `penstock resume{again}` ends it")


def resume(tenant: Tenant = None, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Go on. Without --tenant, tenants that were paused on their own stay so."""
    with connect(url, key, "default") as client:
        one = None if tenant is None else client.resume_tenant(tenant)
        all_of_them = client.resume() if one is None else None
    if as_json:
        print_json(one or all_of_them or {})
    elif all_of_them is None:
        console().print(f"tenant {plain(tenant)!r} goes on")
    else:
        left = ", ".join(all_of_them.tenants)
        console().print("everything goes on" + (f", but tenants that were paused on their own: {left}" if left else ""))
