"""Deletes, updates and expiry through real role processes: in both orders, over kills, and reclaimed by a merge."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from penstock.settings import wiring
from penstock.storage.catalog.collections import CollectionInfo, get_collection
from penstock.storage.catalog.documents import DocumentInfo, list_documents
from penstock.storage.ids import JobId
from penstock.storage.intake.documents import SubmittedDocument, accept
from penstock.storage.intake.removals import remove_documents
from penstock.storage.intake.selections import select_documents
from penstock.storage.intake.trims import LocatedChunk, remove_chunks
from penstock.storage.intake.updates import DocumentChange, update_document
from penstock.storage.segments.fields import Compare
from penstock.storage.segments.manifests import Manifest, read_manifest

from ..role_processes import Plant, texts

FAILPOINTS = ["publish.segments_written", "publish.files_written", "publish.before_commit", "publish.after_commit"]


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    running = Plant(tmp_path_factory.mktemp("removals"))
    running.start()
    yield running
    running.close()


def place(collection: CollectionInfo) -> dict[str, str]:
    generation = collection.generation.id
    return {"tenant": collection.tenant_id, "collection_id": collection.id, "generation_id": generation}


def remove(plant: Plant, collection: CollectionInfo, *sources: str) -> JobId:
    removed = remove_documents(plant.catalog, **place(collection), sources=sources, now=time.time())
    plant.notices.work_ready()
    return removed.job_id


def update(plant: Plant, collection: CollectionInfo, source: str, **change) -> JobId:
    document_id = document(plant, collection, source).id
    options = {"document_id": document_id, "change": DocumentChange(**change), "now": time.time()}
    job_id = update_document(plant.catalog, **place(collection), **options).job_id
    plant.notices.work_ready()
    return job_id


def document(plant: Plant, collection: CollectionInfo, source: str, *, state: str | None = None) -> DocumentInfo:
    ask = {"tenant": collection.tenant_id, "collection_id": collection.id, "limit": 1}
    return list_documents(plant.catalog, source=source, state=state, **ask)[0]


def selected(plant: Plant, collection: CollectionInfo, key: str, value: object) -> list[str]:
    snapshots = wiring.new_snapshots(plant.settings, plant.catalog, plant.objects)
    try:
        with snapshots.get(collection.tenant_id, collection.generation.id) as snapshot:
            found = select_documents(snapshot, Compare("eq", key, value), now=time.time()).document_ids
    finally:
        snapshots.close()
    ask = {"tenant": collection.tenant_id, "collection_id": collection.id, "limit": 100}
    return sorted(info.source for info in list_documents(plant.catalog, **ask) if info.id in found)


def manifest_of(plant: Plant, collection: CollectionInfo) -> Manifest:
    info = get_collection(plant.catalog, tenant=collection.tenant_id, name="docs", counted=False)
    assert info.generation.manifest is not None
    return read_manifest(plant.objects, info.generation.manifest)


def counts(plant: Plant, collection: CollectionInfo) -> dict[str, int]:
    return dict(get_collection(plant.catalog, tenant=collection.tenant_id, name="docs").documents)


def test_a_document_deleted_while_it_is_ingested_is_gone_and_one_submitted_after_that_is_there(plant):
    collection = plant.collection("orders")
    first = plant.submit(collection, texts(20, sentences=90))
    deleted = remove(plant, collection, *[f"d{number}" for number in range(10)])
    again = texts(5, sentences=30, seed=9)
    second = plant.submit(collection, again)

    for job in (first, deleted, second):
        plant.wait(collection, job)
    found = plant.searchable(collection)
    assert sorted(found) == sorted([*again, *(f"d{number}" for number in range(10, 20))])
    assert " ".join(text for _, text in found["d0"]).startswith(again["d0"][:40])
    assert counts(plant, collection) == {"indexed": 15}
    assert plant.job(collection, first).documents == {"superseded": 10, "indexed": 10}
    told = plant.job(collection, deleted).documents
    assert sum(told.values()) == 10
    assert told.get("deleted", 0) >= 5  # the others were overtaken by the newer versions


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_removals_and_updates_happen_once_though_the_writer_is_killed_in_the_middle(plant, failpoint):
    collection = plant.collection(f"killed-{failpoint.partition('.')[2].replace('_', '-')}")
    submitted = texts(4, sentences=40)
    plant.wait(collection, plant.submit(collection, submitted))
    before = plant.searchable(collection)
    plant.stop("index")
    jobs = [
        remove(plant, collection, "d0"),
        update(plant, collection, "d1", patch={"lang": "fr"}),
        trim(plant, collection, "d2", ordinals=[0]),
    ]

    plant.start("index", PENSTOCK_FAILPOINT=failpoint)
    plant.until(lambda: plant.processes["index"].poll() is not None, f"the writer to die at {failpoint}")
    plant.start("index")

    told = [plant.wait(collection, job).documents for job in jobs]
    assert told == [{"deleted": 1}, {"indexed": 1}, {"trimmed": 1}]
    assert plant.searchable(collection) == {
        "d1": before["d1"],
        "d2": [(ordinal, text) for ordinal, text in before["d2"] if ordinal != 0],
        "d3": before["d3"],
    }
    assert selected(plant, collection, "lang", "fr") == ["d1"]
    assert document(plant, collection, "d2").chunk_count == len(before["d2"]) - 1


def trim(plant: Plant, collection: CollectionInfo, source: str, *, ordinals: list[int]) -> JobId:
    found = document(plant, collection, source)
    chunks = [LocatedChunk(found.id, found.version_id, ordinal) for ordinal in ordinals]
    job_id = remove_chunks(plant.catalog, **place(collection), chunks=chunks, now=time.time())
    plant.notices.work_ready()
    return job_id


def test_an_update_is_found_by_a_filter_and_calls_no_model(plant):
    collection = plant.collection("updated")
    plant.wait(collection, plant.submit(collection, texts(3)))
    plant.stop("chunk", "embed")  # nobody could embed anything now
    try:
        job = plant.wait(collection, update(plant, collection, "d1", patch={"lang": "fr"}))
        assert (job.documents, job.chunks_indexed) == ({"indexed": 1}, document(plant, collection, "d1").chunk_count)
        assert selected(plant, collection, "lang", "fr") == ["d1"]
    finally:
        plant.start("chunk", "embed")


def test_what_expires_leaves_the_index_and_a_merge_takes_its_bytes(plant):
    collection = plant.collection("expiring")
    now = time.time()
    words = texts(40, sentences=20)
    documents = [
        SubmittedDocument(source, f"{source}.txt", text.encode(), expires_at=None if source == "d0" else now + 3.0)
        for source, text in words.items()
    ]
    job = accept(plant.catalog, plant.objects, **place(collection), documents=documents, now=now).job_id
    plant.notices.work_ready()
    plant.wait(collection, job)

    def reclaimed() -> bool:
        if counts(plant, collection) != {"indexed": 1}:  # first: a manifest of before has no deletes either
            return False
        return not any(entry.deleted_count for entry in manifest_of(plant, collection).segments)

    plant.until(reclaimed, "the expired documents to be merged away")
    assert list(plant.searchable(collection)) == ["d0"]
    manifest = manifest_of(plant, collection)
    assert sum(entry.row_count for entry in manifest.segments) == manifest.live_chunks
    assert plant.job(collection, job).documents == {"expired": 39, "indexed": 1}
    assert document(plant, collection, "d1", state="expired").state == "expired"


def test_after_all_this_the_doctor_finds_nothing(plant):
    collection = plant.collection("examined")
    plant.wait(collection, plant.submit(collection, texts(4, sentences=30)))
    everything = list(range(document(plant, collection, "d0").chunk_count or 0))
    for job in (
        trim(plant, collection, "d0", ordinals=everything),
        trim(plant, collection, "d1", ordinals=[0]),
        update(plant, collection, "d1", patch={"lang": "fr"}),
        update(plant, collection, "d2", values={"title": "Two"}),
        remove(plant, collection, "d3"),
    ):
        plant.wait(collection, job)
    assert (document(plant, collection, "d0").chunk_count, counts(plant, collection)) == (0, {"indexed": 3})

    command = [sys.executable, "-m", "penstock.api.cli", "doctor", "--json"]
    ended = subprocess.run(
        command, env=plant.environment, capture_output=True, text=True, cwd=plant.folder, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.loads(ended.stdout)["clean"]
