"""`penstock pause` and `penstock resume`: nothing more is begun, for a tenant or for all, until it goes on."""

from typing import Annotated

import typer

from .connection import connect
from .exits import UsageError
from .options import Json, Key, Url
from .output import console, plain, print_json, when

VARIABLE = "PENSTOCK_TENANT"
Tenant = Annotated[str | None, typer.Option("--tenant", envvar=VARIABLE, help="This tenant only; default: everything.")]
Everything = Annotated[bool, typer.Option("--all", help=f"Everything, whatever {VARIABLE} says.")]


def pause(
    context: typer.Context,
    tenant: Tenant = None,
    everything: Everything = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Begin nothing more. What is in hand is finished; submissions are accepted and searches answered all the same."""
    one = _meant(context, tenant, everything=everything)
    with connect(url, key, "default") as client:
        found = client.pause() if one is None else client.pause_tenant(one)
    if as_json:
        print_json({"tenant": one, **found.model_dump(mode="json")})
        return
    again = " --all" if everything else "" if one is None else f" --tenant {plain(one)}"
    said = f"{_named(context, one)} is paused since {when(found.paused_at)}"
    console().print(f"{said}; `penstock resume{again}` ends it")


def resume(
    context: typer.Context,
    tenant: Tenant = None,
    everything: Everything = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Go on. Without --tenant, tenants that were paused on their own stay so."""
    one = _meant(context, tenant, everything=everything)
    with connect(url, key, "default") as client:
        if one is not None:
            told, left = client.resume_tenant(one).model_dump(mode="json"), ""
        else:
            pauses = client.resume()
            told, left = pauses.model_dump(mode="json"), ", ".join(pauses.tenants)
    if as_json:
        print_json({"tenant": one, **told})
        return
    but = f", but tenants that were paused on their own: {left}" if left else ""
    console().print(f"{_named(context, one)} goes on{but}")


def _meant(context: typer.Context, tenant: str | None, *, everything: bool) -> str | None:
    """Return the tenant that is meant, None for everything. Raises UsageError when both are asked for."""
    if everything and tenant is not None and not _from_variable(context):
        raise UsageError("--all is everything, --tenant one tenant: give one of them")
    return None if everything else tenant


def _named(context: typer.Context, tenant: str | None) -> str:
    if tenant is None:
        return "everything"
    return f"tenant {plain(tenant)!r}" + (f" (of {VARIABLE})" if _from_variable(context) else "")


def _from_variable(context: typer.Context) -> bool:
    source = context.get_parameter_source("tenant")
    return source is not None and source.name == "ENVIRONMENT"
