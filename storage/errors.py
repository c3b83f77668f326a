"""What can go wrong with bytes, names and versions. A new class only where the caller acts differently.

StorageError
├── InvalidName       the caller chose a name that is not allowed: change it
│   ├── InvalidMetadata   likewise a metadata field: its name, or a value that cannot be compared exactly
│   └── InvalidSchedule   likewise a schedule: when it runs, or what it does
├── FilterMismatch    a filter compares a field with a kind of value that no document holds there: change it
├── NotFound          the named thing does not exist
│   └── NotKept           nor does the version of an index that was asked for: choose one of those that are told
├── AlreadyExists     the name is taken, or the object was written before
├── Conflict          the state does not allow it now: look again
│   ├── KeyReused     an idempotency key came with another submission before: use a new one
│   ├── Fenced        another writer holds the lease, or time ran out: stop and discard
│   └── LimitReached  there are as many as may be: delete some, or raise the setting that the message names
├── BacklogFull       more of this tenant waits than may: try again after ``retry_after_s``
├── TooMuchAtOnce     it would not even fit where nothing waits: send less at once
├── OverBudget        a call would cost more than a budget has left: wait until it is raised, or the next month
├── Damaged           a file or row is not what its checksum or format says: never served
│   ├── DamagedIndex  what is to be published is not at fault, but what is there already: repair that
│   └── Missing       a file that something names is not there: perhaps what names it is over by now
├── Unsupported       written by a newer program: upgrade this one
└── Unavailable       a server or a lock did not answer: try again
    └── NotYet        the version asked for cannot be served yet: wait, or ask for less
"""

from typing import Literal


class StorageError(Exception):
    """Something is wrong with stored bytes, names or versions."""


class InvalidName(StorageError):
    """Raised when a tenant, collection or object name is not allowed."""


class InvalidMetadata(InvalidName):
    """Raised when a metadata field cannot be kept, or could not be compared exactly later; the message names it.

    ``param``: what was said wrongly about the document, if it is not its metadata.
    """

    def __init__(self, message: str, *, param: str = "metadata") -> None:
        super().__init__(message)
        self.param = param


class InvalidSchedule(InvalidName):
    """Raised when a schedule cannot be; ``param`` is what is wrong with it: ``cron``, ``timezone``, ``action`` …"""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param


class FilterMismatch(StorageError):
    """Raised when a filter compares a field with a kind of value that no document holds there; the message names it."""


class NotFound(StorageError):
    """Raised when the named tenant, collection, document, job or object does not exist."""


class NotKept(NotFound):
    """Raised when a version of a generation is past retention, or never was; the message says which are kept."""


class AlreadyExists(StorageError):
    """Raised when a name is taken, or a write-once object was written before."""


class Conflict(StorageError):
    """Raised when the state does not allow the operation, for example a batch that another worker holds."""


class KeyReused(Conflict):
    """Raised when a producer gives a submission the idempotency key of another one."""


class Fenced(Conflict):
    """Raised when another writer took the lease or published first, or this one took too long: discard the files."""


class LimitReached(Conflict):
    """Raised when one more would be too many; the message names the limit and the setting that raises it."""


class BacklogFull(StorageError):
    """Raised when accepting something would make more wait of a tenant than may; nothing of it was accepted.

    ``retry_after_s``: when there should be room, going by how fast what waits was leaving.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooMuchAtOnce(StorageError):
    """Raised when something is larger than all that may wait of a tenant: it would be refused at any time."""


class OverBudget(StorageError):
    """Raised when a call of a provider would cost more than a budget has left. It was not made.

    ``budget``: which one; ``job_id``: whose. ``renewed_at``: when there is money again; None: when the
    budget is raised.
    ``may_come_back``: there is money, but it is set aside for other calls, which may turn out not to need it.
    """

    def __init__(
        self,
        message: str,
        *,
        budget: Literal["job_budget", "month_budget"],
        job_id: str | None = None,
        may_come_back: bool = False,
        renewed_at: float | None = None,
    ) -> None:
        super().__init__(message)
        self.budget: Literal["job_budget", "month_budget"] = budget
        self.job_id = job_id
        self.may_come_back = may_come_back
        self.renewed_at = renewed_at


class Damaged(StorageError):
    """Raised when bytes do not match their checksum or format. Nothing is served from them."""


class DamagedIndex(Damaged):
    """Raised when nothing can be added to a version that is served, or taken out of it, until it is repaired."""


class Missing(Damaged):
    """Raised when a file is gone. A writer or reader that took long looks whether what names it is still current."""


class Unsupported(StorageError):
    """Raised when a file or schema is newer than this program understands."""


class Unavailable(StorageError):
    """Raised when a server or a lock does not answer in time. Trying again may help."""


class NotYet(Unavailable):
    """Raised when a reader waited for a version of a generation and did not come to serve it in time."""
