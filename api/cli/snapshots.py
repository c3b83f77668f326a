"""`penstock snapshots`: the versions of a collection, kept for a while and for as long as a tag names them."""

from typing import TYPE_CHECKING, Annotated

import typer

from .connection import connect
from .exits import need_consent
from .options import Collection, Json, Key, Limit, Tenant, Url, Yes
from .output import console, count, plain, print_json, size, table, when

if TYPE_CHECKING:
    from penstock.client import Penstock
    from penstock.client.wire import Rollback, Snapshot, SnapshotDetails, SnapshotDiff

app = typer.Typer(
    name="snapshots", help="List, show, compare, tag and restore the versions of a collection.", no_args_is_help=True
)

NAMES = "a number, a tag, current, or a date or time in ISO 8601 at which it was current"
Named = Annotated[str, typer.Argument(help=f"The version: {NAMES}.", show_default=False)]
TagName = Annotated[str, typer.Argument(help="Name of the tag: a letter, then a-z, 0-9, - and _.", show_default=False)]
CHANGES = {"added": "green", "changed": "yellow", "removed": "red"}


@app.command("list")
def list_(
    before: Annotated[
        int | None, typer.Option("--before", min=1, help="Number of the last version of the page before.")
    ] = None,
    limit: Limit = 20,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List the versions that are kept, the newest first."""
    with connect(url, key, tenant) as client:
        page = client.snapshots(collection, before=before, limit=limit)
    if as_json:
        print_json(page)
        return
    rows = table("version", "made", "by", "chunks", "segments", "size", "tags", right=("version", "chunks", "segments"))
    for one in page.data:
        number = f"{one.version} [green]*[/]" if one.current else str(one.version)
        tags = ", ".join(one.tags)
        rows.add_row(
            number,
            when(one.created_at),
            _made_by(one),
            f"{one.chunks:,}",
            str(one.segments),
            size(one.size_bytes),
            tags,
        )
    none = "has no version yet: ingest documents first" if before is None else f"keeps no version before {before}"
    console().print(rows if page.data else f"collection {collection!r} {none}")
    if page.has_more:
        console().print(f"[dim]older versions are kept too: --before {page.last_version}[/]")


@app.command("show")
def show(
    version: Named = "current",
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show one version and its segments; by default the current one."""
    with connect(url, key, tenant) as client:
        found = client.snapshot(collection, version)
    print_json(found) if as_json else _show(found)


@app.command("diff")
def diff(
    before: Named,
    after: Annotated[str, typer.Argument(help="The later version.")] = "current",
    after_id: Annotated[str | None, typer.Option("--after", help="`last_id` of the page before.")] = None,
    limit: Limit = 100,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show which documents the later version serves otherwise than the earlier one."""
    with connect(url, key, tenant) as client:
        found = client.diff(collection, before, after, after_id=after_id, limit=limit)
    print_json(found) if as_json else _show_diff(found)


@app.command("tag")
def tag(
    version: Named,
    name: TagName,
    move: Annotated[bool, typer.Option("--move", help="Take the name from the version that has it.")] = False,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Give a version a name. It is kept for as long as it has one."""
    with connect(url, key, tenant) as client:
        tagged = client.tag(collection, version, name, move=move)
    if as_json:
        print_json(tagged)
    else:
        console().print(f"version {tagged.version} of {collection!r} is kept as {name!r}")


@app.command("untag")
def untag(
    name: TagName,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Remove a name. Its version is then kept only as long as others of its age."""
    with connect(url, key, tenant) as client:
        client.untag(collection, name)
    print_json({"removed": name}) if as_json else console().print(f"tag {name!r} is removed")


@app.command("rollback")
def rollback(
    version: Named,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")] = True,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Longest wait, in seconds.")] = 60.0,
    yes: Yes = False,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Serve an old version again, as a new one. What is on its way is indexed on top of it."""
    need_consent("roll the collection back", given=yes, as_json=as_json)
    with connect(url, key, tenant) as client:
        if not yes:
            _confirm(client.diff(collection, "current", version, limit=1), collection)
        asked = client.roll_back(collection, version)
        ended = _awaited(client, asked, collection, timeout_s=timeout) if wait else asked
    if ended.state == "failed":
        from penstock.client import Conflict

        raise Conflict(f"the rollback to version {ended.version} failed: {ended.error}", code="rollback_failed")
    if as_json:
        print_json(ended)
    elif ended.published is None:
        console().print(f"rollback {ended.id} to version {ended.version} is asked for")
    elif ended.published == ended.version:
        console().print(f"collection {collection!r} serves version {ended.version} already: no new one was made")
    else:
        console().print(f"collection {collection!r} serves version {ended.version} again, as version {ended.published}")


def _awaited(client: "Penstock", asked: "Rollback", collection: str, *, timeout_s: float) -> "Rollback":
    """Wait for a rollback. Raises Busy, with what to do, when it still waits after ``timeout_s``."""
    from penstock.client import Busy

    try:
        with console(stderr=True).status(f"rolling {collection!r} back to version {asked.version}"):
            return client.wait_for_rollback(collection, asked.id, timeout_s=timeout_s)
    except Busy as error:
        if error.code != "still_running":
            raise
        told = "the server goes on: the same command again waits on, and `penstock status` says whether it is paused"
        raise Busy(f"{error}; {told}", code=error.code) from error


def _confirm(found: "SnapshotDiff", collection: str) -> None:
    if not found.after:  # before the first version: the server refuses, and says why
        return
    told = f"{found.added:,} documents return, {found.changed:,} change and {found.removed:,} leave"
    typer.confirm(f"Roll {collection!r} back from version {found.before} to {found.after}: {told}?", abort=True)


def _made_by(one: "Snapshot") -> str:
    if one.origin is None:
        return one.operation
    word = {"rollback": "to", "switch": "from"}.get(one.operation, "of")
    return f"{one.operation} {word} {one.origin.version}"


def _show(one: "SnapshotDetails") -> None:
    rows = table("", "")
    rows.show_header = False
    until = "now" if one.followed_at is None else when(one.followed_at)
    for label, value in (
        ("version", f"{one.version}{', the current one' if one.current else ''}"),
        ("made by", _made_by(one)),
        ("current", f"from {when(one.created_at)} to {until}"),
        ("tags", ", ".join(one.tags) or "-"),
        ("chunks", f"{one.chunks:,}"),
        ("size", size(one.size_bytes)),
    ):
        rows.add_row(f"[dim]{label}[/]", value)
    console().print(rows)
    parts = table("segment", "kind", "chunks", "deleted", "size", right=("chunks", "deleted"))
    for part in one.parts:
        parts.add_row(plain(part.id), part.kind, f"{part.chunks:,}", f"{part.deleted:,}", size(part.size_bytes))
    if one.parts:
        console().print(parts)


def _show_diff(found: "SnapshotDiff") -> None:
    out = console()
    rows = table("", "document", "version", "chunks")
    for one in found.documents:
        versions = " → ".join(
            "-" if number is None else str(number) for number in (one.version_before, one.version_after)
        )
        word = f"[{CHANGES[one.change]}]{one.change}[/]"
        rows.add_row(word, plain(one.source), versions, f"{one.chunks_before} → {one.chunks_after}")
    if found.documents:
        out.print(rows)
    told = ", ".join(f"{number:,} {word}" for word in CHANGES if (number := getattr(found, word)))
    out.print(f"version {found.before} → {found.after}: {told or 'no document differs'}")
    if found.has_more:
        out.print(f"[dim]{count(len(found.documents), 'document')} of them: --after {found.last_id} shows more[/]")
