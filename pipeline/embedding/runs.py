"""How many texts a local model is given at once: such of similar length, so that little is padding. Knows no model."""

import numpy as np
import numpy.typing as npt


def runs(lengths: npt.NDArray[np.int64], limit_tokens: int) -> list[list[int]]:
    """Return rows of similar length together, longest first, as many as fit into ``limit_tokens`` when padded."""
    order = np.argsort(-lengths, kind="stable").tolist()
    found: list[list[int]] = []
    at = 0
    while at < len(order):
        count = max(1, limit_tokens // max(1, int(lengths[order[at]])))
        found.append(order[at : at + count])
        at += count
    return found
