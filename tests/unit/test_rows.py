"""Rows are columns, but behave as a list of chunks would."""

import random
from dataclasses import replace

import numpy as np
import pytest

from penstock.storage.errors import Damaged
from penstock.storage.segments import records
from penstock.storage.segments.records import Documents
from penstock.storage.segments.rows import Rows, chunk_identity
from penstock.storage.segments.sections import Sections, write_sections

from ..storage_samples import many_rows, record, rows_of, sections_of

TEXTS = {"a": ["first", "zweites — ü", ""], "b": ["third"], "c": []}


def plain(rows: Rows) -> list[tuple]:
    return [
        (
            rows.documents[int(rows.document[i])],
            *(int(column[i]) for column in (rows.ordinal, rows.start, rows.end, rows.page, rows.tokens)),
            rows.identity[i].tobytes(),
            rows.text(i),
            rows.heading(i),
        )
        for i in range(len(rows))
    ]


def stored(rows: Rows, **changed: np.ndarray) -> Sections:
    arrays = {**rows.to_arrays(), **changed}
    return sections_of(b"".join(write_sections("rows", meta={}, arrays=arrays)), kind="rows", name="x.rows")


def test_rows_give_back_what_they_were_built_from():
    rows = rows_of(TEXTS)

    assert len(rows) == 4
    assert rows.texts() == ["first", "zweites — ü", "", "third"]
    assert [rows.heading(i) for i in range(4)] == ["Heading 0", None, "Heading 2", "Heading 0"]
    assert rows.document_ids == ["a", "b", "c"]
    assert rows.documents[0] == record("a")


def test_rows_and_records_survive_a_file():
    rows = rows_of(TEXTS)

    opened = Rows.from_sections(stored(rows))

    assert plain(opened) == plain(rows)
    assert opened.documents == rows.documents
    assert opened.documents[-1] == record("c")
    with pytest.raises(IndexError):
        opened.documents[3]


def test_records_keep_every_field():
    full = record(
        "x", title="Tïtle", metadata={"n": 1, "deep": {"l": [1.5, None, True]}}, event_time=-1.5, expires_at=2e9
    )

    assert Documents.of_lines([Documents.of([full]).line(0)])[0] == full


def test_concat_and_take_do_what_lists_do():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(50):
        parts = [many_rows(rng.randrange(0, 9), prefix=f"{rng.choice('pq')}") for _ in range(rng.randrange(0, 4))]
        joined = Rows.concat(parts)
        expected = [row for part in parts for row in plain(part)]
        assert plain(joined) == expected
        assert len(set(joined.document_ids)) == len(joined.document_ids)
        chosen = [rng.randrange(len(joined)) for _ in range(rng.randrange(0, 12))] if len(joined) else []
        taken = joined.take(np.array(chosen, np.int64))
        assert plain(taken) == [expected[i] for i in chosen]
        assert set(taken.document_ids) == {expected[i][0].document_id for i in chosen}
        mask = np.array([rng.random() < 0.7 for _ in range(len(joined))], np.bool_)
        assert plain(joined.take(mask)) == [row for row, keep in zip(expected, mask, strict=True) if keep]


def test_no_rows_are_rows_too():
    empty = Rows.concat([])

    assert len(empty) == len(empty.documents) == 0
    assert plain(Rows.from_sections(stored(empty))) == []
    assert plain(Rows.concat([empty, rows_of({"a": ["x"]})])) == plain(rows_of({"a": ["x"]}))


def test_columns_of_different_length_are_refused():
    columns = {"ordinal": [0], "start": [0], "end": [1], "page": [-1], "tokens": [1], "identity": [bytes(16)]}

    with pytest.raises(ValueError, match="rows"):
        Rows.build([record("a")], document=[0], **{**columns, "page": []}, texts=["x"], headings=[None])
    with pytest.raises(ValueError, match="document that is not there"):
        Rows.build([record("a")], document=[1], **columns, texts=["x"], headings=[None])
    with pytest.raises(ValueError, match="offsets"):
        Rows.build([record("a")], document=[0], **columns, texts=[], headings=[None])


def test_text_that_no_utf8_can_hold_is_replaced_and_keeps_its_length():
    rows = rows_of({"a": ["x\ud800y"]})

    assert rows.text(0) == "x?y"


@pytest.mark.parametrize(
    "changed",
    [
        {"document": np.array([0, 0, 0, 9], "<u4")},
        {"document": np.array([0, 0, 0], "<u4")},
        {"page": np.zeros(4, "<u4")},
        {"identity": np.zeros((4, 15), "u1")},
        {"text_offsets": np.array([0, 9, 5, 5, 10], "<u8")},
        {"text_offsets": np.array([0, 1, 1, 1, 10_000], "<u8")},
        {"heading_offsets": np.zeros(2, "<u8")},
        {"document_offsets": np.array([0, 5], "<u8")},
    ],
)
def test_columns_that_contradict_each_other_are_damaged(changed):
    with pytest.raises(Damaged, match=r"x\.rows"):
        Rows.from_sections(stored(rows_of(TEXTS), **changed))


def test_a_missing_column_is_damaged():
    arrays = rows_of(TEXTS).to_arrays()
    del arrays["tokens"]
    sections = sections_of(b"".join(write_sections("rows", meta={}, arrays=arrays)), kind="rows")

    with pytest.raises(Damaged, match="tokens"):
        Rows.from_sections(sections)


def test_rotten_text_and_records_are_damaged_when_they_are_read():
    rows = rows_of(TEXTS)
    noise = np.full(rows.text_bytes.size, 0xFF, "u1")

    with pytest.raises(Damaged):
        replace(rows, text_bytes=noise).text(0)
    with pytest.raises(Damaged):
        Documents(np.full(rows.documents.data.size, ord("x"), "u1"), rows.documents.offsets)[0]


def test_what_is_remembered_of_records_is_bounded(monkeypatch):
    monkeypatch.setattr(records, "_REMEMBERED_MAX", 2)
    documents = Documents.of_lines([Documents.of([record(name)]).line(0) for name in "abcd"])

    def remember(*indexes: int) -> dict:
        return documents.remember(indexes, lines=[documents.line(index) for index in indexes])

    assert remember(0, 1) == {0: record("a"), 1: record("b")}
    assert documents.remembered([1, 0, 1, 2]) == {1: record("b"), 0: record("a"), 2: None}
    assert remember(2) == {2: record("c")}
    assert documents.remembered([0, 1, 2]) == {0: None, 1: None, 2: record("c")}


def test_a_chunk_is_itself_only_under_the_same_text_and_settings():
    settings = {"strategy": "auto", "size_tokens": 200}

    same = chunk_identity("text", chunking=dict(reversed(settings.items())))

    assert chunk_identity("text", chunking=settings) == same
    assert len({same, chunk_identity("text.", chunking=settings), chunk_identity("text", chunking={})}) == 3
    assert len(same) == 16
