"""`penstock schedules`: what runs again and again, when it does next, and what became of its runs."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from . import scheduling, timetables
from .connection import connect
from .exits import ExitCode, UsageError, need_consent
from .options import Json, Key, Limit, Tenant, Url, Yes
from .output import IDS, console, duration, plain, print_json, print_page, table, when
from .scheduling import Everything

if TYPE_CHECKING:
    from penstock.client import Penstock
    from penstock.client.wire import ScheduleRun

app = typer.Typer(
    name="schedules", help="Run something again and again: reembed, sync, expire, merge, backup.", no_args_is_help=True
)

POLL_S = 1.0
OVER = ("ok", "failed", "skipped", "lost")
Id = Annotated[str, typer.Argument(help="Id, as `penstock schedules list` shows it.", show_default=False)]


app.command("add")(scheduling.add)


@app.command("list")
def list_(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Of this collection only.")] = None,
    everything: Everything = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List the schedules of a tenant, when each runs next, and what became of its last run."""
    if everything and collection is not None:
        raise UsageError("--all is of everything, --collection of one collection: give one of them")
    with connect(url, key, tenant) as client:
        found = client.schedules(collection, everything=everything)
    if as_json:
        print_json(found)
        return
    rows = table("schedule", "collection", "does", "when", "next", "last run", whole=IDS)
    for one in found:
        last = "-" if one.last_run is None else f"{timetables.outcome(one.last_run)} {timetables.ago(one.last_run)}"
        rows.add_row(
            one.id,
            one.collection or "(all)",
            timetables.does(one),
            timetables.cadence(one),
            timetables.next_time(one),
            last,
        )
    nobody = "there are no schedules of everything" if everything else f"tenant {tenant!r} has no schedules"
    console().print(rows if found else f"{nobody}; `penstock schedules add --help` says how to make one")


@app.command("show")
def show(
    schedule: Id,
    everything: Everything = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Show a schedule."""
    with connect(url, key, tenant) as client:
        found = client.schedule(schedule, everything=everything)
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(f"{found.id}: {timetables.does(found)}, {timetables.cadence(found)}")
    out.print(f"next          {timetables.next_time(found)}")
    out.print(f"last success  {'-' if found.last_success_at is None else when(found.last_success_at)}")
    if found.last_run is not None:
        out.print(f"last run      {timetables.outcome(found.last_run)} {timetables.ago(found.last_run)}")
        for line in timetables.details(found.last_run):
            out.print(f"              {line}")


@app.command("history")
def history(
    schedule: Id,
    limit: Limit = 20,
    after: Annotated[str | None, typer.Option("--after", help="Id of the last one of the page before.")] = None,
    everything: Everything = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List the runs of a schedule, newest first, with what became of each."""
    with connect(url, key, tenant) as client:
        page = client.schedule_runs(schedule, everything=everything, after=after, limit=limit)
    if as_json:
        print_json(page)
        return
    rows = table("run", "for", "began", "took", "outcome", "")
    rows.columns[0].no_wrap = True
    for run in page.data:
        took_s = None if run.started_at is None or run.finished_at is None else run.finished_at - run.started_at
        due = f"{when(run.due_at)} (asked for)" if run.asked else when(run.due_at)
        rows.add_row(
            run.id,
            due,
            when(run.started_at),
            duration(took_s),
            timetables.outcome(run),
            "\n".join(timetables.details(run)),
        )
    print_page(rows, page, empty=f"{schedule} never ran")


@app.command("pause")
def pause(
    schedule: Id,
    everything: Everything = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Begin no more runs of it. One that is going goes on."""
    with connect(url, key, tenant) as client:
        found = client.pause_schedule(schedule, everything=everything)
    if as_json:
        print_json(found)
        return
    again = f"{found.id} --all" if everything else found.id
    console().print(f"{found.id} is paused since {when(found.paused_at)}; `penstock schedules resume {again}` ends it")


@app.command("resume")
def resume(
    schedule: Id,
    everything: Everything = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Go on at its next time. What was due during the pause is not made up for."""
    with connect(url, key, tenant) as client:
        found = client.resume_schedule(schedule, everything=everything)
    print_json(found) if as_json else console().print(f"{found.id} goes on; next {timetables.next_time(found)}")


@app.command("run")
def run(
    schedule: Id,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its outcome; exit 1 when that is not ok.")] = False,
    everything: Everything = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Run it now, beside its times, also while it is paused."""
    with connect(url, key, tenant) as client:
        begun = client.run_schedule(schedule, everything=everything)
        ended = _waited(client, begun, everything=everything) if wait else begun
    if as_json:
        print_json(ended)
    else:
        told = ", ".join(timetables.details(ended))
        console().print(f"{ended.id}: {timetables.outcome(ended)}{f' ({told})' if told else ''}")
    if wait and ended.state != "ok":
        raise typer.Exit(ExitCode.ERROR)


@app.command("delete")
def delete(
    schedule: Id,
    yes: Yes = False,
    everything: Everything = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Forget a schedule and its history."""
    need_consent("forget the schedule and its history", given=yes, as_json=as_json)
    with connect(url, key, tenant) as client:
        if not yes:
            found = client.schedule(schedule, everything=everything)
            typer.confirm(f"Forget {found.id} ({timetables.does(found)}) and its history?", abort=True)
        client.delete_schedule(schedule, everything=everything)
    print_json({"id": schedule, "deleted": True}) if as_json else console().print(f"{plain(schedule)} is forgotten")


def _waited(client: "Penstock", begun: "ScheduleRun", *, everything: bool) -> "ScheduleRun":
    """Return the run when it is over."""
    while True:
        page = client.schedule_runs(begun.schedule_id, everything=everything, limit=100)
        found = next((one for one in page.data if one.id == begun.id), None)
        if found is None:
            raise UsageError(f"{begun.id} is not there any more: its schedule was deleted")
        if found.state in OVER:
            return found
        time.sleep(POLL_S)
