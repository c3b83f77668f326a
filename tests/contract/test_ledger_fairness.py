"""Tenants share the workers by weight, whatever each submits; inside a tenant, by priority. Nobody starves."""

import os
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.tables import PRIORITIES, accounts, batches, versions
from penstock.storage.catalog.tenants import change_tenant, create_tenant, get_tenant
from penstock.storage.intake.documents import Terms
from penstock.storage.ledger import forming
from penstock.storage.ledger.turns import FULL_BYTES, FULL_CHUNKS, FULL_DOCUMENTS, LANE_WEIGHTS, Round, Turns

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, Line, document, new_line, waits_for_turns

HIGH, NORMAL, LOW, ECONOMY = range(len(PRIORITIES))


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def beside(line: Line, name: str, *, weight: float = 1.0) -> Line:
    """Return the line of another tenant."""
    other = new_line(line.catalog, tenant=create_tenant(line.catalog, name, now=1.0), objects=line.objects)
    change_tenant(line.catalog, other.tenant, weight=weight)
    return other


def submit(line: Line, count: int, *, size: int = 10, priority: int = NORMAL, name: str = "d") -> None:
    line.accept([document(f"{name}{number}", "x" * size) for number in range(count)], terms=Terms(priority))


def tenant_of(line: Line, batch_id: str) -> str:
    with line.catalog.read() as connection:
        return str(connection.scalar(sa.select(batches.c.tenant_id).where(batches.c.id == batch_id)))


def formed(line: Line, *, most: int = sys.maxsize, **options: object) -> list[tuple[str, int]]:
    """Return tenant and priority of the first chunk batches, in the order in which they were formed one at a time."""
    found: list[tuple[str, int]] = []
    seen: set[str] = set()
    told = sa.select(batches.c.id, batches.c.tenant_id, batches.c.priority)
    while len(found) < most and line.form(max_batches=1, **options):
        with line.catalog.read() as connection:
            for row in connection.execute(told):
                if row.id not in seen:
                    found.append((row.tenant_id, row.priority))
                    seen.add(row.id)
    return found


def work(line: Line, stage: str) -> list[str]:
    """Claim what was sent, one after the other, as a worker does that was sent the oldest messages first."""
    found: list[str] = []
    for batch_id in line.send(stage):
        claim = ledger.claim(
            line.catalog,
            batch_id,
            owner=line.owner,
            lease_s=LEASE_S,
            now=line.now,
            max_attempts=MAX_ATTEMPTS,
            in_turn=True,
        )
        assert claim is not None
        found.append(claim.tenant_id)
    return found


@pytest.mark.parametrize("stage", ["chunk", "embed", "index"])
def test_of_two_that_wait_each_gets_its_weight_of_every_stage_by_what_batches_cost(line, stage):
    """The tenant of weight 3 has batches of half the size: of six batches' worth it gets nine halves."""
    heavy = beside(line, "heavy", weight=3.0)
    submit(line, 30, size=FULL_BYTES // 16)
    submit(heavy, 60, size=FULL_BYTES // 32)
    order: list[str] = []
    if stage == "chunk":
        while line.form(max_batches=1, max_documents=1):
            pass
        order = work(line, "chunk")
    else:
        _bring_to(stage, line)
        order = _claimed_in(stage, line)
    taken = Counter(order[:28])
    assert taken["heavy"] / taken["default"] == pytest.approx(6.0, rel=0.25)


def _bring_to(stage: str, line: Line) -> None:
    """Give every document a batch of its own in this stage, of the size that it has."""
    moved = {"chunk_count": 0, "document_count": 1, "state": "ready", "stage": stage}
    while line.form(max_batches=1, max_documents=1):
        pass
    with line.catalog.write() as connection:
        connection.execute(sa.update(batches).values(**moved, details={"versions": []}))
        state = {"embed": "embedding", "index": "indexing"}[stage]
        for passed in ("embedding", "indexing"):  # in legal steps
            connection.execute(sa.update(versions).values(state=passed))
            if passed == state:
                break
        for row in connection.execute(sa.select(versions.c.id, versions.c.batch_id)).all():
            own = sa.update(batches).where(batches.c.id == row.batch_id)
            connection.execute(own.values(details={"versions": [row.id]}))


def _claimed_in(stage: str, line: Line) -> list[str]:
    if stage == "embed":
        return work(line, "embed")
    taken: list[str] = []
    while groups := line.claim_index(max_chunks=1, owner=f"writer{len(taken)}"):
        taken += [tenant_of(line, group.batch_id) for group in groups]
    return taken


def test_a_few_documents_come_next_however_many_batches_of_another_were_sent_before(line):
    submit(line, 40)
    line.form(max_documents=1)
    first, *sent = line.send("chunk")
    assert work_of(line, [first]) == {first}
    few = beside(line, "few")
    submit(few, 10)
    few.form()
    (late,) = few.send("chunk")
    claim = ledger.claim(
        line.catalog, sent[0], owner="w", lease_s=LEASE_S, now=line.now, max_attempts=MAX_ATTEMPTS, in_turn=True
    )
    assert claim.batch_id == late
    assert work_of(line, [*sent[1:], late]) == set(sent)


def test_a_long_batch_is_told_of_short_ones_that_come_first_and_of_no_others(line):
    submit(line, FULL_DOCUMENTS)
    line.form()
    (sent,) = line.send("chunk")
    options = {"owner": "w", "lease_s": LEASE_S, "max_attempts": MAX_ATTEMPTS}
    claim = ledger.claim(line.catalog, sent, now=line.now, **options)
    assert claim is not None

    def told(*, had_turn: bool = False) -> bool:
        return ledger.others_wait(line.catalog, claim, now=line.now, had_turn=had_turn)

    assert not told()
    submit(line, FULL_DOCUMENTS, name="more")  # of the same tenant, neither short nor more urgent
    line.form()
    (more,) = line.send("chunk")
    assert not told()
    assert not told(had_turn=True)
    ledger.claim(line.catalog, more, now=line.now, **options)
    submit(line, 5, name="mine")  # short
    line.form()
    (mine,) = line.send("chunk")
    assert not told()
    assert told(had_turn=True)
    ledger.claim(line.catalog, mine, now=line.now, **options)
    assert not told(had_turn=True)
    long = beside(line, "long")
    submit(long, FULL_DOCUMENTS)
    long.form()
    long.send("chunk")
    assert not told()
    assert told(had_turn=True)
    few = beside(line, "few")
    submit(few, 5)
    few.form()
    assert not told()  # nobody was told to work on it yet
    (short,) = few.send("chunk")
    assert told()
    ledger.claim(line.catalog, short, now=line.now, **options)
    assert not told()  # somebody works on it
    submit(line, 5, name="urgent", priority=HIGH)
    line.form()
    line.send("chunk")
    assert told()


def work_of(line: Line, messages: list[str]) -> set[str]:
    """Return what the readers of these messages claim."""
    options = {"owner": "w", "lease_s": LEASE_S, "now": line.now, "max_attempts": MAX_ATTEMPTS, "in_turn": True}
    claims = [ledger.claim(line.catalog, message, **options) for message in messages]
    return {claim.batch_id for claim in claims if claim is not None}


def test_workers_that_read_their_messages_at_once_have_a_batch_each(line):
    submit(line, 8)
    line.form(max_documents=1)
    sent = line.send("chunk")
    together = threading.Barrier(len(sent))

    def take(batch_id: str) -> ledger.Claim | None:
        together.wait()
        options = {"lease_s": LEASE_S, "now": line.now, "max_attempts": MAX_ATTEMPTS, "in_turn": True}
        return ledger.claim(line.catalog, batch_id, owner=f"worker of {batch_id}", **options)

    with ThreadPoolExecutor(len(sent)) as threads:
        claims = list(threads.map(take, sent))
    assert sorted(claim.batch_id if claim else "" for claim in claims) == sorted(sent)


def take(line: Line, stage: str, *, express: int) -> list[ledger.ReadyBatch]:
    return ledger.take_ready(
        line.catalog, stage=stage, now=line.now, limit=100, resend_after_s=LEASE_S, express=express
    )


def test_short_batches_go_to_the_worker_of_short_ones_as_many_as_it_has_room_for(line):
    submit(line, FULL_DOCUMENTS)
    line.form()
    few = [beside(line, f"few{number}") for number in range(3)]
    for one in few:
        submit(one, 10)
        one.form()
    sent = take(line, "chunk", express=2)
    short = [batch.id for batch in sent if batch.express]
    assert len(sent) == 4
    assert len(short) == 2
    assert {tenant_of(line, batch) for batch in short} < {one.tenant for one in few}

    long = [batch.id for batch in sent if not batch.express]
    assert work_of(line, long) == set(long)  # nor do those who read these messages take what is its own
    assert work_of(line, short) == set(short)


def test_what_the_worker_of_short_ones_cut_it_embeds_without_a_message(line):
    submit(line, 10)
    line.form()
    batch = take(line, "chunk", express=1)[0].id
    large = beside(line, "large")
    submit(large, 100, name="l")
    large.form()
    large.chunk()
    take(line, "embed", express=0)
    options = {"owner": "express", "lease_s": LEASE_S, "max_attempts": MAX_ATTEMPTS, "now": line.now, "in_turn": True}
    claim = ledger.claim(line.catalog, batch, **options)
    parts = line.cut(claim)
    ledger.finish_chunking(line.catalog, line.objects, claim, parts=parts, failed=[], now=line.now)
    embedding = ledger.claim(line.catalog, parts[0].batch_id, **options)
    assert (embedding.batch_id, embedding.stage, embedding.express) == (parts[0].batch_id, "embed", True)


def test_what_was_sent_to_a_worker_of_short_ones_that_is_gone_goes_to_all(line):
    submit(line, 10)
    line.form()
    (first,) = take(line, "chunk", express=1)
    assert first.express
    line.now += LEASE_S + 1
    ledger.reconcile(line.catalog, now=line.now, max_attempts=MAX_ATTEMPTS, delay_s=lambda _: 0.0)
    (again,) = take(line, "chunk", express=0)
    assert (again.id, again.express) == (first.id, False)
    submit(line, FULL_DOCUMENTS, name="many")
    line.form()
    (long,) = take(line, "chunk", express=1)
    assert work_of(line, [long.id, again.id]) == {long.id, again.id}


def test_who_waits_saves_nothing_up_and_who_leaves_keeps_its_debt():
    turns = Round({})
    for _ in range(10):
        assert turns.next_of(["a"]) == "a"
        turns.charge("a", 1.0, weight=1.0)
    order = []
    for _ in range(9):  # b was away for ten rounds, and gets no ten turns for it
        name = turns.next_of(["b", "a"])
        turns.charge(name, 1.0, weight=1.0)
        order.append(name)
    assert order.count("b") in (4, 5)

    turns.charge("c", 5.0, weight=1.0)  # took a large one, leaves, and comes back at once
    ahead = [turns.next_of(["c", "a"]) for _ in range(3) if not turns.charge("a", 1.0, weight=1.0)]
    assert ahead == ["a"] * 3


def test_random_tenants_get_their_shares_within_a_batch_or_two_and_nobody_starves(line):
    seed = int(os.environ.get("PENSTOCK_TEST_SEED", random.randrange(1 << 32)))
    print(f"PENSTOCK_TEST_SEED={seed}")
    dice = random.Random(seed)
    lines = {f"t{number}": beside(line, f"t{number}", weight=dice.choice([0.5, 1.0, 2.0, 5.0])) for number in range(4)}
    weights = {name: _weight(one) for name, one in lines.items()}
    for one in lines.values():
        submit(one, 60, size=dice.choice([FULL_BYTES // 8, FULL_BYTES // 3, 100]))
    given: Counter[str] = Counter()
    largest = 0.0
    last_turn = dict.fromkeys(lines, 0)
    for turn in range(1, 61):
        before = _bytes_formed(line)
        assert line.form(max_batches=1, max_documents=dice.randint(1, 4), max_bytes=FULL_BYTES) == 1
        (tenant,) = [name for name, size in _bytes_formed(line).items() if size != before[name]]
        cost = (_bytes_formed(line)[tenant] - before[tenant]) / FULL_BYTES
        given[tenant] += max(cost, 1 / 256)
        largest = max(largest, cost)
        last_turn[tenant] = turn
        waiting = [name for name, one in lines.items() if "queued" in {s[0] for s in own_states(one)}]
        if len(waiting) < len(lines):
            break
        # Of any two that wait all the time, what one is ahead by weight is less than a batch of each.
        shares = {name: given[name] / weights[name] for name in lines}
        slack = largest / min(weights.values()) + 4 / 256 / min(weights.values())
        assert max(shares.values()) - min(shares.values()) <= 2 * slack, (seed, shares)
    assert all(last_turn.values()), f"seed {seed}: a tenant never had a turn"


def _weight(line: Line) -> float:
    return get_tenant(line.catalog, line.tenant).weight


def own_states(line: Line) -> list[tuple[str]]:
    wanted = sa.select(versions.c.state).where(versions.c.tenant_id == line.tenant)
    with line.catalog.read() as connection:
        return [tuple(row) for row in connection.execute(wanted)]


def _bytes_formed(line: Line) -> Counter[str]:
    counted = sa.select(batches.c.tenant_id, sa.func.sum(batches.c.size_bytes)).group_by(batches.c.tenant_id)
    with line.catalog.read() as connection:
        return Counter({tenant: int(size) for tenant, size in connection.execute(counted)})


def test_a_high_document_overtakes_its_own_tenants_and_not_the_others(line):
    other = beside(line, "other")
    submit(line, 20)
    submit(other, 20)
    submit(line, 1, priority=HIGH, name="urgent")
    order = formed(line, max_documents=1)
    mine = [priority for tenant, priority in order if tenant == "default"]
    assert mine[0] == HIGH
    assert abs(Counter(tenant for tenant, _ in order[:20])["other"] - 10) <= 1


@pytest.mark.parametrize("stage", ["chunk", "embed"])
def test_a_high_document_waits_for_no_batches_that_it_overtakes(line, stage):
    """However many of them are open: of a large document that is being embedded, or of what is tried alone."""
    submit(line, 3)
    line.form(max_documents=1)
    if stage == "embed":
        line.chunk()
    limits = {"caps" if stage == "chunk" else "ahead": ledger.Caps(3)}
    submit(line, 1, name="later")
    submit(line, 1, priority=LOW, name="last")
    assert line.form(**limits) == 0
    submit(line, 4, priority=HIGH, name="urgent")
    assert line.form(max_documents=1, **limits) == (3 if stage == "chunk" else 4)
    with line.catalog.read() as connection:
        waits = connection.scalars(sa.select(versions.c.priority).where(versions.c.state == "queued")).all()
    assert sorted(waits) == [HIGH] * (stage == "chunk") + [NORMAL, LOW]


def test_low_documents_of_a_tenant_get_their_part_while_high_ones_keep_coming(line):
    submit(line, 400, priority=HIGH, name="h")
    submit(line, 400, priority=NORMAL, name="n")
    submit(line, 10, priority=LOW, name="l")
    order = [priority for _, priority in formed(line, most=330, max_documents=1)]
    counts = Counter(order)
    assert counts[LOW] >= 3
    assert counts[HIGH] / counts[NORMAL] == pytest.approx(LANE_WEIGHTS[HIGH] / LANE_WEIGHTS[NORMAL], rel=0.2)


def test_priority_goes_with_the_documents_through_every_stage(line):
    line.accept([document("a")], terms=Terms(HIGH))
    line.run()
    with line.catalog.read() as connection:
        found = connection.execute(sa.select(batches.c.stage, batches.c.priority)).all()
    assert sorted(found) == [("chunk", HIGH), ("embed", HIGH), ("index", HIGH)]


def test_the_newest_version_wins_when_it_overtakes_an_older_one(line):
    line.accept([document("a", "old")], terms=Terms(LOW))
    line.form()
    line.accept([document("a", "new")], terms=Terms(HIGH))
    line.run()
    assert line.states() == {"a": ["superseded", "indexed"]}


def test_one_tenant_never_fills_a_stage_and_shares_it_by_weight_with_whoever_comes(line):
    caps = ledger.Caps(6, 2 / 3)
    submit(line, 40)
    line.form(max_documents=1)
    first = ledger.take_ready(line.catalog, stage="chunk", now=line.now, limit=6, resend_after_s=LEASE_S, caps=caps)
    assert len(first) == 4
    again = ledger.take_ready(line.catalog, stage="chunk", now=line.now, limit=2, resend_after_s=LEASE_S, caps=caps)
    assert again == []

    few = beside(line, "few", weight=2.0)
    submit(few, 10)
    few.form(max_documents=1)
    theirs = ledger.take_ready(line.catalog, stage="chunk", now=line.now, limit=9, resend_after_s=LEASE_S, caps=caps)
    assert [tenant_of(line, batch.id) for batch in theirs] == ["few"] * 4  # two thirds of six


def test_no_more_is_chunked_of_a_tenant_whose_embed_batches_wait_and_that_stops_nobody_else(line):
    line.parts = 1
    for number in range(3):
        line.submit(f"d{number}")
        line.chunk()
    few = beside(line, "few")
    line.submit("more")
    few.submit("theirs")
    assert line.form(caps=ledger.Caps(4), ahead=ledger.Caps(3)) == 1
    assert own_states(few) == [("chunking",)]


def postpone_embedding(line: Line, count: int, *, chunks: int = 0) -> None:
    """Cut ``count`` documents, a batch each, and postpone their embedding; ``chunks``: how many each counts as."""
    submit(line, count, name="postponed")
    line.form(max_documents=1)
    line.chunk()
    with line.catalog.write() as connection:
        mine = (batches.c.stage == "embed", batches.c.state == "ready", batches.c.tenant_id == line.tenant)
        connection.execute(sa.update(batches).where(*mine).values(chunk_count=chunks or batches.c.chunk_count))
    for batch_id in line.send("embed"):
        claim = line.claim(batch_id)
        assert claim is not None
        ledger.retry_later(line.catalog, claim, error="the provider is away", now=line.now, delay_s=60.0, counted=False)


def test_a_model_that_is_out_holds_up_no_collection_of_its_tenant_with_another_one(line):
    healthy = new_line(line.catalog, name="healthy", model="static", objects=line.objects)
    postpone_embedding(line, 4)
    submit(healthy, 4, name="healthy")
    assert healthy.form(max_documents=1, caps=ledger.Caps(4), ahead=ledger.Caps(4)) == 4


def test_no_more_than_some_batches_are_cut_ahead_for_a_model_that_is_out(line):
    healthy = new_line(line.catalog, name="healthy", model="static", objects=line.objects)
    postpone_embedding(line, 9, chunks=FULL_CHUNKS)
    submit(line, 1, name="more")
    submit(line, 1, priority=HIGH, name="urgent")
    submit(healthy, 1, name="healthy")
    ahead = ledger.Caps(4)
    assert line.form(ahead=ahead) == 2
    with line.catalog.read() as connection:
        queued = sa.select(versions.c.generation_id, versions.c.priority).where(versions.c.state == "queued")
        assert connection.execute(queued).all() == [(line.collection.generation.id, NORMAL)]
    line.now += 60.0
    line.embed()
    assert line.form(ahead=ahead) == 1


def fail_chunking(line: Line, count: int, *, documents: int = 1) -> None:
    """Let ``count`` batches fail once, so that they wait; ``documents``: how many each is said to hold."""
    submit(line, count, name="bad")
    line.form(max_documents=1)
    with line.catalog.write() as connection:
        connection.execute(sa.update(batches).where(batches.c.state == "ready").values(document_count=documents))
    for batch_id in line.send("chunk"):
        claim = line.claim(batch_id)
        assert claim is not None
        ledger.retry_later(line.catalog, claim, error="the worker died", now=line.now, delay_s=60.0)


def test_batches_that_wait_for_their_next_attempt_hold_up_no_others_of_their_tenant(line):
    fail_chunking(line, 5)
    submit(line, 5, name="good")
    caps = ledger.Caps(3)
    assert line.form(max_documents=1, caps=caps) == 3
    line.now += 60.0
    assert line.form(max_documents=1, caps=caps) == 0, "those that are due again are in flight again"


def test_no_more_documents_are_put_into_batches_while_very_many_wait_for_their_next_attempt(line):
    """On a disk that is full, say, nothing ends: the backlog would be emptied into batches, and never be full."""
    fail_chunking(line, 9, documents=FULL_DOCUMENTS)
    submit(line, 5, name="more")
    caps = ledger.Caps(3)
    assert line.form(max_documents=1, caps=caps) == 0
    line.now += 60.0
    for batch_id in line.send("chunk"):
        line.finish_chunking(line.claim(batch_id))
    assert line.form(max_documents=1, caps=caps) == 3


def test_accounts_are_kept_in_the_ledger_with_the_round_in_which_each_is_settled(line):
    submit(line, 4, size=FULL_BYTES)
    line.form(max_batches=1)
    line.form(max_batches=1)
    with line.catalog.read() as connection:
        rows = connection.execute(sa.select(accounts).order_by(accounts.c.lane)).all()
    assert [(row.stage, row.lane, row.started, row.settled) for row in rows] == [
        ("form", -1, 1.0, 2.0),
        ("form", NORMAL, 0.1, 0.2),
    ]


def test_however_many_tenants_wait_the_write_lock_is_held_for_those_that_are_next(line, monkeypatch):
    """Of thousands each would look at the accounts of all, a square, while everybody else waits for the lock."""
    monkeypatch.setattr(forming, "LOOKED_AT", 2)
    others = [beside(line, f"tenant{number}") for number in range(6)]
    for one in (*others, line):
        submit(one, 2)
    plans: list[str] = []
    asked: list[list[str]] = []

    def explain(connection, _cursor, statement, parameters, _context, _many) -> None:
        if statement.startswith("SELECT tenants.id, tenants.weight, accounts.lane"):
            asked.append([one for one in parameters if str(one).startswith(("tenant", "default"))])
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row.detail for row in plan if "accounts" in row.detail)

    if line.catalog.dialect == "sqlite":
        sa.event.listen(line.catalog._writer, "before_cursor_execute", explain)
    sent = [batch for _ in range(7) for batch in line.send("chunk", forming=ledger.Forming(1))]
    turns = [tenant_of(line, batch) for batch in sent]
    if line.catalog.dialect == "sqlite":
        sa.event.remove(line.catalog._writer, "before_cursor_execute", explain)
        assert max(map(len, asked)) == 2
        assert [step for step in plans if "stage=? AND tenant_id=?" not in step and "ix_accounts" not in step] == []
    assert sorted(turns) == sorted(one.tenant for one in (*others, line)), "each had its turn"


def test_documents_left_of_a_batch_wait_for_another_turn_and_are_not_charged_for_this_one(line):
    submit(line, 4, size=FULL_BYTES // 4)
    line.form()
    (sent,) = line.send("chunk")
    options = {"owner": "w", "lease_s": LEASE_S, "now": line.now, "max_attempts": MAX_ATTEMPTS, "in_turn": True}
    claim = ledger.claim(line.catalog, sent, **options)
    first, *rest = claim.versions
    done = replace(claim, versions=(first,))
    left = [version.id for version in rest]
    ledger.finish_chunking(line.catalog, line.objects, claim, parts=line.cut(done), failed=[], left=left, now=line.now)
    assert sorted(states[0] for states in line.states().values()) == ["chunking"] * 3 + ["embedding"]
    with line.catalog.read() as connection:
        wanted = sa.select(accounts.c.settled - accounts.c.started)
        (owed,) = connection.scalars(wanted.where(accounts.c.stage == "chunk", accounts.c.lane == -1))
    assert owed == pytest.approx(0.25)
    line.run()
    assert set(map(tuple, line.states().values())) == {("indexed",)}


def test_what_is_given_back_while_another_takes_a_turn_is_not_lost(postgres_catalog):
    line = new_line(postgres_catalog)
    submit(line, 4, size=FULL_BYTES // 4)
    line.form()
    (sent,) = line.send("chunk")
    options = {"owner": "w", "lease_s": LEASE_S, "now": line.now, "max_attempts": MAX_ATTEMPTS, "in_turn": True}
    claim = ledger.claim(line.catalog, sent, **options)
    parts = line.cut(replace(claim, versions=claim.versions[:1]))
    left = [version.id for version in claim.versions[1:]]

    def finish() -> None:
        ledger.finish_chunking(line.catalog, line.objects, claim, parts=parts, failed=[], left=left, now=line.now)

    with ThreadPoolExecutor(1) as thread:
        with line.catalog.write() as connection:
            turns = Turns.read(connection, "chunk", among=[line.tenant])
            finishing = thread.submit(finish)
            deadline = time.monotonic() + 20
            while not finishing.done() and not waits_for_turns(line.catalog):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            turns.charge(line.tenant, NORMAL, 1.0)
            turns.write(connection)
        finishing.result()
    with line.catalog.read() as connection:
        mine = (accounts.c.stage == "chunk", accounts.c.lane == -1)
        (owed,) = connection.scalars(sa.select(accounts.c.settled - accounts.c.started).where(*mine))
    assert owed == pytest.approx(0.25)
