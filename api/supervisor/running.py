"""The supervisor itself: start in order, keep alive, stop in order. Decides nothing about documents.

Everything happens in one event loop: children die with the thread that forks them.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

from penstock.settings.keys import local_key
from penstock.settings.model import Settings
from penstock.settings.wiring import embedded_socket, make_data_dir, uses_embedded_server

from .child import Child
from .errors import StartFailed
from .installation import prepare, write_url
from .lock import only_one
from .logs import LogStream
from .queue_server import answers, clear_socket, make_directories, queue_role
from .readiness import Readiness, readiness
from .roles import API, BEAT, FLOWER, QUEUE, STOP_ORDER, Role, role
from .sockets import listening_socket, url_of

READY_S = 180.0
PATIENCE_S = 5.0  # then the operator is told what is missing
FAILURES_AT_START = 3
STEADY_S = 2.0  # without an api to ask, roles that live this long count as started
GRACE_S = {QUEUE: 10.0, BEAT: 5.0, API: 10.0, FLOWER: 5.0}


@dataclass(frozen=True)
class Started:
    """What the operator should know: ``url`` and ``flower_url`` where the roles run, ``admin_key`` when it is new."""

    url: str | None
    flower_url: str | None
    admin_key: str | None


class Supervisor:
    """One installation's processes.

    Args:
        names: the roles to run, as `roles.chosen_roles` returns them.
        environment: of every role; it must lead to the same settings.
        announce: told once, when the addresses and the key are known and before the roles are ready.
        new_key: replaces the admin key.
        role_of: how to start a role; see `roles.role`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        names: Sequence[str],
        environment: Mapping[str, str],
        log: LogStream,
        announce: Callable[[Started], None],
        new_key: str | None = None,
        role_of: Callable[..., Role] = role,
    ) -> None:
        self._settings = settings
        self._names = tuple(names)
        self._environment = environment
        self._log = log
        self._announce = announce
        self._new_key = new_key
        self._role_of = role_of
        self._children: dict[str, Child] = {}
        self._keeping: dict[str, asyncio.Task[None]] = {}

    def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP; a second signal kills what still finishes its work.

        Raises:
            StartFailed: something did not come up; everything has been stopped again.
        """
        with only_one(make_data_dir(self._settings)):
            asyncio.run(self._supervise())

    async def _supervise(self) -> None:
        self._stopping, self._hurry = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        try:
            async with self._listening() as listener:
                await self._unless_stopped(self._start(listener))
                await self._unless_stopped(self._watch())
        finally:
            await self._stop()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            self._hurry.set()
            return
        self._log.say(f"{number.name}: stopping, what is under way is finished first; once more to hurry")
        self._stopping.set()

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[socket | None]:
        api, flower = self._settings.api, self._settings.flower
        if FLOWER in self._names and flower.port:
            listening_socket(flower.host, flower.port, setting="flower").close()
        if API not in self._names:
            yield None
            return
        with closing(listening_socket(api.host, api.port)) as listener:
            yield listener

    async def _start(self, listener: socket | None) -> None:
        began = time.monotonic()
        if uses_embedded_server(self._settings):
            await self._start_queue()
        admin_key = await self._prepared()
        url = url_of(listener) if listener else None
        self._announce(Started(url, self._flower_url(), admin_key))
        if url:
            write_url(self._settings, url)
        for name in self._names:
            socket_fd = listener.fileno() if listener and name == API else None
            started = self._role_of(name, self._settings, socket_fd=socket_fd)
            self._keep(started, pass_fds=[] if socket_fd is None else [socket_fd])
        await self._until_ready(url)
        self._log.say(f"ready in {time.monotonic() - began:.1f} s", event="ready", url=url)

    async def _prepared(self) -> str | None:
        with ThreadPoolExecutor(1) as pool:  # gone before the roles are forked
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, partial(prepare, self._settings, new_key=self._new_key))

    async def _start_queue(self) -> None:
        make_directories(self._settings)
        socket_path = embedded_socket(self._settings)
        server = queue_role(self._settings)
        child = self._keep(server, before_start=lambda: clear_socket(socket_path))
        await self._until(lambda: _answering(socket_path), what=f"the queue server {server.command[0]}", only=[child])

    async def _until_ready(self, url: str | None) -> None:
        if url is None:
            await self._until(self._all_run, what="the roles", only=list(self._children.values()))
        else:
            key = local_key(self._settings)
            await self._until(lambda: readiness(url, key), what="the api", only=list(self._children.values()))

    async def _all_run(self) -> Readiness:
        return Readiness(ready=all(child.running_s >= STEADY_S for child in self._children.values()))

    async def _until(
        self, ask: Callable[[], Coroutine[Any, Any, Readiness]], *, what: str, only: Sequence[Child]
    ) -> None:
        began, said = time.monotonic(), ""
        while not (answer := await ask()).ready:
            waited_s, reasons = time.monotonic() - began, "; ".join(answer.reasons) or "no reason was given"
            broken = next((child for child in only if child.failures >= FAILURES_AT_START), None)
            if broken is not None:
                raise StartFailed(self._last_words(broken.role.name))
            if waited_s > READY_S:
                raise StartFailed(f"{what} is not ready after {READY_S:g} s: {reasons}")
            if waited_s > PATIENCE_S and reasons != said:
                self._log.say(f"waiting for {what}: {reasons}")
                said = reasons
            await asyncio.sleep(0.1)

    def _last_words(self, name: str) -> str:
        said = "\n".join(f"  {line}" for line in self._log.last_lines(name)[-8:]) or "  (nothing)"
        advice = ""
        if name == QUEUE:
            advice = f"\nnothing is lost by removing {self._settings.data_dir / 'valkey'}: the catalog knows all work"
        return f"{name} ended {FAILURES_AT_START} times while starting. Its last words:\n{said}{advice}"

    def _keep(self, started: Role, **options: Any) -> Child:
        child = Child(started, environment=self._environment, log=self._log, **options)
        self._children[started.name] = child
        self._keeping[started.name] = asyncio.create_task(child.keep(), name=started.name)
        return child

    async def _watch(self) -> None:
        """Wait for a defect: a task that keeps a role only ends when it is told to."""
        done, _ = await asyncio.wait(self._keeping.values(), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` until it ends, or a signal says stop."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stopping.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
        await asyncio.gather(stop, return_exceptions=True)
        try:
            await task
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise

    async def _stop(self) -> None:
        if self._children:
            write_url(self._settings, "")
        for tier in STOP_ORDER:
            children = [self._children[name] for name in tier if name in self._children]
            await asyncio.gather(*(self._stop_child(child) for child in children))
        await asyncio.gather(*self._keeping.values(), return_exceptions=True)
        if self._children:
            self._log.say("stopped", event="stopped")

    async def _stop_child(self, child: Child) -> None:
        grace_s = GRACE_S.get(child.role.name, self._settings.workers.grace_s)
        await child.stop(grace_s=grace_s, hurry=self._hurry)

    def _flower_url(self) -> str | None:
        flower = self._settings.flower
        return f"http://{flower.host}:{flower.port}" if FLOWER in self._names else None


async def _answering(socket_path: Path) -> Readiness:
    return Readiness(ready=await answers(socket_path), reasons=("it does not answer",))
