"""Killed anywhere between gathering an order and its end, whoever goes on buys no text twice and loses none.

Every failpoint is meant that a story passes, before and after each commit among them: it is played once to see which.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..economy_line import EconomyLine, economy_line, open_desk
from ..mortal_roles import dies
from ..orders_endpoint import OrdersEndpoint

STUCK_S = 30.0  # a tick takes a fraction of a second
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.timeout(290, method="thread"),  # the chunk role sets alarms
]


@pytest.fixture
def economy(tmp_path: Path) -> Iterator[EconomyLine]:
    endpoint = OrdersEndpoint()
    with economy_line(tmp_path / "data", endpoint) as line:
        yield line
    endpoint.close()


def put_aside(line: EconomyLine, number: int) -> dict[str, str]:
    """Let a batch wait for an order; return its texts by source."""
    texts = {f"{number}{name}": f"In round {number} the {name} gate opens." for name in ("upper", "lower")}
    line.submit(**texts)
    line.settle()
    return texts


def tick(line: EconomyLine) -> None:
    open_desk(line).tick(wait_s=0.0)


def place(line: EconomyLine) -> None:
    pass


def collect(line: EconomyLine) -> None:
    line.tick()
    line.endpoint.finish()
    line.due()


@pytest.mark.parametrize("before", [place, collect])
def test_a_desk_killed_at_any_place_buys_every_text_once(economy, tmp_path, before: Callable[[EconomyLine], None]):
    put_aside(economy, 0)
    before(economy)
    while dies(lambda: tick(economy), record=tmp_path / "record", stuck_s=STUCK_S):
        pass  # it stood still
    passed = (tmp_path / "record").read_text().splitlines()
    places = [f"{name}:{passed[: index + 1].count(name)}" for index, name in enumerate(passed)]
    assert {"orders.placed", "record_placed.after_commit"} <= set(passed) or "orders.collected" in passed
    for number, at in enumerate(places, 1):
        texts = put_aside(economy, number)
        before(economy)
        assert dies(lambda: tick(economy), at=at, stuck_s=STUCK_S), at
        for _ in range(3):
            economy.tick()
            economy.endpoint.finish()
        economy.tick()
        economy.drain()

        bought = Counter(text for text in economy.endpoint.ordered() if text in texts.values())
        assert bought == Counter(texts.values()), f"killed at {at}"
        assert {source: economy.states()[source] for source in texts} == dict.fromkeys(texts, "indexed"), at
    assert economy.embedded_at_once() == []
    assert economy.costs()[0] == len(economy.endpoint.ordered()), "each is paid for once in the books, too"
    assert economy.reserved_usd() == 0.0, "nothing is set aside for what is over"
