"""`penstock webhooks`: what receivers were told when jobs ended, and what that is signed with."""

from typing import Annotated

import typer

from .connection import connect
from .exits import UsageError
from .options import Json, Key, Limit, Tenant, Url
from .output import IDS, console, duration, plain, print_json, print_page, state, table, when

app = typer.Typer(
    name="webhooks", help="Show what receivers were told when jobs ended, and make the secret.", no_args_is_help=True
)

State = Annotated[
    str | None, typer.Option("--state", help="waiting, sending, delivered, dead or dropped.", show_default=False)
]


@app.command("list")
def list_(
    only: State = None,
    limit: Limit = 100,
    after: Annotated[str | None, typer.Option("--after", help="Id of the last one of the page before.")] = None,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List the webhooks of a tenant, newest first, and why one was not taken."""
    with connect(url, key, tenant) as client:
        page = client.webhooks(state=only, after=after, limit=limit)
    if as_json:
        print_json(page)
        return
    rows = table("webhook", "job", "state", "attempts", "url", "because", "made", right=("attempts",), whole=IDS)
    for one in page.data:
        row = (one.id, one.job_id, state(one.state), str(one.attempts), plain(one.url), plain(one.error) or "-")
        rows.add_row(*row, when(one.created_at))
    print_page(rows, page, empty=f"tenant {tenant!r} has no webhooks")


@app.command("secret")
def secret(url: Url = None, key: Key = None, tenant: Tenant = "default", as_json: Json = False) -> None:
    """Make what webhooks are signed with, or another one in its place. It is shown once.

    The one before it goes on signing too for a day, so that receivers can change over.
    """
    with connect(url, key, tenant) as client:
        made = client.new_webhook_secret()
    if as_json:
        print_json(made)
        return
    out = console()
    out.print(made.secret)
    if made.former_until is not None:
        out.print(f"[dim]the one before it signs too for {duration(made.former_until - made.created_at)}[/]")


@app.command("retry")
def retry(
    webhook: Annotated[str, typer.Argument(help="Id, as `penstock webhooks list` shows it.", show_default=False)],
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Send one that is over again, under the same id."""
    with connect(url, key, tenant) as client:
        again = client.retry_webhook(webhook)
    print_json(again) if as_json else console().print(f"{again.id} is on its way again")


@app.command("default")
def default(
    receiver: Annotated[
        str | None, typer.Argument(help="https URL to tell from now on; left out: only show.", show_default=False)
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Of this collection only; else of all that have none of their own."),
    ] = None,
    none: Annotated[
        bool, typer.Option("--none", help="Tell nobody any more; of a collection, whom the tenant tells.")
    ] = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show or say who is told of every job that names nobody: ingests, deletes, changes and retries."""
    if none and receiver is not None:
        raise UsageError("give a URL or --none, and not both")
    if collection is not None and not none and receiver is None:
        raise UsageError("give the URL to tell of that collection, or --none")
    with connect(url, key, tenant) as client:
        changed = none or receiver is not None
        found = client.set_webhook_default(receiver, collection=collection) if changed else client.webhook_defaults()
    if as_json:
        print_json(found)
        return
    rows = table("collection", "is told")
    for name, told in found.collections.items():
        rows.add_row(name, plain(told))
    rows.add_row("[dim]all others[/]" if found.collections else "[dim]all[/]", plain(found.url) or "nobody")
    console().print(rows)
