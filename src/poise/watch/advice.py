"""Advice that depends on the alarm: the player, the family of losses, and the components that the run has.

Every `--set` in a piece of advice must be valid for the recipe of the run. The logged metrics show what the recipe has:
`d/r1` is logged only with the trick `r1`, and `g/label_effect` only if G takes labels.
"""

from __future__ import annotations

from poise.watch.base import Family
from poise.watch.history import MetricHistory

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
