"""Advice that depends on the alarm: the player, the family of losses, and the components that the run has.

Every `--set` in a piece of advice must be valid for the recipe of the run. The logged metrics show what the recipe has:
`d/r1` is logged only with the trick `r1`, and `g/label_effect` only if G takes labels. Where the recipe is known,
`poise.recipe.advice` leaves out what it has already.
"""

from __future__ import annotations

import re

from poise.watch.base import Family
from poise.watch.history import MetricHistory

OPTION = re.compile(r"(\s*)--set (?:'([^']*)'|(\S+?))(?=[,;.)]*(?:\s|$))")
"""One `--set`, what separates it from the text before, and its argument with or without quotes."""

CLIPPING = "--set 'tricks+=[{kind=\"gradient_clipping\"}]'"


def lower_learning_rates(family: Family | None, *sides: str) -> str:
    """The `--set` options that lower these players' learning rates; critics start from lower defaults."""
    rate = "2e-5" if family == "wasserstein" else "5e-5"
    return " ".join(f"--set optimizer.{side}.lr={rate}" for side in sides)


def players(family: Family | None) -> tuple[str, ...]:
    """The players that a game of this family has: training without a discriminator has G alone."""
    return ("g",) if family == "reconstruction" else ("g", "d")


def recover_from_non_finite(history: MetricHistory, family: Family | None) -> str:
    """Lower learning rates, or a penalty on D's input gradient where there is a D."""
    lower = lower_learning_rates(family, *players(family))
    if family == "reconstruction":
        return f"lower the learning rate: {lower}"
    penalty = "raise the weight of R1: --set tricks.r1.gamma=5.0"
    if "d/r1" not in history.series:
        penalty = "penalise D's input gradient: --set 'tricks+=[{kind=\"r1\", gamma=1.0}]'"
    return f"lower both learning rates: {lower}; or {penalty}"


def increase_diversity(history: MetricHistory) -> str:
    """A D that sees several samples at once; not packing with labels, as the samples of a pack must share theirs."""
    kind = 'minibatch_discrimination"' if "g/label_effect" in history.series else 'packing", samples=2'
    return f"let D see several samples at once: --set 'tricks+=[{{kind=\"{kind}}}]'"


def weaken_kl(name: str) -> str:
    """A lower weight of the KL term `name`: of the evidence lower bound, or of the trick `posterior_kl`."""
    ramp = '{kind="linear", start=0.0, end=1.0, until=0.3}'
    if name == "g/posterior_kl":
        return "lower the weight of the KL term: --set tricks.posterior_kl.weight=0.001"
    first = f"raise the weight of the KL term from 0, --set 'objective.beta={ramp}'"
    return f"{first}, or weight the reconstruction more, --set objective.sigma=0.2"


def changes_in(advice: str) -> list[tuple[str, ...]]:
    """The changes that a piece of advice names, each as the arguments of its `--set` options.

    Options that stand side by side are one change, others are separate ones:
    `lower both: --set optimizer.g.lr=5e-5 --set optimizer.d.lr=5e-5; or --set tempo.d=2` names two.
    """
    changes: list[tuple[str, ...]] = []
    end = -1
    for found in OPTION.finditer(advice):
        option = found[2] if found[2] is not None else found[3]
        if found.start() == end:
            changes[-1] += (option,)
        else:
            changes.append((option,))
        end = found.end()
    return changes
