"""`penstock status`: queues, roles, jobs and collections at a glance."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from .cache import told
from .connection import connect
from .exits import ExitCode
from .options import Json, Key, Tenant, Url
from .output import by_state, console, count, duration, plain, print_json, table, when
from .waiting import word_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from penstock.client.wire import Status

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show it again every second until Ctrl-C.")]
EVERY_S = 1.0
SHOWN_IDS = 3  # of jobs that wait for the same
COLOURS = {"paused": "red", "retried": "yellow", "economy": "cyan"}
_FAILED = "their documents were begun again one by one, or are failed: `penstock documents list --state failed`"
_AGAIN = "merges and expiries are planned again by themselves"
DEAD = {
    **dict.fromkeys(("chunk", "embed", "index"), _FAILED),
    **dict.fromkeys(("merge", "swap", "expire"), _AGAIN),
    "rollback": "a rollback changed nothing, and can be asked for again",
}


def status(
    watch: Watch = False, url: Url = None, key: Key = None, tenant: Tenant = "default", as_json: Json = False
) -> None:
    """Show what the installation is doing now, over all tenants."""
    with connect(url, key, tenant) as client:
        if as_json:
            print_json(client.status())
            return
        out = console()
        if not (watch and out.is_terminal):
            out.print(_page(client.status()))
            return
        from rich.live import Live

        try:
            with Live(_page(client.status()), console=out, auto_refresh=False, screen=True) as live:
                while True:
                    time.sleep(EVERY_S)
                    live.update(_page(client.status()), refresh=True)
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.OK) from None


def _page(now: "Status") -> "RenderableType":
    from rich.console import Group

    head = f"[bold]Penstock {now.version}[/] · {count(now.queued_documents, 'document')} waiting to be cut"
    if now.oldest_queued_s is not None:
        head += f", the oldest for {duration(now.oldest_queued_s)}"
    if now.paused_at is not None:
        head += f"\n[yellow]everything is paused since {when(now.paused_at)}: `penstock resume --all` ends it[/]"
    if now.paused_tenants:
        head += f"\n[yellow]paused: tenants {plain(', '.join(now.paused_tenants))}[/]"
    if now.unwritten_shards:
        named = f"shard{'s' * (len(now.unwritten_shards) > 1)} {', '.join(map(str, now.unwritten_shards))}"
        head += f"\n[yellow]nobody publishes for {named}, though work waits: is `penstock worker index` running?[/]"
    for role in now.absent_roles:
        head += f"\n[yellow]work waits, and no {role} process is there: does `penstock worker {role}` run?[/]"
    for one in now.setbacks:
        whose = f"{count(one.count, 'merge')} of {plain(one.tenant)}/{plain(one.collection)}"
        why = plain(one.error) or "no reason was told"
        head += f"\n[yellow]given up: {whose}, tried again from {when(one.again_at)}: {why}[/]"
    for sentence in _held_up(now):
        head += f"\n{sentence}"
    work = (_stages(now), _dead(now), _roles(now), _cache(now), _limits(now), _jobs(now))
    return Group(head, "", *work, _reembeddings(now), _collections(now))


def _held_up(now: "Status") -> list[str]:
    """Say once for each reason which jobs wait for it, and which re-embeddings."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for what, some in (("job", now.jobs), ("re-embedding", now.reembeddings)):
        for one in some:
            if one.held_up is not None:
                found.setdefault((what, word_of(one.held_up), one.held_up.reason), []).append(one.id)
    sentences = []
    for (what, word, reason), ids in found.items():
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        whose = f"{what}{'s' * (len(ids) > 1)} {plain(', '.join(ids[:SHOWN_IDS]))}{more}"
        sentences.append(f"[{COLOURS[word]}]{word}: {whose}: {plain(reason)}[/]")
    return sentences


def _stages(now: "Status") -> "Table":
    rows = table(
        "stage", "ready", "sent", "running", "dead", "oldest", right=("ready", "sent", "running", "dead", "oldest")
    )
    for name, stage in now.stages.items():
        dead = f"[red]{stage.dead}[/]" if stage.dead else "0"
        rows.add_row(name, str(stage.ready), str(stage.sent), str(stage.running), dead, duration(stage.oldest_s))
    return rows


def _dead(now: "Status") -> "RenderableType":
    """Say what there is to do about what was given up, per stage."""
    told = [advice for name, advice in DEAD.items() if name in now.stages and now.stages[name].dead]
    return f"[dim]dead: given up within the last week; {'; '.join(dict.fromkeys(told))}[/]\n" if told else ""


def _roles(now: "Status") -> "RenderableType":
    if now.roles is None:
        return "[yellow]roles: the broker does not answer[/]\n"
    rows = table("role", "process", "up for", "seen", "doing", right=("up for", "seen"))
    for role in sorted(now.roles, key=lambda role: (role.role, role.pid)):
        seen = f"{duration(max(0.0, now.now - role.seen_at))} ago"
        doing = plain(role.doing) or "-"
        if role.still_s is not None:
            doing = f"[red]stands still for {duration(role.still_s)}[/]"
        rows.add_row(role.role, f"{role.host}:{role.pid}", duration(now.now - role.started_at), seen, doing)
    return rows if now.roles else "[yellow]roles: none was seen lately[/]\n"


def _cache(now: "Status") -> "RenderableType":
    if now.cache is None:
        return "[yellow]cache: its server does not answer[/]\n"
    return f"{told(now.cache, limit_bytes=now.cache.limit_bytes)}\n"


def _limits(now: "Status") -> "RenderableType":
    """Say what remote models are asked at most; nothing where none is asked."""
    if not now.limits:
        return "[yellow]rate limits: their server does not answer[/]\n" if now.limits is None else ""
    right = ("requests/min", "tokens/min", "now", "put off", "refused")
    rows = table("remote model", "endpoint", *right, right=right)
    for line in now.limits:
        asked = f"{line.percent:.0f}%" if line.percent >= 100 else f"[yellow]{line.percent:.0f}%[/]"
        if line.blocked_s > 0:
            asked = f"[yellow]none for {duration(line.blocked_s)}[/]"
        limits = [
            "-" if limit is None else f"{limit:,.0f}" for limit in (line.requests_per_minute, line.tokens_per_minute)
        ]
        rows.add_row(plain(line.model), plain(line.endpoint), *limits, asked, f"{line.held:,}", f"{line.refused:,}")
    return rows


def _jobs(now: "Status") -> "RenderableType":
    if not now.jobs:
        return "jobs: none running\n"
    from .following import Progress

    rows = table("running job", "tenant", "collection", "documents", "chunks", right=("documents", "chunks"))
    for job in now.jobs:
        done = Progress.of([job])
        rows.add_row(
            job.id,
            job.tenant,
            job.collection,
            f"{done.finished:,}/{done.documents:,}",
            f"{job.chunks_indexed:,}/{job.chunks_total:,}",
        )
    return rows


def _reembeddings(now: "Status") -> "RenderableType":
    """Say which collections are being embedded again; nothing where none is."""
    if not now.reembeddings:
        return ""
    rows = table("re-embedding", "tenant", "collection", "model", "state", "chunks copied", right=("chunks copied",))
    for one in now.reembeddings:
        state = plain(one.state)
        if one.paused_at is not None:
            state += f", [red]{'paused' if one.error is None else 'stands still: ' + plain(one.error)}[/]"
        elif one.held_up is not None and one.held_up.paused:
            state += ", [red]paused[/]"
        model = f"{plain(one.serving.model)} to {plain(one.other.model)}"
        rows.add_row(one.id, one.tenant, one.collection, model, state, f"{one.chunks_copied:,}/{one.chunks_total:,}")
    return rows


def _collections(now: "Status") -> "RenderableType":
    if not now.collections:
        return "collections: none yet; `penstock ingest PATH` makes one"
    rows = table("tenant", "collection", "model", "version", "chunks", "documents", right=("version", "chunks"))
    for one in now.collections:
        rows.add_row(
            one.tenant, one.name, plain(one.model), str(one.version), f"{one.chunks:,}", by_state(one.documents)
        )
    return rows
