"""What people and interfaces see: tenants, collections, documents and jobs, each only with its own tenant's eyes."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.collections import delete_collection, get_collection, list_collections, shard_of
from penstock.storage.catalog.documents import get_document, list_documents
from penstock.storage.catalog.generations import generation_info, pointers
from penstock.storage.catalog.jobs import cancel_job, get_job, list_jobs
from penstock.storage.catalog.progress import Tallies
from penstock.storage.catalog.tables import batches, generations, installation
from penstock.storage.catalog.tenants import admin_key_matches, create_tenant, ensure_installation, list_tenants
from penstock.storage.costs import Bill, ForBatch, Payee
from penstock.storage.errors import AlreadyExists, Conflict, InvalidName, NotFound
from penstock.storage.ids import DocumentId, GenerationId, JobId, TenantId
from penstock.storage.ledger.overview import oldest_waiting, overview

from ..ledger_line import TENANT, Line, document, new_line, rows
from ..storage_samples import ADMIN_KEY as KEY


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


@pytest.fixture
def acme(line) -> Line:
    return new_line(line.catalog, tenant=create_tenant(line.catalog, "acme", now=2.0))


def test_the_admin_key_is_made_once_shown_once_and_kept_only_as_a_hash(catalog):
    with catalog.write() as connection:
        connection.execute(sa.delete(installation))
    key = ensure_installation(catalog, now=5.0, key=None)
    assert key.startswith("pk_admin_")
    assert len(key) >= 9 + 43
    assert ensure_installation(catalog, now=6.0, key=None) is None
    assert admin_key_matches(catalog, key)
    assert key not in repr(rows(catalog))
    assert key.removeprefix("pk_admin_").encode() not in repr(rows(catalog)).encode()


def test_a_key_from_the_settings_replaces_the_one_in_force_and_stays(catalog):
    assert admin_key_matches(catalog, KEY)
    assert ensure_installation(catalog, now=5.0, key="another") == "another"
    assert ensure_installation(catalog, now=6.0, key="another") is None
    assert ensure_installation(catalog, now=7.0, key=None) is None
    assert admin_key_matches(catalog, "another")
    for wrong in (KEY, "", "anothe", "another ", "\ud800"):
        assert not admin_key_matches(catalog, wrong)


def test_no_key_matches_before_the_installation_is_made(catalog):
    with catalog.write() as connection:
        connection.execute(sa.delete(installation))
    assert not admin_key_matches(catalog, "")


def test_tenants_are_listed_and_made_once(catalog):
    create_tenant(catalog, "acme", now=2.0)
    assert [tenant.id for tenant in list_tenants(catalog)] == ["acme", "default"]
    with pytest.raises(AlreadyExists, match="'acme'"):
        create_tenant(catalog, "acme", now=3.0)
    with pytest.raises(InvalidName):
        create_tenant(catalog, "../acme", now=3.0)


def test_a_collection_is_made_with_its_generation(line):
    info = line.collection
    assert (info.name, info.tenant_id, info.documents) == ("papers", TENANT, {})
    made = info.generation
    assert (made.state, made.model, made.dimensions, made.metric) == ("active", "hash", 8, "cosine")
    assert (made.chunking, made.manifest, made.version, made.live_chunks) == ({"strategy": "auto"}, None, 0, 0)
    assert generation_info(line.catalog, made.id) == made
    assert get_collection(line.catalog, tenant=TENANT, name="papers") == info
    assert list_collections(line.catalog, tenant=TENANT) == [info]


def test_a_collections_name_is_its_tenants_own(line, acme):
    with pytest.raises(AlreadyExists, match="'papers'"):
        new_line(line.catalog)
    assert get_collection(line.catalog, tenant=TenantId("acme"), name="papers").id == acme.collection.id
    new_line(line.catalog, name="letters")
    assert [one.name for one in list_collections(line.catalog, tenant=TENANT)] == ["letters", "papers"]
    with pytest.raises(NotFound, match="'letters'"):
        get_collection(line.catalog, tenant=TenantId("acme"), name="letters")
    with pytest.raises(NotFound, match="tenant 'nobody'"):
        new_line(line.catalog, tenant=TenantId("nobody"))
    with pytest.raises(InvalidName):
        new_line(line.catalog, name="Not a name")


def test_the_shard_of_a_tenant_is_the_same_everywhere():
    assert [shard_of(TenantId(name), shards=8) for name in ("default", "acme", "globex")] == [2, 1, 2]
    assert {shard_of(TenantId(f"t{number}"), shards=4) for number in range(100)} == {0, 1, 2, 3}
    assert shard_of(TenantId("acme"), shards=1) == 0


def test_collections_count_their_documents_by_the_state_of_the_newest_version(line):
    line.submit("a", "b")
    line.run()
    line.submit("a", text="newer")
    line.submit("c")
    found = get_collection(line.catalog, tenant=TENANT, name="papers")
    assert found.documents == {"indexed": 1, "queued": 2}
    assert get_collection(line.catalog, tenant=TENANT, name="papers", counted=False).documents == {}
    assert [one.documents for one in list_collections(line.catalog, tenant=TENANT)] == [found.documents]


@pytest.mark.parametrize("listed", [500, 2])
def test_pointers_of_many_generations_come_at_once(line, monkeypatch, listed):
    monkeypatch.setattr("penstock.storage.catalog.generations.IN_LIST", listed)  # of more, all are read
    others = [new_line(line.catalog, name=f"c{number}") for number in range(3)]
    ids = [one.collection.generation.id for one in (line, *others)]
    with line.catalog.write() as connection:
        connection.execute(sa.update(generations).where(generations.c.id == ids[1]).values(manifest="m", version=4))
    assert pointers(line.catalog, [*ids, "gen_0"]) == {
        ids[0]: (None, 0),
        ids[1]: ("m", 4),
        ids[2]: (None, 0),
        ids[3]: (None, 0),
    }
    assert pointers(line.catalog, ids[:3]).keys() == set(ids[:3])
    assert pointers(line.catalog, []) == {}
    with pytest.raises(NotFound):
        generation_info(line.catalog, GenerationId("gen_0"))


def test_deleting_a_collection_leaves_the_others_alone_and_its_workers_find_out(line, acme):
    other = new_line(line.catalog, name="letters")
    for one in (line, acme, other):
        one.submit("a", "b")
    line.form()
    claims = [line.claim(batch) for batch in line.send("chunk")]
    delete_collection(line.catalog, tenant=TENANT, name="papers")

    outcomes = []
    for claim in claims:
        try:
            line.finish_chunking(claim)
            outcomes.append(claim.generation.id)
        except Conflict:
            pass
    assert sorted(outcomes) == sorted([acme.collection.generation.id, other.collection.generation.id])
    with pytest.raises(NotFound):
        line.submit("c")
    with pytest.raises(NotFound):
        delete_collection(line.catalog, tenant=TENANT, name="papers")
    with pytest.raises(NotFound):
        delete_collection(line.catalog, tenant=TENANT, name="acme's")
    new_line(line.catalog)  # the name is free again


def test_documents_are_listed_by_their_newest_version_page_by_page(line):
    line.submit("a", "b", "c")
    line.run()
    line.submit("b", text="newer")
    listed = list_documents(line.catalog, tenant=TENANT, collection_id=line.collection.id, limit=2)
    rest = list_documents(line.catalog, tenant=TENANT, collection_id=line.collection.id, after=listed[-1].id, limit=2)

    assert [(one.source, one.number, one.state) for one in listed + rest] == [
        ("a", 1, "indexed"),
        ("b", 2, "queued"),
        ("c", 1, "indexed"),
    ]
    assert (listed[0].chunk_count, listed[0].indexed_version, listed[0].size_bytes) == (1, 1, len("text of a"))
    queued = list_documents(line.catalog, tenant=TENANT, collection_id=line.collection.id, state="queued", limit=9)
    assert [one.source for one in queued] == ["b"]


def test_a_failed_document_says_where_and_why(line):
    line.accept([document("a", title="T", metadata={"year": 1})])
    claim = line.claimed("chunk")
    failed = ledger.FailedDocument(claim.versions[0].id, "encrypted", "the file needs a password")
    line.finish_chunking(claim, parts=[], failed=[failed])
    (listed,) = list_documents(line.catalog, tenant=TENANT, collection_id=line.collection.id, limit=9)
    where = {"tenant": TENANT, "collection_id": line.collection.id}
    info = get_document(line.catalog, **where, document_id=listed.id)
    assert info == listed
    assert (info.state, info.stage, info.error_code) == ("failed", "chunk", "encrypted")
    assert info.error == "the file needs a password"
    assert (info.title, info.metadata, info.filename, info.media_type) == ("T", {"year": 1}, "a.txt", None)


def test_what_belongs_to_another_tenant_does_not_exist(line, acme):
    job_id = acme.submit("a").job_id
    (theirs,) = list_documents(acme.catalog, tenant=acme.tenant, collection_id=acme.collection.id, limit=9)
    for look in (
        lambda: get_document(line.catalog, tenant=TENANT, collection_id=acme.collection.id, document_id=theirs.id),
        lambda: get_document(line.catalog, tenant=TENANT, collection_id=line.collection.id, document_id=theirs.id),
        lambda: get_document(
            line.catalog, tenant=TENANT, collection_id=line.collection.id, document_id=DocumentId("doc_0")
        ),
        lambda: list_documents(line.catalog, tenant=TENANT, collection_id=acme.collection.id, limit=9),
        lambda: get_job(line.catalog, tenant=TENANT, job_id=job_id),
        lambda: cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=1.0),
        lambda: list_jobs(line.catalog, tenant=TENANT, after=job_id),
    ):
        with pytest.raises(NotFound, match="there is no"):
            look()
    assert list_jobs(line.catalog, tenant=TENANT) == []
    assert acme.states()["a"] == ["queued"]


def test_a_jobs_progress_is_told_at_every_stage(line):
    line.parts = 2
    accepted = line.submit("a", "b", "c", "d")

    def progress():
        job = get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id)
        return job.state, job.documents, (job.chunks_total, job.chunks_embedded, job.chunks_indexed), job.cache_hits

    assert progress() == ("running", {"queued": 4}, (0, 0, 0), 0)
    claim = line.claimed("chunk")
    assert progress() == ("running", {"chunking": 4}, (0, 0, 0), 0)
    bad = claim.versions[3]
    parts = line.cut(replace(claim, versions=claim.versions[:3]))
    line.finish_chunking(claim, parts=parts, failed=[ledger.FailedDocument(bad.id, "empty", "nothing in it")])
    assert progress() == ("running", {"embedding": 3, "failed": 1}, (6, 0, 0), 0)
    first, second = (line.claim(batch) for batch in line.send("embed"))
    line.finish_embedding(first, cache_hits=2)
    assert progress() == ("running", {"embedding": 3, "failed": 1}, (6, 3, 0), 2)
    line.finish_embedding(second, cache_hits=1)
    assert progress() == ("running", {"failed": 1, "indexing": 3}, (6, 6, 0), 3)
    assert get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id).token is None
    line.now += 5
    line.index()
    assert progress() == ("done", {"failed": 1, "indexed": 3}, (6, 6, 6), 3)
    job = get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id)
    assert job.token == (line.collection.generation.id, 1)
    assert (job.created_at, job.finished_at, job.collection) == (1000.0, 1005.0, "papers")


def test_jobs_that_share_batches_share_their_counts(line):
    big, small = line.submit("a", "b", "c"), line.submit("d")
    line.chunk()
    (claim,) = (line.claim(batch) for batch in line.send("embed"))
    line.finish_embedding(claim, cache_hits=4)
    counts = [get_job(line.catalog, tenant=TENANT, job_id=one.job_id) for one in (big, small)]
    assert [(one.chunks_embedded, one.cache_hits) for one in counts] == [(3, 3), (1, 1)]


def test_what_the_cache_saved_is_kept_when_the_batches_are_gone(line):
    line.submit("a", "b", "c")
    line.submit("d", "e")
    line.submit("f", "g")
    line.chunk()
    (claim,) = (line.claim(batch) for batch in line.send("embed"))
    line.finish_embedding(claim, cache_hits=5)
    line.index()
    with line.catalog.write() as connection:
        connection.execute(sa.delete(batches))

    listed = list_jobs(line.catalog, tenant=TENANT)
    assert [job.cache_hits for job in reversed(listed)] == [2, 1, 2]
    assert {job.token for job in listed} == {(line.collection.generation.id, 1)}
    assert overview(line.catalog).embedding_cache_hits == 5


def test_how_long_work_waits_is_told_by_tenant_and_stage_and_not_of_what_is_worked_on(line, acme):
    line.submit("embedded")
    line.chunk()
    line.embed()
    line.now += 10
    line.submit("cut")
    line.chunk()
    acme.now = line.now + 5
    acme.submit("first")
    acme.now += 1
    acme.submit("second")
    assert oldest_waiting(line.catalog) == {
        (TENANT, "index"): line.now - 10,
        (TENANT, "embed"): line.now,
        (acme.tenant, "queued"): acme.now - 1,
    }
    (claim,) = [line.claim(batch) for batch in line.send("embed")]
    assert claim is not None
    acme.form()
    assert oldest_waiting(line.catalog) == {(TENANT, "index"): line.now - 10, (acme.tenant, "chunk"): acme.now}


def test_the_jobs_of_one_batch_are_written_in_one_round_trip(line):
    for source in "abcdef":
        line.submit(source)
    line.chunk()
    (claim,) = (line.claim(batch) for batch in line.send("embed"))
    written: list[str] = []

    def note(connection, cursor, statement, *_):
        if statement.startswith("UPDATE jobs"):
            written.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        line.finish_embedding(claim, cache_hits=1)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)

    assert len(written) == 1
    assert overview(line.catalog).embedding_cache_hits == 1


def test_a_claim_that_was_lost_counts_no_cache_hits(line):
    job_id = line.submit("a").job_id
    line.chunk()
    claim = line.claimed("embed")
    line.retry(claim)
    with pytest.raises(Conflict):
        line.finish_embedding(claim, cache_hits=1)
    assert get_job(line.catalog, tenant=TENANT, job_id=job_id).cache_hits == 0


def test_a_token_is_kept_when_the_document_was_replaced_since(line):
    first = line.submit("a", text="old")
    line.run()
    line.submit("a", text="new")
    line.run()
    job = get_job(line.catalog, tenant=TENANT, job_id=first.job_id)
    assert (job.documents, job.token) == ({"superseded": 1}, (line.collection.generation.id, 1))


def test_jobs_are_listed_newest_first_page_by_page(line):
    made = []
    for number in range(5):
        line.now += number % 2  # some at the same moment
        made.append(line.submit(f"d{number}").job_id)
    listed = list_jobs(line.catalog, tenant=TENANT, limit=3)
    rest = list_jobs(line.catalog, tenant=TENANT, limit=3, after=listed[-1].id)
    assert [job.id for job in listed + rest] == sorted(made, reverse=True)
    assert all(job.documents == {"queued": 1} for job in listed)


def test_cancelling_takes_back_what_is_unfinished_and_leaves_what_is_indexed(line):
    job_id = line.submit("a").job_id
    line.run()
    line.accept([document("b"), document("c")], job_id=job_id)
    line.chunk()
    line.accept([document("d")], job_id=job_id)
    cancelled = cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now)

    assert (cancelled.state, cancelled.finished_at) == ("cancelled", line.now)
    assert cancelled.documents == {"cancelled": 3, "indexed": 1}
    before = rows(line.catalog)
    assert cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now + 1) == cancelled
    assert rows(line.catalog) == before
    assert line.form() == 0
    assert line.send("embed") == []


def test_a_job_that_is_done_cannot_be_cancelled(line):
    job_id = line.submit("a").job_id
    line.run()
    with pytest.raises(Conflict, match="it is done"):
        cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now)
    with pytest.raises(NotFound):
        cancel_job(line.catalog, tenant=TENANT, job_id=JobId("job_0"), now=line.now)


def embedded(line: Line, claim: ledger.Claim, *, tokens: int, price: float | None) -> None:
    jobs = {version.job_id: 1 for version in claim.versions}
    payee = Payee(line.tenant, line.collection.id, "openai/m", price, jobs)
    bill = Bill(line.catalog, payee, ForBatch(claim.batch_id, claim.attempt), clock=lambda: line.now)
    bill.reserve(tokens)
    bill.paid(tokens)
    ledger.finish_embedding(line.catalog, claim, output="vectors", now=line.now, cache_hits=0, bill=bill)


def test_a_job_tells_its_pace_and_the_time_left_once_two_batches_are_embedded(line):
    accepted = line.submit(*(f"d{number}" for number in range(8)))
    for _ in range(4):
        line.form(max_batches=1, max_documents=2)
    chunks = line.send("chunk")
    for batch_id in chunks[:3]:
        line.finish_chunking(line.claim(batch_id))
    job = get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id)
    assert (job.chunks_total, job.chunks_expected) == (6, 8)  # documents of one size, two of them not cut yet
    assert (job.chunks_per_s(line.now), job.left_s(line.now)) == (None, None)

    first, second, _third = line.send("embed")
    embedded(line, line.claim(first), tokens=100, price=5_000.0)
    line.now += 4.0
    assert get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id).left_s(line.now) is None
    embedded(line, line.claim(second), tokens=50, price=5_000.0)

    job = get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id)
    assert job.chunks_per_s(line.now) == pytest.approx(2 / 4.0, rel=0.1)
    assert job.left_s(line.now) == pytest.approx((8 - 4) * 2.0, rel=0.1)
    assert (job.embedded_tokens, job.cost_usd) == (150, 0.75)


def test_the_cost_of_a_job_is_unknown_once_a_price_was(line):
    accepted = line.submit("a", "b")
    for _ in range(2):
        line.form(max_batches=1, max_documents=1)
    for batch_id in line.send("chunk"):
        line.finish_chunking(line.claim(batch_id))
    first, second = line.send("embed")
    embedded(line, line.claim(first), tokens=10, price=None)
    embedded(line, line.claim(second), tokens=10, price=5_000.0)
    job = get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id)
    assert (job.embedded_tokens, job.cost_usd) == (20, None)


def test_nobody_guesses_the_chunks_of_a_job_before_a_document_is_cut(line):
    accepted = line.submit("a", "b")
    job = get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id)
    assert (job.chunks_expected, job.left_s(line.now)) == (None, None)


def test_what_took_long_to_count_is_told_again_until_it_ends(line):
    accepted = line.submit("a", "b")
    now = [0.0]

    def ticking() -> float:
        now[0] += 1.0
        return now[0]

    tallies = Tallies(clock=ticking)

    def look():
        return get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id, tallies=tallies).documents

    assert look() == {"queued": 2}
    line.form()
    assert look() == {"queued": 2}
    now[0] += 30.0
    assert look() == {"chunking": 2}
    cancel_job(line.catalog, tenant=TENANT, job_id=accepted.job_id, now=line.now)
    assert look() == {"cancelled": 2}


def test_what_is_cheap_to_count_is_counted_at_each_look(line):
    accepted = line.submit("a")
    tallies = Tallies(clock=lambda: 1.0)
    for expected, act in (({"queued": 1}, line.form), ({"chunking": 1}, lambda: None)):
        assert get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id, tallies=tallies).documents == expected
        act()
