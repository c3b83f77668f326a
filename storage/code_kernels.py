"""The compiled loops over 1-bit codes: rotate, encode, and scan for the candidates that are worth a look.

After RaBitQ (Gao and Long, SIGMOD 2024, arXiv 2405.12497): a vector less the centre is rotated at random, its signs
are the code, and one factor per row makes the estimated inner product unbiased. Queries are rounded to `QUERY_BITS`
bits per dimension, so that an estimate is a few dozen counts of ones. The rotation is that of the authors' library:
signs and Hadamard transforms of overlapping powers of two, which needs no matrix.

Compiled code is kept as in ``kernels.py``. Nothing here knows segments, filters or files.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from .kernels import Floats, Longs, compiled, prefetch

Codes = NDArray[np.uint64]  # (n, words + 1): the signs, then two float32: the factor, and what is added

QUERY_BITS = 4
ROUNDS = 4
CODES_AHEAD = 32  # codes to ask for in advance; where rows lie apart the hardware does not


def _popcount(_context: Any, word: Any) -> Any:  # noqa: ARG001  numba looks at the name
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


popcount: Any = intrinsic(_popcount)


@compiled()
def _transform(vector: Floats, first: int, size: int) -> None:
    """Apply the normalised Hadamard transform to ``size`` components, a power of two, from ``first`` on."""
    part = vector[first : first + size]
    half = 1
    while half < size:
        for start in range(0, size, 2 * half):
            for i in range(start, start + half):
                one, other = part[i], part[i + half]
                part[i], part[i + half] = one + other, one - other
        half *= 2
    scale = np.float32(1 / np.sqrt(np.float64(size)))
    for i in range(size):
        part[i] *= scale


@compiled()
def rotate(vectors: Floats, signs: Floats) -> None:
    """Rotate vectors f32[n, d] in place; ``d`` is a multiple of 64, ``signs`` f32[ROUNDS, d] is ±1."""
    count, width = vectors.shape
    power = 1
    while 2 * power <= width:
        power *= 2
    half = width // 2
    root = np.float32(np.sqrt(0.5))
    for row in range(count):
        vector = vectors[row]
        for turn in range(signs.shape[0]):
            for i in range(width):
                vector[i] *= signs[turn, i]
            _transform(vector, 0 if turn % 2 == 0 else width - power, power)
            if power < width:
                for i in range(half):
                    one, other = vector[i], vector[i + half]
                    vector[i], vector[i + half] = (one + other) * root, (one - other) * root


@compiled()
def encode(rotated: Floats, centre: Floats, l2: bool, codes: Codes) -> None:
    """Encode rotated vectors f32[n, d], less the rotated centre f32[d], as ``codes`` u64[n, d / 64 + 1], out.

    The cost of a row is estimated as ``added - times * factor * <q - c, signs>``, with `times` 2 under ``l2``, else 1.
    """
    count, width = rotated.shape
    words = width // 64
    pair = np.empty(2, np.float32)
    for row in range(count):
        squares, sizes, along = np.float64(0), np.float64(0), np.float64(0)
        for word in range(words):
            bits = np.uint64(0)
            for i in range(64):
                at = 64 * word + i
                value = rotated[row, at] - centre[at]
                squares += value * value
                sizes += abs(value)
                along += value * centre[at]
                if value > 0:
                    bits |= np.uint64(1) << np.uint64(i)
            codes[row, word] = bits
        pair[0] = np.float32(squares / sizes) if sizes > 0 else np.float32(0)
        pair[1] = np.float32(squares) if l2 else np.float32(-along)
        codes[row, words] = pair.view(np.uint64)[0]


@compiled()
def estimate(
    codes: Codes, factors: Floats, rows: Longs, planes: Codes, numbers: Floats, best: Longs, costs: Floats
) -> int:
    """Find the rows with the lowest estimated costs, in no order.

    Args:
        codes: u64[n, words + 1]; factors: the same bytes as f32[n, 2 * words + 2]; both read-only.
        rows: i64[c], which rows to look at.
        planes: u64[QUERY_BITS, words], the bits of the rounded query.
        numbers: f32[3]: by how much a weighted count of ones, and a count of ones, are multiplied, and what is added.
        best: i64[m], out; costs: f32[m], out: the estimates, less what all rows share.

    Returns:
        How many were found, ``min(m, c)``.
    """
    words, wanted, size, count = codes.shape[1] - 1, len(best), 0, len(rows)
    weight, one, total = numbers[0], numbers[1], numbers[2]
    for position in range(count):
        if position + CODES_AHEAD < count:
            ahead = rows[position + CODES_AHEAD] * (2 * words + 2)
            prefetch(factors, ahead)
            prefetch(factors, ahead + 2 * words + 1)  # most codes lie on two lines
        row = rows[position]
        code = codes[row]
        weighted, ones = np.uint64(0), np.uint64(0)
        for word in range(words):
            bits = code[word]
            ones += popcount(bits)
            weighted += (
                popcount(bits & planes[0, word])
                + (popcount(bits & planes[1, word]) << np.uint64(1))
                + (popcount(bits & planes[2, word]) << np.uint64(2))
                + (popcount(bits & planes[3, word]) << np.uint64(3))
            )
        product = weight * np.float32(weighted) + one * np.float32(ones) + total
        cost = factors[row, 2 * words + 1] - product * factors[row, 2 * words]
        if size < wanted:
            _rise(costs, best, size, cost, row)
            size += 1
        elif cost < costs[0]:
            _sink(costs, best, size, cost, row)
    return size


@compiled()
def _rise(costs: Floats, rows: Longs, size: int, cost: Any, row: int) -> None:
    """Add to a binary heap of ``size`` with the highest cost first."""
    at = size
    while at > 0 and costs[(at - 1) >> 1] < cost:
        parent = (at - 1) >> 1
        costs[at], rows[at] = costs[parent], rows[parent]
        at = parent
    costs[at], rows[at] = cost, row


@compiled()
def _sink(costs: Floats, rows: Longs, size: int, cost: Any, row: int) -> None:
    """Replace the first of that heap."""
    at = 0
    while True:
        child = 2 * at + 1
        if child + 1 < size and costs[child + 1] > costs[child]:
            child += 1
        if child >= size or costs[child] <= cost:
            break
        costs[at], rows[at] = costs[child], rows[child]
        at = child
    costs[at], rows[at] = cost, row


def warm() -> None:
    """Compile every kernel here, or load what was compiled before; see ``kernels.warm``."""
    vectors, signs = np.ones((1, 64), np.float32), np.ones((ROUNDS, 64), np.float32)
    rotate(vectors, signs)
    codes = np.zeros((1, 2), np.uint64)
    encode(vectors, vectors[0], False, codes)
    codes.flags.writeable = False
    planes, numbers = np.zeros((QUERY_BITS, 1), np.uint64), np.zeros(3, np.float32)
    estimate(
        codes,
        codes.view(np.float32),
        np.zeros(1, np.int64),
        planes,
        numbers,
        np.zeros(1, np.int64),
        np.zeros(1, np.float32),
    )
