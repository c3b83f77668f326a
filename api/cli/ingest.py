"""`penstock ingest`: files and folders into a collection, and what became of each."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .connection import connect
from .exits import ExitCode
from .options import Collection, Json, Key, Tenant, Url
from .output import console, count, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.client import Penstock

    from .outcomes import Outcome
    from .uploading import Sending

Paths = Annotated[
    list[Path], typer.Argument(help="Files and folders; folders with all below them.", show_default=False)
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", help="key=value, or a JSON object, for every document; may be repeated."),
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
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until everything is searchable.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.0, help="Wait this many seconds at most; then exit 5.")
]


def ingest(
    paths: Paths,
    collection: Collection = "default",
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
    """Make files searchable. What the server knows already is not sent again, so running it twice is harmless.

    Ctrl-C stops waiting, not the server: run the same command again to go on.
    """
    from .arguments import parse_chunking, parse_metadata
    from .folders import walk
    from .outcomes import Outcome, as_plain, show_outcome

    began = time.monotonic()
    notes = console(stderr=True)
    fields = parse_metadata(metadata or [])
    found = walk(paths)
    with connect(url, key, tenant) as client:
        ensure_collection(client, collection, model=model, chunking=parse_chunking(chunking))
        sending = _send(client, collection, found.found, fields, notes)
        sending.skipped[:0] = found.skipped
        outcome = Outcome(sending, waited=wait)
        _settle(client, collection, outcome, notes=notes, timeout_s=timeout)
    outcome.took_s = time.monotonic() - began
    if as_json:
        print_json(as_plain(outcome))
    else:
        show_outcome(outcome, collection)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def ensure_collection(client: "Penstock", name: str, *, model: str | None, chunking: Any) -> None:
    """Make the collection when it is missing. One that exists must be what was asked for, if anything was."""
    from penstock.client import NotFound

    if model is None and chunking is None:
        try:
            client.collection(name)
        except NotFound:
            client.create_collection(name)
    else:
        client.create_collection(name, model=model, chunking=chunking)


def _send(
    client: "Penstock", collection: str, files: list[Any], metadata: dict[str, Any], notes: "Console"
) -> "Sending":
    from .uploading import send

    try:
        with notes.status(f"reading {count(len(files), 'file')}") as status:
            return send(
                client,
                collection,
                files=files,
                metadata=metadata,
                on_progress=lambda sent: status.update(f"sending: {sent.examined:,}/{count(sent.files, 'file')}"),
            )
    except KeyboardInterrupt:
        notes.print("\nStopped sending. What was sent is indexed; run the same command again to send the rest.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _settle(
    client: "Penstock", collection: str, outcome: "Outcome", *, notes: "Console", timeout_s: float | None
) -> None:
    """Wait for the job, and for jobs that an earlier run left under way with the files that are known already."""
    from .following import follow

    sending = outcome.sending
    earlier = _running(client, collection) if sending.unchanged else []
    job_ids = list(dict.fromkeys([*earlier, *([sending.job_id] if sending.job_id else [])]))
    if not job_ids:
        return
    if not outcome.waited:
        outcome.jobs = [client.job(job_id) for job_id in job_ids]
        return
    try:
        outcome.jobs = follow(client, job_ids, notes=notes, timeout_s=timeout_s)
    except KeyboardInterrupt:
        notes.print(
            f"\nNot waiting any longer; the server goes on. `penstock jobs show {job_ids[-1]}` says how far it is, "
            "and the same command again waits for the rest."
        )
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if any(job.failed for job in outcome.jobs):
        outcome.failed = [doc for doc in client.all_documents(collection, state="failed") if doc.job_id in set(job_ids)]


def _running(client: "Penstock", collection: str) -> list[str]:
    jobs = client.jobs(limit=50).data
    return [job.id for job in jobs if job.state == "running" and job.collection == collection]
