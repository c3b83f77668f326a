"""What the command line answers when something fails: an exit code for scripts and a sentence for people."""

import json
import sys
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes. They are part of the interface: README and `penstock --help` name them."""

    OK = 0
    ERROR = 1
    USAGE = 2
    DOCUMENTS_FAILED = 3
    UNREACHABLE = 4
    TIMED_OUT = 5
    INTERRUPTED = 130


EPILOG = (
    "Exit codes: 0 done, 1 error, 2 wrong usage, 3 some documents failed, 4 server unreachable, 5 waited too long, "
    "130 interrupted. PENSTOCK_DEBUG=1 shows where an error came from."
)


class UsageError(Exception):
    """Raised when arguments contradict each other or name what is not there."""


def report(error: Exception, *, as_json: bool) -> int:
    """Write ``error`` to standard error and return the exit code."""
    code, message = _code(error), _message(error)
    if as_json:
        body = {"code": code.name.lower(), "message": message} | _told_by_the_server(error)
        print(json.dumps({"error": body}), file=sys.stderr)  # noqa: T201
    else:
        print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return code


def _code(error: Exception) -> ExitCode:
    from penstock.client.errors import Busy, Invalid, Unreachable
    from penstock.settings.errors import InvalidSettings

    if isinstance(error, Unreachable):
        return ExitCode.UNREACHABLE
    if isinstance(error, UsageError | InvalidSettings | Invalid):
        return ExitCode.USAGE
    if isinstance(error, Busy) and error.code == "still_running":
        return ExitCode.TIMED_OUT
    return ExitCode.ERROR


def _told_by_the_server(error: Exception) -> dict[str, str]:
    """Return the server's own code, and the field that is wrong: programs are told here what HTTP would tell them."""
    from penstock.client.errors import ClientError

    told = {"code": error.code, "param": error.param} if isinstance(error, ClientError) else {}
    return {name: word for name, word in told.items() if word}


def _message(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if _expected(error) else f"unexpected {type(error).__name__}: {text} (PENSTOCK_DEBUG=1 shows where)"


def _expected(error: Exception) -> bool:
    from penstock.client.errors import ClientError
    from penstock.settings.errors import SettingsError

    if isinstance(error, UsageError | ClientError | SettingsError | OSError):
        return True
    # Only commands that run on this machine raise these; then their modules are loaded already.
    names = {"StorageError", "PipelineError", "StartFailed", "ApiError"}
    return any(base.__name__ in names and base.__module__.startswith("penstock.") for base in type(error).__mro__)
