"""What the processes of an installation take while it is measured: memory by role, and that of the broker's server.

It samples from a thread once in a while, so a peak between two looks is missed; the server's own peak is exact.
"""

import os
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from installation import Installation

from penstock.api.supervisor.queue_server import find_program
from penstock.settings.model import Settings
from penstock.settings.wiring import embedded_socket

EVERY_S = 1.0
START_S = 10.0
MIB = 1 << 20


class MemoryWatch:
    """Samples the memory of every process of an installation during a block.

    ``peaks_mb``: by role, the most that its processes had at once of memory that is not of files; what they share after
    a fork counts once. A role's main process is known by its command; pool processes belong to their parent's.
    """

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self.peaks_mb: dict[str, float] = defaultdict(float)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            now: dict[str, float] = defaultdict(float)
            for role, pid in _processes(self._installation.supervisor_pid):
                now[role] += _private_mb(pid)
            for role, size_mb in now.items():
                self.peaks_mb[role] = max(self.peaks_mb[role], size_mb)


def _processes(supervisor: int) -> Iterator[tuple[str, int]]:
    """Yield the processes below the supervisor with the role of each."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            children[_parent(folder)].append(int(folder.name))
    below = [(supervisor, "supervisor")]
    while below:
        pid, role = below.pop()
        yield role, pid
        below += [(child, _role(child) if role == "supervisor" else role) for child in children[pid]]


def _parent(folder: Path) -> int:
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def _role(pid: int) -> str:
    """Return what a child of the supervisor is: a role of its own, the queue's server, or the HTTP server.

    Until it has begun to run another program it is the supervisor, of which it is a copy.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it is gone
        return "supervisor"
    if "penstock.workers" in words:
        return words[words.index("penstock.workers") + 1]
    if "valkey" in words[0] or "redis" in words[0]:
        return "broker"
    return "api" if "serve" in words else "supervisor"


def _private_mb(pid: int) -> float:
    """Return the memory of a process that is not of files, its share of what it shares; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return (sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0)) / 1024


def broker_peak_mb(installation: Installation) -> float:
    """Return the most memory that the installation's queue server ever had, as it says itself."""
    path = embedded_socket(Settings(data_dir=installation.data_dir))
    with redis.Redis(unix_socket_path=str(path)) as client:
        return float(client.info("memory")["used_memory_peak"]) / MIB


@contextmanager
def cache_server() -> Iterator[str]:
    """Start a server for the cache of vectors alone and give its URL: the queue's then holds nothing but the queue."""
    with tempfile.TemporaryDirectory(prefix="penstock-cache-") as folder:
        path = Path(folder) / "cache.sock"
        options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        options += ["--maxmemory", str(512 * MIB), "--maxmemory-policy", "volatile-lru"]
        server = subprocess.Popen([str(find_program()), *options], stdout=subprocess.DEVNULL)
        try:
            _wait_for(path)
            yield f"unix://{path}"
        finally:
            server.terminate()
            server.wait()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with suppress(redis.RedisError), redis.Redis(unix_socket_path=os.fspath(path)) as client:
            client.ping()
            return
        time.sleep(0.05)
    raise RuntimeError("the server for the cache did not start")
