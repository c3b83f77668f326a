"""What stands between writing a file and committing what names it: collectors, and the rule that keeps them apart.

Files come first, the transaction that names them after, and in between a writer may stall for any time: stopped,
swapped out, its machine asleep. Clocks of machines differ. So no time decides whether a file is named or deleted:

* A collector deletes files of a generation only inside a transaction that holds the generation's row, and only such as
  no row of the catalog leads to, asked again in that transaction: no version that is kept (``manifests``: the current
  one, those within retention, tagged ones, those a reader has leased, of every generation of the tenant, for forks
  share files) and no merge that waits for its swap.
* Whoever commits a row that leads to new files (a publisher, a finished merge) holds the generation's row in his
  transaction too, and knows then that they are still there: nobody can delete them before the commit, and nobody will
  after it. He knows it without a look at the store, which may be far away: collectors number their sweeps in that row
  (``catalog/sweeps.py``), and none was begun since he wrote or saw the files. Where one was, or had not ended yet when
  he began, he looks in the transaction.
* Files of generations without a row, which were deleted or are about to be made, are guarded by the tenant's row in the
  same way, and so are packs, and what is staged for batches that are about to be made.

What is left to time is courtesy: collectors leave young files alone, so that they rarely make a writer do its work
again. A clock that is wrong by hours costs work, never a file.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from .catalog.engine import Catalog
from .catalog.sweeps import Guard, ended_sweep
from .errors import Fenced
from .objects.store import ObjectStore

MIN_AGE_S = 3_600.0


@dataclass(frozen=True)
class Lookout:
    """For who writes or sees objects after it was made, and later commits what names them.

    ``number``: of the last sweep over what ``guard`` guards; None: it had not ended then.
    """

    guard: Guard
    number: int | None

    @classmethod
    def begin(cls, catalog: Catalog, guard: Guard) -> "Lookout":
        with catalog.read() as connection:
            return cls(guard, ended_sweep(connection, guard))

    def nothing_left(self, connection: Connection) -> bool:
        """Say, in a transaction that holds the guarding row, whether nothing at all was deleted since it was made.

        Else something may have been: look.
        """
        return self.number is not None and ended_sweep(connection, self.guard) == self.number


def check_there(objects: ObjectStore, names: Iterable[str]) -> None:
    """Return when all these objects are there now. Raises Fenced as `check_not_collected` does."""
    if missing := objects.missing(names):
        raise Fenced(f"{missing[0]} was collected before anything named it: writing took too long, or a clock is wrong")


def check_not_collected(
    connection: Connection, objects: ObjectStore, names: Collection[str], *, since: Lookout
) -> None:
    """Return when all these objects are there; to be called in a transaction that holds the row that guards them.

    Args:
        names: of objects that were written, or seen by `check_there`, after ``since`` was made.

    Raises:
        Fenced: one was collected, because writing took so long: discard the others, look again.
    """
    if names and not since.nothing_left(connection):
        check_there(objects, names)
