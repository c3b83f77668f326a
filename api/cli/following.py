"""Follows jobs until nothing of them is under way, with a live bar on a terminal and a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.client import Busy

from .output import count, duration, plain

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.client import Penstock
    from penstock.client.wire import Job

EVERY_S = 0.4
LINE_EVERY_S = 5.0
BEFORE_CHUNKED = ("queued", "chunking")


@dataclass(frozen=True)
class Progress:
    """The sum of some jobs, as the server tells it. ``chunks`` is searchable, ``chunks_total`` known to come so far."""

    documents: int
    finished: int
    unchunked: int
    failed: int
    chunks: int
    chunks_embedded: int
    chunks_total: int
    chunks_per_s: float
    left_s: float | None
    cache_hits: int
    chunks_reused: int
    paused: str | None = None

    @classmethod
    def of(cls, jobs: "Sequence[Job]") -> "Progress":
        return cls(
            documents=sum(job.total for job in jobs),
            finished=sum(job.finished for job in jobs),
            unchunked=sum(job.documents.get(state, 0) for job in jobs for state in BEFORE_CHUNKED),
            failed=sum(job.failed for job in jobs),
            chunks=sum(job.chunks_indexed for job in jobs),
            chunks_embedded=sum(job.chunks_embedded for job in jobs),
            chunks_total=sum(job.chunks_total for job in jobs),
            chunks_per_s=sum(job.chunks_per_s or 0.0 for job in jobs),
            left_s=_left_s(jobs),
            cache_hits=sum(job.cache_hits for job in jobs),
            chunks_reused=sum(job.chunks_reused for job in jobs),
            paused=next((job.held_up.reason for job in jobs if job.held_up and job.held_up.paused), None),
        )


def _left_s(jobs: "Sequence[Job]") -> float | None:
    """Return when the last of them is done; None while nobody can know that of one."""
    left = [job.left_s for job in jobs if job.state == "running"]
    known = [seconds for seconds in left if seconds is not None]
    return max(known, default=None) if len(known) == len(left) else None


def follow(
    client: "Penstock",
    job_ids: Sequence[str],
    *,
    notes: "Console",
    timeout_s: float | None = None,
    on_progress: "Callable[[list[Job]], None]" = lambda _: None,
    doing: str = "indexing",
) -> "list[Job]":
    """Return the jobs once none is running. ``on_progress`` is told how far they are whenever that was asked.

    Raises:
        Busy: with the code ``still_running``, after ``timeout_s``.
    """
    with _display(notes, doing) as show:
        for jobs in _moves(client, job_ids, timeout_s=timeout_s):
            show(Progress.of(jobs))
            on_progress(jobs)
    running = [job.id for job in jobs if job.state == "running"]
    if running:
        raise Busy(f"job {running[0]} is still running after {timeout_s:g} s", code="still_running")
    return jobs


def _moves(client: "Penstock", job_ids: Sequence[str], *, timeout_s: float | None) -> "Iterator[list[Job]]":
    """Yield the jobs as they are, now and whenever they moved, until none runs or the time is over."""
    if len(job_ids) == 1:
        yield from ([job] for job in client.events(job_ids[0], wait_s=timeout_s))
        return
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    jobs = {job_id: client.job(job_id) for job_id in job_ids}
    while True:
        yield list(jobs.values())
        running = [job.id for job in jobs.values() if job.state == "running"]
        if not running or (deadline is not None and time.monotonic() >= deadline):
            return
        for job_id in running:
            jobs[job_id] = client.job(job_id, wait_s=EVERY_S / len(running))


@contextmanager
def _display(notes: "Console", doing: str) -> Iterator[Callable[[Progress], None]]:
    if not notes.is_terminal:
        yield _lines(notes, doing)
        return
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(bar_width=20), TextColumn("{task.fields[said]}"))
    with Bars(*columns, console=notes, refresh_per_second=8) as bars:
        task = bars.add_task(doing, total=None, said="")

        def show(progress: Progress) -> None:
            bars.update(task, total=progress.documents or None, completed=progress.finished, said=said(progress))

        yield show


def _lines(notes: "Console", doing: str) -> Callable[[Progress], None]:
    last: list[Any] = [time.monotonic(), "", None]

    def show(progress: Progress) -> None:
        # What is paused does not move any more: there may be no later time to say so.
        at_once = progress.finished == progress.documents or progress.paused != last[2]
        sentence = said(progress)
        if (at_once or time.monotonic() - last[0] >= LINE_EVERY_S) and sentence != last[1]:
            notes.print(f"{doing}: {sentence}")
            last[:] = [time.monotonic(), sentence, progress.paused]

    return show


def said(progress: Progress) -> str:
    """Return the numbers beside the bar."""
    if not progress.chunks_total and not progress.unchunked:  # documents that leave have none to count
        left = f"{progress.finished:,}/{count(progress.documents, 'document')}"
        return f"{left}  [red]{progress.failed:,} failed[/]" if progress.failed else left
    parts = [
        f"{progress.finished:,}/{count(progress.documents, 'document')}",
        count(progress.chunks_embedded, "chunk"),
        f"{progress.chunks_per_s:,.0f} chunks/s",
    ]
    if progress.finished < progress.documents:
        parts.append("time left unknown" if progress.left_s is None else f"{duration(progress.left_s)} left")
    if progress.chunks_reused:
        parts.append(count(progress.chunks_reused, "unchanged chunk"))
    parts.append(count(progress.cache_hits, "cache hit"))
    if progress.failed:
        parts.append(f"[red]{progress.failed:,} failed[/]")
    if progress.paused is not None:
        parts.append(f"[red]paused: {plain(progress.paused)}[/]")
    return "  ".join(parts)
