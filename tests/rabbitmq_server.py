"""A private RabbitMQ for tests: one node in a folder of its own, with its own name server, gone at the end."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from kombu import Connection

START_S = 90.0
PLACES = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin")  # a wrapper on PATH may insist on its user


class NoRabbitMQ(Exception):
    """Raised when no server can be started here; says why."""


class RabbitMQServer:
    """One node. When stopped and started again it has what was durable."""

    def __init__(self) -> None:
        found = shutil.which("rabbitmq-server", path=os.pathsep.join(PLACES)) or shutil.which("rabbitmq-server")
        names = shutil.which("epmd")
        if found is None or names is None:
            raise NoRabbitMQ("rabbitmq-server and epmd (of Erlang) are not installed")
        self._program = found
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-mq-"))
        port, distribution, name_port = _free_port(), _free_port(), _free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        node = {
            "RABBITMQ_NODENAME": f"penstock-{secrets.token_hex(4)}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "none"),
            "ERL_EPMD_PORT": str(name_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "HOME": str(self._folder),
        }
        self._environment = {**os.environ, **node}
        self._names = subprocess.Popen([names, "-port", str(name_port)], env=self._environment)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                told = (self._folder / "log").read_text(errors="replace")[-2000:]
                self.close()
                raise NoRabbitMQ(f"RabbitMQ did not start: {told}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Kill the node, as a crash would."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        self._names.kill()
        self._names.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
