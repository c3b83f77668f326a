"""The compiled loops over 1-bit codes: rotate, encode, and scan for the candidates that are worth a look.

After RaBitQ (Gao and Long, SIGMOD 2024, arXiv 2405.12497): a vector less the centre is rotated at random, its signs
are the code, and one factor per row makes the estimated inner product unbiased. Queries are rounded to `QUERY_BITS`
bits per dimension, so that an estimate is a few dozen counts of ones. The rotation is that of the authors' library:
signs and Hadamard transforms of overlapping powers of two, which needs no matrix.

Compiled code is kept as in ``kernels.py``. Nothing here knows segments, filters or files.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kernels import LINE, Bools, Floats, Longs, bits_of, compiled, lowest, popcount, prefetch_far

Codes = NDArray[np.uint64]  # (n, words + 1): signs, then two float32

QUERY_BITS = 4
ROUNDS = 4
LANES = 4  # words that a processor counts at once: as many, or a multiple, cost little more than one
MARKED_AHEAD = 512  # rows whose heads are asked for in advance
CODES_AHEAD = 64  # codes to ask for in advance; where rows lie apart the hardware does not


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
def encode(rotated: Floats, centre: Floats, l2: bool, heads: Codes, tails: Codes) -> None:
    """Encode rotated vectors f32[n, d], less the rotated centre f32[d].

    The cost of a row is estimated as ``added - times * factor * <q - c, signs>``, with `times` 2 under ``l2``, else 1.
    The factor beside the head stands for the whole vector where only the head's signs are counted.

    Args:
        heads: u64[n, h + 1], out: the first 64 h signs, the head's factor, and what is added.
        tails: u64[n, t + 1], out: the other signs, and the factor of them all.
    """
    count, width = rotated.shape
    head = heads.shape[1] - 1
    pair = np.empty(2, np.float32)
    for row in range(count):
        squares, sizes, along = np.float64(0), np.float64(0), np.float64(0)
        head_squares, head_sizes = np.float64(0), np.float64(0)
        for word in range(width // 64):
            bits = np.uint64(0)
            for i in range(64):
                at = 64 * word + i
                value = rotated[row, at] - centre[at]
                squares += value * value
                sizes += abs(value)
                along += value * centre[at]
                if value > 0:
                    bits |= np.uint64(1) << np.uint64(i)
            if word < head:
                heads[row, word] = bits
            else:
                tails[row, word - head] = bits
            if word == head - 1:
                head_squares, head_sizes = squares, sizes
        share = width / (64.0 * head)
        pair[0] = np.float32(share * head_squares / head_sizes) if head_sizes > 0 else np.float32(0)
        pair[1] = np.float32(squares) if l2 else np.float32(-along)
        heads[row, head] = pair.view(np.uint64)[0]
        pair[0] = np.float32(squares / sizes) if sizes > 0 else np.float32(0)
        pair[1] = np.float32(0)
        tails[row, tails.shape[1] - 1] = pair.view(np.uint64)[0]


@compiled()
def encode_query(
    rotated: Floats, times: Any, head: int, head_planes: Codes, tail_planes: Codes, numbers: Floats
) -> None:
    """Round a rotated query, less the rotated centre, to `QUERY_BITS` bits per dimension.

    Args:
        rotated: f32[width]; times: 2 under l2, else 1.
        head: words of a head.
        head_planes, tail_planes: u64[QUERY_BITS + 1, ≥ words], out, zeros: a bit of every dimension in each, and in the
            last which bits of a code count. They may be wider than a code has words: what follows does not count.
        numbers: f32[4], out: see `estimate_heads`.
    """
    width, low, high = len(rotated), rotated.min(), rotated.max()
    step = (high - low) / np.float32(2**QUERY_BITS - 1)
    if not step > 0:
        step = np.float32(1)
    total, head_total = np.float32(0), np.float32(0)
    for i in range(width):
        level = np.uint64((rotated[i] - low) / step + np.float32(0.5))
        planes, word = (head_planes, i // 64) if i < 64 * head else (tail_planes, i // 64 - head)
        for bit in range(QUERY_BITS):
            planes[bit, word] |= (level >> np.uint64(bit) & np.uint64(1)) << np.uint64(i % 64)
        planes[QUERY_BITS, word] |= np.uint64(1) << np.uint64(i % 64)
        total += np.float32(level)
        if i == 64 * head - 1:
            head_total = total
    numbers[0], numbers[1] = 2 * times * step, 2 * times * low
    numbers[2] = -times * (step * head_total + low * np.float32(64 * head))
    numbers[3] = -times * (step * total + low * np.float32(width))


@compiled(inline=True)
def _product(code: Any, planes: Codes, numbers: Floats) -> Any:
    """Return the inner product of the rounded query with these signs, less what the caller adds once."""
    weighted, ones = np.uint64(0), np.uint64(0)
    for word in range(planes.shape[1]):
        bits = code[word]
        ones += popcount(bits & planes[4, word])
        weighted += (
            popcount(bits & planes[0, word])
            + (popcount(bits & planes[1, word]) << np.uint64(1))
            + (popcount(bits & planes[2, word]) << np.uint64(2))
            + (popcount(bits & planes[3, word]) << np.uint64(3))
        )
    return numbers[0] * np.float32(weighted) + numbers[1] * np.float32(ones)


@compiled(inline=True)
def _head_cost(heads: Codes, factors: Floats, row: int, planes: Codes, numbers: Floats) -> Any:
    factor = factors.shape[1] - 2
    product = _product(heads[row], planes, numbers) + numbers[2]
    return factors[row, factor + 1] - product * factors[row, factor]


@compiled()
def estimate_heads(
    heads: Codes, factors: Floats, rows: Longs, planes: Codes, numbers: Floats, limit: Any, best: Longs, costs: Floats
) -> int:
    """Find the rows whose heads let expect costs up to ``limit``, in their order.

    Args:
        heads: u64[n, h + 1]; factors: the same bytes as f32[n, 2 h + 2]; both read-only.
        rows: i64[c], which rows to look at.
        planes: u64[QUERY_BITS + 1, ≥ h], of the heads; see `encode_query`.
        numbers: f32[4]: by how much a weighted count of ones, and a count of ones, are multiplied; what is added for
            the head, and for the whole.
        best: i64[c], out; costs: f32[c], out: the estimates, less what all rows share.

    Returns:
        How many were found.
    """
    words, size, count = heads.shape[1] - 1, 0, len(rows)
    for position in range(count):
        if position + CODES_AHEAD < count:
            ahead = rows[position + CODES_AHEAD] * (2 * words + 2)
            prefetch_far(factors, ahead)
            prefetch_far(factors, ahead + 2 * words + 1)  # some lie on two lines
        row = rows[position]
        cost = _head_cost(heads, factors, row, planes, numbers)
        if cost <= limit:
            best[size], costs[size] = row, cost
            size += 1
    return size


@compiled()
def estimate_marked(
    heads: Codes, factors: Floats, mask: Bools, planes: Codes, numbers: Floats, limit: Any, best: Longs
) -> int:
    """Find rows as `estimate_heads` does, but those where ``mask`` bool[n] is set, which are not few.

    All heads are asked for, one line after the other: where a sixth of the rows is set, so they come sooner; where a
    tenth is, it would take three times as long.

    Args:
        best: i64[as many as are set], out: only the part that is found is touched.
    """
    stride, size, count = factors.shape[1], 0, len(mask)
    whole = count // 64 * 64
    for first in range(0, whole, 64):
        ahead = first + MARKED_AHEAD
        for at in range(ahead * stride, min(ahead + 64, count) * stride, LINE):
            prefetch_far(factors, at)
        bits = bits_of(mask, first)
        while bits:
            row = first + lowest(bits)
            bits &= bits - np.uint64(1)
            if _head_cost(heads, factors, row, planes, numbers) <= limit:
                best[size] = row
                size += 1
    for row in range(whole, count):
        if mask[row] and _head_cost(heads, factors, row, planes, numbers) <= limit:
            best[size] = row
            size += 1
    return size


@compiled()
def estimate(
    heads: Codes,
    head_factors: Floats,
    tails: Codes,
    tail_factors: Floats,
    rows: Longs,
    head_planes: Codes,
    tail_planes: Codes,
    numbers: Floats,
    best: Longs,
    costs: Floats,
) -> int:
    """Find the rows with the lowest costs by their whole codes, in no order; the rest as `estimate_heads`.

    Args:
        best: i64[m], out; costs: f32[m], out.

    Returns:
        How many were found, ``min(m, c)``.
    """
    head, tail = heads.shape[1] - 1, tails.shape[1] - 1
    wanted, size, count = len(best), 0, len(rows)
    for position in range(count):
        if position + CODES_AHEAD < count:
            prefetch_far(tail_factors, rows[position + CODES_AHEAD] * (2 * tail + 2))
            prefetch_far(head_factors, rows[position + CODES_AHEAD] * (2 * head + 2))
        row = rows[position]
        product = _product(heads[row], head_planes, numbers) + numbers[3]
        product += _product(tails[row], tail_planes, numbers)
        cost = head_factors[row, 2 * head + 1] - product * tail_factors[row, 2 * tail]
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
    heads, tails = np.zeros((1, 2), np.uint64), np.zeros((1, 1), np.uint64)
    encode(vectors, vectors[0], False, heads, tails)
    for codes in (heads, tails):
        codes.flags.writeable = False
    planes, numbers = np.zeros((QUERY_BITS + 1, 1), np.uint64), np.zeros(4, np.float32)
    encode_query(vectors[0], np.float32(1), 1, planes, planes[:, :0], numbers)
    rows, best, costs = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.float32)
    head_factors, tail_factors, limit = heads.view(np.float32), tails.view(np.float32), np.float32(0)
    estimate_heads(heads, head_factors, rows, planes, numbers, limit, best, costs)
    estimate_marked(heads, head_factors, np.ones(1, np.bool_), planes, numbers, limit, best)
    estimate(heads, head_factors, tails, tail_factors, rows, planes, planes[:, :0], numbers, best, costs)
