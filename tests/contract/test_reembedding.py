"""A collection is embedded again while it serves: all of it, what comes meanwhile too, and back again."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from penstock.pipeline.errors import InputRejected
from penstock.storage.catalog.collections import delete_collection, get_collection
from penstock.storage.catalog.generations import generation_info, is_generation_of
from penstock.storage.catalog.tables import batches, manifests, reembeddings
from penstock.storage.catalog.tags import put_tag
from penstock.storage.collecting import collect_lost_staging, list_staged
from penstock.storage.costs import read_costs
from penstock.storage.errors import AlreadyExists, Conflict, Damaged, NotFound
from penstock.storage.inspection.rebuilding import rebuild_catalog
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.reembedding.commands import go_back, pause, resume, switch
from penstock.storage.reembedding.endings import cancel, let_go, let_go_in_time
from penstock.storage.reembedding.reminders import wake_missed
from penstock.workers import following

from ..reembedded_line import ReembeddedLine, reembedded_line
from ..role_line import ACME
from ..storage_samples import new_catalog

# One server is enough where the statements are those of other tests.
on_sqlite = pytest.mark.parametrize("catalog_url", ["sqlite"], indirect=True)


@pytest.fixture
def line(tmp_path: Path, catalog_url: str) -> Iterator[ReembeddedLine]:
    with reembedded_line(tmp_path / "data", catalog_url=catalog_url) as made:
        yield made


def document(source: str, sentences: int = 3, word: str = "water") -> SubmittedDocument:
    text = " ".join(
        f"Sentence {number} of {source} says that {word} flows downhill here." for number in range(sentences)
    )
    return SubmittedDocument(source, f"{source}.txt", text.encode())


def filled(line: ReembeddedLine, count: int = 12) -> dict[str, list[str]]:
    line.accept([document(f"d{number}") for number in range(count)])
    line.drain()
    return line.served()


def test_a_collection_is_served_whole_by_the_new_model_after_the_switch(line):
    before = filled(line)
    former = line.current().generation
    line.begin()
    assert line.until("switched").state == "switched"
    now = line.current().generation
    assert (now.model, now.dimensions) == ("hash-384", 384)
    assert now.id != former.id
    assert now.version > former.version
    assert line.served() == before


@on_sqlite
def test_the_questions_of_the_check_are_in_the_books_as_searches_of_both_models(line):
    filled(line, 2)
    line.begin()
    report = line.until("switched").report
    assert report is not None
    found = {row.named["model"]: row for row in read_costs(line.catalog, by=("job", "model")) if not row.named["job"]}
    asked = report["recorded"] + report["sampled"]
    assert {model: row.amounts.calls for model, row in found.items()} == dict.fromkeys(
        ("hash-256", "hash-384"), asked + 1
    )
    assert all(row.amounts.tokens > asked for row in found.values())


def test_what_changes_while_it_runs_reaches_both_generations(line):
    filled(line)
    line.begin()
    line.stalled = {"check"}
    line.until("checking")
    line.accept([document("new"), document("d1", word="steam")])
    line.remove("d2")
    line.update("d3", metadata={"shelf": "top"})
    line.trim("d4", 0)
    line.drain()
    changed = line.served()
    line.stalled = set()
    line.until("switched")
    assert line.served() == changed
    assert {source: record.metadata for source, record in line.records().items()}["d3"] == {"shelf": "top"}
    assert len(changed["d4"]) == len(changed["d5"]) - 1
    assert ("d2" in changed, "new" in changed) == (False, True)


def test_documents_on_their_way_at_the_switch_end_in_the_new_generation(line):
    filled(line, 4)
    line.begin()
    line.until("checking")
    line.stalled = {"embed"}  # from here on nothing is embedded: what comes stays on its way
    accepted = line.accept([document("late"), document("d1", word="steam")])
    line.remove("d2")
    line.until("switched")
    line.stalled = set()
    line.drain()
    assert set(line.served()) == {"d0", "d1", "d3", "late"}
    assert any("steam" in text for text in line.served()["d1"])
    assert line.job(accepted).state == "done"
    generation = line.current().generation
    assert line.job(accepted).token[0] == generation.id


@on_sqlite
def test_tokens_of_the_generation_before_are_lower_than_any_version_of_the_new_one(line):
    accepted = line.accept([document("a")])
    line.drain()
    former, version = line.job(accepted).token
    line.begin()
    line.until("switched")
    now = line.current().generation
    assert former != now.id
    assert now.version > version
    assert is_generation_of(line.catalog, former, line.collection.id)


def test_going_back_brings_what_came_since_the_switch(line):
    filled(line, 4)
    former = line.current().generation.id
    line.begin()
    line.until("switched")
    line.accept([document("since"), document("d1", word="steam")])
    line.remove("d2")
    line.drain()
    since = line.served()
    go_back(line.catalog, line.current(), now=time.time())
    go_back(line.catalog, line.current(), now=time.time())
    line.until("returned")
    assert line.current().generation.id == former
    assert line.served() == since
    line.accept([document("after")])
    line.drain()
    switch(line.catalog, line.current(), forced=False, now=time.time())
    line.until("switched")
    assert line.current().generation.model == "hash-384"
    assert line.served() == {**since, "after": line.served()["after"]}


@on_sqlite
def test_a_paused_one_copies_nothing_until_it_is_resumed(line):
    filled(line)
    line.begin()
    line.stalled = {"embed"}
    line.step()
    pause(line.catalog, line.current(), now=time.time())
    line.stalled = set()
    for _ in range(3):
        line.step()
    assert line.info().chunks_copied == 0
    slices = (batches.c.reembedding_id == line.info().id, batches.c.stage == "embed")
    with line.catalog.write() as connection:  # as if one had been tried just then, and handed back
        connection.execute(sa.update(batches).where(*slices).values(next_attempt_at=0.0))
    wake_missed(line.catalog, now=time.time())
    line.step()
    assert line.info().chunks_copied == 0
    resume(line.catalog, line.current(), now=time.time())
    assert line.until("switched").chunks_copied > 0


@on_sqlite
def test_where_nothing_is_overdue_two_statements_find_that_out(line):
    filled(line, 3)
    line.begin()
    line.until("switched")
    line.until_caught_up()
    statements: list[str] = []

    def note(_connection, _cursor, statement, _parameters, _context, _many) -> None:
        statements.append(statement)

    sa.event.listen(line.catalog._reader, "before_cursor_execute", note)
    assert wake_missed(line.catalog, now=time.time()) == 0
    sa.event.remove(line.catalog._reader, "before_cursor_execute", note)
    assert len([one for one in statements if one.startswith("SELECT")]) <= 2


def test_a_follower_that_nobody_woke_is_looked_after(line):
    filled(line, 3)
    line.begin()
    with line.catalog.write() as connection:  # as if whoever was to wake it had died
        mine = (batches.c.stage == "follow", batches.c.reembedding_id == line.info().id)
        connection.execute(sa.update(batches).where(*mine).values(state="sent"))
        connection.execute(sa.update(batches).where(*mine).values(state="running"))
        connection.execute(sa.update(batches).where(*mine).values(state="done", finished_at=time.time()))
    assert wake_missed(line.catalog, now=time.time()) == 1
    assert line.until("switched").error is None


def test_a_cancelled_one_leaves_the_collection_as_it_is_and_drops_what_was_built(line):
    before = filled(line)
    serving = line.current().generation
    line.begin()
    line.until("checking")
    target = line.info().target.id
    cancel(line.catalog, line.current(), now=time.time())
    assert cancel(line.catalog, line.current(), now=time.time()).state == "cancelled"
    for _ in range(2):
        line.step()
    assert line.current().generation == serving
    assert line.served() == before
    with pytest.raises(NotFound):
        generation_info(line.catalog, target)
    with line.catalog.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).where(manifests.c.generation_id == target)) == 0
        assert connection.scalar(sa.select(sa.func.count()).where(batches.c.reembedding_id.is_not(None))) == 0
    line.begin("hash-512")
    line.until("switched")
    assert line.served() == before


@on_sqlite
def test_the_generation_before_is_let_go_when_its_time_is_over(line):
    before = filled(line, 3)
    line.begin(keep_s=0.0)
    info = line.until("switched")
    assert let_go_in_time(line.catalog, now=time.time() + 1.0) == 1
    assert line.info().state == "done"
    with pytest.raises(NotFound):
        generation_info(line.catalog, info.target.id)
    assert line.served() == before


@on_sqlite
def test_a_tag_keeps_the_generation_before_until_somebody_lets_it_go(line):
    filled(line, 3)
    former = line.current().generation
    with line.catalog.write() as connection:
        put_tag(connection, former.id, name="kept", version=former.version, now=1.0)
    line.begin(keep_s=0.0)
    line.until("switched")
    assert let_go_in_time(line.catalog, now=time.time() + 1.0) == 0
    assert let_go(line.catalog, line.current(), now=time.time()).state == "done"


@on_sqlite
def test_another_is_refused_while_one_is_open_and_the_same_is_that_one(line):
    filled(line, 2)
    first = line.begin()
    assert line.begin().id == first.id
    with pytest.raises(Conflict, match="hash-384: wait for that, or cancel it"):
        line.begin("hash-512")
    line.until("switched")
    with pytest.raises(Conflict, match="still kept"):
        line.begin("hash-512")
    with pytest.raises(Conflict, match="still kept"):
        line.begin("hash-256")


@on_sqlite
def test_a_collection_is_not_embedded_again_with_what_it_has(line):
    with pytest.raises(AlreadyExists, match="choose another model"):
        line.begin("hash-256")
    line.begin("hash-256", afresh=True)


@on_sqlite
def test_an_empty_collection_is_switched_too(line):
    line.begin()
    line.until("switched")
    line.accept([document("first")])
    line.drain()
    assert set(line.served()) == {"first"}


@on_sqlite
def test_resuming_tries_at_once_what_waits_for_its_provider(line):
    filled(line, 2)
    line.begin()
    line.stalled = {"embed"}
    line.step()
    slices = (batches.c.reembedding_id == line.info().id, batches.c.stage == "embed")
    waiting = {"next_attempt_at": time.time() + 900.0, "postponed": "paused", "error": "the key is refused"}
    with line.catalog.write() as connection:
        assert connection.execute(sa.update(batches).where(*slices).values(**waiting)).rowcount == 1
    resume(line.catalog, line.current(), now=time.time())
    with line.catalog.read() as connection:
        assert connection.scalars(sa.select(batches.c.next_attempt_at).where(*slices)).one() <= time.time()


def test_a_text_that_the_model_refuses_stops_it_with_the_reason_and_resuming_tries_again(line, monkeypatch):
    before = filled(line, 3)
    line.begin()
    embedder = line.embedding._components.embedders.of("hash-384", 384)
    with monkeypatch.context() as patch:
        patch.setattr(embedder, "embed_passages", refusing)
        line.step()
        line.step()
        stopped = line.info()
    assert stopped.paused_at is not None
    assert "too long for this model" in str(stopped.error)
    assert line.served() == before
    resume(line.catalog, line.current(), now=time.time())
    assert line.until("switched").error is None
    assert line.served() == before


@on_sqlite
def test_a_check_whose_worker_is_told_to_stop_goes_to_another_one_at_once_and_counts_nothing(line, monkeypatch):
    before = filled(line, 3)
    line.begin()
    liveness = line.maintenance._liveness

    def stopped(*_args: object, proceed, **_options: object) -> None:
        liveness.stop()
        proceed(1, 10)

    with monkeypatch.context() as patch:
        patch.setattr("penstock.workers.checking.shadow_check", stopped)
        line.until("checking")
        while not liveness.stopping:
            line.step()
    with line.catalog.read() as connection:
        check = connection.execute(sa.select(batches).where(batches.c.stage == "check")).one()
    assert (check.state, check.attempts, check.owner) == ("ready", 0, None)
    liveness._stopping_at.value = 0.0  # another one
    line.until("switched")
    assert line.served() == before


def test_a_check_that_fails_at_every_attempt_stops_it_with_the_reason_and_resuming_tries_again(line, monkeypatch):
    before = filled(line, 3)
    line.begin()
    with monkeypatch.context() as patch:
        patch.setattr("penstock.workers.maintenance.check_generations", rotten)
        line.until("checking")
        with line.catalog.write() as connection:  # all attempts but the last one were in vain already
            connection.execute(sa.update(batches).where(batches.c.stage == "check").values(attempts=4))
        for _ in range(3):
            line.step()
            wake_missed(line.catalog, now=time.time())
    assert "comparing the two generations failed" in str(line.info().error)
    assert line.served() == before
    resume(line.catalog, line.current(), now=time.time())
    assert line.until("switched").error is None
    assert line.served() == before


def rotten(*_args, **_options):
    raise Damaged("a segment is not what was written")


@on_sqlite
def test_what_was_cut_anew_before_it_stopped_is_still_there_when_it_goes_on_later(line, monkeypatch):
    filled(line, 3)
    line.begin(chunking={"strategy": "recursive", "size_tokens": 32, "overlap_tokens": 0})
    embedder = line.embedding._components.embedders.of("hash-384", 384)
    with monkeypatch.context() as patch:
        patch.setattr(embedder, "embed_passages", refusing)
        for _ in range(4):
            line.step()
    assert line.info().paused_at is not None
    resume(line.catalog, line.current(), now=time.time())
    later = {"tenant": ACME, "now": time.time() + 86_400.0}
    staged = list_staged(line.components.objects, **later)
    lost = collect_lost_staging(line.catalog, line.components.objects, tenant=ACME, staged=staged)

    assert staged
    assert lost.objects == 0
    assert line.until("switched").error is None
    assert set(line.served()) == {"d0", "d1", "d2"}


def refusing(texts):
    raise InputRejected("too long for this model", index=0)


@on_sqlite
def test_past_versions_of_before_the_switch_are_not_versions_of_the_new_generation(line):
    filled(line)
    line.begin()
    line.until("switched")
    generation = line.current().generation
    mine = manifests.c.generation_id == generation.id
    with line.catalog.read() as connection:
        kept = connection.scalars(sa.select(manifests.c.version).where(mine)).all()
    assert kept == [generation.version]


def test_deleting_a_collection_ends_its_reembedding(line):
    filled(line, 3)
    line.begin()
    line.until("checking")
    delete_collection(line.catalog, tenant=ACME, name="docs")
    line.publish()
    with line.catalog.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(reembeddings)) == 0


@on_sqlite
def test_a_large_document_is_copied_in_parts_and_published_in_one_piece(line, monkeypatch):
    monkeypatch.setattr(following, "part_chunks_of", lambda _model: 4)
    line.accept([document("large", 40), document("small", 2)])
    line.drain()
    before = line.served()
    assert len(before["large"]) > 8
    line.begin()
    line.until("switched")
    assert line.served() == before


@on_sqlite
@pytest.mark.parametrize("state", ["checking", "switched"])
def test_a_catalog_made_again_from_the_objects_serves_the_generation_that_served(line, tmp_path, state):
    filled(line, 4)
    line.begin()
    if state == "checking":
        line.stalled = {"check"}
    line.until(state)
    line.accept([document("since")])
    line.drain()
    line.until_caught_up()  # so that the other one was published last
    again = new_catalog(f"sqlite:///{tmp_path}/again.sqlite3")
    found = rebuild_catalog(again, line.components.objects, now=time.time())
    serving = get_collection(again, tenant=ACME, name="docs").generation
    assert serving.id == line.current().generation.id
    assert serving.version == line.current().generation.version
    assert any("had another generation" in one.problem for one in found.findings)
    again.dispose()


@on_sqlite
def test_documents_cut_otherwise_are_cut_anew_and_what_was_deleted_of_them_stays_away(line):
    filled(line, 3)
    gone = line.found_of("d1")[1].text
    line.trim("d1", 1)
    line.drain()
    line.begin(chunking={"strategy": "recursive", "size_tokens": 32, "overlap_tokens": 0})
    assert line.info().recuts
    line.until("switched")
    served = line.served()
    assert set(served) == {"d0", "d1", "d2"}
    assert len(served["d0"]) < 3
    assert words(served["d0"]) == words(line.original("d0"))
    assert not any(gone in text for text in served["d1"])
    assert served["d1"]
    line.accept([document("d1", word="steam")])
    line.drain()
    assert any("steam" in text for text in line.served()["d1"])


def words(texts: list[str]) -> list[str]:
    return sorted(word for text in texts for word in text.split())
