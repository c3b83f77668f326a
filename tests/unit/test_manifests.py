"""A manifest is read whole and unaltered, by a program that knows all it says, or it is refused."""

import json
import random
from dataclasses import replace
from hashlib import blake2b

import pytest

from penstock.storage.errors import Damaged, Unsupported
from penstock.storage.ids import ManifestVersion, SegmentId
from penstock.storage.paths import manifest_version
from penstock.storage.segments.manifests import FileEntry, Manifest, SegmentEntry, Swap, name_of, read_manifest

from ..memory_objects import MemoryObjects
from ..storage_samples import GENERATION, TENANT


def entry(number: int, *, rows: int = 10, **changed: object) -> SegmentEntry:
    name = f"tenants/{TENANT}/generations/{GENERATION}/segments/s{number}.segment"
    first = 100 * number + 1
    made = SegmentEntry(
        SegmentId(f"s{number}"), "flat", rows, first, first + rows - 1, [FileEntry(name, 64, "00" * 32)]
    )
    return replace(made, **changed)


def sample(**changed: object) -> Manifest:
    deletes = FileEntry(f"tenants/{TENANT}/generations/{GENERATION}/deletes/d.deletes", 64, "11" * 32)
    made = Manifest(
        generation_id=GENERATION,
        tenant_id=TENANT,
        collection_id="col_1",
        collection_name="notes",
        version=ManifestVersion(7),
        parent="tenants/acme/generations/gen_1/manifests/00000000000000000006-0a0b0c0d.json",
        writer_epoch=3,
        model="minilm",
        dimensions=384,
        metric="cosine",
        chunking={"strategy": "auto"},
        shard=0,
        next_chunk_id=500,
        created_at=12.5,
        segments=[entry(0), entry(1, deletes=deletes, deleted_count=2)],
    )
    return replace(made, **changed)


def sealed(values: dict) -> bytes:
    """The bytes of a manifest with a right checksum, whatever it says."""
    body = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    return b'{"blake2b":"%s","manifest":%s}\n' % (blake2b(body, digest_size=32).hexdigest().encode(), body)


def test_a_manifest_is_read_as_written():
    manifest = sample()

    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.live_chunks == 18


def test_a_manifest_is_plain_json_for_every_other_tool():
    values = json.loads(sample().to_json())

    assert values["manifest"]["segments"][0]["files"][0]["size_bytes"] == 64


def test_equal_manifests_have_equal_bytes_and_names():
    manifest = sample()

    name = name_of(manifest, manifest.to_json())

    assert sample().to_json() == manifest.to_json()
    assert manifest_version(name) == 7
    assert name != name_of(sample(writer_epoch=4), sample(writer_epoch=4).to_json())


def test_every_flipped_bit_and_every_truncation_is_damaged():
    data = sample().to_json()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    for bit in random.Random(seed).sample(range(8 * len(data)), 500):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            Manifest.from_json(bytes(flipped))
    for size in range(len(data)):
        with pytest.raises(Damaged):
            Manifest.from_json(data[:size])


def test_an_unknown_flag_is_unsupported_even_with_fields_never_seen():
    values = json.loads(sample().to_json())["manifest"]

    with pytest.raises(Unsupported, match="sparse-vectors"):
        Manifest.from_json(sealed({**values, "flags": ["sparse-vectors"], "sparse": [1]}))
    with pytest.raises(Unsupported, match="format 2"):
        Manifest.from_json(sealed({**values, "format": 2}))


def test_an_unknown_or_missing_field_is_damaged():
    values = json.loads(sample().to_json())["manifest"]

    with pytest.raises(Damaged, match="sparse"):
        Manifest.from_json(sealed({**values, "sparse": [1]}))
    for missing in ("metric", "segments", "format", "flags"):
        with pytest.raises(Damaged):
            Manifest.from_json(sealed({name: value for name, value in values.items() if name != missing}))
    with pytest.raises(Damaged):
        Manifest.from_json(sealed([values]))
    for wrong in ({"dimensions": "many"}, {"segments": [1]}, {"segments": [{"files": 1}]}, {"flags": 1}):
        with pytest.raises(Damaged, match="fields that its format does not have"):
            Manifest.from_json(sealed({**values, **wrong}))
    no_json = sealed(values).replace(b'":', b"' ")
    body = no_json[len(b'{"blake2b":"') + 64 + len(b'","manifest":') : -2]
    digest = blake2b(body, digest_size=32).hexdigest().encode()
    with pytest.raises(Damaged, match="fields that its format does not have"):
        Manifest.from_json(b'{"blake2b":"%s","manifest":%s}\n' % (digest, body))


@pytest.mark.parametrize(
    "changed",
    [
        {"metric": "manhattan"},
        {"dimensions": 0},
        {"segments": [entry(1), entry(0)]},
        {"segments": [entry(0), entry(0)]},
        {"segments": [entry(0, rows=200)], "next_chunk_id": 200},
        {"segments": [entry(0, last_chunk_id=5)]},
        {"segments": [entry(0, row_count=0)]},
        {"segments": [entry(0, deleted_count=2)]},
        {"segments": [entry(0, deletes=FileEntry("tenants/acme/x", 1, ""), deleted_count=10)]},
        {"segments": [entry(0, kind="graph")]},
        {"segments": [entry(0, kind="cloud")]},
        {"segments": [entry(0, files=[FileEntry("tenants/rival/x.segment", 1, "")])]},
        {"segments": [entry(0, files=[FileEntry("tenants/acme/../rival/x.segment", 1, "")])]},
        {"segments": [entry(0), entry(2, id=SegmentId("s0"))]},
    ],
)
def test_a_manifest_that_contradicts_itself_is_damaged(changed):
    with pytest.raises(Damaged):
        Manifest.from_json(sample(**changed).to_json())


def test_a_manifest_under_the_name_of_another_is_damaged():
    objects = MemoryObjects()
    manifest = sample()
    name = name_of(manifest, manifest.to_json())
    objects.put(name, [manifest.to_json()])
    objects.put(name.replace("0007-", "0008-"), [manifest.to_json()])

    assert read_manifest(objects, name) == manifest
    with pytest.raises(Damaged, match="holds"):
        read_manifest(objects, name.replace("0007-", "0008-"))
    with pytest.raises(Damaged, match="missing"):
        read_manifest(objects, name.replace("0007-", "0009-"))


def test_a_swap_survives_the_ledger():
    swap = Swap([SegmentId("s1"), SegmentId("s2")], sample().segments[1])

    assert Swap.from_details(json.loads(json.dumps(swap.to_details()))) == swap
