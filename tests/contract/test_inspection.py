"""Examining, mending and rebuilding, on every catalog there is; the command's own tests damage every kind of file."""

import secrets
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from penstock.storage.catalog.collections import get_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.references import CURRENT
from penstock.storage.catalog.retention import Retention, expire_versions
from penstock.storage.catalog.tables import documents, generations, versions
from penstock.storage.collecting import collect_generations, collect_packs
from penstock.storage.errors import Conflict
from penstock.storage.inspection.examination import Examination, examine
from penstock.storage.inspection.findings import Finding
from penstock.storage.inspection.rebuilding import rebuild_catalog
from penstock.storage.inspection.repairs import Repairer
from penstock.storage.publishing.forks import fork_collection
from penstock.storage.publishing.leases import release_lease
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Trim
from penstock.storage.segments.manifests import Manifest, Swap, read_manifest
from penstock.storage.segments.sections import open_sections

from ..s3_server import open_objects
from ..served_line import ServedLine, collection_of, new_served_line


class Unseen:
    def begin(self, total_bytes: int, total_rows: int) -> None: ...
    def advance(self, size_bytes: int) -> None: ...
    def searched(self, rows: int) -> None: ...


@pytest.fixture
def line(catalog, tmp_path) -> ServedLine:
    return new_served_line(catalog, tmp_path)


def examined(line: ServedLine) -> Examination:
    return examine(line.catalog, line.objects, now=line.clock(), progress=Unseen())


def problems(line: ServedLine) -> list[Finding]:
    return [finding for finding in examined(line).findings if finding.severity != "note"]


def repair(line: ServedLine) -> list[str]:
    """Mend, as a process beside the line whose writer is idle; the writer then takes the lease again."""
    if line.epoch is not None:
        release_lease(line.catalog, shard=0, owner=line.owner, epoch=line.epoch)
        line.epoch = None
    done = list(
        Repairer(line.catalog, line.objects, owner="doctor", wait_s=0.0, clock=line.clock).repair(examined(line))
    )
    assert all(one.done for one in done), done
    return [one.told for one in done]


def current(line: ServedLine) -> Manifest:
    with line.catalog.read() as connection:
        mine = generations.c.id == line.collection.generation.id
        return read_manifest(line.objects, connection.scalars(sa.select(generations.c.manifest).where(mine)).one())


def flip(line: ServedLine, name: str) -> None:
    path = line.objects.local_path(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(bytes(data))


def rot(copy: Path) -> None:
    """Let the second chunk of a local copy become one of the first document."""
    data = bytearray(copy.read_bytes())
    data[open_sections(copy, kind="segment").places["document"] + 4] ^= 1
    copy.unlink()
    copy.write_bytes(data)


def fork(line: ServedLine, name: str) -> ServedLine:
    parent = collection_of(line)
    fork_collection(
        line.catalog, line.objects, parent=parent, reference=CURRENT, name=name, clock=line.clock
    )  # fmt: skip
    return line.of(name)


def test_a_line_that_works_is_clean_with_forks_replacements_and_deletes(line):
    line.put(a="apples", b="beeches")
    line.put(a="apricots", c="cedars")
    copy = fork(line, "copy")
    copy.put(d="dates")
    assert problems(line) == []
    assert examined(line).checked()["documents"] == 3 + 4


def test_what_a_document_was_described_as_since_survives_a_repair_and_a_rebuild(line, empty_url):
    line.put(a="apples", b="beeches")
    line.update("a", metadata={"month": 9}, values={"title": "Apples"})
    line.run()
    assert problems(line) == []
    assert (line.listed()["a"].number, line.listed()["a"].title) == (2, "Apples")
    catalog = Catalog.open(empty_url)
    migrate(catalog)
    rebuild_catalog(catalog, line.objects, now=line.clock())
    again = _over(catalog, line, line.collection.name)
    assert problems(again) == []
    rebuilt, was = again.listed()["a"], line.listed()["a"]
    assert (rebuilt.number, rebuilt.title, rebuilt.metadata) == (was.number, was.title, was.metadata)
    assert _row(again, "a")["metadata_hash"] == _indexed_row(line, "a")["metadata_hash"]
    catalog.dispose()
    for entry in current(line).segments:
        flip(line, entry.files[0].name)
    with line.catalog.write() as connection:
        expire_versions(connection, tenant=line.tenant, now=1e12, retention=Retention(1, 0.0))
    repair(line)
    line.run()
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    shown = line.listed()["a"]
    assert (shown.number, shown.title, shown.metadata, shown.state) == (2, "Apples", {"month": 9}, "indexed")
    assert problems(line) == []


def test_another_text_under_the_number_that_the_ledger_indexes_is_not_taken_for_it(line):
    """A rebuilt catalog may give a number anew that past versions know for something else."""
    line.put(a="apples", b="beeches")
    with line.catalog.write() as connection:
        mine = sa.select(documents.c.id).where(documents.c.source == "a").scalar_subquery()
        other = sa.update(versions).where(versions.c.document_id == mine)
        connection.execute(other.values(content_hash=b"\1" * 32))
    told = [one.problem for one in problems(line)]
    assert len(told) == 2
    assert told[0].endswith("though no file is damaged: a")
    assert told[1].startswith("1 live chunk of 1 document in collection")
    repair(line)
    assert line.served() == {"b": ["beeches"]}


def test_a_line_that_was_rolled_back_is_clean_and_can_be_mended(line):
    line.put(a="apples", b="beeches")
    line.put(a="apricots", c="cedars")
    line.remove("b")
    line.run()
    line.roll_back(1)
    assert problems(line) == []
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    with line.catalog.write() as connection:
        expire_versions(connection, tenant=line.tenant, now=1e12, retention=Retention(1, 0.0))
    flip(line, current(line).segments[0].files[0].name)
    repair(line)
    line.run()
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    assert problems(line) == []


def test_what_is_published_and_collected_all_the_time_is_never_a_finding(line):
    """Retention keeps nothing but the current version here, and every file goes at once."""
    line.put(a="apples", b="beeches")
    line.put(c="cedars")

    class Busy(Unseen):
        """Between any two looks at files, versions come and go."""

        turns = 0

        def begin(self, total_bytes: int, total_rows: int) -> None:
            self.advance(total_bytes)

        def advance(self, size_bytes: int) -> None:
            self.turns += 1
            if self.turns > 12:
                return
            seen = len(line.served())
            line.put(**{source: f"{source} {line.now}" for source in ("a", "b", "c")}, **{f"d{seen}": "dates"})
            retention = Retention(keep_versions=1, keep_s=0.0)
            collect_generations(
                line.catalog, line.objects, tenant=line.tenant, now=line.clock(), retention=retention, min_age_s=-1e12
            )
            collect_packs(line.catalog, line.objects, tenant=line.tenant, now=line.clock(), min_age_s=-1e12)

    busy = Busy()
    for _ in range(3):
        busy.turns = 0
        result = examine(line.catalog, line.objects, now=line.clock(), progress=busy)
        assert [one for one in result.findings if one.severity != "note"] == []
        assert busy.turns > 1
    assert problems(line) == []


def test_what_a_damaged_segment_held_goes_through_the_line_again(line):
    line.put(a="apples", b="beeches")
    line.put(c="cedars")
    before = line.served()
    flip(line, current(line).segments[0].files[0].name)
    checks = [(one.severity, one.check) for one in problems(line)]
    assert checks == [("error", "files"), ("error", "contents")]
    assert any("2 documents to be indexed again" in told for told in repair(line))
    assert problems(line) == []
    assert line.served() == {"c": ["cedars"]}
    assert {source: info.state for source, info in line.listed().items()} == {
        "a": "queued",
        "b": "queued",
        "c": "indexed",
    }
    line.run()
    assert line.served() == before
    assert problems(line) == []


def test_an_object_in_a_bucket_is_looked_at_and_not_the_copy_in_the_cache(line, s3_server, tmp_path):
    line.objects = open_objects(s3_server.endpoint, tmp_path / "cache", prefix=f"test-{secrets.token_hex(6)}")
    line.put(a="apples", b="beeches")
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    assert problems(line) == []
    file = current(line).segments[0].files[0]
    data = bytearray(line.objects.get(file.name))
    data[-1] ^= 1
    line.objects.delete(file.name)
    line.objects.put(file.name, [bytes(data)])
    assert next((one.check, one.object) for one in problems(line)) == ("files", file.name)
    repair(line)
    assert problems(line) == []
    line.run()
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}


def test_a_copy_in_the_cache_that_rotted_is_no_finding_and_nothing_is_mended_by_it(line, s3_server, tmp_path):
    """The object is whole; a copy is mapped as it is, and would tell of documents that are not there."""
    line.objects = open_objects(s3_server.endpoint, tmp_path / "cache", prefix=f"test-{secrets.token_hex(6)}")
    line.put(a="apples", b="beeches")
    before = line.served()
    file = current(line).segments[0].files[0]
    copy = line.objects.local_path(file.name, blake2b=file.blake2b)
    rot(copy)
    assert problems(line) == []
    assert repair(line) == []
    assert line.served() == before


def test_a_catalog_is_rebuilt_from_objects_and_not_from_copies_that_rotted(line, s3_server, tmp_path, empty_url):
    line.objects = open_objects(s3_server.endpoint, tmp_path / "cache", prefix=f"test-{secrets.token_hex(6)}")
    line.put(a="apples", b="beeches")
    file = current(line).segments[0].files[0]
    rot(line.objects.local_path(file.name, blake2b=file.blake2b))
    catalog = Catalog.open(empty_url)
    migrate(catalog)
    assert rebuild_catalog(catalog, line.objects, now=line.clock()).findings == []
    assert _over(catalog, line, line.collection.name).served() == {"a": ["apples"], "b": ["beeches"]}
    catalog.dispose()


def test_a_newer_version_that_is_on_its_way_wins_over_one_that_starts_again(line):
    line.put(a="apples", b="beeches")
    line.submit("a", text="newer")
    flip(line, current(line).segments[0].files[0].name)
    repair(line)
    line.run()
    assert line.served() == {"a": ["newer of a"], "b": ["beeches"]}
    assert line.listed()["a"].number == 2
    assert problems(line) == []


def test_a_fork_is_mended_without_its_parent_s_help_and_the_other_way_round(line):
    line.put(a="apples", b="beeches")
    copy = fork(line, "copy")
    copy.put(c="cedars")
    shared = current(copy).segments[0].files[0].name
    assert shared == current(line).segments[0].files[0].name
    flip(line, shared)
    repair(line)
    copy.epoch = None
    copy.run()
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    assert copy.served() == {"a": ["apples"], "b": ["beeches"], "c": ["cedars"]}
    assert problems(line) == []


def test_chunks_deleted_one_by_one_do_not_come_back_with_the_segments_a_merge_was_made_of(line):
    line.put(a="apples\nmore apples", b="beeches")
    _count(line, "a", chunks=2)
    former = current(line).segments
    merged = build_merge(line.objects, current(line), former)
    publish = partial(line.publisher.publish, current(line).generation_id, epoch=line.lease(), shard=0)
    publish(swap=Swap([entry.id for entry in former], merged))
    row = _row(line, "a")
    publish(trims=[Trim("ver_trim", row["document_id"], text_version_id=row["id"], ordinals=[1])])
    details = {"text_version": row["id"], "ordinals": [1]}
    trimmed = {**row, "id": "ver_trim", "action": "trim", "number": None, "state": "trimmed", "details": details}
    with line.catalog.write() as connection:
        connection.execute(sa.insert(versions).values(trimmed))
    _count(line, "a", chunks=1)
    assert problems(line) == []
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    flip(line, merged.files[0].name)
    assert any("1 segment back from past versions; 1 chunk taken out" in told for told in repair(line))
    assert line.served() == {"a": ["apples"], "b": ["beeches"]}
    assert problems(line) == []


def test_a_repair_whose_documents_were_changed_meanwhile_changes_nothing(line, monkeypatch):
    line.put(a="apples", b="beeches")
    flip(line, current(line).segments[0].files[0].name)
    before = current(line).version
    release_lease(line.catalog, shard=0, owner=line.owner, epoch=line.epoch)
    repairer = Repairer(line.catalog, line.objects, owner="doctor", wait_s=0.0, clock=line.clock)

    def change(_where: str) -> None:
        with line.catalog.write() as connection:
            mine = sa.select(documents.c.id).where(documents.c.source == "a").scalar_subquery()
            connection.execute(sa.update(versions).where(versions.c.document_id == mine).values(state="superseded"))

    monkeypatch.setattr("penstock.storage.inspection.repairs.hit", change)
    (told,) = repairer.repair(examined(line))
    assert not told.done
    assert "changed while the index was being mended" in told.told
    assert current(line).version == before


def test_a_catalog_is_made_again_with_its_forks_and_the_line_goes_on(line, empty_url):
    line.put(a="apples", b="beeches")
    line.put(a="apricots", c="cedars")
    copy = fork(line, "copy")
    copy.put(d="dates")
    before = [(one.served(), {source: info.number for source, info in one.listed().items()}) for one in (line, copy)]
    catalog = Catalog.open(empty_url)
    migrate(catalog)
    made = rebuild_catalog(catalog, line.objects, now=line.clock())
    assert made.counts() == {"tenants": 1, "collections": 2, "versions": 4, "documents": 7}
    again = [_over(catalog, line, name) for name in (line.collection.name, "copy")]
    assert [(one.served(), {source: info.number for source, info in one.listed().items()}) for one in again] == before
    assert problems(again[0]) == []
    again[0].put(b="birches")
    assert again[0].served()["b"] == ["birches"]
    assert again[1].served()["b"] == ["beeches"]
    assert problems(again[0]) == []
    with pytest.raises(Conflict, match="not empty"):
        rebuild_catalog(catalog, line.objects, now=line.clock())
    catalog.dispose()


def _row(line: ServedLine, source: str) -> dict[str, Any]:
    wanted = sa.select(versions).join(documents, documents.c.id == versions.c.document_id)
    with line.catalog.read() as connection:
        return dict(connection.execute(wanted.where(documents.c.source == source)).mappings().one())


def _indexed_row(line: ServedLine, source: str) -> dict[str, Any]:
    wanted = sa.select(versions).join(documents, documents.c.id == versions.c.document_id)
    wanted = wanted.where(documents.c.source == source, versions.c.state == "indexed")
    with line.catalog.read() as connection:
        return dict(connection.execute(wanted).mappings().one())


def _count(line: ServedLine, source: str, *, chunks: int) -> None:
    """The line's own chunking counts one chunk for each document."""
    mine = sa.select(documents.c.id).where(documents.c.source == source).scalar_subquery()
    indexed = versions.c.document_id == mine, versions.c.state == "indexed"
    with line.catalog.write() as connection:
        connection.execute(sa.update(versions).where(*indexed).values(chunk_count=chunks))


def _over(catalog: Catalog, line: ServedLine, name: str) -> ServedLine:
    collection = get_collection(catalog, tenant=line.tenant, name=name)
    return ServedLine(catalog, collection, tenant=line.tenant, objects=line.objects, now=line.now)
