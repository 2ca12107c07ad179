"""Whether the runs of a study can have the measures that decide. A measure that can't is refused before it is needed.

Otherwise a study would train all its runs and then have nothing to judge. An arm alone that can't be measured would be
worse: it would seem to harm, because a missing value counts as the worst one.
"""

from __future__ import annotations

from poise.core.random_streams import RandomStreams
from poise.data.source import DataSplits, SizedSource
from poise.data.stacked_digits import StackedDigits
from poise.data.toys import PlaneConfig
from poise.errors import RecipeError
from poise.measure.base import MISSING_REASONS, Requirement
from poise.measure.catalogue import MEASURES
from poise.recipe.model import Recipe
from poise.runs.evaluate import MeasuredSamples
from poise.training.evaluation import reasons_of_later_measures


def check_measures(recipe: Recipe, data: DataSplits) -> None:
    """Refuse a measure of the recipe that a run can't have, as far as recipe and data alone tell.

    Raises:
        RecipeError: names the measure and the reason.
    """
    available = provided(recipe, data)
    for name in recipe.measure.measures if recipe.measure is not None else ():
        missing = sorted(MEASURES[name].requires - available)
        if missing:
            cure = "choose another measure"
            reason = MISSING_REASONS[missing[0]]
            what = f"can't be measured: {reasons_of_later_measures(recipe).get(reason, reason)}"
            raise RecipeError(what, where="measures", found=f"'{name}'", cure=cure)


def provided(recipe: Recipe, data: DataSplits) -> set[Requirement]:
    """What a run in training provides to its measures, see `Requirement`.

    Whether the feature extractor of images classifies, and by the classes of the data, is not known before it is made,
    so it is taken to do so.
    """
    measured = MeasuredSamples(recipe, data, RandomStreams(0))
    conditions: dict[Requirement, bool] = _of_recipe(recipe) | _of_translation(recipe, measured)
    data = measured.data
    if isinstance(recipe.data, PlaneConfig):
        has_modes = recipe.data.mode_centres() is not None
        conditions |= {"modes": has_modes, "mode centres": has_modes}
    else:
        is_stacked, held_out = isinstance(data.train, StackedDigits), isinstance(data.held_out, SizedSource)
        conditions |= {
            "logits": True,
            "class logits": True,
            "labels": bool(data.train.classes),
            "train": not is_stacked,
        }
        conditions |= {"held out": held_out, "modes": is_stacked and held_out}
    return {requirement for requirement, is_met in conditions.items() if is_met}


def _of_recipe(recipe: Recipe) -> dict[Requirement, bool]:
    """Whether the classes of samples are known, and what an encoder provides; see `make_reconstructor`."""
    encoder, is_conditional = recipe.network.e, recipe.labels.g is not None
    encodes = encoder is not None and not encoder.by_index and not is_conditional and recipe.needs_codes
    likelihood = encodes and recipe.objective.needs_code_variance
    return {"fake labels": is_conditional, "encoder": encodes, "likelihood": likelihood}


def _of_translation(recipe: Recipe, measured: MeasuredSamples) -> dict[Requirement, bool]:
    """What a G that translates images provides; see `MeasuredSamples.translation`."""
    source, direction = measured.splits.train, recipe.network.direction
    translates, labelled = direction is not None and len(source.shape) == 3, measured.classes_of_sources is not None
    conditions: dict[Requirement, bool] = {
        "latents": not labelled,
        "source labels": translates and labelled,
        "targets": translates and source.paired and not measured.part.is_whole,
        "cycle": translates and direction == "both_ways",
    }
    if conditions["source labels"]:
        conditions["fake labels"] = True
    return conditions
