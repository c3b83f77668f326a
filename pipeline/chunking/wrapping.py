"""Tells lines broken by a fixed width, as in mail and old text files, from lines that mean something. Cuts nothing."""

import numpy as np
import numpy.typing as npt

from .tokens import Ints

_FIRST: Ints = np.zeros(1, np.int64)
_MIN_LINES = 3
_MIN_WIDTH = 40
_MIN_SMALL = 0.5  # share of lines that go on with a small letter


def wrapped_lines(starts: Ints, ends: Ints, lines: Ints, begins_small: npt.NDArray[np.bool_]) -> Ints:
    """Return the words whose single line break before them is no break: only a fixed width put it there.

    ``lines``: the line ends before each word; two or more separate paragraphs. A paragraph is wrapped if the first word
    of every next line would not have fitted the width any more, and half of its lines go on in small letters.
    """
    heads = np.flatnonzero(lines)
    if len(heads) < _MIN_LINES - 1 or not begins_small[heads].any():
        return heads[:0]
    if heads[0] != 0:
        heads = np.concatenate((_FIRST, heads))
    begins = lines[heads] != 1
    begins[0] = True
    paragraphs = np.flatnonzero(begins)
    count = np.concatenate((paragraphs[1:], [len(heads)])) - paragraphs
    small = np.add.reduceat(begins_small[heads] & ~begins, paragraphs, dtype=np.int64) >= _MIN_SMALL * (count - 1)
    maybe = small & (count >= _MIN_LINES)
    if not maybe.any():
        return heads[:0]
    wrapped = maybe & np.logical_and.reduceat(_full(starts, ends, heads, paragraphs, count), paragraphs)
    soft: Ints = heads[np.repeat(wrapped, count) & ~begins]
    return soft


def _full(starts: Ints, ends: Ints, heads: Ints, paragraphs: Ints, count: Ints) -> npt.NDArray[np.bool_]:
    """Return for each line whether the next line's first word had no room in it, by the width of their paragraph."""
    after = heads[1:]
    widths = np.concatenate((ends[after - 1], ends[-1:])) - starts[heads]
    width = np.maximum(np.maximum.reduceat(widths, paragraphs), _MIN_WIDTH)
    full = np.ones(len(heads), bool)
    full[:-1] = widths[:-1] + 1 + ends[after] - starts[after] > np.repeat(width, count)[:-1]
    full[paragraphs[1:] - 1] = True  # nothing follows a paragraph's last line
    return full
