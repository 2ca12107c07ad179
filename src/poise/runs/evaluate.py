"""Evaluates a run from its folder: compares its samples with the held-out part of its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import Batch, MoveContext
from poise.data.source import DataSplits, Source
from poise.data.toys import PlaneConfig
from poise.engine.batches import StartingSamples, sampling_latent
from poise.engine.game import Game, discriminate_separately
from poise.measure.base import Measure
from poise.measure.catalogue import EvaluationResult
from poise.measure.context import Translation
from poise.measure.duality_gap import duality_gap
from poise.measure.evaluator import Evaluator, check_neighbours, notes_on_known_images
from poise.measure.sample_set import samples_to_bytes
from poise.networks.translation import Domain, GeneratedPart, generated_part, judge_of_domain, split_parts
from poise.recipe.model import Recipe
from poise.runs.encode import make_reconstructor
from poise.runs.generate import BLOCK, generate, no_interrupt, sample_latents
from poise.runs.labels import proportional_labels
from poise.runs.run import Run
from poise.utils.progress import Progress, no_progress

GAP_BATCH = 512
"""The largest number of points in a batch of the duality gap, which consists of whole packs."""

STREAM = "measure"
"""The name of the random stream of the latents."""


def measured_domain(recipe: Recipe) -> Domain | None:
    """The domain whose images a recipe measures; None if it names none."""
    return None if recipe.measure is None else recipe.measure.domain


class MeasuredSamples:
    """The samples of a run that are measured, and the data that they are compared with.

    Of a G that translates, these are the images that it generates of one domain, and the images of that domain.

    Args:
        recipe: the recipe.
        splits: the data of the run.
        streams: the random streams; latents and labels depend on their seed alone.
        domain: the domain, see `generated_part`; by default that of `measure.domain` in the recipe.
        interrupt: called before each block of samples; may raise.

    Attributes:
        part: the part of a sample that is measured.
        data: the data that it is compared with.
        starts: the samples that a G that translates starts from.

    Raises:
        RecipeError: G generates no images of the domain.
    """

    def __init__(
        self,
        recipe: Recipe,
        splits: DataSplits,
        streams: RandomStreams,
        domain: Domain | None = None,
        interrupt: Callable[[], None] = no_interrupt,
    ) -> None:
        self.recipe, self.splits, self.streams, self.interrupt = recipe, splits, streams, interrupt
        domain = domain or measured_domain(recipe)
        self.part = generated_part(recipe.network.direction, splits.train.parts, domain)
        self.data = splits if self.part.is_whole else splits.domain(self.part.index)
        self.starts = StartingSamples(splits)
        self.latent = sampling_latent(recipe.latent, splits, streams.device)

    def labels(self, n: int) -> Tensor | None:
        """n labels in the proportions of the training samples; None if G takes none."""
        if self.recipe.labels.g is None:
            return None
        return proportional_labels(n, self.splits.train.class_counts, self.streams.seed)

    def samples(self, net: nn.Module, n: int) -> Tensor:
        """n samples."""
        return self.part.of(self._generate(net, self._latents(n), n)).cpu()

    def translation(self, net: nn.Module, n: int) -> Translation | None:
        """What is known of the same samples if they are translated images; None if they are not."""
        direction, source = self.recipe.network.direction, self.splits.train
        if direction is None or len(source.shape) != 3:
            return None
        starts = self._latents(n)
        paired = source.paired and not self.part.is_whole
        return Translation(
            samples_to_bytes(self.part.source_of(starts)),
            samples_to_bytes(self.part.of(starts)) if paired else None,
            self._source_labels(n),
            partial(self._cycle_errors, net, starts) if direction == "both_ways" else None,
            tuple(self.starts.notes(n, [self.part.source_index])),
        )

    def _latents(self, n: int) -> Tensor:
        return sample_latents(self.latent, n, self.streams, STREAM)

    def _generate(self, net: nn.Module, latents: Tensor, n: int) -> Tensor:
        labels = self.labels(n)
        labels = None if labels is None else labels.to(self.streams.device)
        return generate(net, latents, labels, streams=self.streams, interrupt=self.interrupt)

    def _cycle_errors(self, net: nn.Module, starts: Tensor) -> Tensor:
        """See `Translation.cycle_errors`: the mean over both domains, with equal weights."""
        back = self._generate(net, self._generate(net, starts, len(starts)), len(starts))
        pairs = zip(*(split_parts(both, self.part.parts) for both in (starts, back)), strict=True)
        errors = [(image - returned).abs().flatten(1).mean(1) / 2 for image, returned in pairs]  # pixels in [-1, 1]
        return torch.stack(errors).mean(0).cpu()

    @property
    def classes_of_sources(self) -> list[int] | None:
        """The label in the target domain of each class of the sources; None if they are not classes there.

        Of a G that takes labels, the class of a sample is the one that was requested.
        """
        if self.part.is_whole or self.recipe.labels.g is not None:
            return None
        domains = self.splits.train.domain_sources
        if len(domains) < 2:
            return None
        known, wanted = domains[1 - self.part.index].classes, domains[self.part.index].classes
        return [wanted.index(name) for name in known] if known and set(known) <= set(wanted) else None

    def _source_labels(self, n: int) -> Tensor | None:
        """The classes of the sources, n, as those of the target domain; None if they are not classes there."""
        classes = self.classes_of_sources
        if classes is None:
            return None
        domain, count = self.part.source_index, -(-n // BLOCK)
        blocks = [self.starts.labels(domain, number, BLOCK, self.streams, STREAM) for number in range(count)]
        labels = [labels for labels in blocks if labels is not None]
        return torch.tensor(classes)[torch.cat(labels)[:n]] if labels else None


def measure_run(
    run: Run,
    measures: Sequence[Measure],
    *,
    n: int | None = None,
    features: str = "auto",
    seed: int = 0,
    raw: bool = False,
    domain: Domain | None = None,
    data_root: Path | None = None,
    neighbours: bool = False,
    progress: Progress = no_progress,
) -> tuple[EvaluationResult, Evaluator]:
    """Measure samples of a run against the held-out data, with floors; also returns the evaluator that did it.

    Args:
        run: a finished or running run.
        measures: the measures, see `select_measures`.
        n: the number of samples, see `Evaluator`.
        features: the feature extractor, see `make_extractor`.
        seed: the seed of the latents and labels.
        raw: whether to use the non-averaged weights.
        domain: the domain whose images are measured, of a G that translates both ways; see `MeasuredSamples`.
        data_root: the folder in which named data sets are looked for.
        neighbours: whether the evaluator is to find the nearest training images afterwards; whether it can is checked
            first.
        progress: called with the progress of slow work.

    Raises:
        DataError: the data is missing, or not what the run was trained on.
        RecipeError, CheckpointError: see `make_extractor`, `check_neighbours` and `Run`.
    """
    recipe, game = run.recipe, run.game
    splits = run.load(data_root)
    measured = MeasuredSamples(recipe, splits, RandomStreams(seed), domain)
    if neighbours:
        check_neighbours(measured.data)
    d_features = _discriminator_or_reason(run, measured.part)
    trust = run.trust_code
    evaluator = Evaluator(recipe.data, measured.data, features, n, d=d_features, progress=progress, trust_code=trust)
    evaluator.notes += notes_on_known_images(measured.data)
    net = game.sampling_network(raw=raw)

    def samples(count: int) -> Tensor:
        progress("sampling", 0.0)
        return measured.samples(net, count)

    plane, d = isinstance(recipe.data, PlaneConfig) and recipe.latent.is_space, game.d
    gap = (
        duality_gap_of(recipe, splits.train, game, d.net, run.checkpoint.step, progress)
        if plane and d is not None
        else None
    )
    result = evaluator.measure(
        samples,
        measures,
        measured.labels,
        gap,
        make_reconstructor(recipe, game, measured.streams),
        partial(measured.translation, net),
    )
    return result, evaluator


def _discriminator_or_reason(run: Run, part: GeneratedPart) -> Callable[[], nn.Module] | str:
    """A function that returns the D of the measured part, or why its features can't be extracted sample by sample."""
    if run.recipe.pack > 1:
        return f"this D scores packs of {run.recipe.pack} samples"
    if run.recipe.labels.d is not None:
        return "this D needs class labels"
    if run.game.d is None:
        return "this run has no discriminator"
    d = judge_of_domain(run.game.d.net, part)
    if d is None:
        return "this D sees both domains of a sample"
    return "this D has no features" if getattr(d, "width", None) is None else lambda: d


def duality_gap_of(
    recipe: Recipe, source: Source, game: Game, d: nn.Module, step: int, progress: Progress = no_progress
) -> Callable[[], float]:
    """A function that estimates the duality gap of this game, whose value V(G, D) is the negative of D's loss.

    It raises ValueError if V has no maximum over D: the constraints of tricks, such as clipped weights or a penalty,
    do not act on the copies of D that are trained.
    """
    streams, size = RandomStreams(0), GAP_BATCH - GAP_BATCH % recipe.pack
    context = MoveContext(step, recipe.steps, size, streams)

    def value(generator: nn.Module, discriminator: nn.Module, batch: int) -> Tensor:
        index = 2 * batch if batch >= 0 else -2 * batch - 1
        real = source.batch(index, size, streams)
        fake = Batch(generator(recipe.latent.sample(size, streams("measure/gap", index))))
        outputs = discriminate_separately(discriminator, real, fake)
        losses = game.objective.d_losses(outputs["real"].score, outputs["fake"].score, None, context)
        return -sum((loss.mean() for loss in losses[1:]), losses[0].mean())

    def estimate() -> float:
        if _is_unbounded(recipe):
            objective = recipe.objective.tag()
            raise ValueError(f"D's gain under '{objective}' has no bound without a constraint, which does not act here")
        return duality_gap(game.g.net, d, value, streams("measure/nudge"), progress=progress)

    return estimate


def _is_unbounded(recipe: Recipe) -> bool:
    """Whether D's loss has no lower bound, unless a trick constrains D; BEGAN's raises the energy of fake samples."""
    needs_bound = recipe.objective.needs_lipschitz_bound and not recipe.spectral_norm_bounds_d
    return recipe.objective.tag() == "began" or needs_bound
