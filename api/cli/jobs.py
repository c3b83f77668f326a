"""`penstock jobs`: what was submitted together, how far it is, and stopping it."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import parse_new_budget
from .connection import connect
from .exits import ExitCode
from .options import Json, Key, Tenant, Timeout, Url
from .output import IDS, by_state, console, count, duration, money, plain, print_json, print_page, state, table, when
from .waiting import word_of

if TYPE_CHECKING:
    from penstock.client import Penstock
    from penstock.client.wire import Job

app = typer.Typer(
    name="jobs", help="List, show, follow and cancel jobs, and change what they may cost.", no_args_is_help=True
)

Id = Annotated[str, typer.Argument(help="Id of the job, as `penstock jobs list` shows it.", show_default=False)]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Most rows to list.")] = 20,
    after: Annotated[str | None, typer.Option("--after", help="Id of the last job of the page before.")] = None,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List the jobs of a tenant, newest first."""
    with connect(url, key, tenant) as client:
        page = client.jobs(after=after, limit=limit)
    if as_json:
        print_json(page)
        return
    rows = table("job", "collection", "state", "documents", "chunks", "begun", right=("chunks",), whole=IDS)
    for job in page.data:
        chunks = f"{job.chunks_indexed:,}/{job.chunks_total:,}"
        told = f"{state(job.state)}, [red]paused[/]" if job.held_up and job.held_up.paused else state(job.state)
        rows.add_row(job.id, job.collection, told, by_state(job.documents), chunks, when(job.created_at))
    print_page(rows, page, empty=f"tenant {tenant!r} has no jobs yet")


@app.command("show")
def show(
    job_id: Id,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done, with a progress bar.")] = False,
    timeout: Timeout = None,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show one job. With --wait the exit code says how it ended, as that of `penstock ingest` does."""
    with connect(url, key, tenant) as client:
        job = client.job(job_id)
        if wait:
            job = _waited(client, job, timeout_s=timeout)
    print_json(job) if as_json else _show(job)
    if wait:
        _end(job)


@app.command("follow")
def follow_(
    job_id: Id,
    timeout: Timeout = None,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the job whenever it moved, one object a line.")
    ] = False,
) -> None:
    """Follow one job until it is over, as the server's events tell it. Exits as `penstock ingest` does."""
    with connect(url, key, tenant) as client:
        if as_json:
            job = _print_moves(client, job_id, timeout_s=timeout)
        else:
            job = _waited(client, client.job(job_id), timeout_s=timeout)
            _show(job)
    _end(job)


def _end(job: "Job | None") -> None:
    """Exit with what says that some documents failed, or all that were left were cancelled; else return."""
    if job is not None and (job.failed or job.state == "cancelled"):
        raise typer.Exit(ExitCode.DOCUMENTS_FAILED)


def _print_moves(client: "Penstock", job_id: str, *, timeout_s: float | None) -> "Job | None":
    from penstock.client import Busy

    from .stopping import stopped_waiting

    job = None
    try:
        for job in client.events(job_id, wait_s=timeout_s):
            print(job.model_dump_json(), flush=True)  # noqa: T201 what was asked for, for programs
    except KeyboardInterrupt as error:
        if job is None:
            raise
        raise stopped_waiting(job, error) from error
    if job is not None and job.state == "running":
        told = Busy(f"job {job_id} is still running after {timeout_s:g} s", code="still_running")
        raise stopped_waiting(job, told) from told
    return job


@app.command("budget")
def budget(
    job_id: Id,
    amount: Annotated[
        str, typer.Option("--set", help="US dollars that the job may cost in all; 'none': whatever it costs.")
    ],
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Change what a job may cost. One that waits for money goes on at once when there is some."""
    budget_usd = parse_new_budget("--set", amount)
    with connect(url, key, tenant) as client:
        job = client.set_budget(job_id, budget_usd)
    print_json(job) if as_json else _show(job)


@app.command("cancel")
def cancel(job_id: Id, url: Url = None, key: Key = None, tenant: Tenant = "default", as_json: Json = False) -> None:
    """Cancel what is not indexed yet. What is indexed stays."""
    with connect(url, key, tenant) as client:
        job = client.cancel(job_id)
    print_json(job) if as_json else _show(job)


def _waited(client: "Penstock", job: "Job", *, timeout_s: float | None) -> "Job":
    from penstock.client import Busy

    from .following import follow
    from .stopping import stopped_waiting

    seen = [job]

    def note(jobs: "list[Job]") -> None:
        seen[:] = jobs

    try:
        follow(client, [job.id], notes=console(stderr=True), timeout_s=timeout_s, on_progress=note)
    except (KeyboardInterrupt, Busy) as error:
        raise stopped_waiting(seen[0], error) from error
    return seen[0]


def _pace(job: "Job") -> str:
    if job.state != "running":
        return "-"
    per_s = "not known yet" if job.chunks_per_s is None else f"{job.chunks_per_s:,.1f} chunks/s"
    return per_s if job.left_s is None else f"{per_s}, {duration(job.left_s)} left"


def _held_up(job: "Job") -> list[tuple[str, str]]:
    if job.held_up is None:
        return []
    if job.held_up.next_attempt_at is None:
        return [(word_of(job.held_up), plain(job.held_up.reason))]
    left_s = job.held_up.next_attempt_at - time.time()
    again = f"tried again in {duration(left_s)}" if left_s > 0 else "being tried again"
    return [(word_of(job.held_up), f"{plain(job.held_up.reason)} ({again})")]


def _cost(job: "Job") -> str:
    budget = "" if job.budget_usd is None else f" of {money(job.budget_usd)} that it may cost"
    if job.cost_usd is None:
        return f", their price is not known{budget}"
    return f", {money(job.cost_usd)}{budget}" if job.cost_usd or budget else ""


def _show(job: "Job") -> None:
    rows = table("", "")
    rows.show_header = False
    for label, value in (
        ("job", job.id),
        ("collection", job.collection),
        ("state", state(job.state)),
        *_held_up(job),
        ("documents", by_state(job.documents)),
        ("unchanged", f"{job.unchanged:,}"),
        ("chunks", f"{job.chunks_indexed:,} indexed, {job.chunks_embedded:,} embedded of {job.chunks_total:,}"),
        ("pace", _pace(job)),
        ("not embedded", f"{count(job.chunks_reused, 'unchanged chunk')}, {count(job.cache_hits, 'cache hit')}"),
        ("tokens", f"{job.embedded_tokens:,} embedded{_cost(job)}"),
        ("begun", when(job.created_at)),
        ("finished", when(job.finished_at)),
    ):
        rows.add_row(f"[dim]{label}[/]", value)
    console().print(rows)
    if job.failed:
        console().print(f"failed: penstock documents list --collection {job.collection} --state failed")
