"""One tenant's applications: one asks for random changes, one searches, both compare with the model."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from penstock.client import Busy, NewDocument, Penstock, ServerError, Unreachable

from .model import Chunk, TenantModel, Value

COLLECTION = "docs"
AWAY = (Unreachable, ServerError, Busy)
PATIENCE_S = 180.0
WORDS = ["river", "gate", "water", "turbine", "valve", "pressure", "dam", "head", "flow", "pipe", "wheel", "power"]
T = TypeVar("T")


class Tenant:
    """Asks as one application after the other, and looks from another thread."""

    def __init__(self, name: str, *, connect: Callable[[str], Penstock], rng: random.Random, sources: int) -> None:
        self.name = name
        self.model = TenantModel()
        self.wrong: list[str] = []
        self.done: Counter[str] = Counter()
        self.dead: set[str] = set()
        self._client, self._looking = connect(name), connect(name)
        self._rng, self._looks = rng, random.Random(rng.random())  # one for each thread
        self._token: str | None = None
        self._sources = [f"{name}-{number}" for number in range(sources)]
        self._versions: Counter[str] = Counter()
        self._jobs: list[tuple[str, list[tuple[str, int]]]] = []

    def ask(self, stop: Event) -> None:
        """Ask for one thing after the other until told to stop."""
        requests = (self._submit, self._submit, self._submit, self._remove, self._update, self._submit_bad)
        while not stop.is_set():
            self._rng.choice(requests)()
            self._learn()
            stop.wait(self._rng.uniform(0.0, 0.4))

    def look(self, stop: Event) -> None:
        """Search for everything, again and again."""
        while not stop.is_set():
            self.wrong += self.compare(promised=self._looks.random() < 0.5)
            self.done["searches"] += 1
            stop.wait(self._looks.uniform(0.05, 0.5))

    def compare(self, *, promised: bool = False) -> list[str]:
        """Search for everything. ``promised``: waiting for what finished jobs have brought."""
        floors = self.model.floors(promised=promised)
        token = self._token if promised else None  # after the floors: it covers what they promise, or more
        found = self._answered(lambda: self._everything(self._looking, token), counted="searched again")
        return [f"{self.name}: {told}" for told in self.model.check(found, floors=floors)]

    def settled(self) -> bool:
        """Return whether no job of this tenant is running any more."""
        jobs = self._answered(lambda: self._client.jobs(limit=100)).data
        return all(job.state != "running" for job in jobs)

    def unexplained(self) -> list[str]:
        """Say which documents are neither searchable at their newest version nor dead with a reason."""
        newest, wrong = self.model.newest(), []
        listed = {one.source: one for one in self._answered(lambda: list(self._client.all_documents(COLLECTION)))}
        for source, document in listed.items():
            dead = source in self.dead
            if document.state != ("failed" if dead else "indexed") or (dead and not document.error):
                wrong.append(f"{self.name}: {source} is {document.state} ({document.error})")
        expected = {source for source, value in newest.items() if value is not None} | self.dead
        wrong += [f"{self.name}: {source} is not listed" for source in expected - listed.keys()]
        return wrong + [f"{self.name}: {source} is listed" for source in listed.keys() - expected]

    def close(self) -> None:
        self._client.close()
        self._looking.close()

    def _everything(self, client: Penstock, token: str | None) -> dict[str, list[Chunk]]:
        found: dict[str, list[Chunk]] = defaultdict(list)
        for hit in client.search(COLLECTION, "anything", k=1000, min_token=token).hits:
            found[hit.document.source].append((hit.start, hit.end, hit.text, hit.document.title))
        return found

    def _submit(self) -> None:
        values = {source: self._value(source) for source in self._rng.sample(self._sources, self._rng.randint(1, 6))}
        asked = [(source, self.model.ask(source, value)) for source, value in values.items()]
        documents = [NewDocument(source=name, text=value.text, title=value.title) for name, value in values.items()]
        before = self.done["asked again"]
        answer = self._answered(lambda: self._client.submit(COLLECTION, documents))
        if self.done["asked again"] == before:  # else the job that brings them may be one whose answer was lost
            self._jobs.append((answer.job.id, asked))
        self.done["submitted"] += len(documents)

    def _submit_bad(self) -> None:
        source = f"{self.name}-bad-{self._rng.randint(0, 3)}"
        self.dead.add(source)
        self._answered(lambda: self._client.submit(COLLECTION, [NewDocument(source=source, text=" \n ")]))
        self.done["bad"] += 1

    def _remove(self) -> None:
        sources = self._rng.sample(self._sources, self._rng.randint(1, 2))
        asked = [(source, self.model.ask(source, None)) for source in sources]
        before = self.done["asked again"]
        answer = self._answered(lambda: self._client.delete_documents(COLLECTION, sources=sources))
        if self.done["asked again"] == before and answer.job is not None:
            self._jobs.append((answer.job.id, asked))
        self.done["removed"] += len(sources)

    def _update(self) -> None:
        there = [source for source, value in self.model.newest().items() if value is not None]
        if not there:
            return
        source = self._rng.choice(sorted(there))
        value = self.model.newest()[source]
        assert value is not None
        found = self._answered(lambda: self._client.documents(COLLECTION, source=source)).data
        title = f"title {self._next(source)} of {source}"
        self.model.ask(source, Value(value.text, title))
        self._answered(lambda: self._client.update_document(COLLECTION, found[0].id, title=title))
        self.done["updated"] += 1

    def _learn(self) -> None:
        """Look whether jobs are done: then what they brought must show."""
        if not self._jobs or self._rng.random() < 0.5:
            return
        job_id, asked = self._jobs[0]
        job = self._answered(lambda: self._client.job(job_id))
        if job.state == "running":
            return
        self._jobs.pop(0)
        if "superseded" in job.documents:  # a newer version overtook it, and may be on its way still
            return
        if job.token is not None and (self._token is None or _version(job.token) > _version(self._token)):
            self._token = job.token
        for source, number in asked:
            self.model.done(source, number)

    def _value(self, source: str) -> Value:
        version = self._next(source)
        sentences = [
            f"{source} says in version {version}, sentence {number}, that {' '.join(self._rng.choices(WORDS, k=9))}."
            for number in range(self._rng.choice([1, 4, 30, 60]))
        ]
        return Value(" ".join(sentences), self._rng.choice([None, f"title {version} of {source}"]))

    def _next(self, source: str) -> int:
        self._versions[source] += 1
        return self._versions[source]

    def _answered(self, request: Callable[[], T], *, counted: str = "asked again") -> T:
        """Ask until there is an answer: what was not answered may have been done all the same."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return request()
            except AWAY as error:
                if time.monotonic() > deadline:
                    raise
                self.done[counted] += 1
                time.sleep(min(getattr(error, "retry_after_s", None) or 0.2, 1.0))


def _version(token: str) -> int:
    return int(token.rpartition(":")[2])
