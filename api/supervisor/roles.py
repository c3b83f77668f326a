"""Which processes an installation has, how each is started, and in which order they start and stop."""

import sys
from collections.abc import Collection
from dataclasses import dataclass, field

from penstock.settings.errors import InvalidSettings
from penstock.settings.model import Settings
from penstock.settings.wiring import thread_environment

QUEUE = "valkey"
API = "api"
FLOWER = "flower"
WORKERS = ("chunk", "embed", "express", "index", "search", "maintenance")
BEAT = "beat"
NAMES = (API, *WORKERS, BEAT)

# Beat first, so that nothing new is sent; the queue last, so that the workers can hand back what they hold. The api
# stops beside the workers: it needs none of them, and its last answers may take as long as their last batches.
STOP_ORDER: tuple[tuple[str, ...], ...] = ((BEAT,), (API, FLOWER, *WORKERS), (QUEUE,))


@dataclass(frozen=True)
class Role:
    """One process: its name in the log, its command, and the environment it needs beside the settings."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def chosen_roles(*, only: Collection[str] = (), without: Collection[str] = (), flower: bool = False) -> list[str]:
    """Return the names of the roles to start, in order.

    Raises:
        InvalidSettings: a name is not a role's.
    """
    unknown = sorted({*only, *without} - set(NAMES))
    if unknown:
        raise InvalidSettings([f"no such role: {', '.join(unknown)}; the roles are {', '.join(NAMES)}"])
    names = [name for name in NAMES if name not in without and (not only or name in only)]
    return [*names, FLOWER] if flower else names


def role(name: str, settings: Settings, *, socket_fd: int | None = None) -> Role:
    """Return how to start a role. ``socket_fd``: the listening socket that the api process inherits."""
    environment = thread_environment(_threads(name, settings))
    command: tuple[str, ...]
    if name == API:
        command = (sys.executable, "-m", "penstock.api.cli", "serve", "--fd", str(socket_fd))
    else:
        command = (sys.executable, "-m", "penstock.workers", name)
    return Role(name, command, environment)


def _threads(name: str, settings: Settings) -> int:
    # A query is one short text: more threads for it only take cores from the batches.
    return settings.embedding.threads if name == "embed" else 1
