"""Evaluating a run from its folder: its samples against what its data holds out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import Batch, MoveContext
from poise.data.source import DataSplits
from poise.data.toys import PlaneConfig
from poise.engine.game import Game, discriminate_separately
from poise.measure.base import Measure
from poise.measure.catalogue import EvaluationResult
from poise.measure.duality_gap import duality_gap
from poise.measure.evaluator import Evaluator
from poise.recipe.model import Recipe
from poise.runs.encode import make_reconstructor
from poise.runs.generate import generate, no_interrupt, proportional_labels, sample_latents
from poise.runs.run import Run
from poise.utils.progress import Progress, no_progress

PLAYED = 512
"""Points in a batch of the duality gap."""


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
    """Measure samples of a run against what its data holds out, with floors; and the bench they were measured on.

    Args:
        run: finished or running.
        measures: see `chosen`.
        n: how many samples; see `Bench`.
        features: see `extractor`.
        seed: which latents.
        raw: the live weights, not the averaged ones.
        data_root: where data sets by name are looked for.
        progress: told of work that takes its time.

    Raises:
        DataError: the data is not there, or not what the run was trained on.
        RecipeError, CheckpointError: see `extractor` and `Run`.
    """
    recipe, game = run.recipe, run.game
    loaded = run.load(data_root)
    bench = Evaluator(
        recipe.data, loaded, features, n, d=_readable_d(run), progress=progress, trust_code=run.trust_code
    )
    net, streams = game.sampling_network(raw=raw), RandomStreams(seed)

    def labels(count: int) -> Tensor | None:
        return labels_to_request(recipe, loaded, count, seed)

    def samples(count: int) -> Tensor:
        progress("sampling", 0.0)
        return draw_samples(recipe, net, count, labels(count), streams)

    plane, d = isinstance(recipe.data, PlaneConfig), game.d
    play = duality_gap_of(recipe, game, d.net, run.checkpoint.step) if plane and d is not None else None
    return bench.measure(samples, measures, labels, play, make_reconstructor(recipe, game, streams)), bench


def _readable_d(run: Run) -> Callable[[], nn.Module] | str:
    """D, or why its features can't be read one sample at a time without labels."""
    if run.recipe.pack > 1:
        return f"this D judges {run.recipe.pack} samples at once"
    if run.recipe.labels.d is not None:
        return "this D wants labels"
    if run.game.d is None:
        return "this run has no discriminator"
    d = run.game.d.net
    return "this D has no features" if getattr(d, "width", None) is None else lambda: d


def labels_to_request(recipe: Recipe, loaded: DataSplits, n: int, seed: int) -> Tensor | None:
    """n labels for a generator that takes them, in the shares of the training pictures; None for one that does not."""
    return None if recipe.labels.g is None else proportional_labels(n, loaded.train.class_counts, seed)


def draw_samples(
    recipe: Recipe,
    net: nn.Module,
    n: int,
    labels: Tensor | None,
    streams: RandomStreams,
    interrupt: Callable[[], None] = no_interrupt,
) -> Tensor:
    """n samples; the latents depend on the dice's seed alone."""
    asked = None if labels is None else labels.to(streams.device)
    return generate(
        net, sample_latents(recipe.latent, n, streams, "measure"), asked, streams=streams, interrupt=interrupt
    )


def duality_gap_of(recipe: Recipe, game: Game, judge: nn.Module, step: int) -> Callable[[], float]:
    """The duality gap of this game: V is what D's objective is worth to it, with the sign turned."""
    source = recipe.data.load().train
    streams = RandomStreams(0)
    context = MoveContext(step, recipe.steps, PLAYED, streams)

    def value(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
        index = 2 * batch if batch >= 0 else -2 * batch - 1
        real = source.batch(index, PLAYED, streams)
        fake = Batch(g(recipe.latent.sample(PLAYED, streams("measure/gap", index))))
        verdicts = discriminate_separately(d, real, fake)
        costs = game.objective.d_losses(verdicts["real"].score, verdicts["fake"].score, None, context)
        return -sum((cost.mean() for cost in costs[1:]), costs[0].mean())

    return lambda: duality_gap(game.g.net, judge, value, streams("measure/nudge"))
