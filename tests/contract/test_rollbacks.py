"""A rollback serves an old version again, with documents to match, and nothing that was accepted is lost."""

import random
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog import sources
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.generations import generation_info
from penstock.storage.catalog.jobs import cancel_job
from penstock.storage.catalog.manifests import list_manifests
from penstock.storage.catalog.references import Reference
from penstock.storage.catalog.retention import Retention, expire_versions
from penstock.storage.catalog.tables import batches, documents, versions
from penstock.storage.catalog.values import batched
from penstock.storage.errors import Conflict, Damaged, Fenced, NotFound, NotKept
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.ledger import rollbacks
from penstock.storage.ledger.overview import overview
from penstock.storage.publishing.leases import acquire_lease
from penstock.storage.segments import differences
from penstock.storage.segments.manifests import read_manifest
from penstock.storage.segments.sections import open_sections

from ..served_line import ServedLine, new_served_line
from .test_forks import fork

WEEK_S = 7 * 86_400.0


@pytest.fixture
def line(catalog, tmp_path) -> ServedLine:
    return new_served_line(catalog, tmp_path)


def version_of(line: ServedLine) -> int:
    return generation_info(line.catalog, line.collection.generation.id).version


def check(line: ServedLine) -> None:
    """What the catalog says is what is served."""
    assert line.indexed() == line.numbers()
    shown = {source: info for source, info in line.listed().items() if info.state == "indexed"}
    assert {info.id: info.number for info in shown.values()} == line.numbers()
    assert {info.source: info.chunk_count for info in shown.values()} == {
        source: len(texts) for source, texts in line.served().items()
    }


def expire(line: ServedLine) -> list[str]:
    with line.catalog.write() as connection:
        return expire_versions(connection, tenant=line.tenant, now=1e12, retention=Retention(1, 0.0))


def test_a_rollback_serves_the_old_version_under_a_new_number(line):
    line.put(a="apples\nmore apples", b="beeches", c="cedars")
    line.put(a="apricots", d="dates")
    line.remove("b")
    line.run()
    old = line.served()
    published = line.roll_back(1)
    assert old != line.served() == {"a": ["apples", "more apples"], "b": ["beeches"], "c": ["cedars"]}
    assert (published.manifest.version, version_of(line), published.changed) == (4, 4, True)
    check(line)
    with line.catalog.read() as connection:
        newest = list_manifests(connection, line.collection.generation.id, limit=9)[0]
    assert (newest.origin.operation, newest.origin.version) == ("rollback", 1)
    line.roll_back(3)
    assert line.served() == old
    check(line)


@pytest.mark.parametrize("at_once", [1, 3])
def test_documents_come_back_slice_by_slice(line, monkeypatch, at_once):
    """Locks of all documents are taken first, in one order: slices come in another."""
    monkeypatch.setattr(rollbacks, "batched", partial(batched, size=at_once))
    monkeypatch.setattr(sources, "batched", partial(batched, size=at_once))
    monkeypatch.setattr(differences, "_SLICE_DOCUMENTS", 2)
    line.put(**{f"d{i}": f"text {i}" for i in range(7)})
    line.put(**{f"d{i}": f"other {i}" for i in range(3, 9)})
    line.remove("d0")
    line.run()
    line.roll_back(1)
    assert line.served() == {f"d{i}": [f"text {i}"] for i in range(7)}
    check(line)


def test_no_file_but_a_manifest_is_written(line):
    line.put(a="apples", b="beeches")
    line.put(a="apricots")
    before = {info.name for info in line.objects.list("tenants/")}
    published = line.roll_back(1)
    assert {info.name for info in line.objects.list("tenants/")} - before == {published.name}


def test_ids_of_chunks_are_never_used_again(line):
    line.put(a="one\ntwo")
    line.put(b="three")
    line.roll_back(1)
    line.put(c="four")
    generation = generation_info(line.catalog, line.collection.generation.id)
    manifest = read_manifest(line.objects, generation.manifest or "")
    assert [entry.first_chunk_id for entry in manifest.segments] == [1, 4]
    assert manifest.next_chunk_id == 5


def test_what_was_rolled_back_can_be_submitted_again_and_gets_a_number_of_its_own(line):
    line.put(a="apples")
    line.put(a="apricots", b="beeches")
    line.roll_back(1)
    assert line.listed().keys() == {"a"}
    line.put(a="apples")  # served: unchanged
    assert version_of(line) == 3
    line.put(a="apricots", b="beeches")
    assert line.served() == {"a": ["apricots"], "b": ["beeches"]}
    assert {source: info.number for source, info in line.listed().items()} == {"a": 3, "b": 2}
    check(line)


def test_a_document_that_comes_back_is_shown_as_served_although_its_return_by_hand_was_cancelled(line):
    line.put(a="apples", b="beeches")
    line.remove("a")
    line.run()
    job_id = line.submit("a", text="apricots").job_id
    cancel_job(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now)
    assert line.listed()["a"].state == "cancelled"
    line.roll_back(1)
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    assert line.listed()["a"].state == "indexed"
    check(line)


@pytest.mark.parametrize("described_anew", [False, True])
def test_a_document_that_lost_all_its_chunks_gets_them_back(line, described_anew):
    line.put(a="apples", b="beeches")
    line.trim("a", 0)
    line.run()
    if described_anew:
        line.update("a", values={"title": "Apples"})
        line.run()
    assert line.served() == {"b": ["beeches"]}
    assert line.listed()["a"].chunk_count == 0
    line.roll_back(1)
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    assert {source: info.number for source, info in line.listed().items()} == {"a": 1, "b": 1}
    check(line)
    line.roll_back(2)  # as when it had no chunks: it leaves
    assert line.served() == {"b": ["beeches"]}
    assert line.listed().keys() == {"b"}
    check(line)


def test_what_is_on_its_way_is_indexed_on_top(line):
    line.put(a="apples", b="beeches")
    line.put(a="apricots")
    line.accept([SubmittedDocument(name, f"{name}.txt", text) for name, text in (("a", b"avocados"), ("n", b"new"))])
    line.chunk()
    line.remove("b")
    line.roll_back(1)
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    assert line.listed()["a"].state not in {"indexed", "superseded"}  # its owner sees what is on its way
    line.run()
    assert line.served() == {"a": ["avocados"], "n": ["new"]}
    assert line.listed()["a"].number == 3
    check(line)


def test_a_description_of_a_document_that_is_no_more_fails_and_says_why(line):
    line.put(a="apples")
    line.put(b="beeches")
    line.update("b", values={"title": "Trees"})
    line.roll_back(1)
    shown = line.listed()["b"]
    assert (shown.state, shown.error_code) == ("failed", "rolled_back")
    line.run()
    assert line.served() == {"a": ["apples"]}
    assert line.batch_states("index") == ["done"] * len(line.batch_states("index"))
    check(line)


def test_a_rollback_to_what_is_served_already_makes_no_version(line):
    line.put(a="apples")
    line.put(a="apricots")
    line.roll_back(1)
    published = line.roll_back(1)
    assert (published.changed, version_of(line)) == (False, 3)
    assert line.roll_back(3).changed is False
    assert line.batch_states("rollback") == ["done"] * 3


def test_asking_twice_is_asking_once_and_another_has_to_wait(line):
    line.put(a="apples")
    line.put(a="apricots")
    asked = line.ask_rollback(1)
    assert line.ask_rollback(1) == asked
    with pytest.raises(Conflict, match="a rollback to version 1 is under way"):
        line.ask_rollback(2)
    claim = line.claim_rollback()
    line.carry_out(claim)
    with pytest.raises(Conflict):
        line.carry_out(claim)  # the same message, delivered twice
    assert version_of(line) == 3
    where = {"tenant": line.tenant, "generation_id": line.collection.generation.id}
    ended = ledger.get_rollback(line.catalog, **where, rollback_id=asked.id)
    assert (ended.state, ended.published, ended.version, ended.error) == ("done", 3, 1, None)
    assert line.claim_rollback() is None
    with pytest.raises(NotFound, match="no rollback"):
        ledger.get_rollback(line.catalog, **{**where, "tenant": "other"}, rollback_id=asked.id)


def test_a_version_that_is_not_there_cannot_be_asked_for(line):
    with pytest.raises(NotKept):
        line.ask_rollback(1)
    line.put(a="apples")
    line.put(a="apricots")
    expire(line)
    with pytest.raises(NotKept, match="version 1 is not kept"):
        line.ask_rollback(1)
    with pytest.raises(NotFound, match="no generation"):
        ledger.open_rollback(line.catalog, generation_id="gen_of_nobody", version=1, now=1.0)
    assert line.batch_states("rollback") == []


def test_a_version_stays_while_a_rollback_to_it_waits(line):
    line.put(a="apples")
    for text in ("apricots", "avocados"):
        line.put(a=text)
    line.ask_rollback(1)
    assert len(expire(line)) == 1
    line.carry_out(line.claim_rollback())
    assert line.served() == {"a": ["apples"]}
    assert len(expire(line)) == 2


def test_document_versions_stay_as_long_as_a_version_of_the_index_serves_them(line):
    line.put(a="apples", b="beeches")
    line.put(a="apricots")
    line.remove("b")
    line.run()
    line.now += 2 * WEEK_S
    ledger.prune(line.catalog, now=line.now)
    ledger.prune(line.catalog, now=line.now)
    line.roll_back(1)
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    check(line)
    expire(line)
    line.now += 2 * WEEK_S
    for _ in range(3):
        ledger.prune(line.catalog, now=line.now)
    assert sorted(row[0] for row in line.version_rows("state")) == ["indexed", "indexed"]
    check(line)


def test_open_merges_are_dropped(line):
    line.put(a="apples")
    line.put(b="beeches")
    generation_id = line.collection.generation.id
    ledger.open_merge(line.catalog, generation_id=generation_id, details={"segments": ["s1"]}, now=line.now)
    line.roll_back(1)
    assert line.batch_states("merge") == ["dead"]
    assert ledger.open_merge(line.catalog, generation_id=generation_id, details={"segments": ["s1"]}, now=line.now)


def test_a_rollback_that_lost_its_lease_changes_nothing(line):
    line.put(a="apples")
    line.put(a="apricots")
    line.ask_rollback(1)
    claim = line.claim_rollback()
    rival = acquire_lease(line.catalog, shard=0, owner="rival", ttl_s=60, now=line.now + 1e10)
    with pytest.raises(Fenced):
        line.carry_out(claim)
    assert line.served() == {"a": ["apricots"]}
    check(line)
    line.epoch = rival
    line.now += 1e10
    line.carry_out(line.claim_rollback())  # the claim's lease is over too
    assert line.served() == {"a": ["apples"]}
    check(line)


def test_a_catalog_that_lacks_a_document_version_refuses_and_changes_nothing(line):
    line.put(a="apples")
    line.put(a="apricots")
    with line.catalog.write() as connection:
        connection.execute(sa.delete(versions).where(versions.c.number == 1))
    line.ask_rollback(1)
    with pytest.raises(Damaged, match=r"version 1 of document doc_\w+ is not in the catalog any more"):
        line.carry_out(line.claim_rollback())
    assert line.served() == {"a": ["apricots"]}
    line.now += 100
    claim = line.claim_rollback()
    ledger.fail_rollback(line.catalog, claim, error="it is not there", now=line.now)
    where = {"tenant": line.tenant, "generation_id": line.collection.generation.id}
    told = ledger.get_rollback(line.catalog, **where, rollback_id=claim.batch_id)
    assert (told.state, told.error, told.published) == ("failed", "it is not there", None)
    stage = overview(line.catalog).stages["rollback"]
    assert (stage.ready, stage.running, stage.dead) == (0, 0, 0)  # it was told: nobody has to look after it


def flip_a_bit(line: ServedLine, name: str, *, section: str) -> Path:
    path = line.objects.local_path(name)
    data = bytearray(path.read_bytes())
    data[open_sections(path, kind="segment").places[section]] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("section", ["vectors", "text_bytes"])
def test_a_version_that_no_reader_would_open_is_neither_rolled_back_to_nor_forked(line, section):
    line.put(a="apples")
    line.put(a="apricots")
    [first, _] = sorted(info.name for info in line.objects.list("tenants/") if info.name.endswith(".segment"))
    path = flip_a_bit(line, first, section=section)

    with pytest.raises(Damaged, match=path.name):
        fork(line, reference=Reference(version=1))
    line.ask_rollback(1)
    with pytest.raises(Damaged, match=path.name):
        line.carry_out(line.claim_rollback())
    assert version_of(line) == 2
    check(line)


def test_a_version_is_not_rolled_back_to_for_a_damaged_segment_that_is_served_now_too(line):
    line.put(a="apples")
    line.put(b="beeches")
    generation = generation_info(line.catalog, line.collection.generation.id)
    shared = read_manifest(line.objects, generation.manifest or "").segments[0]
    path = flip_a_bit(line, shared.files[0].name, section="text_bytes")

    line.ask_rollback(1)
    with pytest.raises(Damaged, match=path.name):
        line.carry_out(line.claim_rollback())
    assert version_of(line) == 2


def test_a_number_that_was_given_anew_is_not_taken_for_what_it_was(line):
    """A catalog that was made again from the objects begins to count at what is served."""
    line.put(a="apples")
    line.put(a="apricots")
    with line.catalog.write() as connection:
        connection.execute(sa.update(versions).where(versions.c.number == 1).values(content_hash=b"of other bytes"))
    line.ask_rollback(1)
    with pytest.raises(Damaged, match="not in the catalog any more"):
        line.carry_out(line.claim_rollback())
    with pytest.raises(Damaged, match="the catalog lacks documents of version 1"):
        fork(line, reference=Reference(version=1))
    assert line.served() == {"a": ["apricots"]}
    check(line)


def test_a_collection_that_is_deleted_takes_its_rollback_along(line):
    line.put(a="apples")
    line.ask_rollback(1)
    delete_collection(line.catalog, tenant=line.tenant, name="papers")
    assert line.claim_rollback() is None
    with line.catalog.read() as connection:
        assert connection.execute(sa.select(batches)).all() == []


def test_a_fork_is_rolled_back_without_its_parent(line):
    line.put(a="apples")
    copy = fork(line)
    copy.put(a="apricots", b="beeches")
    copy.epoch = line.epoch
    copy.roll_back(1)
    assert (copy.served(), line.served()) == ({"a": ["apples"]}, {"a": ["apples"]})
    assert line.indexed() == line.numbers()
    check(copy)


@pytest.mark.parametrize("seed", range(6))
def test_any_history_is_rolled_back_to_any_version(line, seed):
    """Against a model: what each version served, and what was accepted since."""
    print("seed", seed)
    chosen = random.Random(seed)
    served: list[dict[str, list[str]]] = [{}]
    for step in range(12):
        action, current = chosen.random(), dict(served[-1])
        if action < 0.5:
            texts = {name: f"{name} {chosen.randint(0, 3)}" for name in chosen.sample("abcd", 2)}
            line.put(**texts)
            current |= {name: [text] for name, text in texts.items()}
        elif action < 0.65 and current:
            gone = chosen.choice(sorted(current))
            line.remove(gone)
            line.run()
            del current[gone]
        elif len(served) > 1:
            to = chosen.randrange(1, len(served))
            line.roll_back(to)
            current = served[to]
        assert line.served() == current, step
        served += [current] * (version_of(line) - len(served) + 1)
        check(line)
    with line.catalog.read() as connection:
        unnumbered = sa.select(documents.c.id).where(documents.c.newest > documents.c.highest)
        assert connection.execute(unnumbered).all() == []
