"""A version that a live process reads is kept, whatever clocks say; one of a dead process is not kept for ever."""

import threading
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.reader_leases import read_beats
from penstock.storage.catalog.tables import reader_leases
from penstock.storage.errors import NotKept, Unavailable
from penstock.storage.search import reader_leases as reader_leases_module
from penstock.storage.search.reader_leases import LeaseWatch, ReaderLeases

from .test_kept_versions import TENANT, collection, expire, kept, made, publish  # noqa: F401 a fixture among them

LAPSED_S = 100.0
NEVER_S = 1e9  # no thread renews: the tests say when


@pytest.fixture
def versions(catalog, collection):  # noqa: F811
    """Five versions, of which retention keeps two."""
    for version in range(1, 6):
        publish(catalog, collection, version=version, at=10.0 * version)
    return collection.generation.id


class Watched:
    """A collector's watch and its clock."""

    def __init__(self, catalog):
        self.catalog, self.now = catalog, 0.0
        self.watch = LeaseWatch(lapsed_s=LAPSED_S, clock=lambda: self.now)

    def after(self, seconds: float) -> int:
        self.now += seconds
        return self.watch.end_lapsed(self.catalog)


def test_a_version_stays_while_a_reader_uses_it_and_goes_when_it_was_given_back(catalog, collection, versions):  # noqa: F811
    leases = ReaderLeases(catalog, renew_s=NEVER_S)
    with leases.using((versions, 1)), leases.using((versions, 3)):
        assert expire(catalog, now=1e12) == ["papers-2"]
        assert kept(catalog, collection) == [5, 4, 3, 1]
    leases.renew()  # it was used since the last time
    assert expire(catalog, now=1e12) == []
    leases.renew()
    assert sorted(expire(catalog, now=1e12)) == ["papers-1", "papers-3"]
    leases.close()


def test_a_reader_that_ends_gives_back_what_it_holds(catalog, versions):
    leases = ReaderLeases(catalog, renew_s=NEVER_S)
    with leases.using((versions, 1)):
        pass
    leases.close()
    assert read_beats(catalog) == []


def test_a_reader_that_beats_is_alive_however_long_it_reads(catalog, versions):
    leases, watched = ReaderLeases(catalog, renew_s=NEVER_S), Watched(catalog)
    with leases.using((versions, 1)):
        for _ in range(10):
            assert watched.after(LAPSED_S - 1) == 0
            leases.renew()
        assert "papers-1" not in expire(catalog, now=1e12)
    leases.close()


def test_a_reader_that_died_keeps_its_versions_until_its_beat_was_seen_standing_still(catalog, versions):
    dead, alive = ReaderLeases(catalog, renew_s=NEVER_S), ReaderLeases(catalog, renew_s=NEVER_S)
    watched = Watched(catalog)
    with dead.using((versions, 1)), alive.using((versions, 1)), alive.using((versions, 2)):
        assert watched.after(1e9) == 0  # the collector has only begun to look
        assert watched.after(LAPSED_S - 1) == 0
        alive.renew()
        assert watched.after(1) == 1
        assert {beat.reader for beat in read_beats(catalog)} == {alive.reader}
        assert expire(catalog, now=1e12) == ["papers-3"]
        assert Watched(catalog).after(1e9) == 0  # another collector, just started
    alive.close()


def test_a_lease_that_is_renewed_while_it_is_being_ended_stays(catalog, versions, monkeypatch):
    leases, watched = ReaderLeases(catalog, renew_s=NEVER_S), Watched(catalog)
    with leases.using((versions, 1)):
        watched.after(0)
        write = catalog.write

        def renew_first(what):
            monkeypatch.setattr(catalog, "write", write)
            leases.renew()
            return write(what)

        monkeypatch.setattr(catalog, "write", renew_first)
        assert watched.after(LAPSED_S) == 0
        assert len(read_beats(catalog)) == 1
    leases.close()


def test_a_reader_that_was_taken_for_dead_looks_again_before_it_opens_anything(catalog, versions, caplog):
    leases, watched = ReaderLeases(catalog, renew_s=NEVER_S), Watched(catalog)
    with leases.using((versions, 1)):
        watched.after(0)
        assert watched.after(LAPSED_S) == 1
        with leases.using((versions, 1), opening=True):  # it is still kept: it is leased again
            assert "papers-1" not in expire(catalog, now=1e12)
        watched.after(0)
        assert watched.after(LAPSED_S) == 1
        assert "papers-1" in expire(catalog, now=1e12)
        with pytest.raises(NotKept), leases.using((versions, 1), opening=True):
            raise AssertionError
        leases.renew()
    assert "ran out while this process stood still" in caplog.text
    with pytest.raises(NotKept), leases.using((versions, 1)):
        raise AssertionError
    leases.close()


def test_a_lease_that_is_taken_again_while_its_loss_is_noticed_is_kept_and_given_back(catalog, versions, monkeypatch):
    leases, watched = ReaderLeases(catalog, renew_s=NEVER_S), Watched(catalog)
    renewed = reader_leases_module.renew_leases
    with ExitStack() as stack:
        stack.enter_context(leases.using((versions, 1)))
        watched.after(0)
        assert watched.after(LAPSED_S) == 1

        def taken_again(*args, **kwargs):
            found = renewed(*args, **kwargs)
            stack.enter_context(leases.using((versions, 1), opening=True))
            return found

        with monkeypatch.context() as patched:
            patched.setattr(reader_leases_module, "renew_leases", taken_again)
            leases.renew()
        (taken,) = read_beats(catalog)
        leases.renew()
        (beat,) = read_beats(catalog)
        assert beat.beat == taken.beat + 1  # else a collector would take it for that of a dead process
    for _ in range(2):
        leases.renew()
    assert read_beats(catalog) == []
    leases.close()


def test_searches_of_a_version_in_use_write_nothing(catalog, versions, monkeypatch):
    leases = ReaderLeases(catalog, renew_s=NEVER_S)
    with leases.using((versions, 1)):
        pass
    write, writes = catalog.write, []
    monkeypatch.setattr(catalog, "write", lambda what="catalog": writes.append(what) or write(what))
    for _ in range(100):
        with leases.using((versions, 1)):
            pass
    assert writes == []
    leases.renew()
    assert writes == ["renew_leases"]  # one for all it holds
    leases.renew()
    leases.renew()
    assert writes == ["renew_leases", "end_leases"]  # and none when it holds nothing
    leases.close()


def test_a_version_that_is_wanted_while_its_lease_is_given_back_is_leased_anew(catalog, versions, monkeypatch):
    leases = ReaderLeases(catalog, renew_s=NEVER_S)
    with leases.using((versions, 1)):
        pass
    leases.renew()  # it was used since the last time
    write, entered, done = catalog.write, threading.Event(), threading.Event()

    def want() -> None:
        with leases.using((versions, 1)):
            entered.set()
            done.wait()

    wanting = threading.Thread(target=want, daemon=True)

    def wanted_first(what="catalog"):
        monkeypatch.setattr(catalog, "write", write)
        wanting.start()
        entered.wait(0.2)  # it must not get in; if it did, it would lose what it holds on the next line
        return write(what)

    monkeypatch.setattr(catalog, "write", wanted_first)
    leases.renew()
    entered.wait()
    assert len(read_beats(catalog)) == 1
    done.set()
    wanting.join()
    leases.close()


def test_a_lease_that_could_not_be_given_back_is_given_back_the_next_time(catalog, versions, monkeypatch):
    leases = ReaderLeases(catalog, renew_s=NEVER_S)
    with leases.using((versions, 1)), leases.using((versions, 2)):
        pass
    leases.renew()

    def refuse(what="catalog"):
        raise Unavailable("the catalog does not answer")

    with leases.using((versions, 2)):
        with monkeypatch.context() as patched:
            patched.setattr(catalog, "write", refuse)
            with pytest.raises(Unavailable):
                leases.renew()
        assert len(read_beats(catalog)) == 2
        leases.renew()
        assert [beat.version for beat in read_beats(catalog)] == [2]
    leases.close()


def test_a_thread_renews_what_is_held(catalog, versions):
    leases = ReaderLeases(catalog, renew_s=0.01)
    with leases.using((versions, 1)):
        first = read_beats(catalog)[0].beat
        while read_beats(catalog)[0].beat < first + 3:
            pass
    leases.close()
    assert read_beats(catalog) == []


def test_leases_go_with_their_collection(catalog, collection, versions):  # noqa: F811
    leases = ReaderLeases(catalog, renew_s=NEVER_S)
    with leases.using((versions, 1)):
        delete_collection(catalog, tenant=TENANT, name="papers")
        with catalog.read() as connection:
            assert connection.execute(sa.select(reader_leases)).all() == []
    leases.close()


def test_a_lease_on_a_version_of_one_collection_keeps_none_of_another(catalog, collection, versions):  # noqa: F811
    other = made(catalog, name="other")
    for version in range(1, 6):
        publish(catalog, other, version=version, at=10.0 * version)
    leases = ReaderLeases(catalog, renew_s=NEVER_S)
    with leases.using((versions, 1)):
        expire(catalog, now=1e12)
    assert kept(catalog, collection) == [5, 4, 1]
    assert kept(catalog, other) == [5, 4]
    leases.close()
