"""What became of ingested files, as an exit code, a summary for people and an object for programs."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .exits import ExitCode
from .following import Progress
from .output import console, count, duration, plain, table
from .uploading import Sending

if TYPE_CHECKING:
    from penstock.client.wire import Document, Job


SHOWN = 20  # dead files; --json has all


@dataclass
class Outcome:
    """What became of the files. ``failed`` has the documents of these jobs only."""

    sending: Sending = field(default_factory=Sending)
    jobs: "list[Job]" = field(default_factory=list)
    failed: "list[Document]" = field(default_factory=list)
    waited: bool = False
    took_s: float = 0.0

    @property
    def exit_code(self) -> ExitCode:
        bad = self.failed or self.sending.refused or self.sending.skipped or self.sending.dead
        return ExitCode.DOCUMENTS_FAILED if bad or any(job.state == "cancelled" for job in self.jobs) else ExitCode.OK

    @property
    def new(self) -> int:
        """How many of the accepted documents were not here before."""
        return self.sending.accepted - self.sending.replaced

    @property
    def job_id(self) -> str | None:
        """The job of this run; where that is not what runs, one of an earlier run that it waits for."""
        own, running = self.sending.job_id, [job.id for job in self.jobs if job.state == "running"]
        if own is not None and (own in running or not running):
            return own
        return running[-1] if running else None


def kinds(outcome: Outcome) -> list[str]:
    """Return ``3 new``, ``2 replaced`` and ``5 unchanged``, without those that are none."""
    counts = {"new": outcome.new, "replaced": outcome.sending.replaced, "unchanged": outcome.sending.unchanged}
    return [f"{number:,} {kind}" for kind, number in counts.items() if number]


def show_outcome(outcome: Outcome, collection: str) -> None:
    out, sending = console(), outcome.sending
    show_problems(outcome)
    if not sending.files and not sending.skipped:
        out.print("nothing to do: no files found")
    elif not any(job.documents for job in outcome.jobs):
        if sending.unchanged:
            out.print(f"nothing to do: {count(sending.unchanged, 'document')} unchanged")
    elif not outcome.waited:
        taken = accepted(outcome) if sending.accepted else "nothing new, but not all done"
        out.print(f"{taken}; see how far: penstock jobs show {outcome.jobs[-1].id}")
    else:
        out.print(_summary(outcome, collection))


def accepted(outcome: Outcome) -> str:
    """Return ``5 documents accepted (3 new, 2 replaced)``."""
    taken, told = count(outcome.sending.accepted, "document"), ", ".join(kinds(outcome))
    return f"{taken} accepted ({told})" if told else f"{taken} accepted"


def _summary(outcome: Outcome, collection: str) -> str:
    done = Progress.of(outcome.jobs)
    indexed = sum(job.documents.get("indexed", 0) for job in outcome.jobs)
    parts = [f"{count(indexed, 'document')} ({count(done.chunks, 'chunk')}) indexed into {collection!r}"]
    if outcome.sending.accepted:  # else they are those that an earlier run sent
        parts += kinds(outcome)
    if outcome.failed:
        parts.append(f"[red]{len(outcome.failed):,} failed[/]")
    if done.chunks_reused:
        parts.append(count(done.chunks_reused, "unchanged chunk"))
    parts.append(count(done.cache_hits, "cache hit"))
    return f"{', '.join(parts)}, in {duration(outcome.took_s)}"


def show_problems(outcome: Outcome) -> None:
    """Write a table of what is not indexed and why, if there is anything."""
    sending = outcome.sending
    if not (outcome.failed or sending.refused or sending.skipped or sending.dead):
        return
    rows = table("not indexed", "because")
    for skipped in sending.skipped:
        rows.add_row(plain(str(skipped.path)), f"skipped: {plain(skipped.reason)}")
    for refusal in sending.refused:
        rows.add_row(plain(refusal.source), f"refused: {plain(refusal.reason)}")
    for source in sending.dead[:SHOWN]:
        rows.add_row(plain(source), "dead: it failed before with this very content; --retry-dead sends it again")
    if len(sending.dead) > SHOWN:
        rows.add_row(
            f"[dim]… and {len(sending.dead) - SHOWN:,} more[/]", "dead, likewise: `penstock dlq list` says why"
        )
    for document in outcome.failed:
        rows.add_row(plain(document.source), f"{plain(document.error_code)}: {plain(document.error)}")
    console().print(rows)


def as_plain(outcome: Outcome) -> dict[str, Any]:
    sending = outcome.sending
    failed = [
        {"source": doc.source, "stage": doc.stage, "code": doc.error_code, "reason": doc.error}
        for doc in outcome.failed
    ]
    failed += [{"source": no.source, "stage": "submit", "code": no.code, "reason": no.reason} for no in sending.refused]
    return {
        "accepted": sending.accepted,
        "new": outcome.new,
        "replaced": outcome.sending.replaced,
        "unchanged": sending.unchanged,
        "failed": failed,
        "dead": sending.dead,
        "skipped": [{"path": str(skipped.path), "reason": skipped.reason} for skipped in sending.skipped],
        "job_id": outcome.job_id,
        "jobs": [job.model_dump(mode="json") for job in outcome.jobs],
        "took_s": round(outcome.took_s, 3),
    }
