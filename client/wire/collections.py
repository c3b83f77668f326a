"""Collections: what they are made of, and how long their versions are kept."""

from typing import Any, Literal

from pydantic import Field

from .messages import Answer, Name, Request

Metric = Literal["cosine", "dot", "l2"]

Quantization = Literal["none", "int8"]


class Chunking(Request):
    """How documents are cut. Sizes are in tokens; None leaves the choice to the server and the model's input limit."""

    strategy: Literal["auto", "recursive", "tokens"] = "auto"
    size_tokens: int | None = Field(default=None, ge=4, le=100_000)
    overlap_tokens: int | None = Field(default=None, ge=0)


class NewCollection(Request):
    """What is left out is the server's default. ``quantization`` int8 takes a third of the memory for large indexes."""

    name: Name
    model: str | None = Field(default=None, min_length=1, max_length=128)
    dimensions: int | None = Field(
        default=None, ge=1, le=100_000, description="fewer than the model makes: of Matryoshka models, whose may be cut"
    )
    chunking: Chunking | None = None
    metric: Metric | None = None
    quantization: Quantization | None = None


class CollectionChange(Request):
    """What is given is changed. Null: as the server has it for all collections."""

    keep_versions: int | None = Field(default=None, ge=1, le=1_000_000, description="newest versions that are kept")
    keep_s: float | None = Field(
        default=None, ge=0, le=10_000_000_000, description="how long others are kept after they were followed"
    )


class Fork(Request):
    """The collection to make of a version."""

    name: Name


class Collection(Answer):
    id: str
    name: Name
    created_at: float
    model: str
    dimensions: int
    metric: Metric
    quantization: Quantization
    chunking: dict[str, Any]
    version: int = Field(description="version of the published snapshot; 0 before the first")
    published_at: float | None
    chunks: int
    documents: dict[str, int] = Field(description="documents by the state of their newest version")
    token: str = Field(description="`min_token` of a search that must see the published snapshot")
    keep_versions: int | None = Field(default=None, description="newest versions kept; null: the server's own number")
    keep_s: float | None = Field(default=None, description="how long others are kept; null: the server's own time")


class CollectionList(Answer):
    data: list[Collection]
