"""Checks of fractions of a batch or of an image's sides, and of pool sizes.

A fraction of a small batch can round to 0 samples, so that a trick does nothing, or to the whole batch, so that it
replaces or keeps everything; a fraction of the sides can round to 0 pixels; and a pool can be larger than the run can
fill. Each finding is a warning with the numbers that lead to it.
"""

from __future__ import annotations

from poise.core.schedules import bounds
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.model import Recipe
from poise.tricks.consistency import ConsistencyConfig, max_shift


def check_fractions(recipe: Recipe, findings: Findings) -> None:
    """Add a warning for each fraction that rounds to none or all, and for each pool that never fills."""
    _pools(recipe, findings)
    _shifts(recipe, findings)
    if recipe.batch % recipe.pack == 0:  # otherwise the batch is refused, and its cure changes the number of scores
        _selected_fraction(recipe, findings)
        _groups(recipe, findings)


def _pools(recipe: Recipe, findings: Findings) -> None:
    """Each pool replaces its fraction of the fake samples that the pools before it left; `image_pool` acts last."""
    new = recipe.batch
    pools = [(i, trick) for i, trick in enumerate(recipe.tricks) if trick.num_stored and getattr(trick, "fraction", 1)]
    for i, trick in sorted(pools, key=lambda pool: pool[1].tag() == "image_pool"):
        kind, replaced = f"'{trick.tag()}'", trick.num_replaced(new)

        def warn(reason: str, cure: str, i: int = i, tip: str = trick.tip) -> None:
            findings.warnings.append(Finding(f"tricks.{i}", reason, tip, cure))

        if new == 0:
            warn(f"{kind} has no effect: the pools that act before it replace all fake samples", "remove one of them")
        elif replaced == 0:
            reason = f"{kind} has no effect: its fraction of {new} new fake samples rounds to 0"
            warn(reason, "set a larger 'fraction' or batch, or remove the trick")
        elif replaced == recipe.batch and trick.tag() != "image_pool":
            reason = f"{kind} replaces all {replaced} fake samples of a batch, so D never gets G's newest ones"
            warn(reason, "set a smaller 'fraction' or a larger batch")
        elif trick.steps_to_fill(new) > recipe.steps:
            steps = trick.steps_to_fill(new)
            reason = f"{kind} stores {trick.num_stored:,} fake samples and is full after {steps:,} steps"
            warn(f"{reason}, but the run has {recipe.steps:,}", "set a smaller 'size', or train longer")
        new -= replaced


def _selected_fraction(recipe: Recipe, findings: Findings) -> None:
    """A fraction of selected samples below 1 should leave out at least one."""
    scores = recipe.batch // recipe.pack
    for i, trick in enumerate(recipe.tricks):
        smallest = min(bounds(getattr(trick, "fraction", 1.0))) if trick.selects_samples else 1.0
        if smallest < 1 and max(1, round(smallest * scores)) == scores:
            reason = f"'{trick.tag()}' has no effect: {smallest:g} of {scores} scores rounds to all of them"
            cure = "set a smaller 'fraction' or a larger batch"
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, cure))


def _shifts(recipe: Recipe, findings: Findings) -> None:
    """Consistency regularisation compares an image with itself if it is neither shifted nor flipped."""
    sides = getattr(recipe.data, "height_width", ())
    for i, trick in enumerate(recipe.tricks):
        if not isinstance(trick, ConsistencyConfig) or not any(bounds(trick.weight)) or not sides:
            continue
        if any(max_shift(sides, trick.shift)) or (trick.mirror and not trick.shift):
            continue
        size = " x ".join(map(str, sides))
        reason = f"its shift of {trick.shift:g} rounds to 0 pixels in images of {size}"
        if not trick.mirror:
            reason = f"'consistency' has no effect: {reason}, and nothing is flipped"
        findings.warnings.append(Finding(f"tricks.{i}.shift", reason, trick.tip, "set a larger 'shift', such as 0.125"))


def _groups(recipe: Recipe, findings: Findings) -> None:
    """A trick that compares the samples of a batch needs groups of at least two."""
    scores = recipe.batch // recipe.pack
    for i, trick in enumerate(recipe.tricks):
        if (group := trick.comparison_group(scores)) is None or group > 1:
            continue
        what = f"no group size from 2 to its own divides the {scores} scores of a batch"
        if scores == 1:
            what = f"a batch is one {'sample' if recipe.pack == 1 else f'pack of {recipe.pack}'}"
        cure = "set a batch that is a multiple of its group size" if scores > 1 else "set a larger batch"
        reason = f"'{trick.tag()}' has no effect: {what}, so there is nothing to compare"
        findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, cure))
