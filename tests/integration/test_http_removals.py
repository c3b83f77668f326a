"""Deleting and describing documents over HTTP: what is answered, and what searches find afterwards."""

import pytest

from penstock.client import Conflict, Invalid, NewDocument, NotFound, Penstock
from penstock.client.wire import MAX_REMOVED_AT_ONCE

from ..http_service import Service, running_service


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("removals")) as running:
        yield running


@pytest.fixture
def penstock(service):
    with service.penstock() as client:
        yield client


def filled(service: Service, penstock: Penstock, name: str, count: int = 4) -> None:
    """Make a collection with documents s0, s1, …, of which the even ones are in English."""
    penstock.create_collection(name)
    texts = {f"s{number}": ("en" if number % 2 == 0 else "fr") for number in range(count)}
    penstock.submit(
        name, [NewDocument(source=s, text=f"pear {s}", metadata={"lang": lang}) for s, lang in texts.items()]
    )
    service.index()


def found(penstock: Penstock, name: str, **options) -> list[str]:
    hits = penstock.search(name, "pear", k=100, min_token=penstock.collection(name).token, **options).hits
    return sorted(hit.document.source for hit in hits)


def test_a_document_is_deleted_by_its_id_and_its_job_can_be_waited_for(service, penstock):
    filled(service, penstock, "one")
    (document,) = penstock.documents("one", source="s0").data
    deleted = penstock.delete_document("one", document.id)
    assert (deleted.deleted, deleted.job.state, [name.source for name in deleted.sample]) == (1, "running", ["s0"])
    assert penstock.document("one", document.id).state == "deleting"
    service.index()
    job = penstock.wait(deleted.job.id, timeout_s=5)
    assert job.documents == {"deleted": 1}
    hits = penstock.search("one", "pear", min_token=job.token).hits
    assert sorted(hit.document.source for hit in hits) == ["s1", "s2", "s3"]
    assert penstock.collection("one").documents == {"indexed": 3}
    again = penstock.delete_document("one", document.id)
    assert (again.deleted, again.already_deleted, again.job.state) == (0, 1, "done")
    assert penstock.document("one", document.id).state == "deleted"
    assert [one.source for one in penstock.all_documents("one", state="deleted")] == ["s0"]
    with pytest.raises(NotFound, match="there is no document 'doc_0'"):
        penstock.delete_document("one", "doc_0")


def test_documents_are_deleted_by_source_in_one_request_that_says_what_was_not_found(service, penstock):
    filled(service, penstock, "many")
    deleted = penstock.delete_documents("many", sources=["s0", "s1", "s9", "s0"])
    assert (deleted.deleted, deleted.not_found, deleted.missing) == (2, 1, ["s9"])
    service.index()
    assert found(penstock, "many") == ["s2", "s3"]
    ids = [one.id for one in penstock.all_documents("many")]
    assert penstock.delete_documents("many", ids=[*ids, "doc_0"]).deleted == 2
    service.index()
    assert found(penstock, "many") == []
    assert penstock.collection("many").documents == {}


def test_a_delete_of_one_version_leaves_a_newer_one_alone_and_says_so(service, penstock):
    filled(service, penstock, "versions")
    penstock.submit("versions", [NewDocument(source="s1", text="newer")])
    asked = {"sources": ["s0", "s1"], "if_versions": {"s0": 1, "s1": 1}}
    for dry_run in (True, False):
        done = penstock.delete_documents("versions", **asked, dry_run=dry_run)
        assert (done.deleted, done.changed, [name.source for name in done.stayed]) == (1, 1, ["s1"])
    service.index()
    assert found(penstock, "versions") == ["s1", "s2", "s3"]
    with pytest.raises(Invalid, match="version of 's9', which is not in 'sources'") as refused:
        penstock.delete_documents("versions", sources=["s2"], if_versions={"s9": 1})
    assert refused.value.param == "if_versions"


def test_a_filter_is_tried_dry_then_deletes_what_it_accepts_and_nothing_that_comes_later(service, penstock):
    filled(service, penstock, "filter")
    dry = penstock.delete_documents("filter", filter={"type": "eq", "key": "lang", "value": "en"}, dry_run=True)
    assert (dry.job, dry.deleted, [name.source for name in dry.sample]) == (None, 2, ["s0", "s2"])
    assert found(penstock, "filter") == ["s0", "s1", "s2", "s3"]
    deleted = penstock.delete_documents("filter", filter="lang=en")
    penstock.submit("filter", [NewDocument(source="late", text="pear late", metadata={"lang": "en"})])
    service.index()
    assert deleted.deleted == 2
    assert found(penstock, "filter") == ["late", "s1", "s3"]


def test_a_filter_is_resolved_in_what_was_published_last_without_any_token(service, penstock):
    penstock.create_collection("fresh")
    for number in range(3):
        penstock.submit("fresh", [NewDocument(source=f"s{number}", text="pear", metadata={"n": number})])
        service.index()
        assert penstock.delete_documents("fresh", filter=f"n={number}").deleted == 1


def test_what_is_deleted_may_be_submitted_again_and_is_not_unchanged(service, penstock):
    filled(service, penstock, "again", 1)
    again = NewDocument(source="s0", text="pear s0", metadata={"lang": "en"})
    assert penstock.submit("again", [again]).unchanged == 1
    penstock.delete_documents("again", sources=["s0"])
    submitted = penstock.submit("again", [again])
    assert (submitted.accepted, submitted.replaced, submitted.unchanged) == (1, 0, 0)
    service.index()
    assert found(penstock, "again") == ["s0"]


def test_metadata_is_merged_and_replaced_without_embedding_and_filters_see_it(service, penstock):
    filled(service, penstock, "update")
    (document,) = penstock.documents("update", source="s0").data
    before = penstock.search("update", "pear", filter={"type": "eq", "key": "$source", "value": "s0"}).hits[0]

    updated = penstock.update_document("update", document.id, title="Pears", metadata={"lang": None, "n": {"x": 1}})
    assert (updated.changed, updated.version, updated.job.state) == (True, 2, "running")
    service.index()

    job = penstock.wait(updated.job.id, timeout_s=5)
    assert (job.documents, job.cache_hits) == ({"indexed": 1}, 0)
    (after,) = penstock.search("update", "pear", filter="n.x=1", min_token=job.token).hits
    assert (after.text, after.start, after.end, after.score) == (before.text, before.start, before.end, before.score)
    assert (after.document.title, after.document.metadata, after.document.version) == ("Pears", {"n": {"x": 1}}, 2)
    assert after.chunk_id != before.chunk_id
    assert found(penstock, "update", filter="lang=en") == ["s2"]

    penstock.update_document("update", document.id, replace_metadata={"lang": "de"}, title=None)
    service.index()
    shown = penstock.document("update", document.id)
    assert (shown.title, shown.metadata, shown.version) == (None, {"lang": "de"}, 3)
    assert not penstock.update_document("update", document.id, metadata={"lang": "de"}).changed
    penstock.update_document("update", document.id, metadata=None)
    service.index()
    assert penstock.document("update", document.id).metadata == {}


def test_an_update_moves_the_end_of_a_document_to_the_second(service, penstock):
    filled(service, penstock, "ends", 1)
    (document,) = penstock.all_documents("ends")
    now = service.components.clock()
    penstock.update_document("ends", document.id, expires_at=now - 1)
    service.index()
    assert found(penstock, "ends") == []
    penstock.update_document("ends", document.id, expires_at=now + 3600)
    service.index()
    assert found(penstock, "ends") == ["s0"]


def test_chunks_are_deleted_by_id_and_a_new_version_brings_its_own(service, penstock):
    filled(service, penstock, "chunks", 2)
    hits = {hit.document.source: hit.chunk_id for hit in penstock.search("chunks", "pear").hits}
    deleted = penstock.delete_chunks("chunks", [hits["s0"], 999, -1])
    assert (deleted.deleted, deleted.not_found) == (1, 2)
    service.index()
    assert penstock.wait(deleted.job.id, timeout_s=5).documents == {"trimmed": 1}
    assert found(penstock, "chunks") == ["s1"]
    (document,) = penstock.documents("chunks", source="s0").data
    assert (document.state, document.chunks) == ("indexed", 0)
    assert penstock.delete_chunks("chunks", [hits["s0"]]).not_found == 1
    penstock.submit("chunks", [NewDocument(source="s0", text="pear anew")])
    service.index()
    assert found(penstock, "chunks") == ["s0", "s1"]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({}, "invalid_query", "by ids, by sources, by both, or by a filter alone"),
        ({"ids": ["a"], "filter": "lang=en"}, "invalid_query", "by a filter alone"),
        ({"ids": []}, "invalid_request", "at least 1 item"),
        ({"ids": ["x"] * (MAX_REMOVED_AT_ONCE + 1)}, "invalid_request", "at most 10000 items"),
        ({"filter": {"type": "near", "key": "a"}}, "invalid_filter", "unknown operator 'near'"),
        ({"filter": "lang>5"}, "invalid_filter", "lang"),
        ({"filtre": "lang=en"}, "invalid_request", "did you mean 'filter'?"),
        ({"ids": ["a"], "min_token": "nonsense"}, "invalid_request", "not a token"),
    ],
)
def test_a_deletion_that_cannot_be_understood_says_why_and_deletes_nothing(service, penstock, body, code, said):
    if "refused" not in {one.name for one in penstock.collections()}:
        filled(service, penstock, "refused")
    answer = service.http.post("/v1/tenants/default/collections/refused/documents:delete", json=body)
    assert answer.status_code == 400
    assert (answer.json()["error"]["code"], said in answer.json()["error"]["message"]) == (code, True)
    assert penstock.collection("refused").documents == {"indexed": 4}


def test_an_update_that_cannot_be_kept_says_why(service, penstock):
    filled(service, penstock, "unkept", 1)
    (document,) = penstock.all_documents("unkept")
    for changes, said in (
        ({}, "nothing is to be changed"),
        ({"metadata": {"a": 1}, "replace_metadata": {}}, "either metadata"),
        ({"metadata": {"$source": "x"}}, "built in"),
        ({"replace_metadata": {"a": 2**70}}, "outside 64 bits"),
    ):
        with pytest.raises(Invalid, match=said.replace("$", r"\$")):
            penstock.update_document("unkept", document.id, **changes)
    with pytest.raises(NotFound, match="there is no document"):
        penstock.update_document("unkept", "doc_0", title="x")
    penstock.submit("unkept", [NewDocument(source="lost", text="x")])
    (lost,) = penstock.documents("unkept", source="lost").data
    penstock.cancel(lost.job_id)
    with pytest.raises(Conflict, match="submit it again"):
        penstock.update_document("unkept", lost.id, title="x")
