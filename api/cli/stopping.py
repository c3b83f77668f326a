"""What is said when waiting or sending ends before the work does: what was accepted, under which job, and how to go on.

Asks the server nothing more: it may be what does not answer.
"""

from typing import TYPE_CHECKING

from penstock.client import Busy, ClientError, Unreachable

from .advice import in_commands
from .exits import Unfinished
from .outcomes import Outcome, accepted, as_plain
from .output import count

if TYPE_CHECKING:
    from penstock.client.wire import Job

AGAIN = "the same command again goes on from there"


def unfinished(outcome: Outcome, cause: KeyboardInterrupt | ClientError) -> BaseException:
    """Return what to raise when ``cause`` ends an ingest: ``cause`` itself where nothing was begun."""
    interrupted = isinstance(cause, KeyboardInterrupt)
    if not _begun(outcome) and not interrupted:
        return cause
    why = "interrupted" if interrupted else in_commands(str(cause)).rstrip(".")
    so_far = as_plain(outcome) | {"unconfirmed": outcome.sending.under_way}
    message = f"{why}: {_so_far(outcome, server_is_there=not isinstance(cause, Unreachable))}"
    return Unfinished(message, cause=cause, so_far=so_far)


def stopped_waiting(job: "Job", cause: KeyboardInterrupt | Busy) -> Unfinished:
    """Return what to raise when ``cause`` ends the waiting for one job."""
    why = "interrupted" if isinstance(cause, KeyboardInterrupt) else str(cause)
    message = f"{why}: the server goes on; `penstock jobs show {job.id}` says how far it is"
    return Unfinished(message, cause=cause, so_far={"job_id": job.id, "job": job.model_dump(mode="json")})


def _begun(outcome: Outcome) -> bool:
    return bool(outcome.sending.job_id or outcome.sending.under_way or outcome.jobs)


def _so_far(outcome: Outcome, *, server_is_there: bool) -> str:
    if not _begun(outcome):
        return "nothing was submitted"
    sending, parts = outcome.sending, [accepted(outcome)]
    if sending.under_way:
        parts.append(f"perhaps {sending.under_way:,} more, which the server did not confirm")
    if (left := sending.files - sending.examined - sending.under_way) > 0:
        parts.append(f"{count(left, 'file')} not yet sent")
    if not server_is_there:
        look = "Once the server runs again it finishes what it accepted, and "
    elif outcome.job_id:
        look = f"The server goes on; `penstock jobs show {outcome.job_id}` says how far it is, and "
    else:
        look = "Asked once more, "
    return f"{', '.join(parts)}. {look}{AGAIN}"
