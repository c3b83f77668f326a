"""`penstock sync`: a collection, or what is below a prefix, made equal to a folder."""

import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import parse_path
from .connection import connect
from .exits import UsageError
from .ingest import Chunking, Metadata, Model, Prefix, RetryDead, Wait, ensure_collection, settle
from .options import Collection, Json, Key, Tenant, Timeout, Url, Yes
from .output import console, count, duration, plain, print_json, table

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.client import Penstock
    from penstock.storage.folders import SyncPlan

    from .folders import Walk
    from .outcomes import Outcome

SHOWN = 20  # names of each kind; --json has all
DELETED_AT_ONCE = 10_000


def sync(
    path: Annotated[
        Path,
        typer.Argument(
            help="The folder, with all below it but what is hidden (.name).", parser=parse_path, metavar="path"
        ),
    ],
    collection: Collection = "default",
    prefix: Prefix = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Yes = False,
    metadata: Metadata = None,
    retry_dead: RetryDead = False,
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
        outcome.sending.retry_dead = retry_dead
        with connect(url, key, tenant) as client:
            plan = _planned(client, collection, walk, begin, compared=not fields, outcome=outcome, notes=notes)
            if dry_run:
                _show_plan(plan, outcome, collection, as_json=as_json)
                return
            _agree(plan, collection, yes=yes, as_json=as_json)
            ensure_collection(client, collection, model=model, chunking=cut)
            _send(client, collection, plan, fields, outcome, notes)
            deleted = _delete(client, collection, plan, path, prefix, notes)
            settle(client, collection, outcome, notes=notes, timeout_s=timeout, others=deleted.jobs)
        outcome.took_s = time.monotonic() - began
        _show_done(plan, outcome, deleted, collection, as_json=as_json)
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


def _send(
    client: "Penstock",
    collection: str,
    plan: "SyncPlan",
    metadata: dict[str, Any],
    outcome: "Outcome",
    notes: "Console",
) -> None:
    """Send before anything is deleted: what was only moved is never gone."""
    from .uploading import send_all

    sending = outcome.sending
    with notes.status(f"sending {count(len(plan.sent), 'file')}") as status:

        def show() -> None:
            status.update(f"sending: {sending.examined:,}/{count(sending.files, 'file')}")

        send_all(client, collection, plan.sent, metadata=metadata, sending=sending, on_progress=show)


@dataclass
class _Deletions:
    """The jobs of the deletes, and how many documents went, or were ``left`` because they or their files changed."""

    jobs: list[str] = field(default_factory=list)
    deleted: int = 0
    left: int = 0


def _delete(
    client: "Penstock", collection: str, plan: "SyncPlan", path: Path, prefix: str | None, notes: "Console"
) -> _Deletions:
    """Look again what is not in the folder, and delete those of it that are in the collection as they were planned."""
    from penstock.storage.folders import still_gone

    from .folders import walk

    done = _Deletions()
    if not plan.delete:
        return done
    gone = still_gone(plan, walk([path], prefix=prefix)) if path.is_dir() else []
    done.left = len(plan.delete) - len(gone)
    with notes.status("deleting") as status:
        for at in range(0, len(gone), DELETED_AT_ONCE):
            status.update(f"deleting: {at:,}/{count(len(gone), 'document')}")
            some = {source: plan.versions[source] for source in gone[at : at + DELETED_AT_ONCE]}
            answer = client.delete_documents(collection, sources=list(some), if_versions=some)
            done.jobs += [answer.job.id] if answer.job is not None else []
            done.left += answer.changed
            done.deleted += len(some) - answer.changed
    return done


def _show_plan(plan: "SyncPlan", outcome: "Outcome", collection: str, *, as_json: bool) -> None:
    if as_json:
        skipped = [{"path": str(one.path), "reason": one.reason} for one in outcome.sending.skipped]
        print_json({**plan.as_plain(), "skipped": skipped, "dead": outcome.sending.dead, "asks": plan.deletes_much})
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


def _show_done(plan: "SyncPlan", outcome: "Outcome", done: _Deletions, collection: str, *, as_json: bool) -> None:
    from .outcomes import as_plain, kinds, show_problems

    if as_json:
        print_json(as_plain(outcome) | {"deleted": done.deleted, "left": done.left, "spared": plan.spared})
        return
    show_problems(outcome)
    told = kinds(outcome)
    told += [f"{done.deleted:,} deleted"] if done.deleted else []
    told += [f"{done.left:,} left, which changed meanwhile, or whose files came back"] if done.left else []
    told += [f"{len(plan.spared):,} spared, whose files cannot be read"] if plan.spared else []
    told += [f"[red]{len(outcome.failed):,} failed[/]"] if outcome.failed else []
    whole = f"{', '.join(told) or 'no files, no documents'}, in {duration(outcome.took_s)}"
    if not outcome.waited and outcome.jobs:
        whole += f"; see how far: penstock jobs show {outcome.jobs[-1].id}"
    console().print(f"{collection!r}: {whole}")
