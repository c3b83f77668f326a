"""The storage engine against a plain-Python model: whatever happens, in whatever order, searches see what it holds.

Two tenants write, delete, describe anew, let expire, merge, roll back, restart and collect, with thresholds of a few
rows, so that every transition happens. After each step the newest version of each tenant is compared with its model:
counts, ids, every field, filters against a function of Python's own, and each row by its own vector. Versions that are
tagged stay what they were. Graphs are searched in every way, whatever the planner would choose. At the end of the run
it is asserted that graphs were built, extended, built anew and swapped in over what was deleted meanwhile.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.storage.catalog.generations import generation_info
from penstock.storage.catalog.references import Reference, find_version
from penstock.storage.catalog.retention import Retention
from penstock.storage.catalog.tags import put_tag
from penstock.storage.collecting import collect_generations
from penstock.storage.errors import Conflict, NotKept
from penstock.storage.ids import GenerationId, TenantId
from penstock.storage.intake.selections import select_documents
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing import planning
from penstock.storage.publishing.leases import acquire_lease
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.planning import is_worn, plan_merge
from penstock.storage.publishing.publisher import Publisher, Swap
from penstock.storage.publishing.revisions import Revision, Trim
from penstock.storage.publishing.rollbacks import plan_rollback
from penstock.storage.search.snapshots import SnapshotCache
from penstock.storage.search.versions import Snapshot
from penstock.storage.segments.fields import And, Compare, Contains, Exists, Filter, Or
from penstock.storage.segments.manifests import Manifest, SegmentEntry, read_manifest
from penstock.storage.segments.records import DocumentRecord
from penstock.storage.segments.rows import Rows, chunk_identity

from ..machine_settings import machine_settings
from ..search_ways import SearchWays
from ..storage_samples import DIMENSIONS, add_generation, open_catalog

GRAPH_ROWS, FAN_IN = 8, 3
NAMES = [f"d{number}" for number in range(12)]
TENANTS = [("acme", "gen_1"), ("rival", "gen_2")]
COLOURS = ["red", "green", "blue"]
AT_ONCE = Retention(keep_versions=1, keep_s=0.0)

BUILT, EXTENDED, JOINED = "a graph is built", "a graph is extended", "a young graph is joined to an old one"
WORN, BURIED = "a worn graph is built anew", "a graph is swapped in with deletes that landed meanwhile"
TRANSITIONS = (BUILT, EXTENDED, JOINED, WORN, BURIED)


T = TypeVar("T")


class Chunk(NamedTuple):
    """A chunk of the model: each of its fields is what a hit must say."""

    text: str
    start: int
    end: int
    page: int | None
    heading: str | None
    vector: tuple[float, ...]


@dataclass(frozen=True)
class Held:
    """A document of the model."""

    record: DocumentRecord
    chunks: dict[int, Chunk]  # by ordinal


@dataclass
class Owner:
    """One tenant: its model, and the merge that waits to be swapped in."""

    tenant: TenantId
    generation_id: GenerationId
    documents: dict[str, Held] = field(default_factory=dict)
    waiting: Swap | None = None
    history: dict[int, dict[str, Held]] = field(default_factory=dict)  # version → what it held
    tagged: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # document → its newest version number


def accepts(condition: Filter, record: DocumentRecord) -> bool:  # noqa: PLR0911  one return a case
    """The oracle: says of one document what the field index must say of all."""
    metadata = record.metadata
    match condition:
        case Compare("eq", "colour", value):
            return metadata.get("colour") == value
        case Compare("ne", "colour", value):
            return metadata.get("colour") != value
        case Compare("gte", "size", value):
            return metadata.get("size") is not None and metadata["size"] >= value
        case Contains("tags", value):
            return value in metadata.get("tags", [])
        case Exists("size", present):
            return ("size" in metadata) is present
        case And(filters):
            return all(accepts(each, record) for each in filters)
        case Or(filters):
            return any(accepts(each, record) for each in filters)
    raise AssertionError(condition)


CONDITIONS = st.one_of(
    st.builds(lambda op, value: Compare(op, "colour", value), st.sampled_from(["eq", "ne"]), st.sampled_from(COLOURS)),
    st.builds(lambda value: Compare("gte", "size", value), st.integers(0, 4)),
    st.builds(lambda value: Contains("tags", value), st.sampled_from(["a", "b"])),
    st.builds(lambda present: Exists("size", present), st.booleans()),
)
FILTERS = st.one_of(
    CONDITIONS,
    st.builds(lambda one, other: And((one, other)), CONDITIONS, CONDITIONS),
    st.builds(lambda one, other: Or((one, other)), CONDITIONS, CONDITIONS),
)
METADATA = st.fixed_dictionaries(
    {"tags": st.lists(st.sampled_from(["a", "b", "c"]), max_size=2)},
    optional={"colour": st.sampled_from(COLOURS), "size": st.integers(0, 5)},
)
OWNERS = st.integers(0, 1)


class Engine(RuleBasedStateMachine):
    """One catalog and one store, two tenants, a writer that is restarted now and then, a reader that follows.

    ``happened`` counts the transitions of graphs of each tenant in all examples of a run; those of the second one are
    walked by int8 codes.
    """

    ways: SearchWays
    happened: Counter[tuple[str, str]]

    @initialize(
        metric=st.sampled_from(["cosine", "l2"]),
        seed=st.integers(0, 2**32 - 1),
        documents=st.integers(4, 6),
        chunks=st.integers(3, 4),
        merged=st.booleans(),
    )
    def open(self, metric: str, seed: int, documents: int, chunks: int, merged: bool) -> None:
        """Begin with some documents, so that there is something to happen to; perhaps in a graph already."""
        self.folder = Path(tempfile.mkdtemp())
        self.random = np.random.default_rng(seed)
        self.ways.random.seed(seed)
        self.now = 1_000.0
        self.has_grown = False
        self.catalog = open_catalog(self.folder, metric=metric)
        rival = {"tenant": TenantId("rival"), "generation_id": GenerationId("gen_2")}
        add_generation(self.catalog, **rival, metric=metric, quantization="int8")
        self.objects = LocalObjects(self.folder / "objects")
        self.owners = [Owner(TenantId(tenant), GenerationId(generation)) for tenant, generation in TENANTS]
        self.writers = 0
        self.restart()
        self.cache = SnapshotCache(self.catalog, self.objects, poll_s=60.0)
        for number in range(len(self.owners)):
            for names in (NAMES[:2], NAMES[2:documents]):
                self.put(number=number, names=names, chunks=chunks, metadata={"tags": []}, expires_in=None, gone=None)
            if merged:
                self.build(number=number, forced=True)
                self.delete(number=number, names=NAMES[:1])
                self.swap(number=number)

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.close()
            self.catalog.dispose()
            shutil.rmtree(self.folder)

    @rule()
    def restart(self) -> None:
        """Another process takes the lease; the former one is fenced."""
        self.writers += 1
        ends = self.now + 60.0 * self.writers
        epoch = acquire_lease(self.catalog, shard=0, owner=f"writer {self.writers}", ttl_s=60.0, now=ends)
        assert epoch is not None
        self.epoch = epoch
        self.publisher = Publisher(self.catalog, self.objects, clock=lambda: self.now, fan_in=FAN_IN)

    def publish(self, owner: Owner, **changes: object) -> None:
        self.now += 1.0
        if owner.waiting is not None:
            changes = {"taken": owner.waiting.inputs, **changes}
        published = self.publisher.publish(owner.generation_id, epoch=self.epoch, shard=0, **changes)  # type: ignore[arg-type]
        if published.changed:
            owner.history[published.manifest.version] = dict(owner.documents)

    @rule(
        number=OWNERS,
        names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
        chunks=st.integers(1, 4),
        metadata=METADATA,
        expires_in=st.one_of(st.none(), st.integers(1, 40)),
        gone=st.one_of(st.none(), st.sampled_from(NAMES)),
    )
    def put(self, number, names, chunks, metadata, expires_in, gone) -> None:
        """Add or replace documents, perhaps removing another in the same version."""
        owner = self.owners[number]
        made = [self._made(owner, name, chunks=chunks, metadata=metadata, expires_in=expires_in) for name in names]
        removed = [gone] if gone and gone not in names else []
        for name in removed:
            owner.documents.pop(name, None)
        owner.documents |= {held.record.document_id: held for held in made}
        rows, vectors = _rows(made)
        self.publish(owner, additions=rows, vectors=vectors, removed_document_ids=removed)

    @rule(number=OWNERS, names=st.lists(st.sampled_from(NAMES), max_size=3))
    def delete(self, number, names) -> None:
        owner = self.owners[number]
        for name in names:
            owner.documents.pop(name, None)
        self.publish(owner, removed_document_ids=names)

    @rule(number=OWNERS, condition=FILTERS)
    def delete_by_filter(self, number, condition) -> None:
        """What a filter selects now is logged as ids; the model decides by the oracle."""
        owner = self.owners[number]
        with self.following(owner) as snapshot:
            if snapshot.version == 0:
                return
            selected = select_documents(snapshot, condition, now=self.now).document_ids
        expected = [name for name, held in self.live(owner).items() if accepts(condition, held.record)]
        assert sorted(selected) == sorted(expected)
        for name in selected:
            del owner.documents[name]
        self.publish(owner, removed_document_ids=selected)

    @rule(number=OWNERS, name=st.sampled_from(NAMES), metadata=METADATA, expires_in=st.one_of(st.none(), st.just(30)))
    def describe(self, number, name, metadata, expires_in) -> None:
        """Change the metadata of a document, which keeps its text and vectors."""
        owner = self.owners[number]
        owner.numbers[name] = owner.numbers.get(name, 0) + 1
        expires_at = None if expires_in is None else self.now + expires_in
        revision = Revision(
            document_id=name,
            version_id=f"{name}-v{owner.numbers[name]}",
            number=owner.numbers[name],
            title=None,
            metadata=metadata,
            event_time=None,
            expires_at=expires_at,
            metadata_hash=b"",
        )
        if (held := owner.documents.get(name)) is not None:
            owner.documents[name] = Held(revision.applied_to(held.record), held.chunks)
        self.publish(owner, revisions=[revision])

    @rule(number=OWNERS, name=st.sampled_from(NAMES), ordinal=st.integers(0, 3))
    def trim(self, number, name, ordinal) -> None:
        """Take one chunk out of a document."""
        owner = self.owners[number]
        held = owner.documents.get(name)
        if held is None:
            return
        left = {at: chunk for at, chunk in held.chunks.items() if at != ordinal}
        if left:
            owner.documents[name] = Held(held.record, left)
        else:
            del owner.documents[name]
        self.publish(owner, trims=[Trim("trim", name, held.record.text_version, [ordinal])])

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds) -> None:
        self.now += seconds

    @rule(number=OWNERS)
    def reclaim(self, number) -> None:
        """Expired documents leave as others are deleted."""
        owner = self.owners[number]
        over = [name for name in owner.documents if name not in self.live(owner)]
        for name in over:
            del owner.documents[name]
        self.publish(owner, removed_document_ids=over)

    @rule(number=OWNERS, forced=st.booleans())
    def build(self, number, forced) -> None:
        """Build a merge, to be swapped in later; what is written until then must not come back, nor get lost."""
        owner = self.owners[number]
        manifest = self.manifest(owner)
        if owner.waiting is not None or manifest is None:
            return
        chosen = manifest.segments if forced else plan_merge(manifest, graph_rows=GRAPH_ROWS)
        if chosen:
            output = build_merge(self.objects, manifest, chosen, graph_rows=GRAPH_ROWS)
            owner.waiting = Swap([entry.id for entry in chosen], output)
            self.happened.update((what, owner.tenant) for what in _transitions(chosen, output))

    @rule(number=OWNERS)
    def swap(self, number) -> None:
        owner = self.owners[number]
        if owner.waiting is not None:
            swap, owner.waiting = owner.waiting, None
            try:
                self.publish(owner, swap=swap)
            except Conflict as error:
                assert "gone" in str(error)  # noqa: PT017  rolled back, emptied or collected since
            else:
                swapped = [entry for entry in self.manifest(owner).segments if entry.files == swap.output.files]
                if swapped and swapped[0].kind == "graph" and swapped[0].deleted_count > swap.output.deleted_count:
                    self.happened[BURIED, owner.tenant] += 1

    @rule(forced=st.booleans(), name=st.sampled_from(NAMES), other=st.sampled_from(NAMES))
    def merge_while_something_is_written(self, forced, name, other) -> None:
        for number in range(len(self.owners)):
            self.build(number=number, forced=forced)
            self.delete(number=number, names=[name])
            self.put(number=number, names=[other], chunks=2, metadata={"tags": []}, expires_in=None, gone=None)
            self.swap(number=number)

    @rule(count=st.integers(1, 3))
    def grow(self, count) -> None:
        """Add documents, and merge."""
        for number, owner in enumerate(self.owners):
            if absent := [name for name in NAMES if name not in owner.documents]:
                self.put(number, absent[:count], chunks=4, metadata={"tags": ["a"]}, expires_in=None, gone=None)
            self.merge_all(number)

    @rule(kept=st.integers(1, 3))
    def wear(self, kept) -> None:
        """Delete so many documents that a graph is worn, and merge."""
        for number, owner in enumerate(self.owners):
            self.delete(number=number, names=sorted(owner.documents)[:: kept + 1])
            self.merge_all(number)

    @rule()
    @precondition(lambda self: not self.has_grown)
    def grow_a_young_graph(self) -> None:
        """Make one graph of what there is, then add so much that a young one is begun behind it, and joined to it."""
        self.has_grown = True  # once is enough: it takes a while
        for number, owner in enumerate(self.owners):
            self.swap(number=number)
            self.delete(number=number, names=sorted(owner.documents)[6:])
            self.build(number=number, forced=True)
            self.swap(number=number)
            absent = [name for name in NAMES if name not in owner.documents]
            self.put(number, absent[:2], chunks=4, metadata={"tags": ["b"]}, expires_in=None, gone=None)
            self.merge_all(number)

    def merge_all(self, number: int) -> None:
        """Merge as often as there is something to merge, as maintenance does."""
        for _ in range(3):
            self.build(number=number, forced=False)
            self.swap(number=number)

    @rule(number=OWNERS, back=st.integers(1, 4))
    def roll_back(self, number, back) -> None:
        owner = self.owners[number]
        current = generation_info(self.catalog, owner.generation_id).version
        try:
            kept = find_version(self.catalog, owner.generation_id, Reference(version=max(1, current - back)))
        except NotKept:
            return  # collected, or there was none
        assert kept is not None
        owner.documents = dict(owner.history[kept.version])
        rollback = plan_rollback(self.catalog, self.objects, owner.generation_id, version=kept.version)
        self.publish(owner, rollback=rollback)

    @rule(number=OWNERS, tag=st.sampled_from(["stable", "before"]))
    def tag(self, number, tag) -> None:
        owner = self.owners[number]
        version = generation_info(self.catalog, owner.generation_id).version
        if version and tag not in owner.tagged:
            with self.catalog.write() as connection:
                put_tag(connection, owner.generation_id, name=tag, version=version, now=self.now)
            owner.tagged[tag] = version

    @rule(number=OWNERS)
    def collect(self, number) -> None:
        """Delete all that no current or tagged version names, however young it is."""
        owner = self.owners[number]
        owner.waiting = None  # no ledger holds its files here
        collect_generations(
            self.catalog, self.objects, tenant=owner.tenant, now=self.now, retention=AT_ONCE, min_age_s=-1e12
        )
        current = generation_info(self.catalog, owner.generation_id).version
        kept = {current, *owner.tagged.values()}
        owner.history = {version: held for version, held in owner.history.items() if version in kept}

    @invariant()
    def the_newest_version_is_what_the_model_holds(self) -> None:
        for owner in getattr(self, "owners", []):
            with self.following(owner) as snapshot:
                self.check(snapshot, owner.documents)

    @invariant()
    def tagged_versions_are_what_they_were(self) -> None:
        for owner in getattr(self, "owners", []):
            for tag, version in owner.tagged.items():
                kept = find_version(self.catalog, owner.generation_id, Reference(tag=tag))
                assert kept is not None
                assert kept.version == version
                info = generation_info(self.catalog, owner.generation_id)
                past = replace(info, version=kept.version, manifest=kept.name)
                with self.cache.get_past(past) as snapshot:
                    self.check(snapshot, owner.history[version])

    def check(self, snapshot: Snapshot, documents: dict[str, Held]) -> None:
        """Compare one version with the model, by its own counts and by what searches find."""
        total = sum(len(held.chunks) for held in documents.values())
        assert snapshot.chunk_count == total
        assert snapshot.document_count == len(documents)
        live = {name: held for name, held in documents.items() if _is_live(held, self.now)}
        chunks = {(name, ordinal): chunk for name, held in live.items() for ordinal, chunk in held.chunks.items()}
        hits = self.ways.search(snapshot, self._vector(), k=100, ef=100, now=self.now)
        assert len({hit.chunk_id for hit in hits}) == len(hits)
        assert {
            (hit.document.document_id, hit.ordinal): (hit.text, hit.start, hit.end, hit.page, hit.heading)
            for hit in hits
        } == {place: chunk[:-1] for place, chunk in chunks.items()}
        for hit in hits:
            assert hit.document == live[hit.document.document_id].record
        for chunk in self.random.permutation(len(chunks))[:2].tolist():
            self.find(snapshot, list(chunks.values())[chunk])

    @rule(number=OWNERS)
    def find_each_row_by_its_own_vector(self, number) -> None:
        owner = self.owners[number]
        with self.following(owner) as snapshot:
            for held in self.live(owner).values():
                for chunk in held.chunks.values():
                    self.find(snapshot, chunk)

    def find(self, snapshot: Snapshot, chunk: Chunk) -> None:
        self.ways.finds(snapshot, chunk.vector, wanted=lambda hit: hit.text == chunk.text, now=self.now)

    @rule(number=OWNERS, condition=FILTERS)
    def search(self, number, condition) -> None:
        """A filter finds what the oracle accepts."""
        owner = self.owners[number]
        with self.following(owner) as snapshot:
            hits = self.ways.search(snapshot, self._vector(), k=100, ef=100, filter=condition, now=self.now)
        expected = {
            (name, ordinal)
            for name, held in self.live(owner).items()
            if accepts(condition, held.record)
            for ordinal in held.chunks
        }
        assert {(hit.document.document_id, hit.ordinal) for hit in hits} == expected

    def live(self, owner: Owner) -> dict[str, Held]:
        return {name: held for name, held in owner.documents.items() if _is_live(held, self.now)}

    def following(self, owner: Owner):
        """The newest version, by way of the cache that has followed all the others."""
        version = generation_info(self.catalog, owner.generation_id).version
        return self.cache.get(owner.tenant, owner.generation_id, min_version=version)

    def manifest(self, owner: Owner) -> Manifest | None:
        name = generation_info(self.catalog, owner.generation_id).manifest
        return None if name is None else read_manifest(self.objects, name)

    def _made(self, owner: Owner, name: str, *, chunks: int, metadata: dict, expires_in: int | None) -> Held:
        owner.numbers[name] = number = owner.numbers.get(name, 0) + 1
        record = DocumentRecord(
            document_id=name,
            version_id=f"{name}-v{number}",
            number=number,
            source=f"{owner.tenant}/{name}.txt",
            title=self._perhaps(f"Title of {name} v{number}"),
            metadata=metadata,
            event_time=self._perhaps(self.now - 500.0),
            expires_at=None if expires_in is None else self.now + expires_in,
            ingested_at=self.now,
            media_type=self._perhaps("text/markdown") or "text/plain",
        )
        return Held(record, {at: self._chunk(f"{owner.tenant} {name} v{number} {at}") for at in range(chunks)})

    def _chunk(self, text: str) -> Chunk:
        start = int(self.random.integers(0, 1_000))
        page = self._perhaps(int(self.random.integers(1, 50)))
        heading = self._perhaps(f"Heading of {text}")
        return Chunk(text, start, start + len(text), page, heading, tuple(self._vector().tolist()))

    def _perhaps(self, value: T) -> T | None:
        return value if self.random.random() < 0.5 else None

    def _vector(self) -> np.ndarray:
        vector = self.random.standard_normal(DIMENSIONS)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def _is_live(held: Held, now: float) -> bool:
    return held.record.expires_at is None or held.record.expires_at > now


def _transitions(chosen: Sequence[SegmentEntry], output: SegmentEntry) -> list[str]:
    """Return what a merge of these did with graphs."""
    first, *others = chosen
    if output.kind != "graph":
        return []
    if first.kind != "graph":
        return [BUILT]
    if is_worn(first):
        return [WORN]
    return [*([EXTENDED] if others else []), *([JOINED] if any(one.kind == "graph" for one in others) else [])]


def _rows(made: list[Held]) -> tuple[Rows, np.ndarray]:
    placed = [(owner, at, chunk) for owner, held in enumerate(made) for at, chunk in held.chunks.items()]
    chunks = [chunk for _, _, chunk in placed]
    rows = Rows.build(
        [held.record for held in made],
        document=[owner for owner, _, _ in placed],
        ordinal=[at for _, at, _ in placed],
        start=[chunk.start for chunk in chunks],
        end=[chunk.end for chunk in chunks],
        page=[-1 if chunk.page is None else chunk.page for chunk in chunks],
        tokens=[3] * len(chunks),
        identity=[chunk_identity(chunk.text, chunking={}) for chunk in chunks],
        texts=[chunk.text for chunk in chunks],
        headings=[chunk.heading for chunk in chunks],
    )
    return rows, np.array([chunk.vector for chunk in chunks], np.float32)


def test_whatever_happens_searches_see_what_the_model_holds(monkeypatch):
    monkeypatch.setattr(planning, "REWRITTEN_PER_ROW", 1)
    Engine.ways, Engine.happened = SearchWays(0), Counter()
    Engine.ways.take_over(monkeypatch)
    run_state_machine_as_test(Engine, settings=machine_settings(examples=20, steps=25))
    for what in TRANSITIONS:
        print(what, {tenant: Engine.happened[what, tenant] for tenant, _ in TENANTS})
    assert all(Engine.happened[what, tenant] > 0 for what in TRANSITIONS for tenant, _ in TENANTS)
    Engine.ways.check()
