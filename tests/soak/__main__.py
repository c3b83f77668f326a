"""`make soak MINUTES=…`: an installation under random requests and random kills, compared with a model all the time.

The seed is printed. It decides what is asked and killed, but not when processes are scheduled: the same seed makes the
same kind of trouble, not the same run. Exit status 1: something was wrong, and is told. The folder is then kept.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .soak import Soak, SoakFailed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--tenants", type=int, default=3)
    flags = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="penstock-soak-"))
    print(f"seed {flags.seed}, {flags.tenants} tenants, {flags.minutes:g} minutes, in {folder}", flush=True)
    began = time.monotonic()

    def say(told: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {told}", flush=True)

    soak = Soak(folder, seed=flags.seed, tenants=flags.tenants, say=say)
    try:
        told = soak.run(seconds=60 * flags.minutes)
    except SoakFailed as failed:
        print(f"{failed}\nThe installation and its log are kept in {folder}.")
        return 1
    print(told)
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
