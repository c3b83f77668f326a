"""What a tenant's collection may show: everything that was asked for, in order, and how far it was seen to have come.

Plain Python, no storage. Safe between the thread that asks and those that look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

Chunk = tuple[int, int, str, str | None]  # start, end, text, title


@dataclass(frozen=True)
class Value:
    """What a document says: None is a document that is not there."""

    text: str
    title: str | None

    def is_shown_by(self, chunks: Sequence[Chunk]) -> bool:
        """Say whether these are all chunks of the text, each once, under the title."""
        reached = 0
        starts = set()
        for start, end, text, title in sorted(chunks):
            if self.text[start:end] != text or title != self.title or start in starts:
                return False
            if self.text[reached:start].strip():
                return False
            starts.add(start)
            reached = max(reached, end)
        return bool(chunks) and not self.text[reached:].strip()


@dataclass
class History:
    """The values of one source, oldest first. What was seen once is never followed by an older one.

    ``promised``: so far has a finished job come, for searches that wait for its token.
    """

    values: list[Value | None] = field(default_factory=lambda: [None])
    seen: int = 0
    promised: int = 0


class TenantModel:
    """One tenant. The one who asks calls `ask` before each request, once per value."""

    def __init__(self) -> None:
        self._histories: dict[str, History] = {}
        self._lock = Lock()

    def ask(self, source: str, value: Value | None) -> int:
        """Note that this is being asked for. From now on it may show; the one before still may too."""
        with self._lock:
            history = self._histories.setdefault(source, History())
            history.values.append(value)
            return len(history.values) - 1

    def done(self, source: str, number: int) -> None:
        """Note that a finished job has brought this value: who waits for its token must not see an older one."""
        with self._lock:
            history = self._histories[source]
            history.promised = max(history.promised, number)

    def all_done(self) -> None:
        """Note that nothing is on its way any more: only the newest values may show."""
        with self._lock:
            for history in self._histories.values():
                history.promised = len(history.values) - 1

    def newest(self) -> dict[str, Value | None]:
        with self._lock:
            return {source: history.values[-1] for source, history in self._histories.items()}

    def floors(self, *, promised: bool) -> dict[str, int]:
        """Return how far each source has come, to be asked for before looking; ``promised``: as jobs say."""
        with self._lock:
            return {
                source: max(history.seen, history.promised if promised else 0)
                for source, history in self._histories.items()
            }

    def check(self, found: Mapping[str, Sequence[Chunk]], *, floors: Mapping[str, int]) -> list[str]:
        """Say what is wrong with what a search found that began when the sources had come as far as ``floors``."""
        with self._lock:
            wrong = [f"{source} was never asked for" for source in found.keys() - self._histories.keys()]
            for source, history in self._histories.items():
                chunks, floor = found.get(source), floors.get(source, 0)
                allowed = range(floor, len(history.values))
                matching = [number for number in allowed if _shows(history.values[number], chunks)]
                if matching:
                    history.seen = max(history.seen, matching[0])
                else:
                    wrong.append(f"{source}: {_told(chunks)}; allowed are {_allowed(history, floor)}")
            return wrong


def _shows(value: Value | None, chunks: Sequence[Chunk] | None) -> bool:
    return chunks is None if value is None else chunks is not None and value.is_shown_by(chunks)


def _told(chunks: Sequence[Chunk] | None) -> str:
    if chunks is None:
        return "it is not searchable"
    return "found " + ", ".join(f"[{start}:{end}] {text[:50]!r} of {title!r}" for start, end, text, title in chunks)


def _allowed(history: History, floor: int) -> str:
    told = [None if value is None else (value.text[:50], value.title) for value in history.values[floor:]]
    return f"versions {floor} to {len(history.values) - 1}: {told}"
