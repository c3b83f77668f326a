"""The example corpus is what it says: small, readable, of every format, and its questions have one answer each."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from penstock.pipeline.parsing import parse

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"
DOCUMENTS = CORPUS / "documents"
NAMES = sorted(path.relative_to(DOCUMENTS).as_posix() for path in DOCUMENTS.rglob("*") if path.is_file())
QUESTIONS = [json.loads(line) for line in (CORPUS / "questions.jsonl").read_text("utf-8").splitlines()]
AT_LEAST = {".txt": 3, ".md": 3, ".html": 3, ".pdf": 3, ".docx": 3, ".csv": 3, ".json": 3, ".jsonl": 2}


@cache
def text_of(name: str) -> str:
    document = parse((DOCUMENTS / name).read_bytes(), filename=name)
    return " ".join(document.text.split())


def test_corpus_is_small_and_has_every_format():
    assert 45 <= len(NAMES) <= 60
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) <= 3_000_000
    formats = Counter(Path(name).suffix for name in NAMES)
    assert {suffix: count for suffix, count in AT_LEAST.items() if formats[suffix] < count} == {}


def test_corpus_can_be_embedded_in_a_demo():
    """A small model on a slow machine embeds some ten passages a second; 370,000 characters are about 550."""
    assert sum(len(text_of(name)) for name in NAMES) <= 370_000


@pytest.mark.parametrize("name", NAMES)
def test_every_document_is_readable(name):
    assert len(text_of(name)) > 500
    assert "\ufffd" not in text_of(name)


def test_every_document_states_its_origin_and_licence():
    rows = re.findall(
        r"^\| `([^`]+)` \| (.+?) \| (.+?) \| (.+?) \|$", (CORPUS / "ORIGIN.md").read_text("utf-8"), re.MULTILINE
    )
    assert [row[0] for row in rows] == NAMES
    for notice in re.findall(r"\(licences/([\w.-]+)\)", "".join(row[2] for row in rows)):
        assert (CORPUS / "licences" / notice).is_file()


def test_questions_are_spread_over_documents_and_formats():
    assert len(QUESTIONS) >= 30
    assert len({question["document"] for question in QUESTIONS}) == len(QUESTIONS)
    assert {Path(question["document"]).suffix for question in QUESTIONS} >= AT_LEAST.keys()


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["document"])
def test_each_question_is_answered_by_its_document_alone(question):
    assert question.keys() == {"question", "answer", "document", "passage"}
    assert question["question"].endswith("?")
    assert [name for name in NAMES if question["passage"] in text_of(name)] == [question["document"]]
    assert question["passage"].lower() not in question["question"].lower()
