"""Places in the commit protocol where a test may kill the process. Without the environment variables they do nothing.

``PENSTOCK_FAILPOINT=publish.files_written`` kills at the first hit of that name, ``…:3`` at the third, ``*:17`` at the
17th of any.
``PENSTOCK_FAILPOINT_RECORD=/a/file`` adds the name of each hit to that file, a line each: a test that kills at every
place of a story learns so which places there are.
"""

import os
import signal
from collections import Counter
from pathlib import Path

VARIABLE = "PENSTOCK_FAILPOINT"
RECORD = "PENSTOCK_FAILPOINT_RECORD"
_hits: Counter[str] = Counter()


def hit(name: str) -> None:
    """Kill this process with SIGKILL if the environment asks for it at this hit of ``name``."""
    if record := os.environ.get(RECORD):
        with Path(record).open("a") as file:
            file.write(f"{name}\n")
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    place, _, count = wanted.partition(":")
    if place not in {name, "*"}:
        return
    _hits[place] += 1
    if _hits[place] == int(count or "1"):
        os.kill(os.getpid(), signal.SIGKILL)
