"""The time between writing a file and committing what names it. It compares times, and looks at nothing.

Files come first, the transaction that names them after, and in between a writer may stall: stopped, swapped out, its
machine asleep. So collectors and writers keep a distance:

* A collector deletes nothing that nobody names before it is ``MIN_AGE_S`` old: its own clock, less the moment at which
  the object store dates the object (a file system: when the bytes were written, or written again as a retry).
* A publisher commits nothing that names a file it began to write more than ``COMMIT_WITHIN_S`` ago, and looks last
  thing before the commit. Files of others that it names are held otherwise: those of the current manifest by the
  catalog, a merge's output by its open swap batch.
* A merge is a writer like that until its swap batch is committed: refused when its segment was begun more than
  ``COMMIT_WITHIN_S`` ago.
* An accept needs no time: the collector of packs shuts the accepts of the tenant out while it looks and deletes, and
  an accept makes sure of its pack where it cannot be shut out any more.

The half between the two times is for clocks that differ, between machines or from the file server, and for the commit
itself. Both sides use the time of day: it goes on while a machine sleeps, which CLOCK_MONOTONIC does not, and objects
are dated with it. A clock that is put back by more than that half in the middle of a publish is not provided for.
"""

MIN_AGE_S = 3_600.0
COMMIT_WITHIN_S = MIN_AGE_S / 2
