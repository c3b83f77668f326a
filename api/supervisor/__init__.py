"""One machine's processes under one parent: starts them in order, restarts the dead, shows one log, stops them in order."""

from .errors import StartFailed
from .running import Supervisor

__all__ = ["StartFailed", "Supervisor"]
