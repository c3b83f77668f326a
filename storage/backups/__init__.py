"""Backups: the catalog and the objects of one moment, in a folder, and back from it into a new installation."""

from .making import Progress, make_backup
from .places import Backup, Place
from .restoring import restore
from .scope import Scope
from .verifying import verify

__all__ = ["Backup", "Place", "Progress", "Scope", "make_backup", "restore", "verify"]
