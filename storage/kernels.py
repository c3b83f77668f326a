"""The compiled loops of search: exact scan and graph walk, without the GIL and without hnswlib.

A cost orders results, lowest first: the squared distance under ``l2``, else the negated inner product. Places are
positions of vectors in an array of 32-bit words, so that one kernel reads flat segments and graph records alike.
Compiled code is kept on disk beside this module, or in NUMBA_CACHE_DIR; all kernels live in this one file because
numba notices a change only in the file of the function it calls. Nothing here knows segments, filters or versions.

Two traps. Index arithmetic on a flat array makes numba check for wrap-around, which LLVM turns into gathers, 2.3 times
slower: take the slice of a vector first. And a mapped file can rot: every link is bounded before it is followed, and a
cost that is not a number ends the search, for in a list that is ordered it would let others fall out.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

_Function = TypeVar("_Function", bound=Callable[..., Any])

Floats = NDArray[np.float32]
Words = NDArray[np.uint32]
Longs = NDArray[np.int64]
Marks = NDArray[np.uint16]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.int8]
Graph = tuple[Words, Floats, Bytes, Words, Words, Longs]  # words, floats, bytes, upper, upper_at, shape: see `walk`
Query = Floats | tuple[Bytes, Any]  # as vectors are stored in the records: float32, or int8 and what the product counts

BROKEN = -1  # in place of a count: a link leads nowhere, or a vector holds what is not a number
SPENT = -2  # in place of a count: the budget of visits was not enough
LINE = 16  # words of a cache line
PREFETCHED = (
    128  # words of a vector to ask for at once: the hardware follows by itself (0: 1.13 of hnswlib's time, 128: 0.86)
)
# Sums may be reassociated; NaN must stay NaN, for it tells of a rotten vector.
OPTIONS: Any = {"fastmath": {"reassoc", "nsz", "contract"}, "boundscheck": False, "error_model": "numpy"}
ASTRAY = 8  # times fewer accepted records than expected
AHEAD = 8  # vectors of a scan to ask for in advance


def compiled(*, inline: bool = False, nogil: bool = True) -> Callable[[_Function], _Function]:
    """Compile when first called. ``nogil``: other threads may run Python meanwhile."""
    options: dict[str, Any] = {"nogil": nogil, **OPTIONS}
    if inline:
        options["inline"] = "always"

    def decorate(function: _Function) -> _Function:
        try:
            return cast("_Function", njit(function, cache=True, **options))
        except RuntimeError:  # no directory to keep compiled code in: compile at every start
            return cast("_Function", njit(function, **options))

    return decorate


def _asking_for(locality: int) -> Callable[[Any, Any, Any], Any]:
    """Return what asks for the cache line of ``floats[at]``, whose latency then overlaps with other work.

    ``locality``: 3 for all caches; 2 for all but the smallest, which can wait for more lines at a time.
    """

    def ask(_context: Any, floats: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            address = builder.bitcast(builder.gep(array.data, [arguments[1]]), cgutils.voidptr_t)
            word = ir.IntType(32)
            shape = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
            function = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
            builder.call(function, [address, word(0), word(locality), word(1)])  # read, data
            return context.get_dummy_value()

        return types.void(floats, at), generate

    return ask


def _floats_at(_context: Any, _address: Any) -> Any:
    """Return a pointer to the float32 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    floats: Any = types.CPointer(types.float32)  # type: ignore[no-untyped-call]
    return floats(types.int64), generate


def _bits(_context: Any, mask: Any, at: Any) -> Any:  # noqa: ARG001  numba looks at the names
    """Return 64 booleans from ``mask[at]`` on as the bits of a word, the first lowest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        eights = ir.VectorType(ir.IntType(8), 64)
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), eights.as_pointer())
        none = ir.Constant(eights, [0] * 64)
        return builder.bitcast(builder.icmp_unsigned("!=", builder.load(address, align=1), none), ir.IntType(64))

    return types.uint64(mask, types.int64), generate


def _popcount(_context: Any, word: Any) -> Any:  # noqa: ARG001
    """Return how many bits are set."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


def _lowest(_context: Any, word: Any) -> Any:  # noqa: ARG001
    """Return the place of the lowest bit that is set; one must be."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


prefetch: Any = intrinsic(_asking_for(3))
prefetch_far: Any = intrinsic(_asking_for(2))
popcount: Any = intrinsic(_popcount)
_pointer: Any = intrinsic(_floats_at)
bits_of: Any = intrinsic(_bits)
lowest: Any = intrinsic(_lowest)
_carray: Any = numba.carray  # type: ignore[attr-defined]


@compiled(inline=True)
def _cost(floats: Floats, at: Any, query: Floats, l2: bool) -> Any:
    dimensions = len(query)
    vector = floats[at : at + dimensions]
    total = np.float32(0)
    if l2:
        for i in range(dimensions):
            difference = vector[i] - query[i]
            total += difference * difference
        return total
    for i in range(dimensions):
        total += vector[i] * query[i]
    return -total


def _cost_of(graph: Graph, record: Any, query: Query, l2: bool) -> Any:
    """Return the cost of a record's vector: of the float32 there, or estimated from int8 where the query is int8."""


@overload(_cost_of, jit_options=OPTIONS)
def _choose_cost(graph: Any, record: Any, query: Any, l2: Any) -> Any:  # noqa: ARG001  numba compares the names
    return _rounded_cost if isinstance(query, types.BaseTuple) else _exact_cost


def _exact_cost(graph: Any, record: Any, query: Any, l2: Any) -> Any:
    return _cost(graph[1], record * graph[5][1] + graph[5][2], query, l2)


def _rounded_cost(graph: Any, record: Any, query: Any, l2: Any) -> Any:  # noqa: ARG001  the factors know it
    at = record * graph[5][1] + graph[5][2]
    codes, times = query
    vector = graph[2][4 * at + 8 : 4 * at + 8 + len(codes)]
    total = np.int32(0)
    for i in range(len(codes)):
        total = np.int32(total + np.int32(np.int32(vector[i]) * np.int32(codes[i])))
    return graph[1][at + 1] - times * graph[1][at] * np.float32(total)


@compiled(inline=True)
def _place_for(costs: Floats, size: int, cost: Any) -> int:
    low, high = 0, size
    while low < high:
        middle = (low + high) >> 1
        if costs[middle] <= cost:
            low = middle + 1
        else:
            high = middle
    return low


@compiled(inline=True)
def _keep(best: Longs, costs: Floats, size: int, row: Any, cost: Any) -> int:
    """Put a row among the best, which it must belong to, behind its equals; return how many there are then."""
    at = _place_for(costs, size, cost)
    if size < len(best):
        size += 1
    for i in range(size - 1, at, -1):
        best[i], costs[i] = best[i - 1], costs[i - 1]
    best[at], costs[at] = row, cost
    return size


@compiled()
def scan(floats: Floats, places: Longs, query: Floats, l2: bool, best: Longs, costs: Floats) -> int:
    """Find the nearest of the vectors that start at ``places``; the first of equals wins.

    Args:
        floats: f32[any], read-only; places: i64[n], where vectors start; query: f32[d], read-only; l2: bool.
        best: i64[k], out: positions in ``places``, nearest first; costs: f32[k], out.

    Returns:
        How many were found, ``min(k, n)``, or BROKEN.
    """
    wanted, size, count = len(best), 0, len(places)
    for position in range(count):
        if position + AHEAD < count:
            for line in range(0, PREFETCHED, LINE):
                prefetch(floats, places[position + AHEAD] + line)
        cost = _cost(floats, places[position], query, l2)
        if np.isnan(cost):
            return BROKEN
        if size < wanted or cost < costs[size - 1]:
            size = _keep(best, costs, size, position, cost)
    return size


@compiled()
def scan_arrays(addresses: Longs, counts: Longs, query: Floats, l2: bool, best: Longs, costs: Floats) -> int:
    """Find the nearest of all rows of several arrays of vectors; the first of equals wins.

    Args:
        addresses: i64[s], where each array f32[count, d] lies in memory, which stays there; counts: i64[s].
        best: i64[k], out: rows, numbered through all arrays, nearest first; costs: f32[k], out.

    Returns:
        How many were found, ``min(k, all rows)``; or BROKEN, and the array to blame is ``best[0]``.
    """
    wanted, size, first = len(best), 0, 0
    for array in range(len(addresses)):
        floats = _carray(_pointer(addresses[array]), (counts[array] * len(query),), np.float32)
        for row in range(counts[array]):
            cost = _cost(floats, row * len(query), query, l2)
            if np.isnan(cost):
                best[0] = array
                return BROKEN
            if size < wanted or cost < costs[size - 1]:
                size = _keep(best, costs, size, first + row, cost)
        first += counts[array]
    return size


@compiled(inline=True)
def _descend(graph: Graph, query: Query, l2: bool) -> Any:
    """Walk the upper levels greedily; return the nearest record met and its cost, or (BROKEN, 0)."""
    upper, upper_at, shape = graph[3], graph[4], graph[5]
    count, max_m, best = shape[0], shape[4], shape[6]
    least = _cost_of(graph, best, query, l2)
    for level in range(shape[5], 0, -1):
        moved = True
        while moved:
            moved = False
            at = np.int64(upper_at[best]) + (level - 1) * (max_m + 1)
            if at + max_m >= len(upper):
                return np.int64(BROKEN), np.float32(0)
            links = np.int64(upper[at] & 0xFFFF)
            if links > max_m:
                return np.int64(BROKEN), np.float32(0)
            for j in range(links):
                other = np.int64(upper[at + 1 + j])
                if other >= count:
                    return np.int64(BROKEN), np.float32(0)
                cost = _cost_of(graph, other, query, l2)
                if cost < least:
                    best, least, moved = other, cost, True
    if np.isnan(least):
        return np.int64(BROKEN), np.float32(0)
    return best, least


@compiled(inline=True)
def _unvisited(graph: Graph, record: Any, visited: Marks, epoch: Any, fresh: Longs) -> Any:
    """Collect and mark the links of ``record`` not met before, and ask for their vectors; BROKEN: one leads nowhere."""
    words, floats, shape = graph[0], graph[1], graph[5]
    count, stride, vector_at, max_m0 = shape[0], shape[1], shape[2], shape[3]
    base = record * stride
    links = np.int64(words[base] & 0xFFFF)
    if links > max_m0:
        return np.int64(BROKEN)
    size = np.int64(0)
    for j in range(links):
        other = np.int64(words[base + 1 + j])
        if other >= count:
            return np.int64(BROKEN)
        if visited[other] != epoch:
            visited[other] = epoch
            fresh[size] = other
            size += 1
            at = other * stride + vector_at
            for line in range(0, PREFETCHED, LINE):
                prefetch(floats, at + line)
    return size


@compiled()
def walk(  # noqa: C901
    graph: Graph, query: Query, l2: bool, visited: Marks, epoch: Any, best: Longs, costs: Floats
) -> tuple[Any, Any]:
    """Walk an hnswlib graph and return its nearest records, as hnswlib's search does at ``ef = len(best)``.

    Args:
        graph: words, floats and bytes, the u32, f32 and i8 views of level 0; upper and upper_at, u32, of the levels
            above; all read-only; and the shape i64[7]: count, stride, vector_at, max_m0, max_m, max_level, entry point.
            At ``vector_at`` of a record there is its vector f32[d], or a factor and an addend f32, then i8[d].
        query: f32[d]; or i8[d] and by what a product is multiplied, where the records hold int8.
        visited: u16[>= count], where no element equals ``epoch``: the caller's thread owns it.
        best: i64[ef], out: records, nearest first; costs: f32[ef], out.

    Returns:
        How many were found or BROKEN, and how many records were visited.
    """
    shape = graph[5]
    max_m0, ef = shape[3], len(best)
    entry, least = _descend(graph, query, l2)
    if entry == BROKEN:
        return np.int64(BROKEN), np.int64(0)

    fresh = np.empty(max_m0, np.int64)
    best[0], costs[0] = entry, least
    visited[entry] = epoch
    size, i, visits = 1, 0, 1
    while i < size:
        if best[i] < 0:
            i += 1
            continue
        record = best[i]
        best[i] = ~record  # its links are followed now; a flag of its own would be one more array to shift
        lowest = i + 1
        found = _unvisited(graph, record, visited, epoch, fresh)
        if found == BROKEN:
            return np.int64(BROKEN), np.int64(visits)
        visits += found
        for j in range(found):
            record = fresh[j]
            cost = _cost_of(graph, record, query, l2)
            if np.isnan(cost):
                return np.int64(BROKEN), np.int64(visits)
            if size == ef and cost >= costs[size - 1]:
                continue
            at = _place_for(costs, size, cost)
            if size < ef:
                size += 1
            for t in range(size - 1, at, -1):
                best[t], costs[t] = best[t - 1], costs[t - 1]
            best[at], costs[at] = record, cost
            lowest = min(lowest, at)
        i = min(i + 1, lowest)
    for t in range(size):
        best[t] = ~best[t]
    return np.int64(size), np.int64(visits)


@compiled()
def _push(costs: Floats, records: Longs, size: int, cost: Any, record: int) -> None:
    """Add to a binary heap, cheapest first, of ``size`` candidates."""
    at = size
    while at > 0 and costs[(at - 1) >> 1] > cost:
        parent = (at - 1) >> 1
        costs[at], records[at] = costs[parent], records[parent]
        at = parent
    costs[at], records[at] = cost, record


@compiled()
def _pop(costs: Floats, records: Longs, size: int) -> None:
    """Remove the first of a heap of ``size`` candidates; the caller has read it."""
    cost, record, at = costs[size - 1], records[size - 1], 0
    while True:
        child = 2 * at + 1
        if child + 1 < size - 1 and costs[child + 1] < costs[child]:
            child += 1
        if child >= size - 1 or costs[child] >= cost:
            break
        costs[at], records[at] = costs[child], records[child]
        at = child
    costs[at], records[at] = cost, record


@compiled()
def walk_accepted(  # noqa: PLR0913, PLR0917  (compiled code takes what it needs one by one)
    graph: Graph,
    query: Query,
    l2: bool,
    visited: Marks,
    epoch: Any,
    rows: Words,
    accepted: Bools,
    budget: int,
    share: float,
    best: Longs,
    costs: Floats,
) -> tuple[Any, Any]:
    """Walk as `walk` does, but keep accepted records only and go on until ``len(best)`` of them are nearest.

    This is hnswlib's rule for a filter: every record is walked through, only accepted ones are results.

    Args:
        rows: u32[count], the row of each record; accepted: bool[count], by row.
        budget: visits after which another way is cheaper. After an eighth of them a walk is given up that has met far
            fewer accepted records than ``share``, of all, lets expect: it is not where they are.

    Returns:
        How many were found, or BROKEN or SPENT, and how many records were visited.
    """
    shape = graph[5]
    max_m0, ef = shape[3], len(best)
    entry, least = _descend(graph, query, l2)
    if entry == BROKEN:
        return np.int64(BROKEN), np.int64(0)
    fresh, room = np.empty(max_m0, np.int64), min(shape[0], budget + max_m0) + 1
    near, nearest = np.empty(room, np.float32), np.empty(room, np.int64)
    near[0], nearest[0], waiting, size, visits = least, entry, 1, 0, 1
    visited[entry] = epoch
    if rows[entry] < len(accepted) and accepted[rows[entry]]:
        best[0], costs[0], size = entry, least, 1
    while waiting > 0 and not (size == ef and near[0] > costs[size - 1]):
        record = nearest[0]
        _pop(near, nearest, waiting)
        waiting -= 1
        found = _unvisited(graph, record, visited, epoch, fresh)
        visits += found
        astray = size < ef and 8 * visits > budget and ASTRAY * size < share * visits
        if found == BROKEN or visits > budget or astray:
            return np.int64(BROKEN if found == BROKEN else SPENT), np.int64(visits)
        for j in range(found):
            record = fresh[j]
            cost = _cost_of(graph, record, query, l2)
            if np.isnan(cost):
                return np.int64(BROKEN), np.int64(visits)
            if size == ef and cost >= costs[size - 1]:
                continue
            _push(near, nearest, waiting, cost, record)
            waiting += 1
            if rows[record] >= len(accepted):
                return np.int64(BROKEN), np.int64(visits)
            if accepted[rows[record]]:
                size = _keep(best, costs, size, record, cost)
    return np.int64(size), np.int64(visits)


@compiled(nogil=False)
def sum_squares(vector: Floats) -> float:
    """Return the sum of the squares of f32[d]; no float32 makes it overflow. It keeps the GIL: it is quick."""
    total = np.float64(0)
    for i in range(len(vector)):
        total += np.float64(vector[i]) * np.float64(vector[i])
    return total


@compiled()
def mark(mask: Bools, ordinals: Words) -> bool:
    """Set ``mask`` at these places; returns False, having set only some, when one lies outside."""
    for i in range(len(ordinals)):
        if ordinals[i] >= len(mask):
            return False
        mask[ordinals[i]] = True
    return True


@compiled()
def spread(documents: Bools, owners: Words, mask: Bools) -> bool:
    """Write to ``mask`` bool[n] what ``documents`` says of the owner u32[n] of each row; False: one lies outside."""
    for i in range(len(owners)):
        if owners[i] >= len(documents):
            return False
        mask[i] = documents[owners[i]]
    return True


@compiled()
def list_set(mask: Bools, first: int, end: int, places: Longs) -> int:
    """Write to ``places`` i64[as many as are set] where ``mask`` is set from ``first`` to ``end``, ascending.

    Returns:
        How many.
    """
    size, whole = 0, first + (end - first) // 64 * 64
    for group in range(first, whole, 64):
        bits = bits_of(mask, group)
        while bits:
            places[size] = group + lowest(bits)
            bits &= bits - np.uint64(1)
            size += 1
    for i in range(whole, end):
        if mask[i]:
            places[size] = i
            size += 1
    return size


@compiled()
def list_each(mask: Bools, step: int, places: Longs) -> int:
    """Write to ``places`` each ``step``-th place where ``mask`` is set, from the first on; as many as fit.

    Returns:
        How many.
    """
    group, size, seen = np.empty(64, np.int64), 0, np.int64(0)
    for first in range(0, len(mask), 64):
        end = min(first + 64, len(mask))
        whole = end == first + 64
        count = np.int64(popcount(bits_of(mask, first))) if whole else np.int64(list_set(mask, first, end, group))
        if size * step < seen + count:
            list_set(mask, first, end, group)
            while size * step < seen + count and size < len(places):
                places[size] = group[size * step - seen]
                size += 1
        seen += count
    return size


@compiled()
def reach(words: Words, stride: int, max_m0: int, start: int, seen: Bools, queue: Longs) -> int:
    """Mark in ``seen`` bool[count] every record that links lead to from ``start``, and return how many are new.

    Args:
        queue: i64[count], room to work in.
    """
    if seen[start]:
        return 0
    seen[start], queue[0] = True, start
    first, end = 0, 1
    while first < end:
        base = queue[first] * stride
        first += 1
        for j in range(min(int(words[base] & 0xFFFF), max_m0)):
            other = np.int64(words[base + 1 + j])
            if other < len(seen) and not seen[other]:
                seen[other], queue[end] = True, other
                end += 1
    return end


@compiled()
def count_links(words: Words, stride: int, max_m0: int, counts: Words) -> None:
    """Count in ``counts`` u32[count], zeros, how many records link to each."""
    for record in range(len(counts)):
        base = record * stride
        for j in range(min(int(words[base] & 0xFFFF), max_m0)):
            other = np.int64(words[base + 1 + j])
            if other < len(counts):
                counts[other] += 1


_pread: Any = types.ExternalFunction("pread", types.intp(types.int32, types.uintp, types.uintp, types.int64))


@compiled()
def compare(descriptor: int, offsets: Longs, query: Floats, l2: bool, costs: Floats) -> int:
    """Compute the costs of vectors that are read, not mapped, so that they take no room in the process.

    Args:
        descriptor: of an open file; offsets: i64[n], bytes from its start to each vector.
        costs: f32[n], out.

    Returns:
        0, or BROKEN: the file ends before a vector does.
    """
    buffer = np.empty(len(query), np.float32)
    size_bytes = 4 * len(query)
    for i in range(len(offsets)):
        if _pread(np.int32(descriptor), buffer.ctypes.data, size_bytes, offsets[i]) != size_bytes:
            return BROKEN
        costs[i] = _cost(buffer, 0, query, l2)
    return 0


@compiled()
def read_spans(descriptor: int, offsets: Longs, sizes: Longs, buffer: NDArray[np.uint8]) -> int:
    """Read spans of a file, one after the other, into ``buffer`` u8[sum of sizes].

    Returns:
        0, or BROKEN: the file ends before they do, or one of them is none.
    """
    at = 0
    for i in range(len(offsets)):
        if sizes[i] < 0 or sizes[i] > len(buffer) - at or offsets[i] < 0:
            return BROKEN
        if sizes[i] and _pread(np.int32(descriptor), buffer.ctypes.data + at, sizes[i], offsets[i]) != sizes[i]:
            return BROKEN
        at += sizes[i]
    return 0


_preadv2: Any = types.ExternalFunction(
    "preadv2", types.intp(types.int32, types.uintp, types.int32, types.int64, types.int32)
)


@compiled(nogil=False)
def read_cached_spans(
    descriptor: int, offsets: Longs, sizes: Longs, buffer: NDArray[np.uint8], flags: int, place: NDArray[np.uint64]
) -> int:
    """Read spans as `read_spans` does if the system has all of them in memory: it waits for no disk.

    So it keeps the GIL, which to let go and take again costs more than to read some texts from memory. Linux only.

    Args:
        flags: ``os.RWF_NOWAIT``; place: u64[2], room to work in.

    Returns:
        0, or BROKEN: something is not in memory, or not there at all.
    """
    at = 0
    for i in range(len(offsets)):
        if sizes[i] < 0 or sizes[i] > len(buffer) - at or offsets[i] < 0:
            return BROKEN
        place[0], place[1] = buffer.ctypes.data + at, sizes[i]
        if sizes[i] and _preadv2(np.int32(descriptor), place.ctypes.data, np.int32(1), offsets[i], flags) != sizes[i]:
            return BROKEN
        at += sizes[i]
    return 0


@compiled()
def walk_and_read(  # noqa: PLR0913, PLR0917  (compiled code takes what it needs one by one)
    graph: Graph,
    query: Query,
    l2: bool,
    visited: Marks,
    epoch: Any,
    rows: Words,
    best: Longs,
    scores: Floats,
    descriptor: int,
    place: int,
    offsets: NDArray[np.uint64],
    texts: NDArray[np.uint8],
    ends: Longs,
) -> tuple[Any, Any, Any]:
    """Walk as `walk` does, and read the texts of the nearest rows before the GIL is taken again.

    Each text costs a microsecond or two. Threads that search at once would wait for each other's.

    Args:
        rows: u32[count], the row of each record.
        best: i64[ef], out: rows, nearest first; scores: f32[ef], out: negated costs, finite.
        descriptor: of the file where texts begin ``place`` bytes from its start; offsets: u64[n + 1], of rows, from
            there.
        texts: u8[room], out: one after the other, as many of the first ``len(ends)`` as there is room for.
        ends: i64[m], out: where each ends.

    Returns:
        How many rows were found or BROKEN, how many records were visited, and how many texts were read. The first that
        is missing, or does not lie where its place is told, is left to whoever asks for it by itself.
    """
    size, visits = walk(graph, query, l2, visited, epoch, best, scores)
    read, at = 0, np.int64(0)
    for i in range(size):
        row = np.int64(rows[best[i]])
        best[i], scores[i] = row, -scores[i]
        if row + 1 >= len(offsets) or not np.isfinite(scores[i]):
            return np.int64(BROKEN), visits, np.int64(0)
    for i in range(min(size, len(ends))):
        row = best[i]
        start, length = np.int64(offsets[row]), np.int64(offsets[row + 1]) - np.int64(offsets[row])
        if start < 0 or length < 0 or length > len(texts) - at:
            break
        if length and _pread(np.int32(descriptor), texts.ctypes.data + at, length, place + start) != length:
            break
        at += length
        ends[i] = at
        read += 1
    return size, visits, np.int64(read)


def warm() -> None:
    """Compile every kernel, or load what was compiled before, with the types that mapped segments have.

    Takes seconds the first time after an installation, a fraction of one later. Call it before the first search.
    """
    words, rows = np.zeros(6, np.uint32), np.zeros(1, np.uint32)  # a graph of one record: no links, one dimension
    floats, query, places = words.view(np.float32), np.ones(1, np.float32), np.zeros(1, np.int64)
    for array in (words, rows, floats, query):
        array.flags.writeable = False
    graph = (words, floats, words.view(np.int8), words, rows, np.array([1, 6, 1, 0, 0, 0, 0], np.int64))
    visited, best, costs = np.zeros(1, np.uint16), np.empty(1, np.int64), np.empty(1, np.float32)
    mask = np.ones(1, np.bool_)
    sum_squares(np.ones(1, np.float32))
    mark(mask, rows)
    spread(mask, rows, mask)
    list_set(mask, 0, 1, places)
    list_each(mask, 1, places)
    scan(floats, places, query, False, best, costs)
    scan_arrays(np.array([floats.ctypes.data]), np.ones(1, np.int64), query, False, best, costs)
    compare(-1, places, query, False, costs)
    read_spans(-1, places, places, np.empty(1, np.uint8))
    if hasattr(os, "RWF_NOWAIT"):
        read_cached_spans(-1, places, places, np.empty(1, np.uint8), os.RWF_NOWAIT, np.empty(2, np.uint64))
    offsets = np.zeros(2, np.uint64)
    offsets.flags.writeable = False
    texts = np.empty(1, np.uint8)
    walk_and_read(graph, query, False, visited, np.uint16(3), rows, best, costs, -1, 0, offsets, texts, places)
    for asked in (query, (np.ones(1, np.int8), np.float32(1))):
        walk(graph, asked, False, visited, np.uint16(1), best, costs)
        walk_accepted(graph, asked, False, visited, np.uint16(2), rows, mask, 1, 1.0, best, costs)
