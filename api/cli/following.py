"""Follows jobs until nothing of them is under way, with a live bar on a terminal and a line now and then elsewhere."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.client import Busy

from .output import count, duration

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.client import Penstock
    from penstock.client.wire import Job

EVERY_S = 0.4
LINE_EVERY_S = 5.0
RATE_WINDOW_S = 30.0  # a batch on a busy machine may take most of it
FINAL = ("indexed", "failed", "cancelled", "superseded", "deleted", "trimmed", "expired")
BEFORE_CHUNKED = ("queued", "chunking")


@dataclass(frozen=True)
class Progress:
    """The sum of some jobs. ``chunks`` is what is searchable, ``chunks_total`` what is known to come so far."""

    documents: int
    finished: int
    unchunked: int
    failed: int
    chunks: int
    chunks_embedded: int
    chunks_total: int
    cache_hits: int

    @classmethod
    def of(cls, jobs: "Sequence[Job]") -> "Progress":
        states: dict[str, int] = {}
        for job in jobs:
            for state, number in job.documents.items():
                states[state] = states.get(state, 0) + number
        return cls(
            documents=sum(states.values()),
            finished=sum(states.get(state, 0) for state in FINAL),
            unchunked=sum(states.get(state, 0) for state in BEFORE_CHUNKED),
            failed=states.get("failed", 0),
            chunks=sum(job.chunks_indexed for job in jobs),
            chunks_embedded=sum(job.chunks_embedded for job in jobs),
            chunks_total=sum(job.chunks_total for job in jobs),
            cache_hits=sum(job.cache_hits for job in jobs),
        )

    @property
    def expected_chunks(self) -> float:
        """All chunks there will be, guessed from the documents that are cut already."""
        cut = self.documents - self.unchunked
        return self.chunks_total * self.documents / cut if cut else 0.0


class Speed:
    """Chunks embedded per second over the last seconds, and the time that the rest will take."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, progress: Progress) -> None:
        now = self._clock()
        self._seen.append((now, progress.chunks_embedded))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_WINDOW_S:
            self._seen.popleft()

    @property
    def chunks_per_s(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return max(0.0, (last - first) / (ended - began)) if ended > began else 0.0

    def left_s(self, progress: Progress) -> float | None:
        """Return how long the rest takes at this speed, None while nobody can know."""
        left = progress.expected_chunks - progress.chunks_embedded
        if progress.expected_chunks and left <= 0:
            return 0.0
        return left / self.chunks_per_s if self.chunks_per_s > 0 and left > 0 else None


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
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    jobs = {job_id: client.job(job_id) for job_id in job_ids}
    speed = Speed()
    with _display(notes, doing) as show:
        while True:
            progress = Progress.of(list(jobs.values()))
            speed.see(progress)
            show(progress, speed)
            on_progress(list(jobs.values()))
            running = [job.id for job in jobs.values() if job.state == "running"]
            if not running:
                return list(jobs.values())
            if deadline is not None and time.monotonic() >= deadline:
                raise Busy(f"job {running[0]} is still running after {timeout_s:g} s", code="still_running")
            for job_id in running:
                jobs[job_id] = client.job(job_id, wait_s=EVERY_S / len(running))


@contextmanager
def _display(notes: "Console", doing: str) -> Iterator[Callable[[Progress, Speed], None]]:
    if not notes.is_terminal:
        yield _lines(notes, doing)
        return
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(bar_width=20), TextColumn("{task.fields[said]}"))
    with Bars(*columns, console=notes, refresh_per_second=8) as bars:
        task = bars.add_task(doing, total=None, said="")

        def show(progress: Progress, speed: Speed) -> None:
            bars.update(task, total=progress.documents or None, completed=progress.finished, said=said(progress, speed))

        yield show


def _lines(notes: "Console", doing: str) -> Callable[[Progress, Speed], None]:
    last: list[Any] = [time.monotonic(), ""]

    def show(progress: Progress, speed: Speed) -> None:
        finished = progress.finished == progress.documents
        sentence = said(progress, speed)
        if (finished or time.monotonic() - last[0] >= LINE_EVERY_S) and sentence != last[1]:
            notes.print(f"{doing}: {sentence}")
            last[:] = [time.monotonic(), sentence]

    return show


def said(progress: Progress, speed: Speed) -> str:
    """Return the numbers beside the bar."""
    if not progress.chunks_total and not progress.unchunked:  # documents that leave have none to count
        left = f"{progress.finished:,}/{count(progress.documents, 'document')}"
        return f"{left}  [red]{progress.failed:,} failed[/]" if progress.failed else left
    parts = [
        f"{progress.finished:,}/{count(progress.documents, 'document')}",
        count(progress.chunks_embedded, "chunk"),
        f"{speed.chunks_per_s:,.0f} chunks/s",
    ]
    if progress.finished < progress.documents:
        left_s = speed.left_s(progress)
        parts.append("time left unknown" if left_s is None else f"{duration(left_s)} left")
    parts.append(count(progress.cache_hits, "cache hit"))
    if progress.failed:
        parts.append(f"[red]{progress.failed:,} failed[/]")
    return "  ".join(parts)
