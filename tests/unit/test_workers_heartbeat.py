"""A heartbeat says when work last moved: a process that is busy and stuck can be told from one that is idle."""

import fakeredis

from penstock.storage.presence import STILL_S, Presence
from penstock.workers.beat import has_express
from penstock.workers.heartbeat import Heartbeat
from penstock.workers.liveness import Liveness


class Broken:
    def beat(self, *_args):
        raise ConnectionError("no server")

    def leave(self, _role):  # as `Presence`, which says so to nobody then
        pass


def test_an_idle_process_makes_progress_and_a_stuck_one_does_not():
    now, busy = [100.0], [0]
    presence = Presence(fakeredis.FakeRedis(), clock=lambda: now[0])
    liveness = Liveness(clock=lambda: now[0])
    heartbeat = Heartbeat(presence, role="chunk", liveness=liveness, busy=lambda: busy[0])

    seen = []
    for now[0], busy[0] in [(105.0, 0), (110.0, 1), (115.0, 1)]:
        heartbeat.beat()
        [role] = presence.roles()
        seen.append((role.seen_at, role.progress_at, role.doing))
    liveness.moved()
    heartbeat.beat()

    assert seen == [(105.0, 105.0, None), (110.0, 105.0, "1 task"), (115.0, 105.0, "1 task")]
    assert presence.roles()[0].progress_at == 115.0


def test_a_worker_of_short_batches_that_stands_still_counts_as_none():
    now = [1_000.0]
    presence = Presence(fakeredis.FakeRedis(), clock=lambda: now[0])
    assert not has_express(presence)
    liveness = Liveness(clock=lambda: now[0])
    heartbeat = Heartbeat(presence, role="express", liveness=liveness, busy=lambda: 1)
    heartbeat.beat()
    assert has_express(presence)
    now[0] += STILL_S["express"] + 1
    heartbeat.beat()  # its process is alive, and that is all
    assert not has_express(presence)
    liveness.moved()
    heartbeat.beat()
    assert has_express(presence)


def test_without_a_server_the_process_works_on():
    heartbeat = Heartbeat(Broken(), role="embed", liveness=Liveness(), busy=lambda: 1)  # type: ignore[arg-type]
    heartbeat.start()
    heartbeat.close()
