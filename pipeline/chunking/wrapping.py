"""Tells lines broken by a fixed width, as in mail and old text files, from lines that mean something. Cuts nothing."""

import numpy as np
import numpy.typing as npt

from .tokens import Ints

_MIN_LINES = 3
_MIN_WIDTH = 40
_MIN_SMALL = 0.5  # share of lines that go on with a small letter


def is_wrapped(starts: Ints, ends: Ints, heads: Ints, begins_small: npt.NDArray[np.bool_]) -> bool:
    """Return whether only a fixed width broke the lines of one paragraph.

    That is: the first word of every next line would not have fitted the width any more, and half of the lines go on in
    small letters. ``starts``, ``ends``: the paragraph's words, in characters; ``heads``: those that begin a line, the
    first of the paragraph left out; ``begins_small``: for each of ``heads``.
    """
    if len(heads) < _MIN_LINES - 1 or begins_small.mean() < _MIN_SMALL:
        return False
    firsts = np.concatenate((heads[:1] * 0, heads))
    lasts = np.concatenate((heads - 1, [len(starts) - 1]))
    widths = ends[lasts] - starts[firsts]
    wanted = widths[:-1] + 1 + ends[heads] - starts[heads]
    return bool((wanted > max(int(widths.max()), _MIN_WIDTH)).all())
