"""Vectors of length one. Knows no model."""

import numpy as np

from ..errors import InputRejected, ProviderUnavailable
from .embedder import Vectors


def unit_rows(vectors: Vectors) -> Vectors:
    """Return float32[n, d] with every row scaled to length one; it may be ``vectors`` itself, changed.

    Raises:
        ProviderUnavailable: a value is not finite, which no text should bring about.
        InputRejected: a row is zero and so has no direction.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not np.isfinite(lengths).all():
        raise ProviderUnavailable("The model returned vectors that are not numbers.")
    empty = np.flatnonzero(lengths < np.finfo(np.float32).tiny)
    if len(empty):
        raise InputRejected("The model finds nothing in this text that it knows.", index=int(empty[0]))
    vectors /= lengths[:, None]
    return vectors
