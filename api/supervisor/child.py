"""One role's process, kept alive until it is told to stop. Knows nothing about the other roles."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from .deaths import told_death
from .logs import LogStream
from .roles import Role

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
HEALTHY_S = 60.0
LONGEST_LINE_BYTES = 64 << 10
PR_SET_PDEATHSIG = 1
NOT_STARTED = 127  # what shells say


def delay_s(failures: int) -> float:
    """Return how long to wait before the start that follows ``failures`` deaths in a row."""
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (failures - 1))


class Child:
    """The processes that fill one role, one after the other.

    ``before_start`` runs before every start, for example to remove what a killed predecessor left.
    """

    def __init__(
        self,
        role: Role,
        *,
        environment: Mapping[str, str],
        log: LogStream,
        pass_fds: Sequence[int] = (),
        before_start: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.role = role
        self.failures = 0
        self.restarts = 0
        self._environment = {**environment, **role.environment}
        self._log = log
        self._pass_fds = tuple(pass_fds)
        self._before_start = before_start
        self._clock = clock
        self._started_at = clock()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._gone = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The running process, None between a death and the next start."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def running_s(self) -> float:
        """How long the running process has lived, 0 when none is running."""
        return 0.0 if self.pid is None else self._clock() - self._started_at

    async def keep(self) -> None:
        """Run the role, again after every death with a growing delay, until `stop`."""
        reading, writing = os.pipe()
        pump = asyncio.create_task(self._pump(reading))
        try:
            while not self._stopping.is_set():
                self._started_at = self._clock()
                status = await self._attempt(writing)
                if self._stopping.is_set():
                    break
                self.failures = 1 if self._clock() - self._started_at >= HEALTHY_S else self.failures + 1
                await self._pause(status)
        finally:
            self._gone.set()
            os.close(writing)
            with suppress(TimeoutError):
                await asyncio.wait_for(pump, 1.0)  # a stray grandchild may hold the pipe open

    async def stop(self, *, grace_s: float, hurry: asyncio.Event) -> None:
        """Ask the process to finish; kill it and all it started after ``grace_s``, or when ``hurry`` is set."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if await _first(self._gone, hurry, timeout_s=grace_s) is self._gone:
            return
        self._log.say(f"{self.role.name} did not stop in time and is killed", level="warning")
        self._signal(signal.SIGKILL)
        await self._gone.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _attempt(self, output: int) -> int:
        try:
            return await self._run(output)
        except OSError as error:
            self._log.line(self.role.name, f"cannot be started: {error or type(error).__name__}")
            return NOT_STARTED

    async def _run(self, output: int) -> int:
        if self._before_start is not None:
            await self._before_start()
        self._process = await asyncio.create_subprocess_exec(
            *self.role.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=self._environment,
            pass_fds=self._pass_fds,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops the roles in order
            preexec_fn=_leash(os.getpid()),
        )
        if self._stopping.is_set():  # asked to stop while it was being started
            self._signal(signal.SIGTERM)
        status = await self._process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # pool processes that outlived their parent
        return status

    async def _pause(self, status: int) -> None:
        wait_s = delay_s(self.failures)
        self._log.say(
            f"{self.role.name} {told_death(status)}; starting it again in {wait_s:g} s",
            level="warning",
            event="restart",
            of=self.role.name,
            status=status,
        )
        self.restarts += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wait_s)

    async def _pump(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        pipe = os.fdopen(descriptor, "rb", 0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        rest = b""
        try:
            while data := await reader.read(LONGEST_LINE_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > LONGEST_LINE_BYTES:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._log.line(self.role.name, line.decode("utf-8", errors="replace").rstrip("\r"))
        finally:
            transport.close()


def _leash(parent: int) -> Callable[[], None] | None:
    """Return what makes a new process die with its parent, where the system can do that."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # found before the fork: afterwards only system calls are safe

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # who is killed leaves nobody to wait for a clean end
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return tie


async def _first(*events: asyncio.Event, timeout_s: float) -> asyncio.Event | None:
    """Return the event that is set first, None when none is in time."""
    waiting = {asyncio.create_task(event.wait()): event for event in events}
    try:
        done, _ = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return next((event for task, event in waiting.items() if task in done), None)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
