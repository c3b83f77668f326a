"""`penstock sync`: a collection, or what is below a prefix, made equal to a folder."""

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .connection import connect
from .exits import UsageError
from .ingest import Chunking, Metadata, Model, Prefix, Wait, ensure_collection, settle
from .options import Collection, Json, Key, Tenant, Timeout, Url, Yes
from .output import console, count, duration, plain, print_json, table

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.client import Penstock

    from .folders import Walk
    from .outcomes import Outcome
    from .plans import SyncPlan

SHOWN = 20  # names of each kind; --json has all
DELETED_AT_ONCE = 10_000


def sync(
    path: Annotated[Path, typer.Argument(help="The folder, with all below it but what is hidden (.name).")],
    collection: Collection = "default",
    prefix: Prefix = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Yes = False,
    metadata: Metadata = None,
    wait: Wait = True,
    timeout: Timeout = None,
    model: Model = None,
    chunking: Chunking = None,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Make a collection equal to a folder: add what is new, replace what changed, delete what is not there any more.

    Only documents below the folder's own name (or --prefix) are touched, and of a file that cannot be read now the
    document stays. Before it deletes more than 10 of them and more than a fifth, or anything where the folder is empty,
    it asks, or needs --yes. It can be stopped at any time: the same command again does the rest.
    """
    from penstock.client import ClientError

    from .arguments import parse_chunking, parse_metadata
    from .folders import begun
    from .outcomes import Outcome
    from .stopping import unfinished

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it hears how far it came, as with Ctrl-C
    began, outcome, notes = time.monotonic(), Outcome(waited=wait), console(stderr=True)
    try:
        fields, cut = parse_metadata(metadata or []), parse_chunking(chunking)
        walk, begin = _walked(path, prefix), begun(path, prefix)
        outcome.sending.files, outcome.sending.skipped = len(walk.found), walk.skipped
        with connect(url, key, tenant) as client:
            plan = _planned(client, collection, walk, begin, compared=not fields, outcome=outcome, notes=notes)
            if dry_run:
                _show_plan(plan, outcome, collection, as_json=as_json)
                return
            _agree(plan, collection, yes=yes, as_json=as_json)
            ensure_collection(client, collection, model=model, chunking=cut)
            deleted = _carry_out(client, collection, plan, fields, outcome, notes)
            settle(client, collection, outcome, notes=notes, timeout_s=timeout, others=deleted)
        outcome.took_s = time.monotonic() - began
        _show_done(plan, outcome, collection, as_json=as_json)
    except (KeyboardInterrupt, ClientError) as error:
        outcome.took_s = time.monotonic() - began
        raise unfinished(outcome, error) from error
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _walked(path: Path, prefix: str | None) -> "Walk":
    """Return what is in the folder. Raises UsageError: there is none, or nothing can be said of it."""
    from .folders import begun, walk

    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file: sync takes the folder that a collection shall equal; ingest takes files")
    found = walk([path], prefix=prefix)
    unread = next((one for one in found.skipped if one.source == begun(path, prefix)), None)
    if unread is not None:
        raise UsageError(f"{path} cannot be read: {unread.reason}; nothing was changed")
    return found


def _planned(
    client: "Penstock",
    collection: str,
    walk: "Walk",
    begin: str,
    *,
    compared: bool,
    outcome: "Outcome",
    notes: "Console",
) -> "SyncPlan":
    from .plans import plan_sync

    with notes.status(f"reading {count(len(walk.found), 'file')}") as status:

        def show() -> None:
            status.update(f"comparing: {outcome.sending.examined:,} unchanged of {count(len(walk.found), 'file')}")

        sending = outcome.sending
        return plan_sync(client, collection, walk, begin=begin, compared=compared, sending=sending, on_progress=show)


def _agree(plan: "SyncPlan", collection: str, *, yes: bool, as_json: bool) -> None:
    """Return if the plan may be carried out. Raises UsageError, or typer's Abort."""
    if yes or not plan.deletes_much:
        return
    much = f"{len(plan.delete):,} of {count(plan.here, 'document')} of {collection!r}"
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            f"that would delete {much}, which nobody was asked about: nothing was changed. "
            "Look with --dry-run whether it is the right folder; --yes does it"
        )
    typer.confirm(f"Delete {much}?", abort=True)


def _carry_out(
    client: "Penstock",
    collection: str,
    plan: "SyncPlan",
    metadata: dict[str, Any],
    outcome: "Outcome",
    notes: "Console",
) -> list[str]:
    """Send, then delete: what was only moved is never gone. Returns the jobs of the deletes."""
    from .uploading import send_all

    sending, jobs = outcome.sending, list[str]()
    with notes.status(f"sending {count(len(plan.sent), 'file')}") as status:

        def show() -> None:
            status.update(f"sending: {sending.examined:,}/{count(sending.files, 'file')}")

        send_all(client, collection, plan.sent, metadata=metadata, sending=sending, on_progress=show)
        for at in range(0, len(plan.delete), DELETED_AT_ONCE):
            status.update(f"deleting: {at:,}/{count(len(plan.delete), 'document')}")
            done = client.delete_documents(collection, sources=plan.delete[at : at + DELETED_AT_ONCE])
            jobs += [done.job.id] if done.job is not None else []
    return jobs


def _show_plan(plan: "SyncPlan", outcome: "Outcome", collection: str, *, as_json: bool) -> None:
    if as_json:
        skipped = [{"path": str(one.path), "reason": one.reason} for one in outcome.sending.skipped]
        print_json({**plan.as_plain(), "skipped": skipped, "asks": plan.deletes_much})
        return
    from .outcomes import show_problems

    show_problems(outcome)
    rows = table("", "source")
    names = {
        "add": [file.source for file in plan.add],
        "update": [file.source for file in plan.update],
        "delete": plan.delete,
        "spared": plan.spared,
    }
    for word, sources in names.items():
        for source in sources[:SHOWN]:
            rows.add_row(word, plain(source))
        if len(sources) > SHOWN:
            rows.add_row(word, f"[dim]… and {len(sources) - SHOWN:,} more (--json lists all)[/]")
    out = console()
    if rows.row_count:
        out.print(rows)
    words = ("to add", "to update", "to delete", "spared")
    told = dict(zip(words, map(len, names.values()), strict=True))
    counts = [f"{number:,} {word}" for word, number in told.items() if number]
    counts.append(f"{plan.unchanged:,} unchanged")
    out.print(f"{collection!r}: {', '.join(counts)}; nothing was changed")
    if plan.deletes_much:
        out.print(f"to delete {len(plan.delete):,} of {count(plan.here, 'document')} will be asked for, or needs --yes")


def _show_done(plan: "SyncPlan", outcome: "Outcome", collection: str, *, as_json: bool) -> None:
    from .outcomes import as_plain, kinds, show_problems

    if as_json:
        print_json(as_plain(outcome) | {"deleted": len(plan.delete), "spared": plan.spared})
        return
    show_problems(outcome)
    told = kinds(outcome)
    told += [f"{len(plan.delete):,} deleted"] if plan.delete else []
    told += [f"{len(plan.spared):,} left, whose files cannot be read"] if plan.spared else []
    told += [f"[red]{len(outcome.failed):,} failed[/]"] if outcome.failed else []
    whole = f"{', '.join(told) or 'no files, no documents'}, in {duration(outcome.took_s)}"
    if not outcome.waited and outcome.jobs:
        whole += f"; see how far: penstock jobs show {outcome.jobs[-1].id}"
    console().print(f"{collection!r}: {whole}")
