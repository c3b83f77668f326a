"""`penstock dlq`: the dead documents of a collection, why they died, and what becomes of them."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .connection import connect
from .exits import ExitCode, UsageError, need_consent
from .options import FILTERED, Collection, DocumentName, Json, Key, Limit, Tenant, Timeout, Url, Yes
from .output import IDS, console, count, plain, print_json, print_page, table, when

if TYPE_CHECKING:
    from penstock.client import Penstock
    from penstock.client.wire import Document, Dropped, RefusedDocument
    from penstock.client.wire import DocumentName as Named

app = typer.Typer(
    name="dlq", help="Dead documents: list and show what failed, retry it, or give it up.", no_args_is_help=True
)

Names = Annotated[
    list[str] | None, typer.Argument(help="Ids or sources, as `penstock dlq list` shows them.", show_default=False)
]
DiedIn = Annotated[str | None, typer.Option("--job", help="Only those that died in this job.")]
Code = Annotated[str | None, typer.Option("--error", help="Only those that died of this error code.")]
Stage = Annotated[str | None, typer.Option("--stage", help="Only those that died there: chunk, embed or index.")]
Accepted = Annotated[
    str | None, typer.Option("--filter", help=f"Only those that it accepts: 'year<2020,lang=en', on {FILTERED}.")
]
Everything = Annotated[bool, typer.Option("--all", help="All dead documents of the collection.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until each is indexed or dead again, with a progress bar.")]
DROPPED_AT_ONCE = 10_000  # ids in one request
STAGES = ("chunk", "embed", "index")


@app.command("list")
def list_(
    job: DiedIn = None,
    error: Code = None,
    stage: Stage = None,
    chosen: Accepted = None,
    after: Annotated[str | None, typer.Option("--after", help="Id of the last document of the page before.")] = None,
    limit: Limit = 100,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List dead documents, the oldest first."""
    asked = _asked(job, error, stage, chosen)
    with connect(url, key, tenant) as client:
        page = client.dead_documents(collection, **asked, after=after, limit=limit)
    if as_json:
        print_json(page)
        return
    rows = table("document", "source", "stage", "attempts", "died", "reason", right=("attempts",), whole=IDS)
    for one in page.data:
        tries = f"{one.attempts:,}" if one.attempts else "-"
        reason = f"{plain(one.error_code)}: {plain(one.error)}"
        rows.add_row(one.id, plain(one.source), one.stage or "-", tries, when(one.finished_at), reason)
    print_page(rows, page, empty=f"no such dead documents in {collection!r}")


@app.command("show")
def show(
    document: DocumentName,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show why one document is dead, or was before it was retried, and when it was tried."""
    from .documents import found_document

    with connect(url, key, tenant) as client:
        found = found_document(client, collection, document)
    if found.state != "failed" and found.former_death is None:
        raise UsageError(f"{found.source!r} is not dead, it is {found.state}: see penstock documents show")
    print_json(found) if as_json else _show(found)


@app.command("retry")
def retry(
    documents: Names = None,
    job: DiedIn = None,
    error: Code = None,
    stage: Stage = None,
    chosen: Accepted = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout: Timeout = None,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Send dead documents on their way again, from the bytes that are stored. Twice is harmless."""
    from .changes import followed

    common = _asked(job, error, stage, chosen)
    with connect(url, key, tenant) as client:
        selection = _selection(client, collection, documents, common, everything=everything)
        done = client.retry_documents(collection, **selection, dry_run=dry_run)
        jobs = [] if done.job is None else [done.job]
        jobs = followed(client, jobs, wait=wait, timeout_s=timeout, doing="retrying")
    if as_json:
        print_json(done.model_dump(mode="json") | {"job": jobs[0].model_dump(mode="json") if jobs else None})
    else:
        what = f"{count(done.retried, 'document')} of {collection!r}"
        console().print(f"{what} {'would be retried' if dry_run else 'retried'}")
        _show_refusals(done.refused, done.refusals)
        for one in jobs:
            told = f"{one.documents.get('indexed', 0):,} indexed"
            told += f", [red]{one.failed:,} dead again[/]" if one.failed else ""
            console().print(told if wait else f"see how far: penstock jobs show {one.id}")
    if done.refused or any(one.failed or one.state == "cancelled" for one in jobs):
        raise typer.Exit(ExitCode.DOCUMENTS_FAILED)


@app.command("drop")
def drop(
    documents: Names = None,
    job: DiedIn = None,
    error: Code = None,
    stage: Stage = None,
    chosen: Accepted = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Give dead documents up: their bytes go. What is indexed of them stays."""
    need_consent("drop the documents, or --dry-run to see which", given=yes or dry_run, as_json=as_json)
    common = _asked(job, error, stage, chosen)
    with connect(url, key, tenant) as client:
        selection = _selection(client, collection, documents, common, everything=everything)
        asks = not (yes or dry_run)
        done = client.drop_documents(collection, **selection, dry_run=asks or dry_run, with_ids=asks)
        if asks and done.dropped:
            _show_sample(done.sample, more=done.dropped - len(done.sample))
            typer.confirm(f"Drop {count(done.dropped, 'dead document')} of {collection!r}?", abort=True)
            done = _dropped(client, collection, done)
    if as_json:
        print_json(done)
    else:
        told = "would be dropped" if dry_run else "dropped"
        console().print(f"{count(done.dropped, 'dead document')} of {collection!r} {told}")
        _show_refusals(done.refused, done.refusals)
    if done.refused:
        raise typer.Exit(ExitCode.DOCUMENTS_FAILED)


def _dropped(client: "Penstock", collection: str, shown: "Dropped") -> "Dropped":
    """Drop those that were shown, and none that died since; what is not dead any more is refused, and told."""
    dropped, refused, refusals = 0, Counter(shown.refused), list(shown.refusals)
    for at in range(0, len(shown.ids or ()), DROPPED_AT_ONCE):
        done = client.drop_documents(collection, ids=(shown.ids or [])[at : at + DROPPED_AT_ONCE])
        dropped += done.dropped
        refused.update(done.refused)
        refusals += done.refusals
    return shown.model_copy(update={"dropped": dropped, "refused": dict(refused), "refusals": refusals})


def _asked(job: str | None, error: str | None, stage: str | None, chosen: str | None) -> dict[str, Any]:
    if stage is not None and stage not in STAGES:
        raise UsageError(f"--stage {stage}: choose one of {', '.join(STAGES)}")
    named = {"job_id": job, "error_code": error, "stage": stage, "filter": chosen}
    return {name: value for name, value in named.items() if value is not None}


def _selection(
    client: "Penstock",
    collection: str,
    documents: Sequence[str] | None,
    common: dict[str, Any],
    *,
    everything: bool,
) -> dict[str, Any]:
    """Return which documents are meant. Raises UsageError unless exactly one way says so."""
    from .changes import named_ways

    if [bool(documents), bool(common), everything].count(True) != 1:
        raise UsageError(
            "name documents by id or source, or choose them with --job, --error, --stage and --filter, or take --all"
        )
    if documents:
        return named_ways(client, collection, documents)
    return common or {"all": True}


def _show(found: "Document") -> None:
    rows = table("", "")
    death = found.former_death
    for label, value in (
        ("document", found.id),
        ("source", found.source),
        ("version", str(found.version)),
        ("state", found.state),
        ("stage", found.stage),
        ("error", found.error_code),
        ("reason", found.error),
        ("attempts", f"{found.attempts:,}" if found.attempts else None),
        ("accepted", when(found.created_at)),
        ("first attempt", when(found.first_attempt_at) if found.first_attempt_at else None),
        ("last attempt", when(found.last_attempt_at) if found.last_attempt_at else None),
        ("died", when(found.finished_at) if found.state == "failed" else None),
        ("job", found.job_id),
        (
            "died before",
            f"{when(death.died_at)} in {death.stage}, {death.error_code}: {death.error}" if death else None,
        ),
        ("retries", f"{death.retries:,}" if death else None),
    ):
        if value:
            rows.add_row(f"[dim]{label}[/]", plain(value))
    console().print(rows)


def _show_sample(sample: "Sequence[Named]", *, more: int) -> None:
    rows = table("document", "source", whole=IDS)
    for one in sample:
        rows.add_row(one.id, plain(one.source))
    if more:
        rows.add_row(f"[dim]and {more:,} more[/]", "")
    console().print(rows)


def _show_refusals(refused: "dict[Any, int]", refusals: "Sequence[RefusedDocument]") -> None:
    if not refused:
        return
    rows = table("not done", "because")
    for one in refusals:
        rows.add_row(plain(one.source or one.id), f"{one.code}: {plain(one.reason)}")
    out = console()
    out.print(rows)
    told = ", ".join(f"{number:,} {code}" for code, number in refused.items())
    out.print(f"[yellow]{count(sum(refused.values()), 'document')} refused[/]: {told}")
