"""Doubts: what fits together, and is still likely not to be meant. Each is a warning with a reason and a cure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from poise.core.config import Config
from poise.core.schedules import Ramp, Schedule, Staircase, bounds
from poise.data.source import ToyConfig
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.checks.fractions import check_fractions
from poise.recipe.model import Recipe
from poise.utils.printing import count_noun


def find_suspicious(recipe: Recipe, findings: Findings) -> None:
    """Add what is doubtful about `recipe` to the warnings."""
    for rule in (
        _range,
        _sparse,
        _momentum,
        _lazy,
        _head_start,
        _twice,
        _noisy_copies,
        _pairs,
        _idle,
        _mixed,
        _still_dials,
        check_fractions,
    ):
        rule(recipe, findings)


def unused_labels_note(recipe: Recipe, classes: int) -> list[str]:
    """A note where the user's own pictures have classes and nothing in the recipe reads them."""
    if recipe.uses_labels or classes < 2 or "path" not in type(recipe.data).model_fields:
        return []
    return [f"the {classes:,} classes are not used by this recipe: its G and D see no labels; 'cgan' would use them"]


def _range(recipe: Recipe, findings: Findings) -> None:
    """Pictures lie in [-1, 1]; G should be able to reach all of that, and nothing else."""
    output = getattr(recipe.network.g, "output", None)
    points = isinstance(recipe.data, ToyConfig)
    reasons = {
        "sigmoid": "a sigmoid ends at 0, and pictures go down to -1: nothing darker than grey can be drawn",
        "linear": "a linear output has no bounds, and pictures lie in [-1, 1]: D sees at once what lies outside",
    }
    designed = type(recipe.network.g).model_fields["output"].default if output else None
    if not points and output in reasons and output != designed:  # R3GAN's G ends so, and learns
        findings.warnings.append(Finding("network.g.output", reasons[output], "T01", 'set it to "tanh"'))
    if points and output in ("tanh", "sigmoid"):
        reason = f"a {output} ends at 1, and points of the plane may lie beyond"
        findings.warnings.append(Finding("network.g.output", reason, "T01", 'set it to "linear"'))


def _sparse(recipe: Recipe, findings: Findings) -> None:
    """What passes no gradient in D leaves G without."""
    if getattr(recipe.network.d, "down", "") == "max":
        reason = "a max pool hands the gradient to one pixel in four"
        findings.warnings.append(Finding("network.d.down", reason, "T06a", 'take "average" or "conv"'))
    d = recipe.network.d
    if (
        getattr(d, "activation", "") == "relu" and d is not None and not d.has_skip_connections
    ):  # SNGAN's and SAGAN's has skips
        reason = "a ReLU passes no gradient where its input is below 0, and G learns through D's gradient alone"
        findings.warnings.append(Finding("network.d.activation", reason, "T06a", 'take "leaky_relu"'))


def _momentum(recipe: Recipe, findings: Findings) -> None:
    """A clipped critic is unstable under momentum (Arjovsky 2017, section 4), and a penalised one goes without."""
    if not recipe.objective.needs_lipschitz_bound:
        return
    entry = recipe.optimizer.d
    betas = getattr(entry, "betas", None)
    where, momentum = ("betas", betas[0]) if betas is not None else ("momentum", getattr(entry, "momentum", 0.0))
    if max(bounds(momentum)) > 0:
        reason = f"'{recipe.objective.tag()}' and momentum in the critic's optimiser go badly together"
        cure = "set the first beta to 0.0" if where == "betas" else "set it to 0.0, or take rmsprop"
        findings.warnings.append(Finding(f"optimizer.d.{where}", reason, "T10", cure))


def _lazy(recipe: Recipe, findings: Findings) -> None:
    """A penalty every few steps failed outright on toys and stacked digits (Huang 2024, appendix E)."""
    small = isinstance(recipe.data, ToyConfig) or recipe.data.tag() == "stacked_digits"
    for i, trick in enumerate(recipe.tricks):
        every = getattr(trick, "every", 1)
        if small and trick.needs_independent_scores and every > 1:
            reason = f"'{trick.tag()}' acts in one step of {every} only, and lazy penalties fail on toys"
            findings.warnings.append(Finding(f"tricks.{i}.every", reason, "T06b", "set it to 1"))


def _head_start(recipe: Recipe, findings: Findings) -> None:
    alone = getattr(recipe.tempo, "head_start", 0)
    if alone >= recipe.steps:
        reason = f"D moves alone for {count_noun(alone, 'step')}, and the run has {recipe.steps:,}: G never moves"
        findings.warnings.append(Finding("tempo.head_start", reason, "T12", "make it shorter, or the run longer"))
    elif alone and "score" in recipe.objective.output_kinds:
        reason = "a D that moves alone wins outright, and leaves G no slope to climb"
        cure = "leave it out, or take objective 'energy' with a margin that rises from 0"
        findings.warnings.append(Finding("tempo.head_start", reason, "T12", cure))


def _twice(recipe: Recipe, findings: Findings) -> None:
    for i, (name, trick) in enumerate(zip(recipe.trick_names(), recipe.tricks, strict=True)):
        if name != trick.trick_name and not trick.has_sampling_network:  # of two averages `_idle` warns
            reason = f"'{trick.trick_name}' stands in the recipe more than once: {trick.duplicate_note}"
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "leave one out unless it is meant"))


def _noisy_copies(recipe: Recipe, findings: Findings) -> None:
    there = [trick.tag() for trick in recipe.tricks]
    if "consistency" in there and "instance_noise" in there:
        reason = "'consistency' compares D's scores of two noisy copies, so D pays for what the noise does as well"
        cure = "leave the noise out, or take a smaller weight"
        findings.warnings.append(Finding(f"tricks.{there.index('consistency')}", reason, "M03", cure))


def _pairs(recipe: Recipe, findings: Findings) -> None:
    """What pairs a real with the fake beside it wants both of one class, which a fake from a pool need not be."""
    pairing = ["the objective"] if recipe.objective.is_relativistic else []
    pairing += [f"'{trick.tag()}'" for trick in recipe.tricks if trick.tag() == "wgan_gp"]
    for i, trick in enumerate(recipe.tricks):
        if trick.num_stored and recipe.uses_labels and pairing:
            reason = (
                f"{pairing[0]} pairs each real with a fake of its class, and '{trick.tag()}' brings fakes of others"
            )
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "leave one of the two out"))


def _idle(recipe: Recipe, findings: Findings) -> None:
    """What is kept for nothing, and what comes too late."""
    shows = [i for i, trick in enumerate(recipe.tricks) if trick.has_sampling_network]
    for i in shows[1:]:
        first = recipe.trick_names()[shows[0]]
        reason = f"samples come from '{first}', so what '{recipe.trick_names()[i]}' keeps is never shown"
        findings.warnings.append(Finding(f"tricks.{i}", reason, recipe.tricks[i].tip, "leave one of the two out"))
    for i, trick in enumerate(recipe.tricks):
        if trick.first_active_step > recipe.steps:
            first = f"step {trick.first_active_step:,}"
            reason = f"'{trick.tag()}' does nothing before {first}, and the run has {recipe.steps:,}"
            findings.warnings.append(Finding(f"tricks.{i}", reason, trick.tip, "set its 'every' lower"))


def _mixed(recipe: Recipe, findings: Findings) -> None:
    ties = [f"'{trick.tag()}'" for trick in recipe.tricks if trick.couples_samples]
    mixing = recipe.network.d is not None and recipe.network.d.uses_batch_statistics
    if recipe.judging == "together" and (mixing or ties):
        what = "batch norm in D" if mixing else ties[0]
        reason = f"{what} sees half reals, half fakes in D's moves, and fakes alone in G's"
        findings.warnings.append(Finding("judging", reason, "T04", 'set judging to "apart" unless it is meant'))


def _still_dials(recipe: Recipe, findings: Findings) -> None:
    """Dials that stand still for the whole run, and cadences that are longer than it."""
    for path, dial in _dials(recipe, ""):
        first = dial.after if isinstance(dial, Ramp) else dial.at[0] if isinstance(dial, Staircase) else 0.0
        end = recipe.steps if dial.over == "steps" else 1.0
        if first >= end:
            reason = f"this dial moves after {first:g} {dial.over}, and the run is over by then"
            findings.warnings.append(Finding(path, reason, "T11", "let it begin earlier, or run longer"))
    for i, trick in enumerate(recipe.tricks):
        every = getattr(trick, "every", 1)
        if every >= recipe.steps > 1 and not trick.first_active_step:
            reason = f"'{trick.tag()}' acts every {every:,} steps, and the run has {recipe.steps:,}: only in the first"
            findings.warnings.append(Finding(f"tricks.{i}.every", reason, trick.tip, "set it lower"))


def _dials(entry: Config, path: str) -> Iterator[tuple[str, Schedule]]:
    """Every moving dial of an entry, with its dotted path."""
    for name in type(entry).model_fields:
        yield from _in_value(getattr(entry, name), f"{path}.{name}" if path else name)


def _in_value(value: Any, path: str) -> Iterator[tuple[str, Schedule]]:
    if isinstance(value, Schedule):
        yield path, value
    elif isinstance(value, Config):
        yield from _dials(value, path)
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _in_value(item, f"{path}.{i}")
