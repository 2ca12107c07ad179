"""What is due after a step: functions of the recipe and the number of steps done, so that all ranks know it."""

from __future__ import annotations

from poise.recipe.model import Recipe


def logs_row(recipe: Recipe, done: int) -> bool:
    """Whether a row is logged after `done` steps."""
    return done == recipe.steps or done % recipe.log.rows == 0


def draws_samples(recipe: Recipe, done: int) -> bool:
    """Whether a sample grid is drawn after `done` steps."""
    return done == recipe.steps or done % recipe.log.samples == 0


def evaluates(recipe: Recipe, done: int) -> bool:
    """Whether the run is measured after `done` steps."""
    return recipe.measure is not None and (done == recipe.steps or done % recipe.measure.every == 0)


def saves(recipe: Recipe, done: int) -> bool:
    """Whether a checkpoint is written after `done` steps."""
    return done == recipe.steps or done % recipe.log.saves == 0


def averages_metrics(recipe: Recipe, done: int) -> bool:
    """Whether the ranks average the metrics of their steps after `done` steps, because rank 0 writes them."""
    return logs_row(recipe, done) or evaluates(recipe, done) or saves(recipe, done)
