"""`penstock documents`: what was submitted, and how far each came."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from .connection import connect
from .options import Collection, DocumentName, Json, Key, Limit, Tenant, Url
from .output import IDS, console, plain, print_json, print_page, size, state, table, when

if TYPE_CHECKING:
    from penstock.client import Penstock
    from penstock.client.wire import Document

app = typer.Typer(name="documents", help="List, show, change and delete documents.", no_args_is_help=True)


@app.command("list")
def list_(
    collection: Collection = "default",
    only: Annotated[
        str | None,
        typer.Option(
            "--state",
            help="queued, chunking, embedding, indexing, indexed, failed, cancelled, deleting; "
            "gone: deleted, expired, dropped.",
        ),
    ] = None,
    after: Annotated[str | None, typer.Option("--after", help="Id of the last document of the page before.")] = None,
    limit: Limit = 100,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List the documents of a collection."""
    from .arguments import parse_state

    parse_state(only)
    with connect(url, key, tenant) as client:
        page = client.documents(collection, state=only, after=after, limit=limit)
    if as_json:
        print_json(page)
        return
    rows = table("document", "source", "state", "chunks", "size", "reason", right=("chunks", "size"), whole=IDS)
    for one in page.data:
        chunks = f"{one.chunks:,}" if one.chunks is not None else "-"
        reason = f"{plain(one.error_code)}: {plain(one.error)}" if one.error else ""
        rows.add_row(one.id, plain(one.source), state(one.state), chunks, size(one.size_bytes), reason)
    print_page(rows, page, empty=f"no such documents in {collection!r}")


@app.command("show")
def show(
    document: DocumentName,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show one document."""
    with connect(url, key, tenant) as client:
        found = found_document(client, collection, document)
    print_json(found) if as_json else _show(found)


def found_document(client: "Penstock", collection: str, named: str) -> "Document":
    """Return the document of this source, one that expired too; where there is none, of this id."""
    from penstock.client import Invalid, NotFound

    for gone in (None, "expired"):  # of one that was deleted nothing is left to show
        of_source = client.documents(collection, source=named, state=gone, limit=1).data
        if of_source:
            return of_source[0]
    try:
        return client.document(collection, named)
    except (NotFound, Invalid) as error:
        if error.code not in ("not_found", "no_such_path", "invalid_id"):
            raise
        raise NotFound(
            f"collection {collection!r} has no document with the id or source {named!r}: "
            f"`penstock documents list --collection {collection}` shows both",
            code="not_found",
            status=error.status,
        ) from error


def _expiry(one: "Document") -> str:
    """Return the word for the time when it ends: no search finds it from then on, a while before it leaves."""
    over = one.expires_at is not None and one.expires_at <= time.time()
    return "expired" if over or one.state == "expired" else "expires"


def _show(one: "Document") -> None:
    rows = table("", "")
    rows.show_header = False
    failed = f"{one.error_code} in {one.stage}: {one.error}" if one.error else ""
    for label, value in (
        ("document", one.id),
        ("source", one.source),
        ("title", one.title or "-"),
        ("file", f"{one.filename}, {one.media_type or 'type found when parsing'}, {size(one.size_bytes)}"),
        ("dated", when(one.event_time) if one.event_time is not None else ""),
        (_expiry(one), when(one.expires_at) if one.expires_at is not None else ""),
        ("metadata", json.dumps(one.metadata, ensure_ascii=False)),
        ("state", one.state),
        ("failed", failed),
        ("version", str(one.version)),
        ("chunks", str(one.chunks) if one.chunks is not None else "-"),
        (
            "searchable",
            f"version {one.searchable_version} since {when(one.searchable_at)}" if one.searchable_at else "",
        ),
        ("accepted", when(one.created_at)),
        ("finished", when(one.finished_at)),
        ("job", one.job_id),
    ):
        if value:
            rows.add_row(f"[dim]{label}[/]", state(value) if label == "state" else plain(value))
    console().print(rows)
