"""Shares of a batch: what rounds to nothing or to everything, and pools that the run cannot fill.

A share of a small batch can round to 0 samples, so that a trick does nothing, or to all of them, so that it does
everything. Each finding is a warning with the numbers that lead to it.
"""

from __future__ import annotations

from poise.core.schedules import bounds
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.model import Recipe


def check_fractions(recipe: Recipe, findings: Findings) -> None:
    """Add what rounds badly in `recipe` to the warnings."""
    for rule in (_pools, _top, _groups):
        rule(recipe, findings)


def _pools(recipe: Recipe, findings: Findings) -> None:
    """Each pool takes its share of the fakes that the pools before it have left; `image_pool` acts last."""
    new = recipe.batch
    pools = [(i, trick) for i, trick in enumerate(recipe.tricks) if trick.num_stored and getattr(trick, "fraction", 1)]
    for i, trick in sorted(pools, key=lambda pool: pool[1].tag() == "image_pool"):
        kind, taken = f"'{trick.tag()}'", trick.num_replaced(new)

        def warn(reason: str, cure: str, i: int = i, tip: str = trick.tip) -> None:
            findings.warnings.append(Finding(f"tricks.{i}", reason, tip, cure))

        if new == 0:
            warn(f"{kind} does nothing: the pools before it replace all fakes", "leave one of them out")
        elif taken == 0:
            reason = f"{kind} does nothing: its share of {new} new fakes rounds to 0"
            warn(reason, "set its 'fraction' or the batch higher, or leave it out")
        elif taken == recipe.batch and trick.tag() != "image_pool":
            reason = f"{kind} replaces all {taken} fakes of a batch, so D never sees G's newest ones"
            warn(reason, "set its 'fraction' lower, or the batch higher")
        elif trick.steps_to_fill(new) > recipe.steps:
            reason = (
                f"{kind} has room for {trick.num_stored:,} fakes, and is full after {trick.steps_to_fill(new):,} steps"
            )
            warn(f"{reason}; the run has {recipe.steps:,}", "set its 'size' lower, or run longer")
        new -= taken


def _top(recipe: Recipe, findings: Findings) -> None:
    """Costs that are left out."""
    scores = recipe.batch // recipe.pack
    for i, trick in enumerate(recipe.tricks):
        least = min(bounds(getattr(trick, "fraction", 1.0))) if trick.selects_samples else 1.0
        if least < 1 and max(1, round(least * scores)) == scores:
            reason = f"'{trick.tag()}' does nothing: {least:g} of {scores} scores rounds to all of them"
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "set 'fraction' lower, or batch higher"))


def _groups(recipe: Recipe, findings: Findings) -> None:
    """What compares the samples of a batch needs more than one."""
    scores = recipe.batch // recipe.pack
    for i, trick in enumerate(recipe.tricks):
        if (group := trick.comparison_group(scores)) is None or group > 1:
            continue
        what = f"D judges {scores} at a time, which no group of 2 up to its size divides"
        if scores == 1:
            what = (
                "D judges one sample at a time" if recipe.pack == 1 else f"D judges one pack of {recipe.pack} at a time"
            )
        cure = "take a batch that divides by its group" if scores > 1 else "set batch higher"
        reason = f"'{trick.tag()}' does nothing: {what}, so there is nothing to compare"
        findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, cure))
