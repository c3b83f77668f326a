"""Whatever documents of a batch are bad, in whatever stages and ways: these are dead, and all others served."""

import os
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock.storage import ledger
from penstock.storage.catalog.documents import list_documents
from penstock.storage.catalog.jobs import get_job
from penstock.storage.errors import Conflict
from penstock.storage.intake.revivals import retry_documents

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, TENANT, Line, new_line

COUNT = 24
STAGES = ("chunk", "embed", "index")
WAYS = ("kills", "raises", "refused")  # its worker; there; by the parser or the provider, which name the document


@dataclass
class Trial:
    """Workers that fail as the culprits among their documents make them: ``culprits`` maps sources to (stage, way)."""

    line: Line
    random: random.Random
    culprits: dict[str, tuple[str, str]]
    attempts: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        for _ in range(40 * MAX_ATTEMPTS):
            self.line.form(max_documents=self.random.choice([1, 5, COUNT]))
            self.line.parts = self.random.choice([1, 2])
            for stage in STAGES:
                for held in self.taken(stage):
                    with suppress(Conflict):  # another part of the same document took it along
                        self.work(stage, held)
            self.line.now += LEASE_S + 1
            self.line.reconcile()
            if not self.line.unfinished():
                return
        raise AssertionError(f"not over: {self.line.states()}")

    def taken(self, stage: str) -> list[Sequence[Any]]:
        """Claim what is ready: one batch at a time, or for the writer several groups that share their fate."""
        if stage == "index":
            groups = self.line.claim_index(owner=f"writer at {self.line.now}")
            return [groups] if groups else []
        batches = self.line.send(stage)
        self.random.shuffle(batches)
        return [[claim] for batch in batches if (claim := self.line.claim(batch)) is not None]

    def work(self, stage: str, held: Sequence[Any]) -> None:
        sources = {version.source: version.id for one in held for version in one.versions}
        bad = {s: self.culprits[s][1] for s in sources if self.culprits.get(s, ("", ""))[0] == stage}
        for source in bad if stage == "index" or held[0].part == 0 else ():  # a document may lie in several parts
            self.attempts[source] = self.attempts.get(source, 0) + 1
        refused = [
            ledger.FailedDocument(sources[s], "refused", f"{s} is refused")
            for s, way in bad.items()
            if way == "refused"
        ]
        if "kills" in bad.values():
            return  # nobody will ever say what became of it
        if "raises" in bad.values():
            for claim in held:
                self.line.retry(claim, error="it broke")
            return
        if stage == "chunk":
            self.line.finish_chunking(held[0], failed=refused)
            return
        if refused:
            tried = held[0].tried if stage == "embed" else ledger.NEVER
            ledger.fail_versions(self.line.catalog, failures=refused, stage=stage, now=self.line.now, tried=tried)
            if len(refused) == len(sources):
                return  # the claim went with its last document
        if stage == "embed":
            self.line.finish_embedding(held[0])
        elif not refused:  # else the writer looks again, without what was refused
            self.line.publish(held)


def chosen(dice: random.Random, sources: Sequence[str]) -> dict[str, tuple[str, str]]:
    few = dice.choice([0, 1, 2, len(sources) // 2, len(sources)])
    return {source: (dice.choice(STAGES), dice.choice(WAYS)) for source in dice.sample(sources, few)}


@pytest.mark.parametrize("round_", range(4))
def test_any_set_of_culprits_dies_and_nothing_else(catalog, round_):
    seed = int(os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32))) + round_
    print(f"PENSTOCK_TEST_SEED={seed}")
    dice = random.Random(seed)
    line = new_line(catalog)
    sources = [f"s{number:02}" for number in range(COUNT)]
    trial = Trial(line, dice, chosen(dice, sources))
    job_id = line.submit(*sources).job_id

    trial.run()

    dead = check(trial, sources)
    died, served = len(trial.culprits), COUNT - len(trial.culprits)
    told = {state: count for state, count in (("failed", died), ("indexed", served)) if count}
    assert get_job(catalog, tenant=TENANT, job_id=job_id).documents == told

    # After a fix of some of them the rest dies once more, and nobody else is touched.
    fixed = dice.sample(sorted(trial.culprits), len(trial.culprits) // 2)
    trial.culprits = {source: how for source, how in trial.culprits.items() if source not in fixed}
    trial.attempts.clear()
    place = {"collection_id": line.collection.id, "generation_id": line.collection.generation.id}
    ids = [one.id for one in dead]
    retried = retry_documents(catalog, line.objects, tenant=TENANT, **place, document_ids=ids, now=line.now)
    assert retried.done == len(dead)
    trial.run()
    check(trial, sources)


def check(trial: Trial, sources: Sequence[str]) -> list[Any]:
    line = trial.line
    place = {"tenant": TENANT, "collection_id": line.collection.id}
    dead = list_documents(line.catalog, **place, state="failed", limit=COUNT)
    assert line.states() == {s: ["failed" if s in trial.culprits else "indexed"] for s in sources}
    for one in dead:
        stage, way = trial.culprits[one.source]
        assert one.stage == stage
        assert one.error_code == {"kills": "worker_lost", "raises": "gave_up", "refused": "refused"}[way]
        assert one.first_attempt_at is not None or (stage, way) == ("index", "refused")
        if stage != "index":
            assert one.attempts == trial.attempts[one.source]
    return dead
