"""Runs the HTTP interface in this process. Decides nothing: the application is `penstock.api.http.app`."""

import json
import logging
import socket
import sys

import uvicorn

from penstock.settings.model import Log, Settings

from ..supervisor.sockets import listening_socket, url_of

GRACE_S = 5

log = logging.getLogger("penstock.api")


def run(settings: Settings, *, fd: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT. ``fd``: a listening socket that `penstock up` opened.

    Raises:
        StartFailed: the port cannot be listened on.
    """
    from ..http.app import make_app

    configure_log(settings.log)
    listener = socket.socket(fileno=fd) if fd is not None else listening_socket(settings.api.host, settings.api.port)
    config = uvicorn.Config(
        make_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=1024,
    )
    log.info("listening on %s", url_of(listener))
    uvicorn.Server(config).run(sockets=[listener])


class JsonLines(logging.Formatter):
    """One object per line: ``time`` in seconds since 1970, ``level``, ``logger``, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "role": "api",
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class TextLines(logging.Formatter):
    """The same form as the workers' log: time, level, sentence."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_log(settings: Log) -> None:
    """Send this process's log to standard error, once, in place of what was there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name in ("uvicorn.error", "httpx", "alembic"):  # their start-up chatter says nothing that we do not
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
