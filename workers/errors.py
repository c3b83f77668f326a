"""What can go wrong in a role process, beyond what storage and pipeline raise.

WorkerError
├── UnknownRole       there is no such role or shard: choose one of those the message lists
├── MissingProgram    a role needs a package that is not installed: install the extra the message names
└── InvalidRequest    a message asks for something that is not well formed: its sender must change it
"""


class WorkerError(Exception):
    """A role process cannot do what it was asked."""


class UnknownRole(WorkerError):
    """Raised when a process is started for a role or a shard that does not exist."""


class MissingProgram(WorkerError):
    """Raised when a role needs a package that is not installed on this machine."""


class InvalidRequest(WorkerError):
    """Raised when a message of `penstock.search` or `penstock.submit` is not well formed; the text names the field."""
