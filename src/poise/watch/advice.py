"""What to do about a sign, by what was seen: which player, which family of losses, which parts the run has.

Every `--set` in an advice must be one that the recipe at hand takes. What the recipe has is told by the numbers in its
rows: `d/r1` is there only with the trick `r1`, `g/label_effect` only where G is given labels.
"""

from __future__ import annotations

from poise.watch.base import Family
from poise.watch.history import MetricHistory

CLIPPING = "--set 'tricks+=[{kind=\"gradient_clipping\"}]'"


def lower_rates(family: Family | None, *sides: str) -> str:
    """`--set` words for lower rates of these players. The shipped critics' rates are lower than the others'."""
    rate = "2e-5" if family == "wasserstein" else "5e-5"
    return " ".join(f"--set optimizer.{side}.lr={rate}" for side in sides)


def players(family: Family | None) -> tuple[str, ...]:
    """Whose rates there are: a game for one has no D."""
    return ("g",) if family == "rebuilding" else ("g", "d")


def after_not_finite(heard: MetricHistory, family: Family | None) -> str:
    """Lower rates; and a bound on D's slope, where there is a D."""
    lower = lower_rates(family, *players(family))
    if family == "rebuilding":
        return f"lower the rate: {lower}"
    slope = "raise the weight of R1: --set tricks.r1.gamma=5.0"
    if "d/r1" not in heard.series:
        slope = "penalise D's slope: --set 'tricks+=[{kind=\"r1\", gamma=1.0}]'"
    return f"lower both rates: {lower}; or {slope}"


def increase_variety(heard: MetricHistory) -> str:
    """A D that sees several samples at once. Packed samples would need one label in common."""
    kind = 'minibatch_discrimination"' if "g/label_effect" in heard.series else 'packing", samples=2'
    return f"let D see several samples at once: --set 'tricks+=[{{kind=\"{kind}}}]'"


def weaken_kl(name: str) -> str:
    """A KL that costs less at first: of the bound itself, or of a hybrid's own term."""
    ramp = '{kind="linear", start=0.0, end=1.0, until=0.3}'
    if name == "g/posterior_kl":
        return "give the KL a lower weight: --set tricks.posterior_kl.weight=0.001"
    first = f"let the KL cost nothing at first, --set 'objective.beta={ramp}'"
    return f"{first}, or a missed pixel more, --set objective.sigma=0.2"
