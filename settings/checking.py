"""What the settings say to a shadow check, and what one request says instead."""

from penstock.pipeline.shadow import ShadowOptions, ShadowThresholds

from .model import Settings


def shadow_options(settings: Settings, **instead: float | None) -> ShadowOptions:
    """Return what a shadow check asks and refuses. ``instead``: of settings of ``[shadow]``, by their names."""
    chosen = settings.shadow.model_validate({**settings.shadow.model_dump(), **instead})
    return ShadowOptions(
        ShadowThresholds(
            min_overlap=chosen.min_overlap,
            min_rank_agreement=chosen.min_rank_agreement,
            max_ndcg_drop=chosen.max_ndcg_drop,
            max_slowdown=chosen.max_slowdown,
            min_queries=chosen.min_queries,
        ),
        queries=chosen.queries,
        timeout_s=chosen.timeout_s,
        ef=settings.search.ef,
    )
