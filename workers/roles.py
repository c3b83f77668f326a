"""What a role is to the process that runs it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Role(Protocol):
    """The work of one kind of process: Celery tasks by name, over components that `open` builds."""

    def open(self) -> None:
        """Build what the tasks need. Called once in each process that runs tasks, after any fork."""

    def close(self) -> None:
        """Give back what `open` took. Called once, when no task runs any more."""

    def tasks(self) -> Mapping[str, Callable[..., Any]]:
        """Return the task bodies by the name that messages use. Available before `open`."""
