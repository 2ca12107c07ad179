"""Evaluates a run from its folder: compares its samples with the held-out part of its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import Batch, MoveContext
from poise.data.source import DataSplits, Source
from poise.data.toys import PlaneConfig
from poise.engine.batches import sampling_latent
from poise.engine.game import Game, discriminate_separately
from poise.latents import Latent
from poise.measure.base import Measure
from poise.measure.catalogue import EvaluationResult
from poise.measure.duality_gap import duality_gap
from poise.measure.evaluator import Evaluator
from poise.recipe.model import Recipe
from poise.runs.encode import make_reconstructor
from poise.runs.generate import generate, no_interrupt, proportional_labels, sample_latents
from poise.runs.run import Run
from poise.utils.progress import Progress, no_progress

GAP_BATCH = 512
"""The number of points in a batch of the duality gap."""


def measure_run(
    run: Run,
    measures: Sequence[Measure],
    *,
    n: int | None = None,
    features: str = "auto",
    seed: int = 0,
    raw: bool = False,
    data_root: Path | None = None,
    progress: Progress = no_progress,
) -> tuple[EvaluationResult, Evaluator]:
    """Measure samples of a run against the held-out data, with floors; also returns the evaluator that did it.

    Args:
        run: a finished or running run.
        measures: the measures, see `select_measures`.
        n: the number of samples, see `Evaluator`.
        features: the feature extractor, see `make_extractor`.
        seed: the seed of the latents and labels.
        raw: whether to use the live weights instead of the averaged ones.
        data_root: the folder in which named data sets are looked for.
        progress: called with the progress of slow work.

    Raises:
        DataError: the data is missing, or not what the run was trained on.
        RecipeError, CheckpointError: see `make_extractor` and `Run`.
    """
    recipe, game = run.recipe, run.game
    splits = run.load(data_root)
    d_features = _discriminator_or_reason(run)
    evaluator = Evaluator(recipe.data, splits, features, n, d=d_features, progress=progress, trust_code=run.trust_code)
    net, streams = game.sampling_network(raw=raw), RandomStreams(seed)
    latent = sampling_latent(recipe.latent, splits, streams.device)

    def labels(count: int) -> Tensor | None:
        return labels_to_request(recipe, splits, count, seed)

    def samples(count: int) -> Tensor:
        progress("sampling", 0.0)
        return draw_samples(latent, net, count, labels(count), streams)

    plane, d = isinstance(recipe.data, PlaneConfig), game.d
    gap = duality_gap_of(recipe, splits.train, game, d.net, run.checkpoint.step) if plane and d is not None else None
    result = evaluator.measure(samples, measures, labels, gap, make_reconstructor(recipe, game, streams))
    return result, evaluator


def _discriminator_or_reason(run: Run) -> Callable[[], nn.Module] | str:
    """A function that returns D, or why D's features can't be extracted sample by sample without labels."""
    if run.recipe.pack > 1:
        return f"this D scores packs of {run.recipe.pack} samples"
    if run.recipe.labels.d is not None:
        return "this D needs class labels"
    if run.game.d is None:
        return "this run has no discriminator"
    d = run.game.d.net
    return "this D has no features" if getattr(d, "width", None) is None else lambda: d


def labels_to_request(recipe: Recipe, splits: DataSplits, n: int, seed: int) -> Tensor | None:
    """n labels in the proportions of the training samples; None if G takes none."""
    return None if recipe.labels.g is None else proportional_labels(n, splits.train.class_counts, seed)


def draw_samples(
    latent: Latent,
    net: nn.Module,
    n: int,
    labels: Tensor | None,
    streams: RandomStreams,
    interrupt: Callable[[], None] = no_interrupt,
) -> Tensor:
    """n samples for a measurement; the latents depend on the seed of the streams alone."""
    latents = sample_latents(latent, n, streams, "measure")
    labels = None if labels is None else labels.to(streams.device)
    return generate(net, latents, labels, streams=streams, interrupt=interrupt)


def duality_gap_of(recipe: Recipe, source: Source, game: Game, d: nn.Module, step: int) -> Callable[[], float]:
    """A function that estimates the duality gap of this game, whose value V(G, D) is the negative of D's loss."""
    streams = RandomStreams(0)
    context = MoveContext(step, recipe.steps, GAP_BATCH, streams)

    def value(generator: nn.Module, discriminator: nn.Module, batch: int) -> Tensor:
        index = 2 * batch if batch >= 0 else -2 * batch - 1
        real = source.batch(index, GAP_BATCH, streams)
        fake = Batch(generator(recipe.latent.sample(GAP_BATCH, streams("measure/gap", index))))
        outputs = discriminate_separately(discriminator, real, fake)
        losses = game.objective.d_losses(outputs["real"].score, outputs["fake"].score, None, context)
        return -sum((loss.mean() for loss in losses[1:]), losses[0].mean())

    return lambda: duality_gap(game.g.net, d, value, streams("measure/nudge"))
