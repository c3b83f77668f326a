"""The planner: the cheapest way among those that find what there is."""

import pytest

from penstock.storage.search import planner


@pytest.mark.parametrize(
    ("accepted", "count", "method"),
    [
        (1_000_000, 1_000_000, "walk"),
        (500_000, 1_000_000, "walk"),
        (100_000, 1_000_000, "codes"),  # where the filter goes with the geometry, a walk would miss rows
        (2_000, 1_000_000, "codes"),
        (150, 1_000_000, "scan"),
        (11_000, 11_000, "walk"),
        (4_000, 11_000, "codes"),
    ],
)
def test_few_rows_are_compared_some_estimated_and_many_walked_to(accepted, count, method):
    choice = planner.choose(planner.TYPICAL, accepted=accepted, count=count, dimensions=384, k=10, ef=64)
    assert choice.method == method


@pytest.mark.parametrize(("accepted", "method"), [(1_000_000, "codes"), (500_000, "codes"), (500, "scan")])
def test_a_graph_whose_walks_miss_rows_is_not_walked_and_more_of_it_is_compared(accepted, method):
    options = {"accepted": accepted, "count": 1_000_000, "dimensions": 384, "k": 10, "ef": 64}
    assert planner.choose(planner.TYPICAL, **options, walked=False).method == method
    assert planner.rescored(10, walked=False) == 5 * planner.rescored(10)


def test_a_walk_is_given_up_when_it_has_cost_half_of_what_the_codes_would():
    costs = planner.Costs(component_ns=1.0, word_ns=2.0)
    choice = planner.choose(costs, accepted=500_000, count=1_000_000, dimensions=256, k=10, ef=64)
    assert choice == planner.Choice("walk", ef=128, budget=int((500_000 * 3 * 2 + 200 * 256) / 256 / 2))


def test_a_machine_whose_memory_is_slow_estimates_more():
    slow = planner.Costs(component_ns=4.0, word_ns=4.0)
    options = {"accepted": 300, "count": 100_000, "dimensions": 384, "k": 10, "ef": 64}
    assert planner.choose(slow, **options).method == "codes"
    assert planner.choose(planner.Costs(component_ns=0.1, word_ns=9.0), **options).method == "scan"


def test_calibrating_measures_both_kernels():
    found = planner.prepare()
    assert 0 < found.component_ns < 1_000
    assert 0 < found.word_ns < 1_000
