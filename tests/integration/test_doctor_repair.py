"""`penstock doctor --repair`: the next look finds nothing, and no document is lost that what is left can tell."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from penstock.api.cli.application import app
from penstock.storage import ledger, paths
from penstock.storage.catalog.cancelling import finish_cancelled
from penstock.storage.catalog.manifests import Origin
from penstock.storage.catalog.tables import (
    batches,
    documents,
    generations,
    jobs,
    manifests,
    reader_leases,
    shards,
    tags,
    versions,
)
from penstock.storage.inspection import repairs
from penstock.storage.inspection.examination import Examination, examine
from penstock.storage.inspection.repairs import Repairer
from penstock.storage.inspection.wording import numbered
from penstock.storage.publishing.commits import advance, read_standing
from penstock.storage.publishing.leases import acquire_lease, release_lease
from penstock.storage.publishing.merging import build_merge
from penstock.storage.segments.blocks import BLOCK_BYTES
from penstock.storage.segments.graph_files import HEADER_BYTES, graph_shape
from penstock.storage.segments.manifests import Manifest, describe_file, name_of, read_manifest
from penstock.storage.segments.segment import open_segment
from penstock.storage.segments.tombstones import read_deletes

from ..examined_installation import Installation, submit, texts
from ..http_service import running_service

FAIL = "penstock.storage.inspection.repairs.hit"


EXPECTED = {**texts("b", 120), **texts("b", 10, edition=2), **texts("c", 20)}


def served(installation: Installation, tenant: str = "default") -> dict[str, str]:
    """The text of every live chunk by its source; each document has one chunk here."""
    found: dict[str, str] = {}
    manifest = installation.current(tenant)
    for entry in manifest.segments:
        opened = open_segment(installation.objects, entry, dimensions=manifest.dimensions)
        for row in np.setdiff1d(np.arange(entry.row_count), read_deletes(installation.objects, entry)).tolist():
            source = opened.documents[int(opened.rows.document[row])].source
            assert source not in found, f"{source} is live twice"
            found[source] = opened.rows.text(row)
    return found


def states(installation: Installation) -> dict[str, str]:
    newest = sa.select(documents.c.source, versions.c.state)
    newest = newest.join(
        versions, sa.and_(versions.c.document_id == documents.c.id, versions.c.number == documents.c.newest)
    )
    with installation.catalog.read() as connection:
        return {row.source: row.state for row in connection.execute(newest.where(documents.c.tenant_id == "default"))}


def repaired(installation: Installation, *, code: int = 0) -> list[str]:
    """Repair, check that the next look finds nothing and that a second repair does nothing; return what was done."""
    told = installation.doctor("--repair", code=code)
    if code == 0:
        assert told["clean"], told["left"]
        assert installation.doctor(code=0)["findings"] == []
        assert installation.doctor("--repair", code=0)["repairs"] == []
    return [one["told"] for one in told["repairs"]]


def assert_nothing_is_lost(installation: Installation) -> set[str]:
    """Every document is served with its own text, or starts again; return those that do."""
    live, state = served(installation), states(installation)
    assert live == {source: text for source, text in EXPECTED.items() if state[source] == "indexed"}
    again = {source for source, word in state.items() if word == "queued"}
    assert set(EXPECTED) == set(live) | again
    return again


def test_what_is_right_is_left_alone(installation):
    before = installation.current().version
    assert repaired(installation) == []
    assert installation.current().version == before


@pytest.mark.parametrize("harm", ["flipped", "truncated", "missing"])
@pytest.mark.parametrize(("kind", "which"), [("flat", 0), ("graph", 0), ("graph", 1), ("graph", "deletes")])
def test_a_damaged_file_is_mended_and_no_document_is_lost(installation, rng, kind, which, harm):
    entry = next(entry for entry in installation.current().segments if entry.kind == kind)
    file = entry.deletes if which == "deletes" else entry.files[which]
    match harm:
        case "flipped":
            installation.flip(file.name, at=rng.randrange(file.size_bytes))
        case "truncated":
            installation.rewrite(file.name, installation.path(file.name).read_bytes()[: file.size_bytes // 2])
        case "missing":
            installation.path(file.name).unlink()
    assert any("was published" in told for told in repaired(installation))
    assert_nothing_is_lost(installation)


@pytest.mark.parametrize("harm", ["missing", "flipped"])
def test_a_damaged_merge_is_replaced_by_the_segments_it_was_made_of(installation, harm):
    """They are kept by past versions, and have all rows where a torn graph has some; what was replaced stays away."""
    entry = next(entry for entry in installation.current().segments if entry.kind == "graph")
    name = entry.files[1].name
    installation.path(name).unlink() if harm == "missing" else installation.flip(name, at=HEADER_BYTES + 4)
    assert any("1 segment back from past versions" in told for told in repaired(installation))
    assert assert_nothing_is_lost(installation) == set()


@pytest.mark.parametrize("section", ["fields/values", "code_heads", "document_keys", "expires_at"])
def test_a_segment_whose_computed_parts_are_damaged_is_written_anew_from_its_rows(installation, section):
    _forget_past_versions(installation)
    entry = next(entry for entry in installation.current().segments if entry.kind == "graph")
    installation.flip_section(entry.files[0].name, section)
    assert any("1 segment written anew" in told for told in repaired(installation))
    assert assert_nothing_is_lost(installation) == set()


@pytest.mark.parametrize("part", ["link", "vector"])
def test_a_graph_of_which_a_block_is_damaged_keeps_the_rows_of_the_others(installation, part):
    """The vectors of that block cannot be trusted: their documents start again."""
    _forget_past_versions(installation)
    entry = next(entry for entry in installation.current().segments if entry.kind == "graph")
    count, record_bytes = graph_shape(installation.path(entry.files[1].name))
    last_record = HEADER_BYTES + (count - 1) * record_bytes
    assert last_record > BLOCK_BYTES
    installation.flip(entry.files[1].name, at=last_record + (4 if part == "link" else 600))
    told = repaired(installation)[0]
    assert "1 segment written anew without the rows whose vectors are damaged" in told
    again = assert_nothing_is_lost(installation)
    assert 0 < len(again) < 60
    with running_service(installation.folder, made=True) as service:
        service.index()
    assert served(installation) == EXPECTED
    assert installation.doctor(code=0)["clean"]


@pytest.mark.parametrize("section", ["text_bytes", "chunk_id", "document", "document_bytes"])
def test_a_segment_whose_rows_are_damaged_is_given_up_and_its_documents_start_again(installation, section):
    _forget_past_versions(installation)
    entry = next(entry for entry in installation.current().segments if entry.kind == "graph")
    installation.flip_section(entry.files[0].name, section)
    told = repaired(installation)
    assert any("110 documents to be indexed again from packs" in one for one in told)
    again = assert_nothing_is_lost(installation)
    assert len(again) == 110


@pytest.mark.parametrize("past", ["kept", "forgotten"])
@pytest.mark.parametrize(
    ("harmed", "whose"),
    [
        ("flat", "another tenant's, shorter"),
        ("flat", "another tenant's, longer"),
        ("flat", "its neighbour's"),
        ("graph", "another tenant's, shorter"),
        ("graph", "its neighbour's"),
    ],
)
def test_the_whole_file_of_another_segment_is_taken_for_what_it_is(installation, harmed, whose, past):
    """A restore mixed files up: not a row of it is served to whom it does not belong, nor counts twice."""
    more, foreign = texts("e", 30), texts("f", 60) if "longer" in whose else {}
    with running_service(installation.folder, made=True) as service:
        submit(service, "books", more)
        if foreign:
            submit(service, "notes", foreign, tenant="other")
        release_lease(service.components.catalog, shard=0, owner="tests", epoch=service.epoch or 0)
    if past == "forgotten":
        _forget_past_versions(installation)
    graph, mine, neighbour = installation.current().segments
    assert (graph.kind, mine.kind, mine.row_count, neighbour.row_count) == ("graph", "flat", 30, 30)
    theirs = max(installation.current("other").segments, key=lambda entry: entry.row_count)
    assert theirs.row_count == (60 if foreign else 5)
    source = neighbour if whose == "its neighbour's" else theirs
    lost = graph if harmed == "graph" else mine
    installation.rewrite(lost.files[0].name, installation.path(source.files[0].name).read_bytes())

    objects = installation.objects
    before = {info.name for info in objects.list("tenants/default/")}

    assert any("was published" in told for told in repaired(installation))

    live, state = served(installation), states(installation)
    assert live == {name: text for name, text in (EXPECTED | more).items() if state[name] == "indexed"}
    assert set(state.values()) <= {"indexed", "queued"}
    assert more.items() <= live.items(), "what was intact stays"
    again = {name for name, word in state.items() if word == "queued"}
    assert len(again) == (lost.live_count if past == "forgotten" else 0)
    assert served(installation, "other") == texts("n", 5) | foreign
    written = {info.name for info in objects.list("tenants/default/")} - before
    not_ours = [text.encode() for text in served(installation, "other").values()]
    copied = [name for name in written for text in not_ours if text in objects.get(name)]
    assert copied == [], "another tenant's texts were written under this one's prefix"


@pytest.mark.parametrize("past", ["kept", "forgotten"])
def test_a_graph_file_of_another_segment_is_taken_for_what_it_is(installation, past):
    """As many rows, and whole; the segment beside it is intact."""
    manifest = installation.current()
    entry = next(entry for entry in manifest.segments if entry.kind == "graph")
    lost = np.fromfile(installation.path(entry.files[1].name), "|u1")
    count, record_bytes = graph_shape(installation.path(entry.files[1].name))
    vectors = lost[HEADER_BYTES : HEADER_BYTES + count * record_bytes].reshape(count, -1)
    vectors = vectors[:, -8 - 4 * manifest.dimensions : -8]
    vectors[:] = vectors[::-1].copy()  # each row has another's
    if past == "forgotten":
        _forget_past_versions(installation)
    installation.rewrite(entry.files[1].name, lost.tobytes())
    assert any("was published" in told for told in repaired(installation))
    again = assert_nothing_is_lost(installation)
    assert len(again) == (entry.live_count if past == "forgotten" else 0)


def test_a_fork_keeps_the_rows_of_a_file_that_lies_with_its_parent(installation):
    """The file tells the parent's generation, as its name does, and is the fork's nevertheless."""
    with running_service(installation.folder, made=True) as service, service.penstock() as penstock:
        penstock.fork("books", "copy")
        penstock.delete_collection("books")
    manifest = installation.current()
    entry = next(entry for entry in manifest.segments if entry.kind == "graph")
    assert (manifest.collection_name, manifest.generation_id in entry.files[0].name) == ("copy", False)
    installation.flip_section(entry.files[0].name, "expires_at")
    assert any("1 segment written anew" in told for told in repaired(installation))
    assert served(installation) == EXPECTED


def test_documents_that_start_again_are_found_again(installation):
    _forget_past_versions(installation)
    for entry in installation.current().segments:
        installation.path(entry.files[0].name).unlink()
    repaired(installation)
    assert len(assert_nothing_is_lost(installation)) == 140
    with installation.catalog.read() as connection:
        assert set(connection.scalars(sa.select(jobs.c.state).where(jobs.c.tenant_id == "default"))) >= {"running"}
    with running_service(installation.folder, made=True) as service:
        service.index()
    assert served(installation) == EXPECTED
    assert set(states(installation).values()) == {"indexed"}
    assert installation.doctor(code=0)["clean"]


def test_documents_that_a_cancelled_job_brought_start_again_and_are_not_cancelled(installation):
    _forget_past_versions(installation)
    mine = sa.update(jobs).where(jobs.c.tenant_id == "default")
    installation.execute(mine.values(state="running"))
    installation.execute(mine.values(state="cancelled", finished_at=time.time()))
    for entry in installation.current().segments:
        installation.path(entry.files[0].name).unlink()
    repaired(installation)
    assert finish_cancelled(installation.catalog, now=time.time()) == 0
    assert len(assert_nothing_is_lost(installation)) == 140
    with running_service(installation.folder, made=True) as service:
        service.index()
    assert served(installation) == EXPECTED
    with installation.catalog.read() as connection:
        assert set(connection.scalars(sa.select(jobs.c.state))) == {"cancelled", "done"}


def test_documents_whose_packs_are_gone_too_fail_with_the_reason(installation):
    _forget_past_versions(installation)
    entry = next(entry for entry in installation.current().segments if entry.kind == "flat")
    installation.path(entry.files[0].name).unlink()
    with installation.catalog.read() as connection:
        mine = sa.select(versions.c.pack).join(documents, documents.c.id == versions.c.document_id)
        pack = connection.scalars(mine.where(documents.c.source == "c3")).one()
    installation.path(pack).unlink()
    told = repaired(installation)
    assert any("10 documents to be indexed again from packs; 20 documents failed" in one for one in told)
    failed = {source for source, state in states(installation).items() if state == "failed"}
    assert failed == set(texts("c", 20))
    with installation.catalog.read() as connection:
        errors = set(connection.scalars(sa.select(versions.c.error).where(versions.c.state == "failed")))
    assert errors == {"Its chunks were lost, and its submitted bytes are gone too: submit it again."}


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_a_damaged_current_manifest_is_replaced_by_the_best_of_the_past(installation, harm):
    name = _pointer(installation)
    installation.flip(name) if harm == "flipped" else installation.path(name).unlink()
    repaired(installation)
    assert_nothing_is_lost(installation)


@pytest.mark.parametrize("_round", range(12))
def test_whatever_is_damaged_at_once_nothing_wrong_is_served_and_nothing_is_lost_but_what_is_gone(
    installation, rng, _round
):
    """Up to five objects of any kind; a document fails only where its chunks and its pack are both gone."""
    with installation.catalog.read() as connection:
        of = sa.select(documents.c.source, versions.c.pack).join(documents, documents.c.id == versions.c.document_id)
        packs = {row.source: row.pack for row in connection.execute(of.where(versions.c.state == "indexed"))}
    names = sorted(info.name for info in installation.objects.list("tenants/default/"))
    damaged = rng.sample(names, rng.randint(1, 5))
    print(damaged)
    for name in damaged:
        data = installation.path(name).read_bytes()
        match rng.choice(["flipped", "truncated", "missing"]):
            case "flipped":
                installation.flip(name, at=rng.randrange(len(data)))
            case "truncated":
                installation.rewrite(name, data[: rng.randrange(len(data))])
            case "missing":
                installation.path(name).unlink()
    told = CliRunner().invoke(app, ["doctor", "--repair", "--json", "--data-dir", str(installation.folder)])
    assert told.exit_code in {0, 3}, told.output
    left = json.loads(told.stdout).get("left", [])
    assert {one["check"] for one in left} <= {"packs"}
    assert {one["object"] for one in left} <= set(damaged)
    live, state = served(installation), states(installation)
    assert live == {source: text for source, text in EXPECTED.items() if state[source] == "indexed"}
    failed = {source for source, word in state.items() if word == "failed"}
    assert {packs[source] for source in failed} <= set(damaged)
    assert set(state.values()) <= {"indexed", "queued", "failed"}


def test_what_the_ledger_does_not_index_is_taken_out(installation):
    mine = sa.select(documents.c.id).where(documents.c.source.in_(["c3", "b50"])).scalar_subquery()
    removed = versions.c.document_id.in_(mine), versions.c.state == "indexed"
    installation.execute(sa.update(versions).where(*removed).values(state="deleted"))
    assert any("2 chunks taken out" in told for told in repaired(installation))
    assert set(EXPECTED) - set(served(installation)) == {"c3", "b50"}


def test_a_document_that_is_not_whole_starts_again(installation):
    mine = sa.select(documents.c.id).where(documents.c.source == "c3").scalar_subquery()
    installation.execute(sa.update(versions).where(versions.c.document_id == mine).values(chunk_count=2))
    repaired(installation)
    assert assert_nothing_is_lost(installation) == {"c3"}


def test_chunks_that_were_deleted_one_by_one_do_not_come_back_with_older_segments(installation):
    """The merged graph is lost; the segment it was made of does not know what was trimmed since."""
    entry = next(entry for entry in installation.current().segments if entry.kind == "graph")
    with installation.catalog.read() as connection:
        wanted = sa.select(versions).join(documents, documents.c.id == versions.c.document_id)
        row = connection.execute(wanted.where(documents.c.source == "b50")).mappings().one()
    trim = {**row, "id": "ver_trim", "action": "trim", "number": None, "state": "trimmed",
            "details": {"text_version": row["id"], "ordinals": [0]}}  # fmt: skip
    installation.execute(sa.insert(versions).values(trim))
    installation.execute(sa.update(versions).where(versions.c.id == row["id"]).values(chunk_count=0))
    installation.path(entry.files[1].name).unlink()
    installation.doctor("--repair", code=0)
    assert "b50" not in served(installation)


def test_numbers_in_the_catalog_are_set_right(installation):
    installation.execute(sa.update(generations).where(generations.c.tenant_id == "default").values(live_chunks=3))
    installation.execute(sa.update(manifests).where(manifests.c.tenant_id == "other").values(size_bytes=3))
    version = installation.current().version
    assert any("corrected to 140" in told for told in repaired(installation))
    assert installation.current().version == version, "no version was needed for that"


def test_a_version_without_a_row_is_entered_again(installation):
    installation.execute(sa.delete(manifests).where(manifests.c.name == _pointer(installation)))
    assert any("entered into the history again" in told for told in repaired(installation))


def test_catalog_and_objects_of_different_moments_are_left_to_a_person(installation):
    installation.execute(sa.update(generations).where(generations.c.tenant_id == "default").values(next_chunk_id=5))
    entry = next(entry for entry in installation.current().segments if entry.kind == "graph")
    installation.path(entry.files[1].name).unlink()
    before = _pointer(installation)
    told = installation.doctor("--repair", code=3)
    assert _pointer(installation) == before
    assert any(one["advice"] == "restore catalog and objects from one backup" for one in told["left"])


def test_damaged_past_versions_go_unless_a_tag_keeps_them(installation):
    with installation.catalog.read() as connection:
        mine = manifests.c.tenant_id == "default"
        rows = connection.execute(sa.select(manifests).where(mine).order_by(manifests.c.version)).all()
    installation.flip(rows[0].name)
    installation.path(rows[1].name).unlink()
    tag = {"generation_id": rows[0].generation_id, "version": rows[0].version, "name": "kept", "tenant_id": "default"}
    installation.execute(sa.insert(tags).values(**tag, created_at=1.0))
    told = repaired(installation, code=3)
    assert told == [f"version {rows[1].version} is not kept any more: it could not be opened"]
    (left,) = installation.doctor(code=3)["findings"]
    assert left["object"] == rows[0].name
    assert "tag 'kept'" in left["advice"]


def test_damaged_past_versions_are_told_together(installation):
    with installation.catalog.read() as connection:
        mine = (manifests.c.tenant_id == "default", manifests.c.followed_at.is_not(None))
        past = connection.execute(sa.select(manifests).where(*mine).order_by(manifests.c.version)).all()
    assert len(past) > 2
    for row in past:
        installation.path(row.name).unlink()
    whole = f"versions {past[0].version}-{past[-1].version}"
    assert repaired(installation) == [f"{whole} are not kept any more: they could not be opened"]


def test_a_damaged_file_names_the_versions_it_spoils_as_a_range(installation):
    with installation.catalog.read() as connection:
        mine = (manifests.c.tenant_id == "default", manifests.c.followed_at.is_not(None))
        past = connection.execute(sa.select(manifests).where(*mine).order_by(manifests.c.version)).all()
    current = {file.name for entry in installation.current().segments for file in entry.all_files}
    opened = {row.version: read_manifest(installation.objects, row.name).file_names - current for row in past}
    first = min(version for version, names in opened.items() if names)
    name = min(opened[first])
    spoiled = [version for version, names in opened.items() if name in names]
    installation.flip(name)
    (finding,) = [one for one in installation.doctor(code=3)["findings"] if one["object"] == name]
    assert f"{numbered(spoiled)} of collection" in finding["problem"]


@pytest.mark.parametrize("tagged", [False, True])
def test_a_rollback_that_waits_for_a_damaged_version_ends_with_the_reason(installation, tagged):
    """Else it would publish what nobody can open, or wait for a version that is gone."""
    with installation.catalog.read() as connection:
        mine = manifests.c.tenant_id == "default"
        first, second = connection.execute(sa.select(manifests).where(mine).order_by(manifests.c.version)).all()[:2]
    installation.flip(first.name)
    generation_id = first.generation_id
    if tagged:
        tag = {"generation_id": generation_id, "version": first.version, "name": "kept", "tenant_id": "default"}
        installation.execute(sa.insert(tags).values(**tag, created_at=1.0))
    asked = ledger.open_rollback(installation.catalog, generation_id=generation_id, version=first.version, now=1.0)

    told = repaired(installation, code=3 if tagged else 0)

    assert told[0] == f"rolling back to version {first.version} was ended, because of damage"
    ended = ledger.get_rollback(
        installation.catalog, tenant="default", generation_id=generation_id, rollback_id=asked.id
    )
    assert (ended.state, ended.error) == ("failed", f"version {first.version} is damaged: choose another")
    with installation.catalog.read() as connection:
        kept = connection.scalars(sa.select(manifests.c.version).where(manifests.c.generation_id == generation_id))
        assert (first.version in kept.all()) == tagged
    after = ledger.open_rollback(installation.catalog, generation_id=generation_id, version=second.version, now=2.0)
    assert repaired(installation, code=3 if tagged else 0) == []
    waiting = ledger.get_rollback(
        installation.catalog, tenant="default", generation_id=generation_id, rollback_id=after.id
    )
    assert waiting.state == "waiting", "a rollback to a version that is whole is left alone"


def test_a_damaged_past_version_that_a_live_reader_has_open_stays_until_he_lets_go(installation):
    with installation.catalog.read() as connection:
        mine = manifests.c.tenant_id == "default"
        oldest = connection.execute(sa.select(manifests).where(mine).order_by(manifests.c.version)).first()
    installation.path(oldest.name).unlink()
    lease = {"reader": "api", "generation_id": oldest.generation_id, "version": oldest.version, "beat": 1}
    installation.execute(sa.insert(reader_leases).values(lease))
    assert repaired(installation, code=3) == []
    [advice] = [finding["advice"] for finding in installation.doctor(code=3)["findings"]]
    assert f"a live reader keeps version {oldest.version} until 2 minutes after the last search" in advice
    assert "at once" not in advice, "that was tried"
    installation.execute(sa.delete(reader_leases))
    assert repaired(installation) == [f"version {oldest.version} is not kept any more: it could not be opened"]


def test_a_repair_that_dies_before_its_commit_changed_nothing_and_the_next_one_mends(installation, monkeypatch):
    entry = next(entry for entry in installation.current().segments if entry.kind == "flat")
    installation.path(entry.files[0].name).unlink()
    before = _pointer(installation)

    def die(_where: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FAIL, die)
    with pytest.raises(KeyboardInterrupt):
        list(_repairer(installation).repair(_examined(installation)))
    assert _pointer(installation) == before
    monkeypatch.undo()
    repaired(installation)
    assert_nothing_is_lost(installation)


def test_while_a_writer_holds_the_shard_nothing_is_published_and_it_says_so(installation):
    entry = next(entry for entry in installation.current().segments if entry.kind == "flat")
    installation.path(entry.files[0].name).unlink()
    acquire_lease(installation.catalog, shard=0, owner="writer", ttl_s=3_600, now=time.time())
    before = _pointer(installation)
    waits: list[str] = []
    (told,) = _repairer(installation, wait_s=0.0, waiting=waits.append).repair(_examined(installation))
    assert [wait[:43] for wait in waits] == ["waiting until the writer of shard 0 is idle"]
    assert not told.done
    assert "writer of shard 0 is busy" in told.told
    assert _pointer(installation) == before


def test_a_repair_that_takes_longer_than_a_lease_keeps_it(installation, monkeypatch):
    """A large segment is written for minutes: no writer comes in between and makes all of it for nothing."""
    entry = next(entry for entry in installation.current().segments if entry.kind == "flat")
    installation.path(entry.files[0].name).unlink()
    salvage, seen = repairs.salvage, []

    def slow(*args):
        for _ in range(3):  # ends of the lease, one after the other
            seen.append(_lease_ends_at(installation))
            until = time.monotonic() + 60
            while _lease_ends_at(installation) == seen[-1]:
                assert time.monotonic() < until, "the lease is not renewed"
                time.sleep(0.01)
        return salvage(*args)

    monkeypatch.setattr(repairs, "LEASE_S", 0.3)
    monkeypatch.setattr(repairs, "salvage", slow)
    assert all(told.done for told in _repairer(installation).repair(_examined(installation)))
    assert seen == sorted(seen)
    assert _lease_ends_at(installation) == 0.0, "it was given back"
    assert_nothing_is_lost(installation)


def test_what_a_writer_published_since_the_look_is_not_undone(installation):
    """The pointer moves between the examination and the repair."""
    entry = next(entry for entry in installation.current().segments if entry.kind == "flat")
    installation.path(entry.files[0].name).unlink()
    found = _examined(installation)
    doomed = sa.select(documents.c.id).where(documents.c.source == "b60").scalar_subquery()
    installation.execute(sa.update(versions).where(versions.c.document_id == doomed).values(state="deleted"))
    _publish(installation, installation.current(), graph_file=None)
    list(_repairer(installation).repair(found))
    assert "b60" not in served(installation)
    assert installation.doctor(code=0)["clean"]


def test_a_graph_that_lost_rows_is_told_and_built_anew_by_a_merge(installation):
    manifest = installation.current()
    entry = next(entry for entry in manifest.segments if entry.kind == "graph")
    lost = _unlinked(installation, entry.files[1].name, records=range(20, 40))
    _publish(installation, manifest, graph_file=lost)
    for sample in ("1", "0"):  # links are followed to every row, however few are searched for
        told = installation.doctor("--rows", sample, code=3)["findings"]
        finding = next(one for one in told if one["check"] == "reachability")
        assert finding["severity"] == "error"
        assert "no link leads to" in finding["problem"]
    told = installation.doctor("--repair", code=3)["repairs"]
    assert "is built anew by the maintenance role" in told[0]["told"]
    with installation.catalog.read() as connection:
        batch = connection.execute(sa.select(batches).where(batches.c.stage == "merge")).one()
    assert batch.details == {"segments": [entry.id], "afresh": True}
    assert "waits" in installation.doctor("--repair", code=3)["repairs"][0]["told"]
    current = installation.current()
    output = build_merge(installation.objects, current, [current.segments[0]], graph_rows=50, afresh=True)
    assert (output.kind, output.row_count, output.deleted_count) == ("graph", 110, 0)


def _examined(installation: Installation) -> Examination:
    class Unseen:
        def begin(self, total_bytes: int, total_rows: int) -> None: ...
        def advance(self, size_bytes: int) -> None: ...
        def searched(self, rows: int) -> None: ...

    return examine(installation.catalog, installation.objects, now=time.time(), progress=Unseen())


def _repairer(installation: Installation, **options) -> Repairer:
    return Repairer(installation.catalog, installation.objects, owner="doctor", **options)


def _lease_ends_at(installation: Installation) -> float:
    with installation.catalog.read() as connection:
        return connection.scalars(sa.select(shards.c.expires_at)).one()


def _pointer(installation: Installation) -> str:
    with installation.catalog.read() as connection:
        wanted = sa.select(generations.c.manifest).where(generations.c.tenant_id == "default")
        return connection.scalars(wanted).one()


def _forget_past_versions(installation: Installation) -> None:
    """As retention would: then nothing but the current version can be restored from."""
    others = manifests.c.tenant_id == "default", manifests.c.name != _pointer(installation)
    installation.execute(sa.delete(manifests).where(*others))


def _unlinked(installation: Installation, name: str, *, records: range) -> str:
    """Write the graph once more, without any link to these records, as a file of its own."""
    count, record_bytes = graph_shape(installation.path(name))
    data = bytearray(installation.path(name).read_bytes())
    words = np.frombuffer(data, "<u4", count * record_bytes // 4, HEADER_BYTES).reshape(count, -1)
    links = 32
    for record in range(count):
        kept = [other for other in words[record, 1 : 1 + words[record, 0]] if other not in records]
        words[record, 0] = len(kept)
        words[record, 1 : 1 + links] = [*kept, *[0] * (links - len(kept))]
    manifest = installation.current()
    made = paths.graph(manifest.tenant_id, manifest.generation_id, "seg_unlinked")
    installation.objects.put(made, [bytes(data)])
    return made


def _publish(installation: Installation, manifest: Manifest, *, graph_file: str | None) -> None:
    """Publish the next version, with another graph file where one is given."""
    epoch = acquire_lease(installation.catalog, shard=0, owner="tests", ttl_s=1, now=time.time())
    standing = read_standing(installation.catalog, manifest.generation_id, shard=0, epoch=epoch)
    segments = [
        replace(entry, files=[entry.files[0], describe_file(graph_file, installation.path(graph_file))])
        if graph_file and entry.kind == "graph"
        else entry
        for entry in manifest.segments
    ]
    following = replace(
        manifest, segments=segments, version=manifest.version + 1, parent=standing.name, writer_epoch=epoch
    )
    data = following.to_json()
    installation.objects.put(name_of(following, data), [data])
    with installation.catalog.write() as connection:
        name = name_of(following, data)
        advance(connection, standing, name=name, manifest=following, origin=Origin("publish"))
    installation.execute(sa.text("UPDATE shards SET owner = NULL, expires_at = 0"))
