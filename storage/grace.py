"""What stands between writing a file and committing what names it: collectors, and the rule that keeps them apart.

Files come first, the transaction that names them after, and in between a writer may stall for any time: stopped,
swapped out, its machine asleep. Clocks of machines differ. So no time decides whether a file is named or deleted:

* A collector deletes files of a generation only inside a transaction that holds the generation's row, and only such as
  no row of the catalog leads to, asked again in that transaction: no version that is kept (``manifests``: the current
  one, those within retention, tagged ones, those a reader has leased, of every generation of the tenant, for forks
  share files) and no merge that waits for its swap.
* Whoever commits a row that leads to new files (a publisher, a finished merge) holds the generation's row in his
  transaction too, and asks then, with ``check_not_collected``, whether they are still there. If so, nobody can delete
  them before the commit, and nobody will after it.
* Files of generations without a row, which were deleted or are about to be made, are guarded by the tenant's row in the
  same way, and so are packs, and what is staged for batches that are about to be made.

What is left to time is courtesy: collectors leave young files alone, so that they rarely make a writer do its work
again. A clock that is wrong by hours costs work, never a file.
"""

from collections.abc import Iterable

from .errors import Fenced
from .objects.store import ObjectStore

MIN_AGE_S = 3_600.0


def check_not_collected(objects: ObjectStore, names: Iterable[str]) -> None:
    """Return when all these objects are there; to be called in a transaction that holds the row that guards them.

    Raises:
        Fenced: one was collected, because writing took so long: discard the others, look again.
    """
    if missing := objects.missing(names):
        raise Fenced(f"{missing[0]} was collected before anything named it: writing took too long, or a clock is wrong")
