"""A few rows of a segment read without opening it: the same as an opened one gives, at a cost that is theirs."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from penstock.storage.errors import Damaged
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Swap
from penstock.storage.segments import blocks, lookups
from penstock.storage.segments.document_keys import KeyList, build_keys
from penstock.storage.segments.graph_files import HEADER_BYTES, graph_shape
from penstock.storage.segments.lookups import copy_rows, read_document_rows, read_rows
from penstock.storage.segments.rows import Rows
from penstock.storage.segments.sections import Sections, open_sections, write_sections
from penstock.storage.segments.segment import open_segment

from ..storage_samples import DIMENSIONS, Store, current_manifest, many_rows, new_store, unit_vectors

ROWS = 300


@pytest.fixture(params=["flat", "graph"])
def store(request, tmp_path, monkeypatch) -> Store:
    for module in (blocks, lookups):
        monkeypatch.setattr(module, "BLOCK_BYTES", 256)
    store = new_store(tmp_path)
    store.publish(additions=many_rows(ROWS), vectors=unit_vectors(ROWS))
    if request.param == "graph":
        manifest = current_manifest(store.catalog, store.objects)
        output = build_merge(store.objects, manifest, manifest.segments, graph_rows=50, threads=2)
        store.publish(swap=Swap([manifest.segments[0].id], output))
    return store


@pytest.fixture
def entry(store):
    return current_manifest(store.catalog, store.objects).segments[0]


def attempt(read: Callable[[], list[int]]) -> list[int] | Damaged:
    try:
        return read()
    except Damaged as error:
        return error


def overwrite(store: Store, name: str, at: int, data: bytes) -> None:
    path = store.objects.local_path(name)
    held = bytearray(path.read_bytes())
    held[at : at + len(data)] = data
    path.unlink()
    path.write_bytes(held)


def test_rows_are_those_of_the_opened_segment(store, entry):
    opened = open_segment(store.objects, entry, dimensions=DIMENSIONS)
    chooser = random.Random(1)
    for count in (1, 2, 17, ROWS):
        chosen = np.array(sorted(chooser.sample(range(ROWS), count)), "<u4")
        rows, vectors = copy_rows(store.objects, entry, chosen, dimensions=DIMENSIONS)
        expected = opened.rows.take(chosen)
        assert rows.texts() == expected.texts()
        assert rows.documents == expected.documents
        assert (rows.document == expected.document).all()
        assert (rows.identity == expected.identity).all()
        assert (vectors == opened.row_vectors(chosen)).all()


def test_nothing_but_what_is_theirs_is_looked_at(store, entry):
    """However many rows there are beside them: what those say may be garbage, which opening the segment would find."""
    chosen = np.array([4, 5, 6, 7], "<u4")
    before, vectors_before = copy_rows(store.objects, entry, chosen, dimensions=DIMENSIONS)
    places = open_sections(store.objects.local_path(entry.files[0].name), kind="segment").places
    for section, width in (("document", 4), ("text_offsets", 8), ("heading_offsets", 8), ("chunk_id", 8)):
        overwrite(store, entry.files[0].name, places[section] + 100 * width, b"\xff" * width * 100)
    if entry.kind == "graph":
        count, record_bytes = graph_shape(store.objects.local_path(entry.files[1].name))
        overwrite(store, entry.files[1].name, HEADER_BYTES + count * record_bytes, b"\xff" * 100)
    with pytest.raises(Damaged):
        open_segment(store.objects, entry, dimensions=DIMENSIONS)
    assert read_rows(store.objects, entry, chosen).texts() == before.texts()
    rows, vectors = copy_rows(store.objects, entry, chosen, dimensions=DIMENSIONS)
    assert rows.texts() == before.texts()
    assert rows.documents == before.documents
    assert (vectors == vectors_before).all()


@pytest.mark.parametrize("section", ["document", "text_offsets", "heading_offsets", "document_offsets"])
def test_what_is_said_of_them_is_bounded(store, entry, section):
    places = open_sections(store.objects.local_path(entry.files[0].name), kind="segment").places
    overwrite(store, entry.files[0].name, places[section], b"\xff" * 80)
    with pytest.raises(Damaged):
        read_rows(store.objects, entry, np.array([4, 5], "<u4"))


@pytest.mark.parametrize("in_order", [True, False])
def test_whose_rows_they_are_is_not_believed_where_it_rotted(tmp_path, monkeypatch, in_order):
    """Else a delete would take the rows of other documents, or leave some of its own."""
    for module in (blocks, lookups):
        monkeypatch.setattr(module, "BLOCK_BYTES", 256)
    store = new_store(tmp_path)
    made = many_rows(ROWS)
    order = np.arange(ROWS) if in_order else np.arange(ROWS).reshape(-1, 4).T.ravel()
    store.publish(additions=made.take(order), vectors=unit_vectors(ROWS))
    (entry,) = current_manifest(store.catalog, store.objects).segments
    name = entry.files[0].name
    sections = open_sections(store.objects.local_path(name), kind="segment")
    assert bool(sections.meta["documents_in_order"]) is in_order
    place, owners = sections.places["document"], sections.arrays["document"]
    for document in ("d9", "d40", "d74"):
        right = read_document_rows(store.objects, entry, document_ids=[document]).tolist()
        owner = int(owners[right[0]])
        assert right == np.flatnonzero(owners == owner).tolist()
        for row in (right[0], right[-1], *(one for one in (right[0] - 1, right[-1] + 1) if 0 <= one < ROWS)):
            held = store.objects.local_path(name).read_bytes()
            for wrong in (owner, 0, 74, 7_000):
                if wrong == owners[row]:
                    continue
                overwrite(store, name, place + 4 * row, np.array([wrong], "<u4").tobytes())
                with pytest.raises(Damaged, match="restore or rebuild"):
                    read_document_rows(store.objects, entry, document_ids=[document])
                overwrite(store, name, 0, held)


@pytest.mark.parametrize(
    "section", ["document_keys", "document_order", "document_marks", "document_bytes", "document_offsets"]
)
def test_a_rotten_list_of_documents_hides_none(tmp_path, section):
    """A replaced version would be served beside the newer one, a deleted document for ever."""
    store = new_store(tmp_path)
    store.publish(additions=many_rows(60, per_document=3), vectors=unit_vectors(60))
    (entry,) = current_manifest(store.catalog, store.objects).segments
    name = entry.files[0].name
    sections = open_sections(store.objects.local_path(name), kind="segment")
    sought = [*(f"d{i}" for i in range(20)), "none", "nor this"]
    right = {one: read_document_rows(store.objects, entry, document_ids=[one]).tolist() for one in sought}
    assert right["none"] == []
    data = store.objects.local_path(name).read_bytes()
    place, chooser, refused = sections.places[section], random.Random(1), 0
    for _ in range(120):
        at, bit = place + chooser.randrange(sections.arrays[section].nbytes), 1 << chooser.randrange(8)
        overwrite(store, name, at, bytes([data[at] ^ bit]))
        for one in sought:
            found = attempt(lambda one=one: read_document_rows(store.objects, entry, document_ids=[one]).tolist())
            if isinstance(found, Damaged):
                refused += 1
                assert entry.id in str(found), found
            else:
                assert found == right[one], (at - place, bit)
        overwrite(store, name, 0, data)
    assert refused > 0


def test_each_bit_of_the_list_of_documents_has_a_share_in_a_mark(tmp_path):
    path = tmp_path / "keys"
    path.write_bytes(b"".join(write_sections("segment", meta={}, arrays=build_keys(many_rows(400).documents))))
    listed = KeyList.from_sections(open_sections(path, kind="segment"), count=100)
    listed.check()
    for name, bits in (("keys", 64), ("order", 32), ("marks", 32)):
        array = getattr(listed, name)
        for bit in range(bits):
            altered = replace(listed, **{name: array ^ array.dtype.type(1 << bit)})
            for place in range(100):
                with pytest.raises(Damaged, match="list of document ids"):
                    altered.check(slice(place, place + 1))


COPIED = [*Rows.empty().to_arrays(), "vectors"]


@pytest.mark.parametrize("section", COPIED)
def test_what_rotted_is_not_copied_and_what_rotted_beside_it_does_not_matter(store, entry, section):
    """Under the new checksum of a copy nobody would ever notice."""
    sections = open_sections(store.objects.local_path(entry.files[0].name), kind="segment")
    chosen, elsewhere = np.array([4, 5, 6, 7], "<u4"), np.array([201, 202], "<u4")
    if section == "vectors" and entry.kind == "graph":
        file, width = 1, graph_shape(store.objects.local_path(entry.files[1].name))[1]
        held = sections.arrays["graph_record_rows"]
        at = HEADER_BYTES + width * int(np.flatnonzero(held == 4)[0]) + width - 12
        far = HEADER_BYTES + width * int(np.flatnonzero(held == 288)[0]) + width - 12
    else:
        file, at = 0, sections.places[section] + place_in(sections, section, 4)
        far = sections.places[section] + place_in(sections, section, 288)
    assert abs(far - at) > 256
    name = entry.files[file].name
    data = store.objects.local_path(name).read_bytes()

    overwrite(store, name, at, bytes([data[at] ^ 1]))
    with pytest.raises(Damaged, match=name.rpartition("/")[2]):
        copy_rows(store.objects, entry, chosen, dimensions=DIMENSIONS)
    copy_rows(store.objects, entry, elsewhere, dimensions=DIMENSIONS)
    overwrite(store, name, 0, data)
    overwrite(store, name, far, bytes([data[far] ^ 1]))
    copy_rows(store.objects, entry, chosen, dimensions=DIMENSIONS)


def place_in(sections: Sections, name: str, row: int) -> int:
    """Where in a section the first byte of a row lies, or of its document."""
    array = sections.arrays[name]
    item = int(sections.arrays["document"][row]) if name.startswith("document_") else row
    if name.endswith("_bytes"):
        return int(sections.arrays[name.replace("_bytes", "_offsets")][item])
    return item * array.strides[0]


def test_a_record_of_another_row_is_refused(tmp_path):
    store = new_store(tmp_path)
    store.publish(additions=many_rows(ROWS), vectors=unit_vectors(ROWS))
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=50)
    places = open_sections(store.objects.local_path(output.files[0].name), kind="segment").places
    count, record_bytes = graph_shape(store.objects.local_path(output.files[1].name))
    row = np.array([5], "<u4")
    copy_rows(store.objects, output, row, dimensions=DIMENSIONS)
    for section, file in (("graph_record_rows", 0), ("labels", 1)):
        name = output.files[file].name
        at = places[section] if file == 0 else HEADER_BYTES + record_bytes - 8
        step = 4 if file == 0 else record_bytes
        held = store.objects.local_path(name).read_bytes()
        wrong = bytearray(held)
        for record in range(count):
            wrong[at + record * step : at + record * step + 4] = b"\x07\0\0\0"
        overwrite(store, name, 0, bytes(wrong))
        with pytest.raises(Damaged, match="label"):
            copy_rows(store.objects, output, row, dimensions=DIMENSIONS)
        overwrite(store, name, 0, held)
