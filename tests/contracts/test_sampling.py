"""The sample of all cases contains every pair, is small, and is the same in every run."""

from __future__ import annotations

from itertools import product

import pytest

from contracts.sampling import parts, sample

WHOLE = list(product("abcdefghij", range(8), (None, "x", "y", "z"), (True, False)))


@pytest.mark.parametrize("cases", [WHOLE, [case for case in WHOLE if case[0] != "a" or case[1] == 3], WHOLE[:1], []])
def test_every_pair_is_in_it_and_few_cases_are(cases: list[tuple[object, ...]]) -> None:
    chosen = sample(cases)
    assert set(chosen) <= set(cases)
    assert set().union(*map(parts, chosen)) == set().union(*map(parts, cases))
    assert len(chosen) <= max(1, 0.2 * len(cases))
    assert chosen == sample(cases) == sorted(chosen, key=cases.index)


def test_of_strength_one_every_value_is_in_it() -> None:
    chosen = sample(WHOLE, 1)
    assert [set(values) for values in zip(*chosen, strict=True)] == [set(values) for values in zip(*WHOLE, strict=True)]
    assert len(chosen) <= 14
