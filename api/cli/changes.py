"""`penstock documents delete` and `update`, `penstock chunks delete`: what leaves, and what says something else now."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .connection import connect
from .exits import ExitCode, UsageError, need_consent
from .options import FILTERED, METADATA_VALUES, Collection, DocumentName, Json, Key, MinToken, Tenant, Timeout, Url, Yes
from .output import IDS, console, count, plain, print_json, table

if TYPE_CHECKING:
    from penstock.client import Penstock
    from penstock.client.wire import Deleted, Job

DELETED_AT_ONCE = 10_000  # ids in one request
DOCUMENT_ID = re.compile(r"doc_[0-9a-f]{26}")
Wait = Annotated[bool, typer.Option("--wait", help="Wait until searches have heard of it, with a progress bar.")]

chunks = typer.Typer(name="chunks", help="Delete chunks.", no_args_is_help=True)


def delete(
    documents: Annotated[
        list[str] | None,
        typer.Argument(help="Ids or sources, as `penstock documents list` shows them.", show_default=False),
    ] = None,
    chosen: Annotated[
        str | None,
        typer.Option(
            "--filter", help=f"Delete the documents that it accepts now: 'year<2020,lang=en', on {FILTERED}; or JSON."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    min_token: MinToken = None,
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Delete documents. What arrives after a filter was read, or after you were asked, is not deleted."""
    if (chosen is None) == (not documents):
        raise UsageError("name documents by id or source, or choose them with --filter, and not both")
    need_consent("delete the documents, or --dry-run to see which", given=yes or dry_run, as_json=as_json)
    with connect(url, key, tenant) as client:
        named = {"filter": chosen} if chosen is not None else named_ways(client, collection, documents or [])
        way, asks = named | {"min_token": min_token}, not (yes or dry_run)
        found = _asked(client, collection, way | {"dry_run": True, "with_ids": asks})
        ids = found.pop("ids") or []
        if not as_json:
            _show_found(found, collection)
        if not dry_run and found["deleted"]:
            if asks:
                typer.confirm(f"Delete {count(found['deleted'], 'document')} of {collection!r}?", abort=True)
                found |= _delete_shown(client, collection, ids, already=found["already_deleted"])
            else:
                found |= _asked(client, collection, way)
            found.pop("ids", None)
            found["jobs"] = followed(client, found["jobs"], wait=wait, timeout_s=timeout, doing="deleting")
    if as_json:
        print_json(_as_plain(found))
    elif not dry_run and found["deleted"]:
        _show_done(found["jobs"], f"{count(found['deleted'], 'document')} of {collection!r}", wait=wait)
    _leave(found["jobs"], not_found=found["not_found"])


def update(
    document: DocumentName,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            "-m",
            help=f"key=value or a JSON object, merged; null takes a field away. {METADATA_VALUES} Repeatable.",
        ),
    ] = None,
    replace: Annotated[
        str | None, typer.Option("--replace-metadata", help="JSON object that replaces all metadata.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="New title; '' for none.")] = None,
    event_time: Annotated[
        str | None, typer.Option("--event-time", help="ISO 8601 or seconds since 1970; '' for none.")
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option("--expires-at", help="ISO 8601 or seconds since 1970; '' for never.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Change what a document says, but not its text. Nothing is embedded again; its chunks get new ids."""
    from .arguments import parse_metadata, parse_moment, parse_object
    from .documents import found_document

    changes: dict[str, Any] = {}
    if metadata:
        changes["metadata"] = parse_metadata(metadata)
    if replace is not None:
        changes["replace_metadata"] = parse_object("--replace-metadata", replace)
    if title is not None:
        changes["title"] = title or None
    for name, option, given in (
        ("event_time", "--event-time", event_time),
        ("expires_at", "--expires-at", expires_at),
    ):
        if given is not None:
            changes[name] = parse_moment(option, given) if given else None
    if not changes:
        raise UsageError(
            "nothing to change: give --metadata, --replace-metadata, --title, --event-time or --expires-at"
        )
    with connect(url, key, tenant) as client:
        one = found_document(client, collection, document)
        done = client.update_document(collection, one.id, **changes)
        (job,) = followed(client, [done.job], wait=wait and done.changed, timeout_s=timeout, doing="updating")
    if as_json:
        print_json(done.model_dump(mode="json") | {"job": job.model_dump(mode="json")})
    elif not done.changed:
        console().print(f"nothing to do: {plain(one.source)} says all that already")
    else:
        _show_done([job], f"{plain(one.source)}, version {done.version},", wait=wait, doing="updated")
    _leave([job])


@chunks.command("delete")
def delete_chunks(
    chunk_ids: Annotated[list[int], typer.Argument(help="Ids, as `penstock search --json` shows them.", min=0)],
    min_token: MinToken = None,
    yes: Yes = False,
    wait: Wait = False,
    timeout: Timeout = None,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Delete chunks; their documents stay. A new version of a document brings all its chunks again."""
    need_consent("delete the chunks", given=yes, as_json=as_json)
    with connect(url, key, tenant) as client:
        if not yes:
            typer.confirm(f"Delete {count(len(set(chunk_ids)), 'chunk')} of {collection!r}?", abort=True)
        done = client.delete_chunks(collection, chunk_ids, min_token=min_token)
        (job,) = followed(client, [done.job], wait=wait, timeout_s=timeout, doing="deleting")
    if as_json:
        print_json(done.model_dump(mode="json") | {"job": job.model_dump(mode="json")})
    else:
        if done.not_found:
            console().print(f"[yellow]{count(done.not_found, 'chunk')} not found[/]")
        if done.deleted:
            _show_done([job], f"{count(done.deleted, 'chunk')} of {collection!r}", wait=wait)
    _leave([job], not_found=done.not_found)


def named_ways(client: "Penstock", collection: str, names: Sequence[str]) -> dict[str, Any]:
    """Return what says which documents: a name is a source, or an id where no source is called so."""
    ids = [name for name in dict.fromkeys(names) if DOCUMENT_ID.fullmatch(name)]
    if ids:
        ids = [name for name in ids if not client.documents(collection, source=name, limit=1).data]
    sources = [name for name in dict.fromkeys(names) if name not in set(ids)]
    return {way: some for way, some in (("sources", sources), ("ids", ids)) if some}


def _delete_shown(client: "Penstock", collection: str, ids: Sequence[str], *, already: int) -> dict[str, Any]:
    """Delete those that were shown, whatever a filter accepts or a name stands for by now."""
    deleted, jobs = 0, []
    for at in range(0, len(ids), DELETED_AT_ONCE):
        done = client.delete_documents(collection, ids=ids[at : at + DELETED_AT_ONCE])
        deleted += done.deleted
        already += done.already_deleted
        jobs += [] if done.job is None else [done.job]
    return {"deleted": deleted, "already_deleted": already, "jobs": jobs}


def _asked(client: "Penstock", collection: str, way: dict[str, Any]) -> dict[str, Any]:
    answer: Deleted = client.delete_documents(collection, **way)
    return {
        "deleted": answer.deleted,
        "already_deleted": answer.already_deleted,
        "not_found": answer.not_found,
        "sample": answer.sample,
        "missing": answer.missing,
        "ids": answer.ids,
        "jobs": [] if answer.job is None else [answer.job],
    }


def followed(
    client: "Penstock", jobs: "Sequence[Job]", *, wait: bool, timeout_s: float | None, doing: str
) -> "list[Job]":
    """Return the jobs as they are, or with ``wait`` as they end, behind a progress bar."""
    from penstock.client import Busy

    from .following import follow
    from .stopping import stopped_waiting

    if not wait or not jobs:
        return list(jobs)
    seen = list(jobs)

    def note(now: "list[Job]") -> None:
        seen[:] = now

    try:
        notes = console(stderr=True)
        return follow(client, [job.id for job in jobs], notes=notes, timeout_s=timeout_s, on_progress=note, doing=doing)
    except (KeyboardInterrupt, Busy) as error:
        raise stopped_waiting(next((job for job in seen if job.state == "running"), seen[0]), error) from error


def _show_found(found: dict[str, Any], collection: str) -> None:
    out = console()
    if found["sample"]:
        rows = table("document", "source", whole=IDS)
        for one in found["sample"]:
            rows.add_row(one.id, plain(one.source))
        out.print(rows)
    parts = [count(found["deleted"], "document")]
    if more := found["deleted"] - len(found["sample"]):
        parts = [f"and {more:,} more: {parts[0]}"]
    if found["already_deleted"]:
        parts.append(f"{found['already_deleted']:,} deleted already")
    out.print(f"{', '.join(parts)} of {collection!r}")
    if found["missing"]:
        names = ", ".join(plain(name) for name in found["missing"])
        out.print(f"[yellow]{found['not_found']:,} not found[/]: {names}")


def _show_done(jobs: "Sequence[Job]", what: str, *, wait: bool, doing: str = "deleted") -> None:
    if wait:
        failed = sum(job.failed for job in jobs)
        told = f", [red]{failed:,} failed[/]" if failed else ""
        console().print(f"{what} {doing}{told}")
        return
    for job in jobs:
        console().print(f"{what} will be {doing}; see how far: penstock jobs show {job.id}")


def _as_plain(found: dict[str, Any]) -> dict[str, Any]:
    lists = {key: [one.model_dump(mode="json") for one in found[key]] for key in ("sample", "jobs")}
    return {**found, **lists}


def _leave(jobs: "Sequence[Job]", *, not_found: int = 0) -> None:
    """Exit with 3 when something that was named is not there, or failed or was cancelled."""
    if not_found or any(job.failed or job.state == "cancelled" for job in jobs):
        raise typer.Exit(ExitCode.DOCUMENTS_FAILED)
