"""What is checked before a re-embedding takes over, and which searches are recorded for it. Data only."""

from typing import Annotated

from pydantic import Field

from .groups import Count, Group, Seconds

Share = Annotated[float, Field(ge=0, le=1)]


class Shadow(Group):
    """The shadow check: the same questions to the old and to the new generation."""

    record: bool = Field(
        True, description="Whether some of the searches are recorded, with their filters; a tenant may be left out"
    )
    keep: Annotated[int, Field(ge=1, le=10_000)] = Field(
        200, description="Recorded searches of one collection; the newest stay"
    )
    keep_s: Seconds = Field(30 * 86_400.0, description="How long a search is recorded after it was last asked")
    queries: Annotated[int, Field(ge=1, le=10_000)] = Field(
        100, description="Most questions that are asked, and most judged ones besides"
    )
    min_queries: Count = Field(
        20, description="Recorded searches below which sentences of the collection's chunks are asked besides"
    )
    timeout_s: Seconds = Field(120.0, description="Longest time of one check")
    min_overlap: Share | None = Field(0.3, description="Least mean overlap of the first ten hits, 0 to 1")
    min_rank_agreement: Share | None = Field(
        None, description="Least mean rank-biased overlap, 0 to 1; default: not looked at"
    )
    max_ndcg_drop: Share | None = Field(0.02, description="How much nDCG@10 may fall, where there are judgements")
    max_slowdown: Annotated[float, Field(gt=0)] | None = Field(
        None, description="How many times as long a search may take, at the median; default: not looked at"
    )
