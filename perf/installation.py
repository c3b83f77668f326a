"""A whole Penstock in a directory of its own, with real processes, to be measured or broken.

Used by the scripts here and by tests/e2e. It reaches the installation as a user does: through the command line and
HTTP.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.client import Penstock

START_S = 120.0
STOP_S = 60.0


class Installation:
    """`penstock up` on a free port. ``settings`` are PENSTOCK_* names without it, as in ``EMBEDDING__MODEL``."""

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        chosen = {f"PENSTOCK_{name}": value for name, value in (settings or {}).items()}
        self.environment = {**clean, "PENSTOCK_DATA_DIR": str(data_dir), "PENSTOCK_API__PORT": "0", **chosen}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        self._url_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "penstock.api.cli", "up"]
            self._process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=self.data_dir.parent
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"penstock up did not become ready; the end of {self.log}:\n{self.tail()}")
            time.sleep(0.1)

    def stop(self) -> int:
        """Stop it as Ctrl-C would and return its exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def kill(self) -> None:
        """Kill the supervisor, and with it everything it started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)

    @property
    def url(self) -> str:
        return self._url_file.read_text().strip()

    @property
    def key(self) -> str:
        return (self.data_dir / "admin.key").read_text().strip()

    @property
    def supervisor_pid(self) -> int:
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    def client(self, tenant: str = "default") -> Penstock:
        return Penstock(self.url, self.key, tenant)

    def penstock(self, *words: str, timeout_s: float = 300.0) -> "subprocess.CompletedProcess[str]":
        """Run a command line against this installation."""
        command = [sys.executable, "-m", "penstock.api.cli", *words]
        environment = {**self.environment, "COLUMNS": "120", "NO_COLOR": "1"}
        return subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=self.data_dir.parent,
        )

    def pids(self, role: str) -> list[int]:
        """Return the main processes of a role, as they report themselves."""
        with self.client() as client:
            return [seen.pid for seen in client.status().roles or [] if seen.role == role]

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    @property
    def _url_file(self) -> Path:
        return self.data_dir / "api.url"

    def _answers(self) -> bool:
        if not self._url_file.exists() or not (self.data_dir / "admin.key").exists():
            return False
        try:
            with self.client() as client:
                return {"chunk", "embed", "index", "beat"} <= {seen.role for seen in client.status().roles or []}
        except Exception:  # noqa: BLE001 whatever it is, it is not ready
            return False
