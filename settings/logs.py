"""What every process writes to standard error: a line per event, a sentence and its ids. Never text or keys."""

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from .model import Log

IDS = (
    *("tenant", "collection", "generation", "job", "jobs", "batch", "batches", "document", "shard", "version"),
    "delivery",
)
LOUD = (  # what they say at level info, ours say better
    *("celery.app.trace", "celery.worker.strategy", "celery.redirected", "celery.beat", "kombu", "tornado.access"),
    *("uvicorn.error", "httpx", "httpx2", "alembic"),  # httpx2: of the openai package since 3
)


class TextFormatter(logging.Formatter):
    """``time level sentence  key=value …`` for people."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.getMessage()}"
        ids = " ".join(f"{key}={value}" for key, value in _ids(record).items())
        return _with_traceback(self, record, f"{line}  {ids}" if ids else line)


class JsonFormatter(logging.Formatter):
    """One object per line for programs: ``time`` in seconds since 1970, ``level``, ``role``, ``message``, ids."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": record.getMessage(),
            **_ids(record),
        }
        if action := record.__dict__.get("action"):  # the event's name, which stays when its sentence changes
            entry["action"] = action
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(log: Log, *, role: str) -> None:
    """Send this process's log to standard error as the settings say, once, in place of what was there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role) if log.format == "json" else TextFormatter())
    if log.level != "debug":
        handler.addFilter(_without_traceback)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(log.level.upper())
    for name in LOUD:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def log_failure(log: logging.Logger, sentence: str, error: BaseException, *, extra: Mapping[str, Any]) -> None:
    """Log an error nobody expected: its kind and place. Its traceback passes at level debug only."""
    log.error("%s: %s.", sentence, failed_at(error), exc_info=error, extra=dict(extra))


def failed_at(error: BaseException) -> str:
    """Return an error's kind and place. Its own message stays out: it may quote a tenant's text."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def _without_traceback(record: logging.LogRecord) -> bool:
    """Put an error's place for its traceback, whose last line quotes the error, and an error may quote a text."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and failed_at(error) not in record.getMessage():
        record.msg, record.args = f"{record.getMessage()} ({failed_at(error)})", ()
    record.exc_info = record.exc_text = None
    return True


def _ids(record: logging.LogRecord) -> dict[str, Any]:
    return {key: record.__dict__[key] for key in IDS if record.__dict__.get(key) is not None}


def _with_traceback(formatter: logging.Formatter, record: logging.LogRecord, line: str) -> str:
    return f"{line}\n{formatter.formatException(record.exc_info)}" if record.exc_info else line
