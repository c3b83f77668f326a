"""How long does it take to cut 10 KB of text? Median over blocks that are all different, each measured once.

The blocks are the example corpus, the descriptions of the installed packages (Markdown, mostly) and Python's sources,
shuffled. Every block is met for the first time by what is measured with it: tokenizers are up to two times faster on a
text they have just seen. The share that is not tokenizing is the difference of two medians, over different blocks.

Doubts: one process and nothing else to do, so caches are warmer than in a busy worker. On a machine that is busy with
something else the time that passes says little; shares and ratios are therefore of processor time.
"""

import random
import statistics
import sysconfig
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from itertools import chain, cycle, islice
from pathlib import Path

import report
from rich.progress import Progress

from penstock.pipeline.chunking import ChunkingConfig, chunk
from penstock.pipeline.chunking.tokens import encoding
from penstock.pipeline.errors import ParseError
from penstock.pipeline.parsing import ParseLimits, parse

CORPUS = Path(__file__).resolve().parents[1] / "examples" / "corpus" / "documents"
BLOCK_BYTES = 10_240
SIZE_TOKENS, OVERLAP_TOKENS = 220, 28  # what `auto` is for MiniLM

Measured = Callable[[str], object]


def corpus_texts() -> Iterator[str]:
    """Yield the texts of the example corpus."""
    for path in sorted(CORPUS.rglob("*.*")):
        try:
            yield parse(path.read_bytes(), filename=path.name, media_type=None, limits=ParseLimits()).text
        except ParseError:
            continue


def description_texts() -> Iterator[str]:
    """Yield what the installed packages say about themselves."""
    for name, package in sorted((one.metadata["Name"], one) for one in distributions()):
        if name:
            yield package.metadata.get_payload() or package.metadata["Description"] or ""


def source_texts() -> Iterator[str]:
    """Yield the modules of Python's standard library."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="replace")


def blocks(texts: Iterator[str]) -> Iterator[str]:
    """Yield texts joined and cut into blocks of 10 KB of UTF-8."""
    data = b""
    for text in texts:
        data += b"\n\n" + text.encode()
        while len(data) >= BLOCK_BYTES:
            yield data[:BLOCK_BYTES].decode(errors="ignore")
            data = data[BLOCK_BYTES:]


def candidates() -> dict[str, Measured]:
    """Return what is measured, by the name of its figure."""
    recursive = ChunkingConfig(strategy="recursive", size_tokens=SIZE_TOKENS, overlap_tokens=OVERLAP_TOKENS)
    windows = ChunkingConfig(strategy="tokens", size_tokens=SIZE_TOKENS, overlap_tokens=OVERLAP_TOKENS)
    return {
        "encode": encoding().encode_ordinary,
        "recursive": lambda text: chunk(text, recursive),
        "tokens": lambda text: chunk(text, windows),
    }


def measure(texts: list[str], *, bar: Progress) -> dict[str, list[tuple[float, float]]]:
    """Return milliseconds passed, and of processor time, per block for each candidate; they take turns."""
    chosen = candidates()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
    for call in chosen.values():
        call("The first call loads the ranks. " * 50)
    turns = cycle(chosen.items())
    for text in bar.track(texts, description="blocks of 10 KB"):
        name, call = next(turns)
        passed, worked = time.perf_counter(), time.thread_time()
        call(text)
        times[name].append(((time.perf_counter() - passed) * 1e3, (time.thread_time() - worked) * 1e3))
    return times


def growth(texts: list[str], *, megabytes: int) -> tuple[float, float]:
    """Return seconds per megabyte of a long text, and how many times that of a text a tenth as long it is."""
    cut = candidates()["recursive"]

    def seconds_per_mb(size_mb: float) -> float:
        text = "\n\n".join(islice(cycle(texts), int(size_mb * 1e6 / BLOCK_BYTES)))
        began = time.thread_time()
        cut(text)
        return (time.thread_time() - began) / size_mb

    short, long = min(seconds_per_mb(megabytes / 10) for _ in range(3)), seconds_per_mb(megabytes)
    return long, long / short


def main() -> None:
    flags = report.parser((__doc__ or "").partition("\n")[0]).parse_args()
    texts = list(blocks(chain(corpus_texts(), description_texts(), source_texts())))
    random.Random(0).shuffle(texts)
    texts = texts[: 120 if flags.quick else 600]
    with report.progress(quiet=flags.json) as bar:
        times = measure(texts, bar=bar)
        per_mb, grown = growth(texts, megabytes=2 if flags.quick else 10)
    found = report.Report("chunking", report.conditions(["tiktoken", "numpy"]) | {"blocks": len(texts)})
    passed = {name: statistics.median(wall for wall, _ in values) for name, values in times.items()}
    worked = {name: statistics.median(cpu for _, cpu in values) for name, values in times.items()}
    figure = report.Figure
    found.figures = {
        "recursive_10kb_ms": figure(passed["recursive"], "ms", "under 2"),
        "tokens_10kb_ms": figure(passed["tokens"], "ms", "under 2"),
        "encode_10kb_ms": figure(passed["encode"], "ms"),
        "recursive_10kb_processor_ms": figure(worked["recursive"], "ms"),
        "own_share_ms": figure(worked["recursive"] - worked["encode"], "ms", "at most 0.5"),
        "ratio_to_encode": figure(worked["recursive"] / worked["encode"], "times"),
        "long_text_s_per_mb": figure(per_mb, "s/MB"),
        "growth_at_10_times_the_length": figure(grown, "times", "at most 2"),
    }
    report.show(found, as_json=flags.json)


if __name__ == "__main__":
    main()
