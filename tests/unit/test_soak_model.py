"""The model that a soak compares with: it must see whatever it is there for."""

import itertools

from ..soak.model import TenantModel, Value

FIRST, SECOND = Value("One sentence. Another one.", "first"), Value("A third sentence, and more.", "second")


def chunks(value: Value, *cuts: int) -> list[tuple[int, int, str, str | None]]:
    places = [0, *cuts, len(value.text)]
    return [(start, end, value.text[start:end], value.title) for start, end in itertools.pairwise(places)]


def asked(*values: Value | None) -> TenantModel:
    model = TenantModel()
    for value in values:
        model.ask("a", value)
    return model


def wrong(model: TenantModel, found: dict, *, promised: bool = False) -> bool:
    return bool(model.check(found, floors=model.floors(promised=promised)))


def test_what_was_asked_for_may_show_before_and_after_but_only_whole():
    model = asked(FIRST)

    assert not wrong(model, {})
    assert not wrong(model, {"a": chunks(FIRST, 14)})
    assert wrong(asked(FIRST), {"a": chunks(FIRST, 14)[:1]})
    assert wrong(asked(FIRST), {"a": chunks(FIRST, 14)[1:]})
    assert wrong(asked(FIRST), {"a": chunks(FIRST, 14) * 2})
    assert wrong(asked(FIRST), {"a": [*chunks(FIRST), *chunks(SECOND)]})


def test_nothing_that_was_never_asked_for_may_show():
    assert wrong(asked(FIRST), {"b": chunks(FIRST)})
    assert wrong(asked(FIRST), {"a": chunks(SECOND)})
    assert wrong(asked(FIRST), {"a": chunks(Value(FIRST.text, "another title"))})


def test_what_was_seen_once_is_not_followed_by_an_older_version():
    model = asked(FIRST, SECOND)

    assert not wrong(model, {"a": chunks(SECOND)})
    assert wrong(model, {"a": chunks(FIRST)})
    assert wrong(model, {})


def test_what_a_finished_job_brought_shows_to_those_who_wait_for_it():
    model = asked(FIRST, None)
    model.done("a", 2)

    assert not wrong(model, {"a": chunks(FIRST)})
    assert wrong(model, {"a": chunks(FIRST)}, promised=True)
    assert not wrong(model, {}, promised=True)


def test_a_search_that_began_before_may_still_show_what_was_there_then():
    model = asked(FIRST, SECOND)
    before = model.floors(promised=True)
    model.done("a", 2)

    assert not model.check({"a": chunks(FIRST)}, floors=before)
