"""What the command line answers when something fails: an exit code for scripts and a sentence for people."""

import json
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum
from itertools import takewhile
from typing import Any


class ExitCode(IntEnum):
    """Exit codes. They are part of the interface: README and `penstock --help` name them."""

    OK = 0
    ERROR = 1
    USAGE = 2
    DOCUMENTS_FAILED = 3
    FINDINGS = 3  # what a person should see to, likewise
    UNREACHABLE = 4
    TIMED_OUT = 5
    INTERRUPTED = 130


EPILOG = (
    "Exit codes: 0 done, 1 error, 2 wrong usage, 3 some documents failed, or `penstock doctor` or "
    "`penstock shadow` found something, "
    "4 server unreachable, 5 waited too long, 130 interrupted. PENSTOCK_DEBUG=1 shows where an error came from."
)


class UsageError(Exception):
    """Raised when arguments contradict each other or name what is not there."""


def need_consent(to: str, *, given: bool, as_json: bool) -> None:
    """Raise UsageError where nobody can be asked and consent was not ``given``. ``to``: what for."""
    if as_json and not given:
        raise UsageError(f"--json asks nobody: add --yes to {to}")


class Unfinished(Exception):
    """Raised when a command ends before the work that it began, because of ``cause``.

    ``so_far`` is what programs are told beside the error, so that they can go on from there.
    """

    def __init__(self, message: str, *, cause: BaseException, so_far: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.cause = cause
        self.so_far = so_far


def wants_json(words: Sequence[str]) -> bool:
    """Return whether the words of a command line ask for JSON, also where they cannot be understood otherwise."""
    return "--json" in takewhile(lambda word: word != "--", words)


def report(error: BaseException, *, as_json: bool) -> int:
    """Write ``error`` to standard error and return the exit code."""
    cause = error.cause if isinstance(error, Unfinished) else error
    code, message = _code(cause), _message(error)
    if as_json:
        body = {"code": code.name.lower(), "message": message} | _told_by_the_server(cause)
        so_far = error.so_far if isinstance(error, Unfinished) else {}
        print(json.dumps({"error": body, **so_far}, default=str), file=sys.stderr)  # noqa: T201
    elif is_typers(error):
        error.show()  # type: ignore[attr-defined] # with the usage of the command above it
    elif code is ExitCode.INTERRUPTED:
        print(f"\n{message}" if sys.stderr.isatty() else message, file=sys.stderr)  # noqa: T201 a terminal shows ^C
    else:
        print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return code


def report_interrupt(words: Sequence[str]) -> int:
    """Write that Ctrl-C came before the command had anything to say of its own, and return the exit code."""
    message = "interrupted: nothing was submitted" if words[:1] == ["ingest"] else "interrupted"
    return report(KeyboardInterrupt(message), as_json=wants_json(words))


def is_typers(error: BaseException) -> bool:
    """Return whether Typer found fault with the command line. The class is Click's or its own, by its release."""
    return hasattr(error, "format_message")


def _code(error: BaseException) -> ExitCode:
    from penstock.client.errors import Busy, Invalid, Unreachable
    from penstock.settings.errors import InvalidSettings

    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, Unreachable):
        return ExitCode.UNREACHABLE
    if isinstance(error, UsageError | InvalidSettings | Invalid) or is_typers(error):
        return ExitCode.USAGE
    if isinstance(error, Busy) and error.code == "still_running":
        return ExitCode.TIMED_OUT
    return ExitCode.ERROR


def _told_by_the_server(error: BaseException) -> dict[str, str]:
    """Return the server's own code, and the field that is wrong: programs are told here what HTTP would tell them."""
    from penstock.client.errors import ClientError

    told = {"code": error.code, "param": error.param} if isinstance(error, ClientError) else {}
    return {name: word for name, word in told.items() if word}


def _message(error: BaseException) -> str:
    from typer import Abort

    from penstock.client.errors import ClientError

    if is_typers(error):
        return _words_of_typer(error)
    if isinstance(error, Abort):
        return "aborted"
    if isinstance(error, ClientError):
        from .advice import in_commands

        return in_commands(str(error))
    text = str(error) or type(error).__name__
    setting = getattr(error, "setting", None)  # of a provider that cannot work as configured: it is always named
    text = f"{setting}: {text}" if setting and setting not in text else text
    return text if _expected(error) else f"unexpected {type(error).__name__}: {text} (PENSTOCK_DEBUG=1 shows where)"


def _words_of_typer(error: Any) -> str:
    context, message = getattr(error, "ctx", None), " ".join(error.format_message().split()).rstrip(".")
    return f"{message}; see: {context.command_path} --help" if context is not None else message


def _expected(error: BaseException) -> bool:
    from penstock.settings.errors import SettingsError

    if isinstance(error, UsageError | Unfinished | SettingsError | OSError | KeyboardInterrupt):
        return True
    # Only commands that run on this machine raise these; then their modules are loaded already.
    names = {"StorageError", "PipelineError", "StartFailed", "ApiError"}
    return any(base.__name__ in names and base.__module__.startswith("penstock.") for base in type(error).__mro__)
