"""Sends files to a collection: only what the server does not know, in bounded requests, all in one job.

Sending a file again is harmless: the server answers that it is unchanged. So every request may be repeated.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from penstock.client import Busy, ClientError, Invalid, ServerError, TooLarge, Unreachable, Upload
from penstock.client.uploads import REQUEST_BYTES, REQUEST_FILES, in_requests
from penstock.client.wire import Submitted
from penstock.storage.folders import content_hash

from .folders import Found, Skipped

if TYPE_CHECKING:
    from penstock.client import Penstock
    from penstock.client.wire import Priority

ASKED_AT_ONCE = 1_000
ATTEMPTS = 5
BACKLOG_FULL = "backlog_full"  # the server's word for it
LEAST_WAIT_S, LONGEST_WAIT_S = 0.2, 60.0  # for room: it may come sooner than the server thinks


@dataclass(frozen=True)
class Refusal:
    """A file that the server did not take."""

    source: str
    code: str
    reason: str


@dataclass
class Sending:
    """How far the sending is, and what it found. ``job_id`` is None while nothing was accepted.

    ``replaced``: how many of the accepted were here before, with other content.
    ``dead``: sources that failed before with the same content, and are not sent again unless ``retry_dead``.
    ``waiting``: what to tell while the server has no room for more of this tenant.
    ``under_way``: documents of a request that the server has not confirmed, and may have taken.
    """

    files: int = 0
    examined: int = 0
    accepted: int = 0
    replaced: int = 0
    unchanged: int = 0
    under_way: int = 0
    waiting: str | None = None
    job_id: str | None = None
    webhook_url: str | None = None
    budget_usd: float | None = None
    retry_dead: bool = False
    dead: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def send(
    client: "Penstock",
    collection: str,
    files: Sequence[Found],
    *,
    metadata: Mapping[str, Any],
    sending: Sending,
    on_progress: Callable[[], None],
    priority: "Priority" = "normal",
) -> None:
    """Send what is new, noting in ``sending`` how far it is, which holds whatever ends this.

    With ``metadata`` what is known is sent too: the server compares metadata, this side only content. While too much of
    the tenant waits on the server, this waits too. Where nothing is new somebody may still want to be told, so that one
    file is sent all the same: the server makes a job of it that is done.

    Raises:
        ClientError: the server does not take any more; what was accepted before stays accepted.
    """
    terms: dict[str, Any] = {
        "metadata": metadata,
        "sending": sending,
        "on_progress": on_progress,
        "priority": priority,
    }
    known: list[Found] = []
    for group in _groups(files, ASKED_AT_ONCE):
        new = _new(client, collection, group, sending, everything=bool(metadata), known=known)
        send_all(client, collection, new, **terms)
        on_progress()
    if sending.webhook_url is not None and sending.job_id is None and known:
        sending.unchanged -= 1  # the server counts it
        sending.examined -= 1
        send_all(client, collection, [min(known, key=lambda file: file.size_bytes)], **terms)


def send_all(
    client: "Penstock",
    collection: str,
    files: Sequence[Found],
    *,
    metadata: Mapping[str, Any],
    sending: Sending,
    on_progress: Callable[[], None],
    priority: "Priority" = "normal",
) -> None:
    """Send these files, known or not. The rest is as in `send`."""
    submit = _Submitting(client, collection, sending, priority=priority, on_progress=on_progress)
    for request in in_requests(files, lambda file: file.size_bytes, most_files=REQUEST_FILES):
        submit(_opened(request, metadata, sending))
        on_progress()


def find_new(
    client: "Penstock",
    collection: str,
    files: Sequence[Found],
    *,
    sending: Sending,
    on_progress: Callable[[], None],
    everything: bool = False,
) -> list[Found]:
    """Return the files that the server does not know, noting the others in ``sending``.

    ``everything``: also those it knows, but none that failed before and is not to be tried again.
    """
    new: list[Found] = []
    for group in _groups(files, ASKED_AT_ONCE):
        new += _new(client, collection, group, sending, everything=everything, known=[])
        on_progress()
    return new


def _new(
    client: "Penstock",
    collection: str,
    group: Sequence[Found],
    sending: Sending,
    *,
    everything: bool,
    known: list[Found],
) -> list[Found]:
    if everything and sending.retry_dead:
        return list(group)
    hashes: dict[str, str] = {}
    for file in group:
        try:
            hashes[file.source] = content_hash(file.path)
        except OSError as error:
            _skip(sending, file.path, error)
    found = client.compare(collection, hashes)
    same = set() if everything else set(found.known)
    dead = set() if sending.retry_dead else set(found.dead)
    known += [file for file in group if file.source in same]
    sending.unchanged += len(same)
    sending.dead += sorted(dead)
    sending.examined += len(same) + len(dead)
    return [file for file in group if file.source in hashes and file.source not in same | dead]


def _groups(files: Sequence[Found], length: int) -> Iterator[list[Found]]:
    rest = iter(files)
    while group := list(islice(rest, length)):
        yield group


def _opened(files: Sequence[Found], metadata: Mapping[str, Any], sending: Sending) -> list[Upload]:
    uploads = []
    for file in files:
        try:
            # A small file is read now: one that vanishes must not fail the others of its request.
            content = file.path.read_bytes() if file.size_bytes <= REQUEST_BYTES else file.path
        except OSError as error:
            _skip(sending, file.path, error)
            continue
        uploads.append(Upload(content=content, source=file.source, filename=file.path.name, metadata=metadata))
    return uploads


@dataclass(frozen=True)
class _Submitting:
    """Sends requests to one collection."""

    client: "Penstock"
    collection: str
    sending: Sending
    priority: "Priority"
    on_progress: Callable[[], None]

    def __call__(self, uploads: Sequence[Upload]) -> None:
        """Send one request. When the server refuses it, send its halves, until the file it refuses stands alone."""
        sending = self.sending
        if not uploads:
            return
        try:
            submitted = self._patiently(uploads)
        except (Invalid, TooLarge) as error:
            sending.under_way = 0
            if error.code in ("invalid_webhook_url", "no_economy"):  # no document is to blame
                raise
            if len(uploads) > 1:
                middle = len(uploads) // 2
                self(uploads[:middle])
                self(uploads[middle:])
                return
            sending.refused.append(Refusal(uploads[0].source, error.code or "refused", str(error)))
        except OSError as error:
            sending.under_way = 0
            large = uploads[0]  # the only kind that is read while it is sent, and it goes alone
            _skip(sending, large.content if isinstance(large.content, Path) else Path(large.source), error)
            return
        else:
            sending.under_way = 0
            sending.job_id = submitted.job.id
            sending.accepted += submitted.accepted
            sending.unchanged += submitted.unchanged
            sending.replaced += submitted.replaced
        sending.examined += len(uploads)

    def _patiently(self, uploads: Sequence[Upload]) -> Submitted:
        """Send until there is an answer, a few times; as long as it takes where only room is missing.

        What may have been taken stays ``under_way``, whatever follows.
        """
        sending, unanswered, attempt = self.sending, 0, 0
        key = uuid4().hex  # of all attempts: what comes between them is not undone by the last one
        while True:
            attempt += 1
            sending.under_way = len(uploads)
            try:
                told: dict[str, Any] = {} if sending.webhook_url is None else {"webhook_url": sending.webhook_url}
                if sending.job_id is None and sending.budget_usd is not None:  # later it may have been raised
                    told["budget_usd"] = sending.budget_usd
                told |= {"idempotency_key": key, "priority": self.priority}
                return self.client.upload(self.collection, uploads, job_id=sending.job_id, **told)
            except (Unreachable, ServerError) as error:
                unanswered = len(uploads)
                if isinstance(error, ServerError) or attempt == ATTEMPTS:
                    raise
                time.sleep(0.2 * attempt)
            except Busy as error:
                sending.under_way = unanswered
                if error.code == BACKLOG_FULL:
                    self._wait_for_room(error)
                    attempt = 0
                elif attempt == ATTEMPTS:
                    raise
                else:
                    time.sleep(error.retry_after_s)
            except ClientError:
                sending.under_way = unanswered
                raise

    def _wait_for_room(self, error: Busy) -> None:
        wait_s = min(LONGEST_WAIT_S, max(LEAST_WAIT_S, error.retry_after_s))
        self.sending.waiting = f"{error}; trying again in {wait_s:.0f} s"
        self.on_progress()
        time.sleep(wait_s)
        self.sending.waiting = None
        self.on_progress()


def _skip(sending: Sending, path: Path, error: OSError) -> None:
    sending.skipped.append(Skipped(path, (error.strerror or str(error)).lower()))
    sending.examined += 1
