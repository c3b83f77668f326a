"""Numbers as a sentence says them: how many there are of something, and which versions are meant. Words only."""

from collections.abc import Iterable, Sequence

SHOWN = 5  # runs of versions; whoever has more that are damaged needs no list of them


def counted(number: int, noun: str) -> str:
    """Return ``1 document``, ``2,000 documents``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def numbered(versions: Iterable[int]) -> str:
    """Return ``version 60``, ``versions 12-60``, ``versions 3, 7-9 and 12``: ascending, without gaps between two ends.

    Of more than `SHOWN` such runs only the first are named, and the rest are counted.
    """
    runs = _runs(sorted({*versions}))
    shown = [f"{first}-{last}" if last > first else str(first) for first, last in runs[:SHOWN]]
    if left := sum(last - first + 1 for first, last in runs[SHOWN:]):
        shown.append(f"{left:,} more")
    listed = " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
    return f"{'version' if _is_one(runs) else 'versions'} {listed}"


def _is_one(runs: Sequence[tuple[int, int]]) -> bool:
    return len(runs) == 1 and runs[0][0] == runs[0][1]


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of numbers that follow each other."""
    starts = [at for at, number in enumerate(numbers) if not at or number - numbers[at - 1] > 1]
    ends = [*starts[1:], len(numbers)]
    return [(numbers[start], numbers[end - 1]) for start, end in zip(starts, ends, strict=True)]
