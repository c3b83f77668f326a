"""The shadow check: two generations of one collection, asked the same questions."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from penstock.pipeline.embedding import Embedders, EmbeddingOptions, open_embedder
from penstock.pipeline.errors import InputRejected
from penstock.pipeline.shadow import ShadowOptions, ShadowThresholds, shadow_check
from penstock.storage.catalog.judgements import Judgement, load_judgements
from penstock.storage.catalog.recorded_queries import AskedQuery, record_queries
from penstock.storage.catalog.tables import generations
from penstock.storage.errors import NotFound
from penstock.storage.ids import CollectionId, GenerationId, TenantId
from penstock.storage.publishing.publisher import Publisher
from penstock.storage.search.snapshots import SnapshotCache

from ..storage_samples import GENERATION, TENANT, Store, new_store, rows_of

NOW = 5_000.0
NEW = GenerationId("gen_2")
COLLECTION = CollectionId(f"collection-of-{GENERATION}")
WORDS = ["river", "gate", "water", "turbine", "valve", "pressure", "dam", "head", "flow", "pipe", "wheel", "power"]
TEXTS = {
    f"d{number}": [
        f"The {WORDS[number % 12]} number {number} and its {WORDS[part]} are opened by the {WORDS[number // 12]}."
        for part in range(3)
    ]
    for number in range(40)
}


class Installation:
    """A collection with two generations. ``models``: what each is searched with."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.embedders = Embedders(lambda model, _dimensions: open_embedder(model, EmbeddingOptions()))
        self.snapshots = SnapshotCache(store.catalog, store.objects, poll_s=3600)

    def publish(self, generation: GenerationId, texts, *, model: str) -> None:
        rows = rows_of(texts)
        vectors = self.embedders.of(model, 0).embed_passages([text for own in texts.values() for text in own])
        publisher = Publisher(self.store.catalog, self.store.objects, clock=self.store.clock)
        assert self.store.epoch is not None
        publisher.publish(generation, epoch=self.store.epoch, shard=0, additions=rows, vectors=vectors)

    def build(self, *, model: str = "hash-256", texts=TEXTS, dimensions: int = 256, chunking=None) -> None:
        """Make the new generation."""
        with self.store.catalog.write() as connection:
            old = connection.execute(sa.select(generations).where(generations.c.id == GENERATION)).mappings().one()
            values = {"id": NEW, "state": "building", "model": model, "dimensions": dimensions}
            values |= {"manifest": None, "version": 0, "next_chunk_id": 1, "live_chunks": 0}
            values |= {} if chunking is None else {"chunking": chunking}
            connection.execute(sa.insert(generations).values({**old, **values}))
        if texts:
            self.publish(NEW, texts, model=model)

    def check(self, *, new: GenerationId = NEW, tenant: TenantId = TENANT, proceed=lambda _d, _a: None, **options):
        thresholds = ShadowThresholds(**options.pop("thresholds", {}))
        return shadow_check(
            self.store.catalog,
            self.snapshots,
            self.embedders.of,
            tenant=tenant,
            collection_id=COLLECTION,
            old=GENERATION,
            new=new,
            options=ShadowOptions(thresholds=thresholds, **options),
            now=NOW,
            proceed=proceed,
        )

    def record(self, *queries: AskedQuery) -> None:
        record_queries(self.store.catalog, {(TENANT, COLLECTION): queries}, keep=100, now=NOW)

    def judge(self, *judgements: Judgement) -> None:
        load_judgements(self.store.catalog, judgements, tenant=TENANT, collection_id=COLLECTION, now=NOW)


@pytest.fixture
def installation(tmp_path) -> Iterator[Installation]:
    store = new_store(tmp_path, dimensions=384)
    made = Installation(store)
    vectors = made.embedders.of("hash", 384).embed_passages([text for own in TEXTS.values() for text in own])
    store.publish(additions=rows_of(TEXTS), vectors=vectors)
    yield made
    made.snapshots.close()


def test_two_generations_of_one_model_agree_wholly(installation):
    installation.build(model="hash", dimensions=384)
    report = installation.check()
    assert (report.passed, report.reasons) == (True, ())
    assert report.overlap == report.least_overlap == 1.0
    assert report.rank_agreement == pytest.approx(1.0)
    assert (report.compared, report.recorded, report.sampled) == ("passages", 0, 100)
    assert (report.old.chunks, report.new.chunks, report.new.dimensions) == (120, 120, 384)
    assert 0 < report.new.latency.p50_ms <= report.new.latency.p95_ms
    assert "sentences out of the collection's own chunks" in report.notes[0]


def test_each_generation_is_asked_with_its_own_model_and_dimensions(installation):
    installation.build(model="hash-256", dimensions=256)
    report = installation.check()
    assert (report.old.model, report.new.model) == ("hash", "hash-256")
    assert 0.5 < report.overlap < 1.0


def test_a_generation_that_finds_other_things_is_refused_by_the_threshold_it_misses(installation):
    shuffled = dict(zip(TEXTS, list(TEXTS.values())[7:] + list(TEXTS.values())[:7], strict=True))
    installation.build(texts=shuffled, model="hash", dimensions=384)
    report = installation.check()
    assert not report.passed
    assert report.reasons[0].startswith("overlap@10 is 0.")
    assert "0.300 is the least" in report.reasons[0]
    forgiven = installation.check(thresholds={"min_overlap": None})
    assert forgiven.passed
    assert forgiven.overlap == report.overlap
    ranks = installation.check(thresholds={"min_overlap": None, "min_rank_agreement": 0.9})
    assert ranks.reasons[0].startswith("rank agreement")


def test_recorded_searches_are_asked_with_their_filters_before_any_sentence_is_sampled(installation):
    topics = {name: texts for name, texts in TEXTS.items() if name.startswith("d1")}
    installation.build(texts={**topics, "e1": ["The river is elsewhere."]}, model="hash", dimensions=384)
    only = {"type": "in", "key": "$document_id", "value": sorted(topics)}
    installation.record(*(AskedQuery(f"the {word} of number {n}", only) for n, word in enumerate(WORDS)))
    installation.record(AskedQuery(None), AskedQuery(None))
    report = installation.check(thresholds={"min_queries": 12})
    assert (report.recorded, report.sampled, report.by_vector) == (12, 0, 2)
    assert report.overlap == 1.0  # without the filter, what only the old generation has would be found
    assert any("2 searches came as vectors" in note for note in report.notes)


def test_too_few_recorded_searches_are_filled_up_with_sampled_ones(installation):
    installation.build(model="hash", dimensions=384)
    installation.record(AskedQuery("the turbine of the river"))
    report = installation.check(queries=30)
    assert (report.recorded, report.sampled) == (1, 29)


def test_generations_that_cut_differently_are_compared_by_document(installation):
    longer = {name: [" ".join(texts)] for name, texts in TEXTS.items()}
    installation.build(texts=longer, model="hash", dimensions=384, chunking={"strategy": "tokens"})
    report = installation.check()
    assert report.compared == "documents"
    assert report.overlap > 0.5
    assert any("documents were compared" in note for note in report.notes)


def test_judgements_measure_both_and_a_fall_refuses(installation):
    installation.build(texts={"d0": TEXTS["d0"]}, model="hash", dimensions=384)
    installation.judge(
        Judgement("gate number 1", 3, source="folder/d1.txt"),
        Judgement("river number 0", 2, document_id="d0"),
        Judgement("nothing answers this", 0, document_id="d5"),
    )
    report = installation.check(thresholds={"min_overlap": None})
    assert report.judged == 2
    assert report.old.ndcg > 0.9
    assert report.new.ndcg == pytest.approx(0.5)
    assert report.reasons == (f"nDCG@10 falls from {report.old.ndcg:.3f} to 0.500, and may fall by 0.020",)
    assert installation.check(thresholds={"min_overlap": None, "max_ndcg_drop": 0.6}).passed


def test_what_only_the_new_model_cannot_read_counts_against_it(installation, monkeypatch):
    installation.build(model="hash-256", dimensions=256)
    new = installation.embedders.of("hash-256", 256)
    plain = type(new).embed_query

    def short_only(self, text):
        if self is new and len(text.split()) > 8 and not text.startswith("warm"):
            raise InputRejected("The text has too many tokens: use shorter texts")
        return plain(self, text)

    monkeypatch.setattr(type(new), "embed_query", short_only)
    installation.record(
        *(AskedQuery(f"the {word}") for word in WORDS), AskedQuery("one two three four five six seven ate nine")
    )
    report = installation.check(thresholds={"min_queries": 10, "min_overlap": None})
    assert report.new.unanswered == 1
    assert "too many tokens" in report.new.because
    assert report.recorded == 13
    assert report.least_overlap >= 0.0
    assert any("only the new generation could not answer 1" in note for note in report.notes)


def test_an_empty_new_generation_is_refused_and_an_empty_collection_is_not(installation, tmp_path):
    installation.build(texts=None)
    assert "no chunks" in installation.check().reasons[0]
    with installation.store.catalog.write() as connection:
        nothing = {"manifest": None, "version": 0, "live_chunks": 0}
        connection.execute(sa.update(generations).values(nothing))
    installation.snapshots.close()
    installation.snapshots = SnapshotCache(installation.store.catalog, installation.store.objects, poll_s=3600)
    report = installation.check()
    assert report.passed
    assert report.overlap is None
    assert "nothing to compare" in report.notes[0]


def test_a_check_that_runs_out_of_time_says_so_and_refuses(installation):
    installation.build(model="hash", dimensions=384)
    report = installation.check(timeout_s=0.0)
    assert report.reasons == ("only 0 questions were compared, and 20 have to be: give the check more time",)


def test_a_search_that_became_slow_is_refused_where_that_is_asked_for(installation):
    installation.build(model="hash", dimensions=384)
    report = installation.check(thresholds={"max_slowdown": 0.001})
    assert "times as long" in report.reasons[0]


def test_whoever_calls_hears_how_far_it_is_and_ends_it_by_raising(installation):
    installation.build(model="hash", dimensions=384)
    steps: list[tuple[int, int]] = []

    def proceed(done: int, total: int) -> None:
        steps.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        installation.check(queries=30, proceed=proceed)
    assert steps == [(0, 30), (1, 30), (2, 30), (3, 30)]


def test_another_tenants_generation_is_not_found(installation):
    installation.build(model="hash", dimensions=384)
    with pytest.raises(NotFound):
        installation.check(tenant=TenantId("rival"))
    with pytest.raises(NotFound):
        installation.check(new=GenerationId("gen_9"))
