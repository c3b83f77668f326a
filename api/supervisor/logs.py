"""One log out of many processes: every line with its role, coloured for people or as JSON for programs."""

import json
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

KEPT_LINES = 20
UP = "up"
COLOURS = {
    UP: "1",
    "api": "36",
    "chunk": "33",
    "embed": "35",
    "express": "95",
    "index": "32",
    "search": "34",
    "maintenance": "90",
    "beat": "90",
    "valkey": "31",
    "flower": "95",
}
WIDTH = max(len(name) for name in COLOURS)
# "123:M 01 Jan 2026 10:11:12.345 # text": who, when, how loud, what.
VALKEY_LINE = re.compile(r"^\d+:\w (?:\d+ \w+ \d{4} )?(?P<time>[\d:]+)\.\d+ (?P<level>[.\-*#]) (?P<text>.*)$")
VALKEY_NOISE = ("overcommit", "ready to exit")


class LogStream:
    """Writes to one stream and remembers the last lines of every role. Never fails when nobody reads any more."""

    def __init__(
        self, stream: TextIO, *, as_json: bool, coloured: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._stream = stream
        self._as_json = as_json
        self._coloured = coloured and not as_json
        self._clock = clock
        self._last: dict[str, deque[str]] = {}

    def last_lines(self, role: str) -> list[str]:
        return list(self._last.get(role, ()))

    def line(self, role: str, text: str) -> None:
        """Write one line of a role's own output."""
        self._last.setdefault(role, deque(maxlen=KEPT_LINES)).append(text)
        shown = _valkey_text(text) if role == "valkey" else text
        if shown is None or not shown.strip():
            return
        if self._as_json:
            self._write(json.dumps({"role": role, **self._entry(shown)}, ensure_ascii=False))
        else:
            self._write(f"{self._prefix(role)} {shown}")

    def say(self, message: str, *, level: str = "info", **facts: Any) -> None:
        """Write one sentence of the supervisor's own; ``facts`` are for programs."""
        if self._as_json:
            entry = {"role": UP, "time": round(self._clock(), 3), "level": level, "message": message, **facts}
            self._write(json.dumps(entry, ensure_ascii=False))
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(self._clock()))
            self._write(f"{self._prefix(UP)} {clock} {level:7} {message}")

    def _prefix(self, role: str) -> str:
        name = f"{role:<{WIDTH}} │"
        return f"\x1b[{COLOURS.get(role, '0')}m{name}\x1b[0m" if self._coloured else name

    def _entry(self, text: str) -> dict[str, Any]:
        if text.startswith("{"):
            try:
                entry = json.loads(text)
            except ValueError:
                entry = None
            if isinstance(entry, dict):
                return entry
        return {"time": round(self._clock(), 3), "level": "info", "message": text}

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # the reader of a pipe went away: the installation goes on without it
            pass


def _valkey_text(line: str) -> str | None:
    """Return a line of the queue's server in our own form, or None when it says nothing an operator can use."""
    matched = VALKEY_LINE.match(line)
    if matched is None:
        return None if "signal-handler" in line else line
    if matched["level"] != "#" or any(word in matched["text"] for word in VALKEY_NOISE):
        return None
    return f"{matched['time']} warning {matched['text']}"
