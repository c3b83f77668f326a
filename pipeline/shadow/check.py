"""Asks two generations the same questions, compares what they find, and says whether the new one may take over.

It changes nothing and keeps no texts. One question after the other, as searches come: what is measured is what a
searcher would notice. Whoever calls may end it between two questions.
"""

import time
from collections.abc import Callable

import numpy as np

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.generations import GenerationInfo, generation_info
from penstock.storage.catalog.judgements import judged_queries
from penstock.storage.catalog.recorded_queries import read_recorded
from penstock.storage.errors import NotFound
from penstock.storage.ids import CollectionId, GenerationId, TenantId
from penstock.storage.search.snapshots import SnapshotCache

from ..embedding.embedder import Embedder
from .asking import OPENING_S, Asked
from .comparison import Comparison
from .questions import Question, recorded_questions, sampled_questions
from .report import ShadowOptions, ShadowReport
from .verdict import Wanted, concluded

QUESTIONS_SHARE = 0.6  # of the time, where there are judgements besides


def shadow_check(
    catalog: Catalog,
    snapshots: SnapshotCache,
    embedder_for: Callable[[str, int], Embedder],
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    old: GenerationId,
    new: GenerationId,
    options: ShadowOptions,
    now: float,
    proceed: Callable[[int, int], None] = lambda _done, _all: None,
) -> ShadowReport:
    """Compare generation ``new`` of a collection with ``old``, whatever their states are.

    Questions are the newest searches that were recorded, with their filters; where fewer than ``min_queries`` were,
    sentences of random chunks of ``old`` are added. Questions with judgements are asked besides.

    Args:
        embedder_for: gives the embedder of a model name and dimensions, as for searches.
        now: seconds since 1970; what expired by then is not found in either.
        proceed: called before each question with how many were asked and how many there are; what it raises ends the
            check. For progress, a lease, a cancel.

    Raises:
        NotFound: the tenant has no such generation in that collection.
        EmbeddingError: one of the models cannot embed now.
        Damaged, Unavailable: one of the generations cannot be searched now.
    """
    began = time.perf_counter()
    infos = [_generation(catalog, one, tenant=tenant, collection_id=collection_id) for one in (old, new)]
    before, after = (Asked(info, snapshots, embedder_for, options.ef, now) for info in infos)
    by_document = dict(infos[0].chunking) != dict(infos[1].chunking)
    comparison = Comparison(before, after, by_document)
    for side in comparison.sides:
        side.warm()
    recorded = read_recorded(catalog, collection_id, limit=options.queries)
    questions = _filled(recorded_questions(recorded.queries), before, options)
    judged = list(judged_queries(catalog, collection_id).items())[: options.queries]
    total = len(questions) + len(judged)
    share = QUESTIONS_SHARE if judged else 1.0
    for number, question in enumerate(questions):
        proceed(number, total)
        if time.perf_counter() > began + share * options.timeout_s:
            break
        comparison.compare(question)
    for number, (query, judgements) in enumerate(judged):
        proceed(len(questions) + number, total)
        if time.perf_counter() > began + options.timeout_s:
            break
        comparison.measure(query, judgements)
    wanted = Wanted(questions=len(questions), judged=len(judged), by_vector=recorded.by_vector)
    return concluded(comparison, wanted, options, took_s=time.perf_counter() - began)


def _generation(
    catalog: Catalog, generation_id: GenerationId, *, tenant: TenantId, collection_id: CollectionId
) -> GenerationInfo:
    info = generation_info(catalog, generation_id)
    if (info.tenant_id, info.collection_id) != (tenant, collection_id):
        raise NotFound(f"there is no generation {generation_id!r}")
    return info


def _filled(questions: list[Question], old: Asked, options: ShadowOptions) -> list[Question]:
    """Return the questions, and sampled ones besides where they are too few."""
    if len(questions) >= min(options.thresholds.min_queries, options.queries):
        return questions
    generation, random = old.generation, np.random.default_rng(options.seed)
    with old.snapshots.get(generation.tenant_id, generation.id, timeout_s=OPENING_S) as snapshot:
        count = options.queries - len(questions)
        return questions + sampled_questions(snapshot, count=count, now=old.at, random=random)
