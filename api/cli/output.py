"""How results are written: tables and sentences for people, one JSON value for programs. Notes go to standard error."""

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 120  # a pipe has no width of its own
IDS = ("document", "job", "webhook", "schedule")  # columns of ids, to be copied from a table
LEAST_SHOWN_USD = 0.000001

STATE_STYLES = {
    "indexed": "green",
    "done": "green",
    "deleted": "green",
    "trimmed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
}


class Page(Protocol):
    """What lists of the server have in common: the next page begins after ``last_id``."""

    @property
    def data(self) -> Sequence[Any]: ...
    @property
    def has_more(self) -> bool: ...
    @property
    def last_id(self) -> str | None: ...


def console(*, stderr: bool = False) -> "Console":
    """Return where to write: colours and the width of the terminal if it is one."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, emoji=False)


def print_json(value: "BaseModel | Sequence[BaseModel] | dict[str, Any] | list[Any]") -> None:
    """Write one JSON value to standard output. Bytes of a file's name that are no UTF-8 are written as U+FFFD."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, default=str)
    sys.stdout.write(text.encode(errors="surrogateescape").decode(errors="replace") + "\n")


def table(*columns: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> "Table":
    """Return an empty table; the columns named in ``right`` hold numbers, those in ``whole`` are not broken."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["right", "left"] = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    return made


def print_page(rows: "Table", page: Page, *, empty: str) -> None:
    """Write the rows of a page and how to see the next one, or ``empty`` when it has none."""
    out = console()
    out.print(rows if page.data else empty)
    if page.has_more:
        out.print(f"[dim]more: --after {page.last_id}[/]")


def plain(text: str | None) -> str:
    """Return text from outside so that it is shown as it is: not as markup, without control characters."""
    from rich.markup import escape

    return escape("".join(char if char.isprintable() or char == "\n" else " " for char in text or ""))


def state(word: str) -> str:
    """Return a state's word in its colour."""
    style = STATE_STYLES.get(word)
    return f"[{style}]{word}[/]" if style else word


def when(at: float | None) -> str:
    """Return a time as this machine's clock shows it."""
    if at is None:
        return "-"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):  # no year that this machine can show
        return f"{at:g} s after 1970"


def duration(seconds: float | None) -> str:
    """Return seconds as a person would say them."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def money(usd: float) -> str:
    """Return an amount of US dollars, small ones with the digits that matter."""
    if 0 < usd < LEAST_SHOWN_USD:
        return f"under ${LEAST_SHOWN_USD:.6f}"
    return f"${usd:,.2f}" if usd >= 1 or not usd else f"${usd:.6f}".rstrip("0")


def size(size_bytes: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def count(number: int, noun: str) -> str:
    """Return ``1 document``, ``2,000 documents``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def by_state(counts: dict[str, int]) -> str:
    """Return counts by state, without the zeros."""
    return ", ".join(f"{number:,} {state(word)}" for word, number in counts.items() if number) or "-"


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
