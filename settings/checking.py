"""What the settings say to a shadow check, and what one request says instead."""

from penstock.pipeline.shadow import ShadowOptions, ShadowThresholds

from .model import Settings

THRESHOLDS = ("min_overlap", "min_rank_agreement", "max_ndcg_drop", "max_slowdown")


def shadow_options(settings: Settings, **instead: float | None) -> ShadowOptions:
    """Return what a shadow check asks and refuses. ``instead``: of settings of ``[shadow]``, by their names.

    None is a threshold that is not looked at; of the other settings it is what the settings say.
    """
    told = {name: value for name, value in instead.items() if value is not None or name in THRESHOLDS}
    chosen = settings.shadow.model_validate({**settings.shadow.model_dump(), **told})
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
