"""A random line of clumsy workers against a plain model: what is served may only move forward, and all ends well."""

import os
import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import NoResultFound

from penstock.storage import ledger
from penstock.storage.catalog.jobs import cancel_job, get_job
from penstock.storage.catalog.tables import OF_DOCUMENT, batches, documents, versions
from penstock.storage.errors import Conflict, NotFound
from penstock.storage.ids import BatchId, JobId

from ..ledger_line import LEASE_S, TENANT, Line, document, new_line

STEPS = int(os.environ.get("PENSTOCK_TEST_STEPS", "120"))
SOURCES = [f"s{number}" for number in range(8)]


@dataclass
class Clumsy:
    """Workers that forget what they do, finish late, and repeat themselves; producers that change their minds."""

    line: Line
    random: random.Random
    jobs: dict[JobId, int] = field(default_factory=dict)  # how many documents each took
    messages: list[BatchId] = field(default_factory=list)
    claims: list[ledger.Claim] = field(default_factory=list)
    groups: list[list[ledger.IndexGroup]] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)  # the model: source -> number of the version searches see
    newest: dict[str, int] = field(default_factory=dict)  # document -> number of the newest version that was published

    def step(self) -> None:
        often = [self.submit, self.send, self.claim, self.work, self.publish]
        seldom = [
            self.remove,
            self.update,
            self.trim,
            self.expire,
            self.cancel,
            self.form,
            self.take_groups,
            self.wait,
            self.forget,
            self.prune,
        ]
        self.random.choice([*often, *often, self.work, *seldom])()

    def submit(self) -> None:
        chosen = self.random.sample(SOURCES, self.random.randint(1, len(SOURCES)))
        text, ends_at = f"text {self.random.randint(0, 3)}", self.random.choice([None, None, self.line.now + LEASE_S])
        accepted = self.line.accept([document(source, text, expires_at=ends_at) for source in chosen])
        self.jobs[accepted.job_id] = accepted.accepted

    def remove(self) -> None:
        removed = self.line.remove(*self.random.sample(SOURCES, 2))
        self.jobs[removed.job_id] = removed.deleted

    def update(self) -> None:
        values = {"expires_at": self.random.choice([None, self.line.now + LEASE_S])}
        with suppress(NotFound, NoResultFound, Conflict):  # it is not there, was deleted, or failed
            updated = self.line.update(self.random.choice(SOURCES), values=values, patch={"n": self.random.random()})
            self.jobs[updated.job_id] = int(updated.changed)

    def trim(self) -> None:
        if self.served:
            self.jobs[self.line.trim(self.random.choice(sorted(self.served)), 0)] = 1

    def expire(self) -> None:
        before = set(self.indexed())
        self.line.expire()
        for source in before - set(self.indexed()):
            assert self.served.pop(source, None), f"{source} expired twice, or was never served"

    def indexed(self) -> dict[str, int]:
        found = sa.select(documents.c.source, versions.c.number).join(versions, OF_DOCUMENT)
        with self.line.catalog.read() as connection:
            return {row.source: row.number for row in connection.execute(found.where(versions.c.state == "indexed"))}

    def cancel(self) -> None:
        if self.jobs and self.random.random() < 0.5:
            with suppress(Conflict):  # it is done
                cancel_job(
                    self.line.catalog, tenant=TENANT, job_id=self.random.choice(list(self.jobs)), now=self.line.now
                )

    def form(self) -> None:
        self.line.form(max_documents=self.random.choice([1, 3, 256]))

    def send(self) -> None:
        self.messages += self.line.send(self.random.choice(["chunk", "embed"]), limit=3)

    def claim(self) -> None:
        if self.messages:
            batch = self.random.choice(self.messages)  # not removed: delivered again later
            claim = self.line.claim(batch, owner=f"w{self.random.randint(0, 2)}")
            self.claims += [claim] if claim else []

    def work(self) -> None:
        if not self.claims:
            return
        claim = self.random.choice(self.claims)  # not removed: finished a second time later
        self.line.parts = self.random.choice([1, 2])
        with suppress(Conflict):
            self.end(claim)

    def end(self, claim: ledger.Claim) -> None:
        dice = self.random.random()
        if dice < 0.15:
            self.line.retry(claim, counted=self.random.random() < 0.5)
        elif dice < 0.25:
            failed = [ledger.FailedDocument(self.random.choice(claim.versions).id, "bad", "bad")]
            ledger.fail_versions(self.line.catalog, failures=failed, stage=claim.stage, now=self.line.now)
        elif claim.stage == "chunk":
            self.line.finish_chunking(claim)
        else:
            self.line.finish_embedding(claim, cache_hits=1)

    def take_groups(self) -> None:
        owner = f"writer{self.random.randint(0, 1)}"
        self.groups.append(self.line.claim_index(owner=owner, max_chunks=self.random.choice([1, 10, 1000])))

    def publish(self) -> None:
        if not self.groups:
            return
        groups = self.random.choice(self.groups)
        try:
            self.line.publish(groups)
        except Conflict:
            return
        for version in (version for group in groups for version in group.versions):
            if version.action == "trim":
                continue
            newest = self.newest.get(version.document_id, 0)
            assert version.number > newest, "an older version was published after a newer one"
            self.newest[version.document_id] = version.number
            if version.action == "delete":
                self.served.pop(version.source, None)
            else:
                self.served[version.source] = version.number

    def wait(self) -> None:
        self.line.now += self.random.choice([0.1, 1.0, LEASE_S + 1])
        self.line.reconcile()

    def prune(self) -> None:
        ledger.prune(self.line.catalog, now=self.line.now, keep_s=self.random.choice([0.0, LEASE_S]))

    def forget(self) -> None:
        for held in (self.messages, self.claims, self.groups):
            if held and self.random.random() < 0.3:
                held.clear()


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_clumsy_workers_serve_the_newest_version_of_each_document_once(catalog, seed):
    if seed is None:
        seed = int(os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"PENSTOCK_TEST_SEED={seed}")
    clumsy = Clumsy(new_line(catalog), random.Random(seed))
    for _ in range(STEPS):
        clumsy.step()
    finish(clumsy)
    check(clumsy)


def finish(clumsy: Clumsy) -> None:
    """Let sober workers bring everything to its end, still through the model."""
    line = clumsy.line
    for _ in range(60):
        line.now += LEASE_S + 1
        line.reconcile()
        line.chunk()
        line.embed()
        clumsy.groups = [line.claim_index(owner="sober")]
        clumsy.publish()
        if not line.unfinished():
            return
    raise AssertionError(f"not over: {line.states()}")


def check(clumsy: Clumsy) -> None:
    line = clumsy.line
    line.reconcile()
    with line.catalog.read() as connection:
        found = sa.select(
            documents.c.source, documents.c.newest, documents.c.highest, versions.c.number, versions.c.state
        )
        rows = connection.execute(found.join(versions, OF_DOCUMENT).where(versions.c.action != "trim")).all()
        still_open = sa.select(batches.c.id).where(batches.c.state.in_(("ready", "sent", "running")))
        assert connection.scalars(still_open).all() == []
    indexed = {row.source: row.number for row in rows if row.state == "indexed"}
    assert indexed == clumsy.served
    for row in rows:
        if row.number == row.newest and row.state not in {"failed", "cancelled", "deleted", "expired"}:
            assert indexed[row.source] == row.newest
        if row.number == row.newest and row.state == "cancelled":
            assert row.source not in indexed  # else it is shown as what is served
        if row.state in {"deleted", "expired"}:
            assert indexed.get(row.source, row.number + 1) > row.number
        if row.state == "superseded":
            assert row.number < row.highest
    for job_id, accepted in clumsy.jobs.items():
        job = get_job(line.catalog, tenant=TENANT, job_id=job_id)
        assert job.state in {"done", "cancelled"}
        assert sum(job.documents.values()) == accepted
        assert job.chunks_total == job.chunks_embedded == job.chunks_indexed
