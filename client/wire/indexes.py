"""What the index of a collection is made of."""

from typing import Literal

from pydantic import Field

from .collections import Metric
from .messages import Answer, Name


class SegmentStats(Answer):
    """One segment. ``graph_insertions``: of vectors into this graph and those its rows came from; 0 when it is flat."""

    id: str
    kind: Literal["flat", "graph"]
    rows: int
    live: int
    deleted: int = Field(description="rows with a tombstone, which the next merge drops")
    size_bytes: int
    bytes_per_vector: float
    graph_insertions: int


class MergeStats(Answer):
    """A merge on its way: in stage `merge` it is being built, in stage `swap` it waits for the writer."""

    stage: Literal["merge", "swap"]
    state: str
    segments: int = Field(description="how many segments become one")
    attempts: int
    created_at: float
    error: str | None


class MergeSetback(Answer):
    """Merges that were given up since the last one that went well. Searches are right meanwhile, and slower perhaps."""

    count: int
    given_up_at: float = Field(description="the last of them")
    again_at: float = Field(description="from then on the next one is tried")
    error: str | None


class ProbeStats(Answer):
    """Searches for a sample of the rows that are served, compared with an exact scan. Null without an answer."""

    wanted: int = Field(description="rows in the sample")
    asked: int = Field(description="how many of them were asked in the time there was")
    k: int
    ef: int
    self_recall: float | None = Field(description="share of rows that a search by their own vector finds")
    recall: float | None = Field(description="share of the k nearest that a search beside a row finds")
    took_s: float


class IndexStats(Answer):
    """The index of a collection, in the version that is served."""

    collection: Name
    model: str
    dimensions: int
    metric: Metric
    generation: str
    version: int
    published_at: float | None
    rows: int
    live: int
    deleted: int
    size_bytes: int
    bytes_per_vector: float | None = Field(description="bytes of all files for each live row")
    graph_insertions: int
    graph_insertions_per_vector: float | None = Field(description="for each row of a graph")
    merges: list[MergeStats]
    setback: MergeSetback | None = Field(default=None, description="null when no merge was given up lately")
    segments: list[SegmentStats]
    probe: ProbeStats | None = Field(description="null when none was asked for")
