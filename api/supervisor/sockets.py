"""The api's listening socket, opened by the supervisor and inherited by the api process.

A port in use is found before anything starts, and while the api restarts its callers wait instead of being refused.
"""

import errno
import socket

from .errors import StartFailed

BACKLOG = 1024


def listening_socket(host: str, port: int, *, setting: str = "api") -> socket.socket:
    """Return a socket that listens on ``host`` and ``port``; 0 takes a free port.

    Raises:
        StartFailed: the port is in use, not allowed, or the host is not this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(found[0], socket.SOCK_STREAM)
    except OSError as error:
        raise StartFailed(f"{setting}.host {host!r} is not an address of this machine: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[4])
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartFailed(_refusal(host, port, setting, error)) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL under which this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 comparing, not binding
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refusal(host: str, port: int, setting: str, error: OSError) -> str:
    variable = f"PENSTOCK_{setting.upper()}__PORT"
    flag = "--port or " if setting == "api" else ""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program; choose another with {flag}{variable}"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; choose one above 1023 with {flag}{variable}"
    return f"cannot listen on {host} port {port}: {error.strerror}; see {setting}.host and {setting}.port"
