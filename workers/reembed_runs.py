"""A schedule that embeds a collection again: it begins a re-embedding, and tells what became of it."""

from penstock.pipeline.chunking import ChunkingConfig, check_size, resolve
from penstock.pipeline.errors import EmbeddingError, InvalidChunking
from penstock.settings import wiring
from penstock.settings.providers import check_economy
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.errors import AlreadyExists, Conflict
from penstock.storage.reembedding.commands import NewGeneration, Terms, begin
from penstock.storage.reembedding.records import ReembeddingInfo, find_reembedding

from .errors import RunFailed, RunSkipped, RunWaits
from .run_work import RunWork

LOOK_S = 10.0
TOOK_OVER = ("switched", "done")


def reembed(work: RunWork) -> None:
    """Do one run. ``progress``: the id of the re-embedding, and what it cost so far."""
    collection = work.collection()
    if "reembedding" not in work.progress:
        work.progress["reembedding"] = _begun(work, collection).id
        work.save()
        work.components.notices.work_ready()
    found = find_reembedding(work.components.catalog, collection.id)
    if found is None or found.id != work.progress["reembedding"]:
        raise RunFailed("another re-embedding of the collection followed, and nobody knows of this one any more")
    counts = ("chunks_total", "chunks_copied", "cache_hits", "embedded_tokens", "cost_usd")
    work.progress |= {name: getattr(found, name) for name in counts}
    _judge(found, name=collection.name, only_build=bool(work.run.options.get("no_switch")))


def _begun(work: RunWork, collection: CollectionInfo) -> ReembeddingInfo:
    """Begin it. One that the run before this attempt began, and could not tell, is this one.

    Raises:
        RunSkipped: the collection is embedded so already, or another re-embedding is in the way.
        RunFailed: the model is not known, cannot read chunks of this size, or is not to be had for less.
    """
    components, options = work.components, work.run.options
    chosen = _chosen(work, collection)
    terms = Terms(
        keep_s=options.get("keep_s", components.settings.reembedding.keep_s),
        economy=bool(options.get("economy")),
        switches=not options.get("no_switch"),
        forced=bool(options.get("force")),
        afresh=bool(options.get("afresh")),
        budget_usd=options.get("budget_usd"),
    )
    try:
        return begin(components.catalog, collection, chosen, terms=terms, now=components.clock())
    except (AlreadyExists, Conflict) as error:
        if (mine := _begun_before(work, collection, chosen)) is not None:
            return mine
        raise RunSkipped(str(error)) from error


def _begun_before(work: RunWork, collection: CollectionInfo, chosen: NewGeneration) -> ReembeddingInfo | None:
    """Return what this run has begun in an attempt that could not tell, and that has switched since."""
    found = find_reembedding(work.components.catalog, collection.id)
    if found is None or found.created_at < work.run.began_at:
        return None
    built = found.target if found.switched_at is None else found.source
    return found if (built.model, built.dimensions) == (chosen.model, chosen.dimensions) else None


def _chosen(work: RunWork, collection: CollectionInfo) -> NewGeneration:
    """Return what the collection is to be: as it is, with the model of the schedule or of new collections."""
    settings, there, options = work.components.settings, collection.generation, work.run.options
    model = options.get("model") or settings.embedding.model
    dimensions = options.get("dimensions") or (there.dimensions if model == there.model else None)
    try:
        card = wiring.card_of(settings, model, dimensions=dimensions)
        if options.get("economy"):
            check_economy(settings, model)
        config = ChunkingConfig.model_validate(dict(options.get("chunking") or there.chunking))
        check_size(config, input_limit=card.input_limit_tokens, model=card.name)
    except (EmbeddingError, InvalidChunking) as error:
        raise RunFailed(str(error)) from error
    chunking = resolve(config, limit=card.input_limit_tokens).model_dump()
    quantization = options.get("quantization") or there.quantization
    return NewGeneration(card.name, card.dimensions, there.metric, quantization, chunking)


def _judge(found: ReembeddingInfo, *, name: str, only_build: bool) -> None:
    """Return when it is over and well.

    Raises:
        RunWaits: it goes on. RunFailed: it is over otherwise, or waits for a person.
    """
    if found.state in TOOK_OVER or (found.state == "ready" and only_build):
        return
    if found.state == "refused":
        raise RunFailed(
            f"the check refused the new generation: `penstock reembed {name} --status` shows the report, "
            "--switch --force or --cancel decides"
        )
    if found.state in ("cancelled", "returning", "returned"):
        raise RunFailed(f"the re-embedding is {found.state}: somebody wanted it so")
    if found.error is not None:
        raise RunFailed(f"it stands still: {found.error}; `penstock reembed {name} --resume` goes on")
    raise RunWaits(f"the re-embedding is {found.state}", after_s=LOOK_S)
