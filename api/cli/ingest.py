"""`penstock ingest`: files and folders into a collection, and what became of each."""

import signal
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import parse_path
from .connection import connect
from .options import METADATA_VALUES, Collection, Json, Key, Tenant, Timeout, Url
from .output import console, count, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from penstock.client import Penstock
    from penstock.client.wire import Job

    from .outcomes import Outcome
    from .uploading import Sending

Paths = Annotated[
    list[Path],
    typer.Argument(
        help="Files and folders; folders with all below them but what is hidden (.name).",
        show_default=False,
        parser=parse_path,
        metavar="paths",
    ),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata", "-m", help=f"key=value or a JSON object, for every document. {METADATA_VALUES} Repeatable."
    ),
]
Model = Annotated[str | None, typer.Option("--model", help="Embedding model, when the collection is made now.")]
Chunking = Annotated[
    str | None,
    typer.Option(
        "--chunking",
        help="auto, recursive or tokens, when the collection is made now; recursive:200:20 also "
        "sets size and overlap in tokens.",
    ),
]


class PriorityName(StrEnum):
    """Before which other documents of the tenant these come."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    ECONOMY = "economy"


Priority = Annotated[
    PriorityName, typer.Option("--priority", help="Before which other documents of the tenant these come.")
]
Economy = Annotated[
    bool,
    typer.Option(
        "--economy",
        help="Embed for half the price, within a day: by the Batch API of the model's provider. It does not wait.",
    ),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until everything is searchable.")]
Webhook = Annotated[
    str | None,
    typer.Option("--webhook", help="https URL that is told, signed, when the job ends.", show_default=False),
]
RetryDead = Annotated[
    bool,
    typer.Option(
        "--retry-dead", help="Also send files that failed before with this very content; else they stay dead."
    ),
]
Estimate = Annotated[
    bool,
    typer.Option(
        "--estimate", help="Only say what it would take: documents, chunks, tokens, cost, time. Nothing is stored."
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget", help="US dollars that embedding all this may cost; then it waits for more.", show_default=False
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        help="What sources begin with instead of the folder's own name, so that folders of the same name stay apart; "
        "'' for nothing.",
        show_default=False,
    ),
]


def ingest(
    paths: Paths,
    collection: Collection = "default",
    prefix: Prefix = None,
    metadata: Metadata = None,
    webhook: Webhook = None,
    retry_dead: RetryDead = False,
    budget: Budget = None,
    estimate: Estimate = False,
    priority: Priority = PriorityName.NORMAL,
    economy: Economy = False,
    wait: Wait = True,
    timeout: Timeout = None,
    model: Model = None,
    chunking: Chunking = None,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Make files searchable. What the server knows already is not sent again, so running it twice is harmless.

    Ctrl-C stops waiting, not the server: run the same command again to go on.

    A document is known by its source: its path below PATH with PATH's own name in front. The same source again in
    the same collection replaces the document.
    """
    from penstock.client import ClientError

    from .arguments import parse_budget, parse_chunking, parse_metadata
    from .estimating import show_estimate
    from .exits import UsageError
    from .folders import walk
    from .outcomes import Outcome, as_plain, show_outcome
    from .stopping import unfinished

    if economy:
        if priority not in {PriorityName.NORMAL, PriorityName.ECONOMY}:
            raise UsageError("--economy comes after everything else: leave --priority out")
        priority, wait = PriorityName.ECONOMY, False  # it may take a day
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it hears how far it came, as with Ctrl-C
    began = time.monotonic()
    notes = console(stderr=True)
    outcome = Outcome(waited=wait)
    try:
        fields, cut = parse_metadata(metadata or []), parse_chunking(chunking)
        found = walk(paths, prefix=prefix)
        outcome.sending.webhook_url, outcome.sending.retry_dead = webhook, retry_dead
        outcome.sending.budget_usd = None if budget is None else parse_budget("--budget", budget)
        outcome.sending.files, outcome.sending.skipped = len(found.found), found.skipped
        with connect(url, key, tenant) as client:
            if estimate:
                show_estimate(
                    client,
                    collection,
                    found.found,
                    fields,
                    outcome.sending,
                    notes,
                    made=(model, cut),
                    priority=priority.value,
                    as_json=as_json,
                )
                return
            if webhook is not None:
                client.check_webhook(webhook)  # before anything is made
            ensure_collection(client, collection, model=model, chunking=cut)
            _send(client, collection, found.found, fields, outcome.sending, notes, priority=priority)
            settle(client, collection, outcome, notes=notes, timeout_s=timeout)
        outcome.took_s = time.monotonic() - began
        print_json(as_plain(outcome)) if as_json else show_outcome(outcome, collection)
    except (KeyboardInterrupt, ClientError) as error:
        outcome.took_s = time.monotonic() - began
        raise unfinished(outcome, error) from error
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def ensure_collection(client: "Penstock", name: str, *, model: str | None, chunking: Any) -> None:
    """Make the collection when it is missing. One that exists must be what was asked for, if anything was."""
    from penstock.client import NotFound

    if model is not None or chunking is not None:
        client.create_collection(name, model=model, chunking=chunking)
        return
    try:
        client.collection(name)
    except NotFound:
        client.create_collection(name)


def _send(
    client: "Penstock",
    collection: str,
    files: list[Any],
    metadata: dict[str, Any],
    sending: "Sending",
    notes: "Console",
    *,
    priority: PriorityName,
) -> None:
    from .uploading import send

    told: set[str] = set()

    with notes.status(f"reading {count(len(files), 'file')}") as status:

        def show() -> None:
            now = f"sending: {sending.examined:,}/{count(sending.files, 'file')}"
            status.update(f"{now}; {plain(sending.waiting)}" if sending.waiting else now)
            if sending.waiting and not notes.is_terminal and not told:  # a log is told once
                told.add(sending.waiting)
                notes.print(plain(sending.waiting))

        send(
            client,
            collection,
            files,
            metadata=metadata,
            sending=sending,
            on_progress=show,
            priority=priority.value,
        )


def settle(
    client: "Penstock",
    collection: str,
    outcome: "Outcome",
    *,
    notes: "Console",
    timeout_s: float | None,
    others: "Sequence[str]" = (),
) -> None:
    """Wait for the job, and for jobs that an earlier run left under way with the files that are known already.

    ``others``: ids of further jobs to wait for.
    """
    from .following import follow

    sending = outcome.sending
    earlier = _running(client, collection) if sending.unchanged else []
    job_ids = list(dict.fromkeys([*earlier, *([sending.job_id] if sending.job_id else []), *others]))
    if not job_ids:
        return
    if not outcome.waited:
        outcome.jobs = [client.job(job_id) for job_id in job_ids]
        return

    def note(jobs: "list[Job]") -> None:
        outcome.jobs = jobs

    follow(client, job_ids, notes=notes, timeout_s=timeout_s, on_progress=note)
    if any(job.failed for job in outcome.jobs):
        outcome.failed = [doc for doc in client.all_documents(collection, state="failed") if doc.job_id in set(job_ids)]


def _running(client: "Penstock", collection: str) -> list[str]:
    jobs = client.jobs(limit=50).data
    return [job.id for job in jobs if job.state == "running" and job.collection == collection]
