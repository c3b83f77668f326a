"""Kills, stops and empties what an installation is made of, at random."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event

import redis

ROLES = ("chunk", "embed", "express", "index", "search", "maintenance", "beat")
WORDS = {"api": "penstock.api.cli serve", "valkey": "valkey-server"}
WORDS |= {role: f"penstock.workers {role}" for role in ROLES}


class Trouble:
    """``supervisor``: whose children are meant. ``socket``: of its Valkey. ``say`` is told what is done."""

    def __init__(
        self, supervisor: int, *, socket: Path, rng: random.Random, say: Callable[[str], None], stop: Event
    ) -> None:
        self._supervisor = supervisor
        self._socket = socket
        self._rng = rng
        self._say = say
        self._stop = stop
        self.count = 0

    def run(self, *, every_s: tuple[float, float]) -> None:
        """Make trouble until told to stop."""
        kinds = (self._kill, self._kill, self._kill, self._pause, self._forget, self._kill_child)
        while not self._stop.wait(self._rng.uniform(*every_s)):
            self._rng.choice(kinds)()
            self.count += 1

    def _kill(self) -> None:
        name = self._rng.choice([*WORDS, "index", "api"])
        for pid in self._pids(name):
            self._say(f"kill {name}")
            _signal(pid, signal.SIGKILL)

    def _kill_child(self) -> None:
        """Kill one of the processes that a role works with."""
        name = self._rng.choice(["chunk", "express", "maintenance"])
        children = [child for pid in self._pids(name) for child in _children(pid)]
        if children:
            self._say(f"kill a child of {name}")
            _signal(self._rng.choice(children), signal.SIGKILL)

    def _pause(self) -> None:
        """Stop a process for longer than its leases last, and let it go on as if nothing had been."""
        name = self._rng.choice(["index", "embed", "beat", "valkey"])
        pids = self._pids(name)
        length_s = self._rng.choice([2.0, 12.0])
        self._say(f"stop {name} for {length_s:g} s")
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        self._stop.wait(length_s)
        for pid in pids:
            _signal(pid, signal.SIGCONT)

    def _forget(self) -> None:
        self._say("FLUSHALL")
        with suppress(redis.RedisError), redis.Redis(unix_socket_path=str(self._socket), socket_timeout=2) as client:
            client.flushall()

    def _pids(self, name: str) -> list[int]:
        return [pid for pid in _children(self._supervisor) if WORDS[name] in _command(pid)]


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _children(parent: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return []


def _command(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def wait_until(condition: Callable[[], bool], *, timeout_s: float, every_s: float = 0.5) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True
