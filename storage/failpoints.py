"""Places in the commit protocol where a test may kill the process. Without the environment variable they do nothing.

``PENSTOCK_FAILPOINT=publish.files_written`` kills at the first hit of that name, ``…:3`` at the third.
"""

import os
import signal
from collections import Counter

VARIABLE = "PENSTOCK_FAILPOINT"
_hits: Counter[str] = Counter()


def hit(name: str) -> None:
    """Kill this process with SIGKILL if the environment asks for it at this hit of ``name``."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    place, _, count = wanted.partition(":")
    if place != name:
        return
    _hits[name] += 1
    if _hits[name] == int(count or "1"):
        os.kill(os.getpid(), signal.SIGKILL)
