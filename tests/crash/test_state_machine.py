"""Everything that can happen to the collections of two tenants, in any order, against a model in plain Python.

Merges take a few rows, so that every transition happens often. After each step every collection is compared with its
model: what is found, with every field, also under filters and in a past version, and what the catalog says of it.
Graphs are searched in every way, whatever the planner would choose.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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

from penstock.storage import ledger
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.generations import generation_info
from penstock.storage.catalog.manifests import list_manifests
from penstock.storage.catalog.references import Reference, generation_at
from penstock.storage.catalog.retention import Retention
from penstock.storage.catalog.tags import put_tag, remove_tag
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.collecting import collect_generations
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.intake.removals import remove_documents
from penstock.storage.intake.selections import locate_chunks, select_documents
from penstock.storage.intake.trims import remove_chunks
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.forks import fork_collection
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.planning import plan_merge
from penstock.storage.search.hits import Hit
from penstock.storage.search.snapshots import Snapshot, SnapshotCache
from penstock.storage.segments.fields import Compare, Exists
from penstock.storage.segments.manifests import Swap, read_manifest

from ..machine_settings import machine_settings
from ..search_ways import SearchWays
from ..served_line import LEASE_S, MAX_ATTEMPTS, ServedLine, collection_of, new_served_line, place_of, vector_of
from ..storage_samples import new_catalog

GRAPH_ROWS, FAN_IN = 6, 2
SOURCES, TOPICS = ("a", "b", "c", "d"), ("x", "y")
ANY = np.ones(8, np.float32)
KEPT = Retention(keep_versions=3, keep_s=0.0)


@dataclass(frozen=True)
class Doc:
    """What is submitted of a document, and which of its lines are served."""

    lines: tuple[str, ...]
    topic: str | None
    expires_at: float | None
    trimmed: frozenset[int] = frozenset()

    @property
    def metadata(self) -> dict[str, Any]:
        return {} if self.topic is None else {"topic": self.topic}

    def submitted(self, source: str) -> SubmittedDocument:
        text = "\n".join(self.lines).encode()
        return SubmittedDocument(source, f"{source}.txt", text, metadata=self.metadata, expires_at=self.expires_at)

    def served(self) -> list[tuple[int, str]]:
        return [(at, line) for at, line in enumerate(self.lines) if at not in self.trimmed]

    def same(self, other: "Doc | None") -> bool:
        return other is not None and (self.lines, self.topic, self.expires_at) == (
            other.lines,
            other.topic,
            other.expires_at,
        )


Docs = dict[str, Doc]


@dataclass
class Model:
    """One collection: what each version serves, and what waits to be published.

    Not the numbers of documents' versions: who was deleted and pruned begins at 1 again. Catalog and index must agree.
    """

    tenant: str
    name: str
    versions: list[Docs] = field(default_factory=lambda: [{}])
    kept: set[int] = field(default_factory=set)
    tags: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, Doc] = field(default_factory=dict)

    @property
    def current(self) -> Docs:
        return self.versions[-1]

    def newest(self, source: str) -> Doc | None:
        return self.waiting.get(source) or self.current.get(source)


docs = st.builds(
    Doc,
    lines=st.lists(st.sampled_from(["one", "two", "three", "four"]), min_size=1, max_size=4, unique=True).map(tuple),
    topic=st.sampled_from([None, *TOPICS]),
    expires_at=st.sampled_from([None, None, None, 50_000.0, 100_000.0]),
)
some_docs = st.dictionaries(st.sampled_from(SOURCES), docs, min_size=1, max_size=3)
pick = st.integers(0, 1_000)


class Machine(RuleBasedStateMachine):
    ways: SearchWays

    @initialize(seed=st.integers(0, 2**32 - 1))
    def start(self, seed: int) -> None:
        self.ways.random.seed(seed)
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-machine-"))
        catalog = new_catalog(self.catalog_url)
        create_tenant(catalog, "acme", now=1.0)
        self.line = replace(new_served_line(catalog, self.folder, name="papers"), fan_in=FAN_IN)
        self.line.lease()
        new_served_line(catalog, self.folder, tenant="acme", name="papers")
        self.models = [Model("default", "papers"), Model("acme", "papers")]
        self.forks = 0
        self.cache = self.open_cache()
        for at in range(4):  # so that there is something to happen to
            some = SOURCES[at % 2 : at % 2 + 3]
            lines = ("one", "two", "three", "four")[at % 3 :]
            self.submit_and_publish(at, {name: Doc(lines, TOPICS[at % 2], None) for name in some})
        for at in range(2):
            self.merge(at)  # so that there is a graph

    @property
    def catalog_url(self) -> str:
        return f"sqlite:///{self.folder}/catalog.db"

    def open_cache(self) -> SnapshotCache:
        return SnapshotCache(self.line.catalog, self.line.objects, poll_s=3_600, capacity_bytes=200_000)

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.close()
            self.line.catalog.dispose()
            shutil.rmtree(self.folder)

    @contextmanager
    def at(self, model: Model) -> Iterator[ServedLine]:
        """Give the line for one collection; all have one clock."""
        line = replace(self.line, tenant=model.tenant).of(model.name)
        yield line
        self.line.now = max(self.line.now, line.now)

    def chosen(self, at: int) -> Model:
        return self.models[at % len(self.models)]

    def one_of(self, model: Model, which: int) -> str:
        """Return the source of a document that is served, if there is one."""
        served = sorted(model.current)
        return served[which % len(served)] if served else SOURCES[0]

    def accept(self, model: Model, given: Docs) -> None:
        with self.at(model) as line:
            line.accept([doc.submitted(source) for source, doc in given.items()])
        for source, doc in given.items():
            if not doc.same(model.newest(source)):
                model.waiting[source] = doc

    # Rules

    @rule(at=pick, given=some_docs)
    def submit(self, at: int, given: Docs) -> None:
        self.accept(self.chosen(at), given)

    @rule(at=pick, given=some_docs)
    def submit_and_publish(self, at: int, given: Docs) -> None:
        self.accept(self.chosen(at), given)
        self.publish()

    @rule()
    def publish(self) -> None:
        self.line.run()
        for model in self.models:
            self.settle(model, {**model.current, **model.waiting})
            model.waiting.clear()

    @rule(at=pick, which=pick)
    def delete(self, at: int, which: int) -> None:
        self.publish()
        model = self.chosen(at)
        source = self.one_of(model, which)
        with self.at(model) as line:
            line.remove(source)
        self.line.run()
        self.settle(model, {name: doc for name, doc in model.current.items() if name != source})

    @rule(at=pick, topic=st.sampled_from(TOPICS))
    def delete_by_filter(self, at: int, topic: str) -> None:
        self.publish()
        model, now = self.chosen(at), self.line.now
        if not any(doc.topic is not None for doc in self.unexpired(model.current).values()):
            return  # a filter on what no document has is refused
        with self.at(model) as line, self.newest(model) as snapshot:
            chosen = select_documents(snapshot, Compare("eq", "topic", topic), now=now)
            remove_documents(line.catalog, **line._place, document_ids=chosen.document_ids, now=now)
        gone = {name for name, doc in self.unexpired(model.current).items() if doc.topic == topic}
        self.line.run()
        self.settle(model, {name: doc for name, doc in model.current.items() if name not in gone})

    @rule(at=pick, which=pick, topic=st.sampled_from(TOPICS))
    def describe_anew(self, at: int, which: int, topic: str) -> None:
        self.publish()
        model = self.chosen(at)
        source = self.one_of(model, which)
        doc = model.current.get(source)
        if doc is None:
            return
        with self.at(model) as line:
            changed = line.update(source, metadata={"topic": topic}).changed
        assert changed == (doc.topic != topic)
        if changed:
            self.line.run()
            self.settle(model, {**model.current, source: replace(doc, topic=topic)})

    @rule(at=pick, which=pick, chunk=pick)
    def trim(self, at: int, which: int, chunk: int) -> None:
        self.publish()
        model = self.chosen(at)
        source = self.one_of(model, which)
        doc = model.current.get(source)
        if doc is None or len(doc.served()) == 1:
            return  # what loses all its chunks is a matter of its own
        ordinal, _ = doc.served()[chunk % len(doc.served())]
        with self.at(model) as line, self.newest(model) as snapshot:
            hits = snapshot.search(ANY, k=1_000, now=0.0)
            ids = [hit.chunk_id for hit in hits if (hit.document.source, hit.ordinal) == (source, ordinal)]
            remove_chunks(line.catalog, **line._place, chunks=locate_chunks(snapshot, ids), now=line.now)
        self.line.run()
        self.settle(model, {**model.current, source: replace(doc, trimmed=doc.trimmed | {ordinal})})

    @rule(seconds=st.sampled_from([1_000.0, 30_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.line.now += seconds

    @rule()
    def take_out_what_expired(self) -> None:
        self.publish()
        for _ in self.models:
            self.line.expire()
        for model in self.models:
            self.settle(model, self.unexpired(model.current))

    @rule(at=pick)
    def merge(self, at: int) -> None:
        model = self.chosen(at)
        with self.at(model) as line:
            generation = generation_info(line.catalog, line.collection.generation.id)
            manifest = read_manifest(line.objects, generation.manifest) if generation.manifest else None
            inputs = plan_merge(manifest, graph_rows=GRAPH_ROWS) if manifest else None
            if not inputs:
                return
            details = {"segments": [entry.id for entry in inputs]}
            assert ledger.open_merge(line.catalog, generation_id=generation.id, details=details, now=line.now)
            (batch_id,) = line.send("merge")
            claim = line.claim(batch_id)
            output = build_merge(line.objects, manifest, inputs, graph_rows=GRAPH_ROWS)
            swap = Swap(details["segments"], output)
            ledger.finish_merge(line.catalog, line.objects, claim, details=swap.to_details(), now=line.now)
            options = {"owner": line.owner, "lease_s": LEASE_S, "now": line.now, "max_attempts": MAX_ATTEMPTS}
            waiting = ledger.claim_swap(line.catalog, shard=0, **options)
            line.publisher.publish(
                generation.id,
                epoch=line.lease(),
                shard=0,
                swap=swap,
                in_transaction=lambda connection, _: ledger.finish_swap(connection, waiting, now=line.now),
            )
        self.settle(model, model.current)

    @rule(at=pick, to=pick)
    def roll_back(self, at: int, to: int) -> None:
        model = self.chosen(at)
        if not model.kept:
            return
        version = sorted(model.kept)[to % len(model.kept)]
        with self.at(model) as line:
            line.roll_back(version)
        self.settle(model, model.versions[version])

    @rule(at=pick, to=pick)
    @precondition(lambda self: self.forks < 3)
    def fork(self, at: int, to: int) -> None:
        parent = self.chosen(at)
        if not parent.kept:
            return
        self.forks += 1
        version, name = sorted(parent.kept)[to % len(parent.kept)], f"fork-{self.forks}"
        with self.at(parent) as line:
            fork_collection(
                line.catalog,
                line.objects,
                parent=collection_of(line),
                reference=Reference(version=version),
                name=name,
                clock=line.clock,
            )
        self.models.append(Model(parent.tenant, name, versions=[{}, parent.versions[version]], kept={1}))

    @rule(at=pick)
    @precondition(lambda self: len(self.models) > 3)
    def delete_a_collection(self, at: int) -> None:
        model = self.models.pop(2 + at % (len(self.models) - 2))
        delete_collection(self.line.catalog, tenant=model.tenant, name=model.name)

    @rule(at=pick, to=pick, name=st.sampled_from(["release", "draft"]))
    def tag(self, at: int, to: int, name: str) -> None:
        model = self.chosen(at)
        if not model.kept:
            return
        version = sorted(model.kept)[to % len(model.kept)]
        with self.at(model) as line, line.catalog.write() as connection:
            generation_id = line.collection.generation.id
            put_tag(connection, generation_id, name=name, version=version, move=True, now=line.now)
        model.tags[name] = version

    @rule(at=pick)
    def untag(self, at: int) -> None:
        model = self.chosen(at)
        if model.tags:
            name, _ = model.tags.popitem()
            with self.at(model) as line, line.catalog.write() as connection:
                remove_tag(connection, line.collection.generation.id, name=name)

    @rule()
    def collect(self) -> None:
        self.cache.close()  # a version that somebody reads is kept
        for tenant in ("default", "acme"):
            options = {"retention": KEPT, "min_age_s": -1e12}
            collect_generations(self.line.catalog, self.line.objects, tenant=tenant, now=self.line.now, **options)
        ledger.prune(self.line.catalog, now=self.line.now, keep_s=0.0)
        for model in self.models:
            last = len(model.versions) - 1
            model.kept = {one for one in model.kept if one > last - KEPT.keep_versions or one in model.tags.values()}
        self.cache = self.open_cache()

    @rule()
    def restart(self) -> None:
        self.cache.close()
        self.line.catalog.dispose()
        self.line.catalog = Catalog.open(self.catalog_url)
        self.line.objects = LocalObjects(self.folder / "objects")
        self.cache = self.open_cache()

    # What must be true

    @invariant()
    def every_collection_is_its_model(self) -> None:
        for model in getattr(self, "models", ()):
            with self.at(model) as line:
                self.check_served(model)
                self.check_catalog(model, line)

    @invariant()
    def a_past_version_is_what_it_was(self) -> None:
        for model in getattr(self, "models", ()):
            for version in sorted(model.kept)[:1]:
                with self.at(model) as line:
                    generation = line.collection.generation
                    then = generation_at(line.catalog, generation, Reference(version=version))
                    with self.cache.get_past(then) as snapshot:
                        self.check_snapshot(snapshot, model.versions[version])

    def settle(self, model: Model, served: Docs) -> None:
        """Note which version serves this; there is none when nothing was to be published."""
        with self.at(model) as line:
            version = generation_info(line.catalog, line.collection.generation.id).version
        made = version - (len(model.versions) - 1)
        assert made in {0, 1}, "one step makes one version at most"
        if made:
            model.versions.append(dict(served))
            model.kept.add(version)
        else:
            assert served == model.current

    def unexpired(self, served: Docs) -> Docs:
        now = self.line.now
        return {name: doc for name, doc in served.items() if doc.expires_at is None or doc.expires_at > now}

    @contextmanager
    def newest(self, model: Model) -> Iterator[Snapshot]:
        with self.at(model) as line:
            generation = line.collection.generation
            with self.cache.get(line.tenant, generation.id, min_version=len(model.versions) - 1) as snapshot:
                yield snapshot

    def check_served(self, model: Model) -> None:
        with self.newest(model) as snapshot:
            assert snapshot.version == len(model.versions) - 1
            self.check_snapshot(snapshot, model.current)

    def check_snapshot(self, snapshot: Snapshot, served: Docs) -> None:
        assert snapshot.chunk_count == sum(len(doc.served()) for doc in served.values())
        shown, now = self.unexpired(served), self.line.now
        assert self.found(snapshot) == expected(shown)
        some = {name: doc for name, doc in shown.items() if doc.topic == "x"}
        assert self.found(snapshot, filter=Compare("eq", "topic", "x")) == expected(some)
        none = {name: doc for name, doc in shown.items() if doc.topic is None}
        assert self.found(snapshot, filter=Exists("topic", present=False)) == expected(none)
        for line in {line for doc in shown.values() for _, line in doc.served()}:
            self.ways.finds(snapshot, vector_of(line), wanted=lambda best, line=line: is_itself(best, line), now=now)

    def found(self, snapshot: Snapshot, **asked: Any) -> list[tuple[Any, ...]]:
        hits = self.ways.search(snapshot, ANY, k=1_000, now=self.line.now, **asked)
        assert len({hit.chunk_id for hit in hits}) == len(hits)
        return sorted(
            (
                hit.document.source,
                hit.ordinal,
                hit.text,
                repr((hit.start, hit.end, hit.page, hit.heading)),
                repr(hit.document.metadata),
                str(hit.document.expires_at),
            )
            for hit in hits
        )

    def check_catalog(self, model: Model, line: ServedLine) -> None:
        assert line.indexed() == line.numbers()
        generation = generation_info(line.catalog, line.collection.generation.id)
        assert generation.live_chunks == sum(len(doc.served()) for doc in model.current.values())
        listed = line.listed()
        assert listed.keys() == model.current.keys() | model.waiting.keys()
        for source, info in listed.items():
            newest = model.newest(source)
            assert (info.metadata, info.expires_at) == (newest.metadata, newest.expires_at)
            assert (info.state == "indexed") == (source not in model.waiting)
        with line.catalog.read() as connection:
            history = list_manifests(connection, generation.id, limit=1_000)
        assert {one.version for one in history} == model.kept
        assert {tag: one.version for one in history for tag in one.tags} == model.tags


def expected(served: Docs) -> list[tuple[Any, ...]]:
    return sorted(
        (source, ordinal, line, repr(place_of(doc.lines, ordinal)), repr(doc.metadata), str(doc.expires_at))
        for source, doc in served.items()
        for ordinal, line in doc.served()
    )


def is_itself(hit: Hit, line: str) -> bool:
    return (hit.text, round(hit.score, 4)) == (line, 1.0)


def test_whatever_happens_a_collection_is_what_its_model_says(monkeypatch):
    Machine.ways = SearchWays(0)
    Machine.ways.take_over(monkeypatch)
    run_state_machine_as_test(Machine, settings=machine_settings(examples=6, steps=40))
    Machine.ways.check()
