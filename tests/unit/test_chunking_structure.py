"""Where chunks begin and end, and what they know about themselves."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.pipeline.chunking import (
    Chunk,
    ChunkingConfig,
    Fit,
    ResolvedChunking,
    check_size,
    chunk,
    count_tokens,
    resolve,
    tokens,
)
from penstock.pipeline.chunking.tokens import TokenMap
from penstock.pipeline.chunking.windows import slide
from penstock.pipeline.errors import InvalidChunking
from penstock.pipeline.parsing import ParseLimits, Span, parse

SENTENCE = "The water falls through the long steel pipe and turns the wheel at its lower end. "


def recursive(size: int, overlap: int = 0) -> ChunkingConfig:
    return ChunkingConfig(strategy="recursive", size_tokens=size, overlap_tokens=overlap)


def pieces(text: str, config: ChunkingConfig, **more) -> list[str]:
    return [text[one.start : one.end] for one in chunk(text, config, **more)]


def markdown(text: str) -> list[Span]:
    return parse(text.encode(), filename="a.md", media_type=None, limits=ParseLimits()).spans


def test_a_text_that_fits_is_one_chunk():
    assert chunk(f"  {SENTENCE}\n", recursive(50)) == [Chunk(2, len(SENTENCE) + 1, count_tokens(SENTENCE.strip()))]


def test_a_paragraph_that_fits_is_never_cut():
    paragraphs = [(SENTENCE * count).strip() for count in (1, 3, 2, 4, 1, 1, 3)]
    text = "\n\n".join(paragraphs)

    for one in pieces(text, recursive(count_tokens(SENTENCE) * 4 + 4, 10)):
        assert sum(paragraph in one for paragraph in paragraphs) >= 1
        assert one.split("\n\n")[-1] in paragraphs, "every chunk ends where a paragraph does"


def test_rows_of_a_table_that_fit_are_never_cut():
    rows = [
        f"name: pump {number}. type {number % 7}\nplace: hall {number * 37 % 11}. east\nnote: {'x y. ' * (number % 9)}"
        for number in range(60)
    ]
    text = "\n\n".join(row.strip() for row in rows)

    for one in pieces(text, recursive(70, 10)):
        assert one.startswith("name: pump")
        assert all(row.strip() in text for row in one.split("\n\n"))
        assert one.split("\n\n")[-1].strip() in [row.strip() for row in rows]


def test_lines_that_fit_are_never_cut():
    lines = [f"{number}, station {number % 5}, {'. '.join(['ok'] * (number % 6 + 1))}." for number in range(120)]

    for one in pieces("\n".join(lines), recursive(60)):
        assert set(one.split("\n")) <= set(lines)


def test_lines_of_a_fixed_width_are_no_lines():
    words = (SENTENCE * 12).split()
    lines, line = [], ""
    for word in words:
        if len(line) + 1 + len(word) > 68:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    text = "\n".join([*lines, line])

    got = pieces(text, recursive(90))

    assert len(got) > 2
    assert all(one.endswith("end.") for one in got), "cut at sentences, though the lines break elsewhere"


def test_sections_are_kept_apart_and_small_ones_together():
    text = "\n\n".join([f"# Part {number}\n\n{SENTENCE * size}" for number, size in enumerate([4, 4, 1, 1, 1, 4])])

    chunks = chunk(text, recursive(count_tokens(SENTENCE) * 5), spans=markdown(text))

    parts = [[line for line in text[one.start : one.end].splitlines() if line.startswith("#")] for one in chunks]
    assert parts == [["# Part 0"], ["# Part 1"], ["# Part 2", "# Part 3", "# Part 4"], ["# Part 5"]]
    assert [one.heading for one in chunks] == ["Part 0", "Part 1", "Part 2", "Part 5"]


def test_no_chunk_is_a_heading_alone():
    text = f"# Book\n\n## Part\n\n{SENTENCE * 9}\n\n## Other\n\n### Deep\n\n{SENTENCE * 9}"

    got = pieces(text, recursive(count_tokens(SENTENCE) * 4), spans=markdown(text))

    assert got[0].startswith("# Book\n\n## Part\n\nThe water")
    assert sum(one.startswith("## Other\n\n### Deep\n\nThe water") for one in got) == 1
    assert all("wheel" in one for one in got)


def test_a_heading_stays_with_a_paragraph_that_would_just_fit_without_it():
    paragraph = (SENTENCE * 6).strip()
    text = f"# The heading of the paragraph\n\n{paragraph}"

    got = pieces(text, recursive(count_tokens(paragraph) + 1), spans=markdown(text))

    assert len(got) == 2
    assert all("wheel" in one for one in got)


def test_what_must_be_cut_is_cut_evenly():
    text = (SENTENCE * 11).strip()

    sizes = [one.tokens for one in chunk(text, recursive(count_tokens(SENTENCE) * 10))]

    assert len(sizes) == 2
    assert min(sizes) > max(sizes) * 0.7


def test_an_overlap_repeats_whole_sentences_of_the_same_section_only():
    text = f"# One\n\n{SENTENCE * 12}\n\n# Two\n\n{SENTENCE * 12}"
    chunks = chunk(text, recursive(count_tokens(SENTENCE) * 5, 25), spans=markdown(text))

    for before, after in pairwise(chunks):
        if after.heading == before.heading:
            assert text[after.start : before.end] == SENTENCE.strip()
        else:
            assert after.start > before.end


def test_an_overlap_within_a_long_sentence_begins_at_a_word():
    text = " ".join(f"word{number}" for number in range(400))
    chunks = chunk(text, recursive(60, 12))

    for before, after in pairwise(chunks):
        assert before.start < after.start < before.end
        assert text[after.start - 1] == " "
        assert count_tokens(text[after.start : before.end]) <= 12


def test_windows_are_full_and_overlap_as_asked():
    text = SENTENCE * 40
    chunks = chunk(text, ChunkingConfig(strategy="tokens", size_tokens=50, overlap_tokens=10))

    assert [one.tokens for one in chunks[:-1]] == [50] * (len(chunks) - 1)
    for before, after in pairwise(chunks):
        assert 9 <= count_tokens(text[after.start : before.end]) <= 11  # alone, its first word is another token


def test_characters_of_several_tokens_are_counted_whole():
    text = "😀" * 100
    assert count_tokens(text) == 200
    chunks = chunk(text, ChunkingConfig(strategy="tokens", size_tokens=9, overlap_tokens=3))

    assert {one.end - one.start for one in chunks[:-1]} == {4}
    assert all(one.tokens == 2 * (one.end - one.start) for one in chunks)


@pytest.mark.parametrize(
    ("numbers", "size", "overlap", "expected"),
    [
        ([0, 4, 8, 12, 16], 6, 3, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ([0, 2, 3, 7], 4, 2, [(0, 2), (2, 3)]),
        ([0, 9, 18], 4, 2, [(0, 1), (1, 2)]),
    ],
)
def test_every_window_adds_something_where_tokens_end_inside_characters(numbers, size, overlap, expected):
    tokens_map = TokenMap(np.arange(len(numbers)), np.array(numbers))

    starts, ends = slide(tokens_map, size_tokens=size, overlap_tokens=overlap)

    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == expected


def test_chunks_know_the_page_and_the_heading_they_begin_on():
    pages = [SENTENCE * 3 + "\n\n", SENTENCE * 2 + "\n\n", SENTENCE * 3]
    starts = [0, len(pages[0]), len(pages[0]) + len(pages[1])]
    text = "".join(pages)
    spans = [
        Span(start, start + len(page), number, "Chapter")
        for number, (start, page) in enumerate(zip(starts, pages, strict=True), 1)
    ]

    chunks = chunk(text, recursive(count_tokens(SENTENCE) * 3 + 2), spans=spans)

    assert [(one.page, one.heading) for one in chunks] == [(1, "Chapter"), (2, "Chapter"), (3, "Chapter")]
    assert all((one.page, one.heading) == (None, None) for one in chunk(text, recursive(50)))


def test_a_chunk_too_long_for_its_model_is_cut_again_where_it_is_best():
    text = (SENTENCE * 8).strip()
    fit = Fit(60, lambda texts: [3 * count_tokens(one) for one in texts])  # a model with small tokens

    chunks = chunk(text, recursive(60), fit=fit)

    assert all(3 * count_tokens(text[one.start : one.end]) <= 60 for one in chunks)
    assert all(text[one.start : one.end].endswith("end.") for one in chunks)


def test_the_model_counts_all_chunks_in_one_call():
    calls = []

    def count(texts):
        calls.append(len(texts))
        return [1] * len(texts)

    chunks = chunk(SENTENCE * 100, recursive(50), fit=Fit(60, count))

    assert calls == [len(chunks)]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (254, ResolvedChunking(strategy="recursive", size_tokens=220, overlap_tokens=28)),
        (512, ResolvedChunking(strategy="recursive", size_tokens=443, overlap_tokens=55)),
        (8191, ResolvedChunking(strategy="recursive", size_tokens=800, overlap_tokens=400)),
        (None, ResolvedChunking(strategy="recursive", size_tokens=800, overlap_tokens=400)),
    ],
)
def test_auto_suits_the_model(limit, expected):
    assert resolve(ChunkingConfig(), limit=limit) == expected


def test_what_was_resolved_stays_as_it_was():
    resolved = resolve(ChunkingConfig(strategy="tokens", size_tokens=100), limit=254)

    assert resolved == ResolvedChunking(strategy="tokens", size_tokens=100, overlap_tokens=12)
    assert chunk(SENTENCE * 30, resolved) == chunk(SENTENCE * 30, ChunkingConfig(**resolved.model_dump()))


def test_a_size_above_the_models_limit_is_refused_with_both_numbers_and_the_model():
    config = ChunkingConfig(strategy="tokens", size_tokens=300)

    with pytest.raises(InvalidChunking, match=r"300.*minilm.*254"):
        check_size(config, input_limit=254, model="minilm")
    with pytest.raises(InvalidChunking, match=r"300.*254"):
        chunk(SENTENCE, config, fit=Fit(254, lambda texts: [1] * len(texts)))
    check_size(config, input_limit=300, model="minilm")
    check_size(config, input_limit=None)
    check_size(ChunkingConfig(), input_limit=254)


def test_an_overlap_of_more_than_half_is_refused():
    with pytest.raises(InvalidChunking, match="overlap_tokens 30 is more than half of size_tokens 50: use at most 25"):
        resolve(ChunkingConfig(size_tokens=50, overlap_tokens=30), limit=None)


@pytest.mark.parametrize("wrong", [{"size_tokens": 0}, {"overlap_tokens": -1}, {"strategy": "pages"}, {"size": 10}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ChunkingConfig(**wrong)


def test_damaged_ranks_are_refused(monkeypatch):
    monkeypatch.setattr(tokens, "RANKS_SHA256", "0" * 64)

    with pytest.raises(RuntimeError, match="damaged"):
        tokens._ranks.__wrapped__()


def sizes(text: str) -> list[int]:
    """Return the bytes of each token as tiktoken has it."""
    encoding = tokens.encoding()
    return [len(encoding.decode_single_token_bytes(one)) for one in encoding.encode_ordinary(text)]


@settings(deadline=None, max_examples=500)
@given(text=st.one_of(st.text(max_size=80), st.text(st.characters(max_codepoint=127), max_size=120)))
@example(text="it's I'LL they'vE o'clock 's'\x1c\x0b\x85 \u00a0 ")
@example(text="  \n \r\n\r\n\t x  \n")
@example(text="1234567 .,;\n\n ..\r\n<|endoftext|>")
def test_tokens_are_those_of_cl100k(text):
    assert tokens._token_bytes(text).tolist() == sizes(text)


def test_the_tokens_of_whole_documents_are_those_of_cl100k():
    folder = Path(__file__).resolve().parents[2]
    for path in [*folder.glob("pipeline/**/*.py"), *folder.glob("docs/**/*.md"), *folder.glob("tests/unit/*.py")]:
        text = path.read_text()
        assert tokens._token_bytes(text).tolist() == sizes(text), path


def test_a_long_text_is_measured_in_slices_with_the_same_result():
    text = "".join(f"Line {number}: {SENTENCE}\n\n  indented\n" for number in range(2_500))
    assert len(text) > 200_000

    assert tokens._token_bytes(text).tolist() == sizes(text)
    assert tokens._token_bytes(f"é{text}").tolist() == sizes(f"é{text}")


def words_without_breaks(count: int, *, seed: int = 3) -> list[str]:
    """Return words as of a transcript that nobody has punctuated: there is nowhere better to cut than anywhere else."""
    dice = random.Random(seed)
    return ["".join(dice.choices("etaoinsr", k=dice.randint(1, 10))) for _ in range(count)]


@pytest.mark.parametrize("where", [0, 5_000])
@pytest.mark.parametrize("joined", [" ", "\n\n"], ids=["words", "paragraphs"])
def test_what_follows_a_change_is_cut_as_it_was(joined, where):
    parts = words_without_breaks(10_000)
    if joined != " ":
        parts = [" ".join(parts[at : at + 40]) + "." for at in range(0, len(parts), 40)]
        where //= 40
    config = ChunkingConfig(strategy="recursive", size_tokens=100, overlap_tokens=10)

    def pieces(some: list[str]) -> list[str]:
        text = joined.join(some)
        return [text[one.start : one.end] for one in chunk(text, config)]

    before, after = pieces(parts), pieces([*parts[:where], "inserted", *parts[where:]])

    changed = set(after) - set(before)
    assert 1 <= len(changed) <= len(before) / 10
