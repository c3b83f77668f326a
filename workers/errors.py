"""What can go wrong in a role process, beyond what storage and pipeline raise.

WorkerError
├── UnknownRole       there is no such role or shard: choose one of those the message lists
├── MissingProgram    a role needs a package that is not installed: install the extra the message names
├── InvalidRequest    a message asks for something that is not well formed: its sender must change it
├── TooManyWaits      so many requests wait for their version that the others need the rest of the threads
└── RunEnded          a run of a schedule goes no further now
    ├── RunFailed         it cannot do what it is for: the message is its reason
    ├── RunSkipped        there is nothing that it could do: the message is its reason
    ├── RunWaits          what it waits for is not over: again ``after_s`` later
    └── RunHandedBack     this process was told to stop: another one goes on
"""


class WorkerError(Exception):
    """A role process cannot do what it was asked."""


class UnknownRole(WorkerError):
    """Raised when a process is started for a role or a shard that does not exist."""


class MissingProgram(WorkerError):
    """Raised when a role needs a package that is not installed on this machine."""


class InvalidRequest(WorkerError):
    """Raised when a message of `penstock.search` or `penstock.submit` is not well formed; the text names the field."""


class TooManyWaits(WorkerError):
    """Raised when a request would wait where no more may. ``retry_after_s``: when there may be a place."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RunEnded(WorkerError):
    """A run of a schedule goes no further now."""


class RunFailed(RunEnded):
    """Raised when a run cannot do what it is for; the message is the reason that its history tells."""


class RunSkipped(RunEnded):
    """Raised when there is nothing that a run could do; the message is the reason that its history tells."""


class RunWaits(RunEnded):
    """Raised when a run lets its process go until what it waits for may be over."""

    def __init__(self, message: str, *, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


class RunHandedBack(RunEnded):
    """Raised when this process was told to stop in the middle of a run."""
