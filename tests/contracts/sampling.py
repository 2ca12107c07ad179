"""Which of many combinations every test run checks; `make slow` checks all of them.

All pairs of values that stand at two places of a combination are in the sample: each objective with each norm,
each norm with each penalty. What is left out are combinations of three and more, of which all pairs were there. The
sample is a function of the combinations and a fixed seed, so that it is the same in each run and each process.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations
from typing import Any, TypeVar

import pytest

Case = TypeVar("Case", bound=tuple[Any, ...])


def parts(case: Sequence[Hashable], strength: int = 2) -> set[tuple[tuple[int, Hashable], ...]]:
    """All values of a case with their positions, or all pairs or triples of them."""
    return set(combinations(enumerate(case), strength))


def sample(cases: Iterable[Case], strength: int = 2, seed: object = 0) -> list[Case]:
    """A small subset of the cases that contains every pair of values that occurs (every value if `strength` is 1).

    Greedy: in a shuffled order, those that show many new pairs first. Whatever pairs are left then, one case each.
    """
    every = list(cases)
    shuffled = random.Random(str(seed)).sample(every, len(every))
    seen: set[tuple[tuple[int, Hashable], ...]] = set()
    chosen: set[Case] = set()
    for wanted in range(len(parts(every[0], strength)) if every else 0, 0, -1):
        for case in shuffled:
            if len(parts(case, strength) - seen) >= wanted:
                chosen.add(case)
                seen |= parts(case, strength)
    return [case for case in every if case in chosen]


SAMPLE_OR_ALL = pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["sample", "all"]
)
"""Parametrises a test that checks a sample of all cases in every run, and all cases in `make slow`."""
