"""Runs the HTTP interface in this process. Decides nothing: the application is `penstock.api.http.app`."""

import logging
import socket

import uvicorn

from penstock.settings import logs
from penstock.settings.model import Settings

from ..supervisor.sockets import listening_socket, url_of

GRACE_S = 5

log = logging.getLogger("penstock.api")


def run(settings: Settings, *, fd: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT. ``fd``: a listening socket that `penstock up` opened.

    Raises:
        StartFailed: the port cannot be listened on.
    """
    from ..http.app import make_app

    logs.configure(settings.log, role="api")
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
