"""Folders of files that a collection is to equal: what is in one, and what has to happen for that. It changes nothing.

For whoever carries it out: `penstock sync` over HTTP, and the schedules that do so where the folder is.
"""

from .contents import content_hash
from .plans import FEW, SyncPlan, plan_for, still_gone
from .walks import Found, Skipped, Walk, begun, below, walk

__all__ = [
    "FEW",
    "Found",
    "Skipped",
    "SyncPlan",
    "Walk",
    "begun",
    "below",
    "content_hash",
    "plan_for",
    "still_gone",
    "walk",
]
