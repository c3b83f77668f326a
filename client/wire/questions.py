"""What a re-embedding is judged by: searches that were recorded, and judgements of documents."""

from typing import Any, Self

from pydantic import Field, model_validator

from .messages import Answer, Request
from .submissions import LONGEST_SOURCE

MAX_JUDGEMENTS = 10_000
MAX_GRADE = 10


class RecordedQuery(Answer):
    """A search that was recorded: once, with how often it was asked. Its filter is as its asker wrote it."""

    text: str
    filter: Any = None
    times: int
    first_at: float
    last_at: float


class RecordedQueryList(Answer):
    data: list[RecordedQuery]
    by_vector: int = Field(description="searches by vector: they are only counted, for no other model can answer them")
    recording: bool = Field(description="whether more are recorded: by this server, and of this tenant")


class Forgotten(Answer):
    forgotten: int = Field(description="how many there were")


class NewJudgement(Request):
    """How well a document answers a question: 0, not at all, and more the better. It is named by exactly one way."""

    query: str = Field(min_length=1, max_length=2_000, pattern=r"^[^\x00]*\S[^\x00]*$")
    grade: int = Field(ge=0, le=MAX_GRADE)
    source: str | None = Field(default=None, min_length=1, max_length=LONGEST_SOURCE, pattern=r"^[^\x00]*$")
    document_id: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[^\x00]*$")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.source is None) == (self.document_id is None):
            raise ValueError("give exactly one of 'source' and 'document_id'")
        return self


class NewJudgements(Request):
    """All of them are kept or none; the last one of a question and a document counts."""

    judgements: list[NewJudgement] = Field(max_length=MAX_JUDGEMENTS)
    replace: bool = Field(default=False, description="forget those that are there")


class Judgement(Answer):
    id: str
    query: str
    grade: int
    source: str | None = None
    document_id: str | None = None


class JudgementList(Answer):
    data: list[Judgement]
    has_more: bool
    last_id: str | None


class JudgementsLoaded(Answer):
    judgements: int = Field(description="of the collection, those loaded before included")
    queries: int = Field(description="different questions of these")
    unknown_count: int = Field(description="how many of those sent name a document that the collection does not have")
    unknown: list[int] = Field(description="the first hundred of these, by their places in what was sent, from 0")
