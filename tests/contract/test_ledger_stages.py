"""Documents move from stage to stage whole, each in the one transaction that ends its batch."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from penstock.storage import ledger, paths
from penstock.storage.catalog.jobs import cancel_job, get_job
from penstock.storage.catalog.tables import batches
from penstock.storage.collecting import collect_lost_staging, list_staged
from penstock.storage.errors import Conflict
from penstock.storage.grace import MIN_AGE_S
from penstock.storage.ids import BatchId, VersionId
from penstock.storage.ledger.stages import ALIKE

from ..ledger_line import Line, document, new_line, rows


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def failure(version: VersionId, code: str = "malformed", error: str = "not a PDF") -> ledger.FailedDocument:
    return ledger.FailedDocument(version, code, error)


def test_chunked_documents_wait_to_be_embedded(line):
    line.parts = 2
    line.submit("a", "b")
    claim = line.claimed("chunk")
    titles = {claim.versions[0].id: "Found"}
    line.finish_chunking(claim, parts=[replace(part, titles=titles) for part in line.cut(claim)])

    assert line.version_rows("state", "chunk_count", "title") == [("embedding", 2, "Found"), ("embedding", 2, None)]
    assert line.batch_states("embed") == ["ready", "ready"]
    assert line.batch_states("chunk") == ["done"]
    with line.catalog.read() as connection:
        found = connection.execute(sa.select(batches).where(batches.c.stage == "embed").order_by(batches.c.part)).all()
    assert [(row.part, row.document_count, row.chunk_count, row.attempts) for row in found] == [
        (0, 2, 2, 0),
        (1, 2, 2, 0),
    ]
    assert {row.group_id for row in found} == set(next(zip(*line.version_rows("batch_id"), strict=True)))


def test_each_of_many_documents_moves_on_with_its_own_group_chunks_and_title(line):
    """Those of which the same is told move on together."""
    line.submit(*(f"d{number:02}" for number in range(3 * ALIKE)))
    claim = line.claimed("chunk")
    ids = [version.id for version in claim.versions]
    (whole,) = line.cut(claim)
    told = {
        version: ("one" if at < 2 * ALIKE else "two", 1 if at % 2 else at, "Found" if at == 1 else None)
        for at, version in enumerate(ids)
    }
    parts = []
    for group in ("one", "two"):
        mine = [version for version in ids if told[version][0] == group]
        counts, titles = ({version: told[version][which] for version in mine} for which in (1, 2))
        named = {"batch_id": BatchId(f"of_{group}"), "group_id": BatchId(group), "chunk_counts": counts}
        parts.append(replace(whole, document_version_ids=mine, titles=titles, **named))
    line.finish_chunking(claim, parts=parts)
    assert {row[0]: row[1:] for row in line.version_rows("id", "batch_id", "chunk_count", "title")} == told


def test_a_title_found_in_the_document_does_not_replace_the_producers(line):
    line.accept([document("a", title="Given")])
    claim = line.claimed("chunk")
    line.finish_chunking(
        claim, parts=[replace(part, titles={claim.versions[0].id: "F\0und"}) for part in line.cut(claim)]
    )
    line.accept([document("b")])
    claim = line.claimed("chunk")
    line.finish_chunking(
        claim, parts=[replace(part, titles={claim.versions[0].id: "F\0und"}) for part in line.cut(claim)]
    )
    assert line.version_rows("title") == [("Given",), ("Fund",)]


def test_failed_documents_keep_their_reasons_and_the_others_go_on(line):
    accepted = line.submit("a", "b", "c")
    claim = line.claimed("chunk")
    bad, worse, good = claim.versions
    parts = line.cut(replace(claim, versions=(good,)))
    line.finish_chunking(
        claim, parts=parts, failed=[failure(bad.id), failure(worse.id, "empty", "nothing \ud800in it")]
    )

    assert line.version_rows("state", "stage", "error_code", "error", "finished_at") == [
        ("failed", "chunk", "malformed", "not a PDF", line.now),
        ("failed", "chunk", "empty", "nothing ?in it", line.now),
        ("embedding", None, None, None, None),
    ]
    line.run()
    job = get_job(line.catalog, tenant=line.tenant, job_id=accepted.job_id)
    assert (job.state, job.documents) == ("done", {"failed": 2, "indexed": 1})


def test_a_batch_of_nothing_but_failures_ends_its_job(line):
    accepted = line.submit("a")
    claim = line.claimed("chunk")
    line.finish_chunking(claim, parts=[], failed=[failure(claim.versions[0].id)])
    assert line.batch_states("embed") == []
    job = get_job(line.catalog, tenant=line.tenant, job_id=accepted.job_id)
    assert (job.state, job.finished_at) == ("done", line.now)


def test_a_forgotten_document_or_one_in_two_groups_is_an_error_and_changes_nothing(line):
    line.submit("a", "b")
    claim = line.claimed("chunk")
    before = rows(line.catalog)
    with pytest.raises(ValueError, match="what became of 1 documents"):
        line.finish_chunking(claim, parts=line.cut(replace(claim, versions=claim.versions[:1])))
    with pytest.raises(ValueError, match="two groups"):
        line.finish_chunking(claim, parts=[*line.cut(claim), *line.cut(claim)])
    assert rows(line.catalog) == before


def test_parts_of_cancelled_documents_are_dropped(line):
    line.submit("keep")
    job_id = line.submit("drop").job_id
    claim = line.claimed("chunk")
    keep, drop = claim.versions
    parts = [*line.cut(replace(claim, versions=(keep,))), *line.cut(replace(claim, versions=(drop,)))]
    cancel_job(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now)
    line.finish_chunking(claim, parts=parts)

    assert line.states() == {"drop": ["cancelled"], "keep": ["embedding"]}
    assert len(line.batch_states("embed")) == 1
    line.run()
    assert line.states() == {"drop": ["cancelled"], "keep": ["indexed"]}


def test_the_last_part_of_a_group_makes_its_index_batch(line):
    line.parts = 3
    line.submit("a", "b")
    line.chunk()
    claims = [line.claim(batch) for batch in line.send("embed")]
    assert [line.finish_embedding(claim) for claim in claims] == [False, False, True]
    assert line.states() == {"a": ["indexing"], "b": ["indexing"]}
    (group,) = line.claim_index()
    assert [vectors for _, vectors in group.parts] == [
        f"vectors-{claim.batch_id}-1" for claim in sorted(claims, key=lambda one: one.part)
    ]
    assert [version.source for version in group.versions] == ["a", "b"]


def test_two_last_parts_that_end_at_once_make_one_index_batch(line):
    line.parts = 2
    for number in range(8):
        line.submit(f"d{number}")
        line.chunk()
        claims = [line.claim(batch) for batch in line.send("embed")]
        with ThreadPoolExecutor(2) as threads:
            assert sorted(threads.map(line.finish_embedding, claims)) == [False, True]
    assert line.batch_states("index") == ["ready"] * 8


def test_ending_a_stage_twice_changes_nothing(line):
    line.submit("a")
    claim = line.claimed("chunk")
    parts = line.cut(claim)
    line.finish_chunking(claim, parts=parts)
    embed = line.claimed("embed")
    line.finish_embedding(embed)
    (group,) = line.claim_index()
    line.publish([group])
    before = rows(line.catalog)

    with pytest.raises(Conflict):
        line.finish_chunking(claim, parts=parts)
    with pytest.raises(Conflict):
        line.finish_embedding(embed)
    with pytest.raises(Conflict):
        line.publish([group])
    assert rows(line.catalog) == before


def test_documents_that_fail_in_the_middle_of_a_stage_leave_the_others_to_it(line):
    line.submit("a", "b")
    line.chunk()
    claim = line.claimed("embed")
    rejected = failure(claim.versions[0].id, "input_rejected", "the provider refused it")
    ledger.fail_versions(line.catalog, failures=[rejected], stage="embed", now=line.now)
    assert line.finish_embedding(claim)
    line.index()
    assert line.states() == {"a": ["failed"], "b": ["indexed"]}
    ledger.fail_versions(line.catalog, failures=[failure(claim.versions[1].id)], stage="embed", now=line.now)
    assert line.states() == {"a": ["failed"], "b": ["indexed"]}  # over is over


def test_the_last_document_that_fails_ends_the_batch_under_its_holder(line):
    accepted = line.submit("a")
    line.chunk()
    claim = line.claimed("embed")
    ledger.fail_versions(line.catalog, failures=[failure(claim.versions[0].id)], stage="embed", now=line.now)
    with pytest.raises(Conflict):
        line.finish_embedding(claim)
    assert get_job(line.catalog, tenant=line.tenant, job_id=accepted.job_id).state == "done"
    assert line.batch_states("embed") == ["done"]


def test_a_part_whose_own_documents_are_gone_does_not_hold_up_its_group(line):
    line.submit("stays")
    job_id = line.submit("goes").job_id
    claim = line.claimed("chunk")
    stays, goes = claim.versions
    (first,) = line.cut(replace(claim, versions=(stays,)))
    (second,) = line.cut(replace(claim, versions=(goes,)))
    line.finish_chunking(claim, parts=[first, replace(second, group_id=first.group_id, part=1)])
    batch_of_first, batch_of_second = (BatchId(part.batch_id) for part in (first, second))
    line.send("embed")
    assert not line.finish_embedding(line.claim(batch_of_first))
    cancel_job(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now)

    assert line.claim(batch_of_second) is None
    line.index()
    assert line.states() == {"goes": ["cancelled"], "stays": ["indexed"]}


def test_chunks_that_were_collected_before_their_batch_was_committed_are_cut_again(line):
    """The chunker stood still for hours, or a collector's clock was ahead by as many."""
    line.submit("a")
    claim = line.claimed("chunk")
    parts = [replace(part, input=paths.staged_chunks(line.tenant, part.batch_id)) for part in line.cut(claim)]
    for part in parts:
        line.objects.put(part.input, [b"chunks"])
    late = time.time() + 10 * MIN_AGE_S

    def collected() -> int:
        staged = list_staged(line.objects, tenant=line.tenant, now=late)
        return collect_lost_staging(line.catalog, line.objects, tenant=line.tenant, staged=staged).objects

    assert collected() == 1

    with pytest.raises(Conflict, match="was collected before anything named it"):
        line.finish_chunking(claim, parts=parts)
    assert line.states() == {"a": ["chunking"]}

    line.objects.put(parts[0].input, [b"chunks"])
    line.finish_chunking(claim, parts=parts)
    assert collected() == 0
    assert line.states() == {"a": ["embedding"]}
