"""How numbers are told: singular and plural, versions as ranges, amounts of money."""

import pytest

from penstock.api.cli.output import money
from penstock.storage.inspection.wording import counted, numbered


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 segments"), (1, "1 segment"), (2, "2 segments"), (12_000, "12,000 segments")]
)
def test_one_is_told_in_the_singular(number, told):
    assert counted(number, "segment") == told


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ([60], "version 60"),
        ([60, 59], "versions 59-60"),
        (range(60, 11, -1), "versions 12-60"),
        ([3, 12, 9, 7, 8, 9], "versions 3, 7-9 and 12"),
        ([2, 4], "versions 2 and 4"),
        ([1, 3, 5, 7, 9, 11, *range(20, 1_020)], "versions 1, 3, 5, 7, 9 and 1,001 more"),
    ],
)
def test_versions_are_told_as_ranges_without_those_that_are_not_meant(versions, told):
    assert numbered(versions) == told


@pytest.mark.parametrize(
    ("usd", "told"),
    [
        (0.0, "$0.00"),
        (2e-7, "under $0.000001"),
        (1e-6, "$0.000001"),
        (0.05, "$0.05"),
        (1.0, "$1.00"),
        (1234.5, "$1,234.50"),
    ],
)
def test_small_amounts_keep_the_digits_that_matter_and_none_looks_like_nothing(usd, told):
    assert money(usd) == told
