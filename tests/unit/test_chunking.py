"""What is promised of every text, however odd."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.pipeline.chunking import Chunk, ChunkingConfig, Fit, chunk, count_tokens
from penstock.pipeline.parsing import Span

COMMA, EXCLAMATION, QUESTION = "\uff0c", "\uff01", "\uff1f"  # the wide ones look like those of ASCII
CHINESE = (
    f"北京是中华人民共和国的首都。它位于华北平原的北部{COMMA}是全国的政治中心、文化中心{EXCLAMATION}你知道吗{QUESTION}"
    * 8
)
WORDS = st.sampled_from(
    [
        "a",
        "water",
        "penstock",
        "e\u0301te\u0301",
        "😀",
        "👩‍👩‍👧",
        "北京是首都。",
        "ไทย",
        "مرحبا",
        "x" * 90,
        "<|endoftext|>",
        "1234567",
        "--",
        "\ufeff",
    ]
)
SPACES = st.sampled_from(
    [" ", "  ", "\n", "\r\n", "\n\n", "\r\n\r\n", "\t", "\u00a0", "\u2028", "\x0c", "\x1c", "", ". ", "。"]
)
PROSE = st.lists(st.tuples(WORDS, SPACES), max_size=150).map(
    lambda pairs: "".join(word + space for word, space in pairs)
)
ANY_TEXT = st.one_of(st.text(max_size=400), PROSE)
CONFIGS = st.builds(
    lambda strategy, size, share: ChunkingConfig(strategy=strategy, size_tokens=size, overlap_tokens=int(size * share)),
    st.sampled_from(["recursive", "tokens"]),
    st.integers(8, 60),
    st.sampled_from([0.0, 0.1, 0.25, 0.5]),
)


def pieces(text: str, config: ChunkingConfig, **more) -> list[str]:
    return [text[one.start : one.end] for one in chunk(text, config, **more)]


def uncovered(text: str, chunks: list[Chunk]) -> str:
    covered = np.zeros(len(text), bool)
    for one in chunks:
        covered[one.start : one.end] = True
    return "".join(character for character, is_covered in zip(text, covered, strict=True) if not is_covered)


@settings(deadline=None, max_examples=300)
@given(text=ANY_TEXT, config=CONFIGS)
@example(text=CHINESE, config=ChunkingConfig(strategy="recursive", size_tokens=40, overlap_tokens=5))
@example(text=" \r\n\t ", config=ChunkingConfig(strategy="tokens", size_tokens=8))
def test_every_character_but_white_space_is_in_a_chunk(text, config):
    chunks = chunk(text, config)

    assert uncovered(text, chunks).strip() == ""
    assert all(0 <= one.start < one.end <= len(text) for one in chunks)
    assert all(text[one.start : one.end].strip() == text[one.start : one.end] for one in chunks)
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(chunks))


@settings(deadline=None, max_examples=300)
@given(text=ANY_TEXT, config=CONFIGS)
def test_no_chunk_has_more_tokens_than_asked_for(text, config):
    assert all(0 < one.tokens <= config.size_tokens for one in chunk(text, config))


@settings(deadline=None)
@given(text=ANY_TEXT.map(str.strip).filter(bool), strategy=st.sampled_from(["recursive", "tokens"]))
def test_a_whole_text_as_one_chunk_has_all_its_tokens(text, strategy):
    config = ChunkingConfig(strategy=strategy, size_tokens=50_000)

    assert chunk(text, config) == [Chunk(0, len(text), count_tokens(text))]


@settings(deadline=None)
@given(text=ANY_TEXT, config=CONFIGS)
def test_without_overlap_no_character_is_in_two_chunks(text, config):
    chunks = chunk(text, config.model_copy(update={"overlap_tokens": 0}))

    assert all(a.end <= b.start for a, b in pairwise(chunks))


@settings(deadline=None, max_examples=300)
@given(text=ANY_TEXT, config=CONFIGS)
def test_recursive_cuts_a_word_only_when_it_is_longer_than_a_chunk(text, config):
    config = config.model_copy(update={"strategy": "recursive"})

    for one in chunk(text, config):
        for edge in (one.start, one.end):
            if 0 < edge < len(text) and not text[edge - 1].isspace() and not text[edge].isspace():
                word = text[:edge].split()[-1] + text[edge:].split()[0]
                # Within a text a word can take a token more than alone, where it is split differently.
                assert count_tokens(word) >= config.size_tokens - 2, word


@settings(deadline=None)
@given(text=ANY_TEXT, config=CONFIGS, limit=st.integers(24, 60))
def test_no_chunk_is_longer_than_its_model_reads(text, config, limit):
    fit = Fit(max_tokens=limit, count=lambda texts: [len(one.encode()) for one in texts])  # a model of single bytes

    chunks = chunk(text, config.model_copy(update={"size_tokens": 8, "overlap_tokens": 2}), fit=fit)

    assert all(len(text[one.start : one.end].encode()) <= limit for one in chunks)
    assert uncovered(text, chunks).strip() == ""


@settings(deadline=None)
@given(text=ANY_TEXT, cuts=st.lists(st.integers(0, 400), max_size=6), config=CONFIGS)
def test_spans_change_where_chunks_end_but_lose_nothing(text, cuts, config):
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    spans = [Span(a, b, None, str(a)) for a, b in pairwise(bounds)]

    chunks = chunk(text, config, spans=spans)

    assert uncovered(text, chunks).strip() == ""
    for one in chunks:
        assert any(span.start <= one.start < span.end and span.heading == one.heading for span in spans)


@pytest.mark.parametrize("strategy", ["recursive", "tokens"])
@pytest.mark.parametrize("text", ["", " ", "\n\n\t\r\n", "\u3000\u00a0"])
def test_a_blank_text_has_no_chunks(text, strategy):
    assert chunk(text, ChunkingConfig(strategy=strategy, size_tokens=20)) == []


@pytest.mark.parametrize("strategy", ["recursive", "tokens"])
def test_text_without_spaces_is_cut_at_its_own_sentence_marks(strategy):
    got = pieces(CHINESE, ChunkingConfig(strategy=strategy, size_tokens=60, overlap_tokens=0))

    assert "".join(got) == CHINESE
    if strategy == "recursive":
        assert all(one[-1] in f"。{EXCLAMATION}{QUESTION}" for one in got)


def test_special_tokens_in_a_text_are_text():
    assert pieces("see <|endoftext|> here", ChunkingConfig(size_tokens=50)) == ["see <|endoftext|> here"]
    assert count_tokens("<|endoftext|>") > 1


def test_lone_surrogates_keep_the_offsets_exact():
    text = "one \ud800\udc00 two \udfff " * 20

    chunks = chunk(text, ChunkingConfig(strategy="tokens", size_tokens=16, overlap_tokens=0))

    assert uncovered(text, chunks).strip() == ""


@pytest.mark.parametrize(
    "text",
    [" " * 1_200_000 + "x", "a" * 300_000, "\n" * 300_000 + "x", "的一是不了" * 40_000, "😀" * 50_000, "-" * 300_000],
    ids=["spaces", "one letter", "newlines", "chinese", "emoji", "dashes"],
)
@pytest.mark.parametrize("strategy", ["recursive", "tokens"])
def test_runs_without_a_break_are_chunked_in_seconds(text, strategy):
    started = time.monotonic()

    chunks = chunk(text, ChunkingConfig(strategy=strategy, size_tokens=200, overlap_tokens=20))

    assert uncovered(text, chunks).strip() == ""
    assert time.monotonic() - started < 20


def test_time_grows_with_the_text_and_not_faster():
    paragraph = (
        "Water falls through the penstock and turns the wheel. It leaves by the tail race, slower and lower.\n\n"
    )
    chunk(paragraph * 100, ChunkingConfig(size_tokens=200))

    def best(repeats: int) -> float:
        times = []
        for _ in range(3):
            started = time.process_time()
            chunk(paragraph * repeats, ChunkingConfig(size_tokens=200))
            times.append(time.process_time() - started)
        return min(times)

    assert best(16_000) < 4 * 8 * best(2_000)  # eight times the text; a quadratic step would take 64 times as long
