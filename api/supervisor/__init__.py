"""One machine's processes under one parent: started and stopped in order, restarted when they die, with one log."""

from .errors import StartFailed
from .running import Supervisor

__all__ = ["StartFailed", "Supervisor"]
