"""What can go wrong in a role process, beyond what storage and pipeline raise. Each ends the process with its message.

WorkerError
├── UnknownRole       there is no such role: choose one of those the message lists
└── MissingProgram    a role needs a package that is not installed: install the extra the message names
"""


class WorkerError(Exception):
    """A role process cannot start or go on."""


class UnknownRole(WorkerError):
    """Raised when a process is started for a role that does not exist."""


class MissingProgram(WorkerError):
    """Raised when a role needs a package that is not installed on this machine."""
