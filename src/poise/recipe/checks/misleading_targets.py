"""A check of D's targets: those of real samples should be above those of fake ones, as all objectives assume."""

from __future__ import annotations

from poise.core.schedules import bounds, value_at
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.model import Recipe
from poise.tricks.noisy_labels import NoisyLabelsConfig
from poise.tricks.soft_labels import SoftLabelsConfig


def check_targets(recipe: Recipe, findings: Findings) -> None:
    """Add a warning for targets that are equal or exchanged at some time, on average or for half of the samples."""
    times = [(step, step / recipe.steps) for step in range(0, recipe.steps, max(1, recipe.steps // 100))]
    for i, trick in enumerate(recipe.tricks):
        if isinstance(trick, SoftLabelsConfig):
            means = [
                [sum(value_at(bound, *time) for bound in side) / 2 for side in (trick.real, trick.fake)]
                for time in times
            ]
            real, fake = min(means, key=lambda mean: mean[0] - mean[1])
            if real <= fake:
                learns = "nothing" if real == fake else "to score fake samples higher"
                reason = f"D's mean target is {real:g} for real and {fake:g} for fake samples, so it learns {learns}"
                cure = "set 'real' above 'fake'; to flip some of the labels, use 'noisy_labels'"
                findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, cure))
        elif isinstance(trick, NoisyLabelsConfig) and (p := max(bounds(trick.probability))) >= 0.5:
            learns = "nothing" if p == 0.5 else "to score fake samples higher"
            reason = f"with {p:.0%} of D's targets flipped it learns {learns}"
            findings.warnings.append(Finding(f"tricks.{i}.probability", reason, trick.tip, "use 0.05 or so"))
