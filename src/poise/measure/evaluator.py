"""A bench: real data made ready, so that samples can be measured against it, once or at every turn of a run.

The reals are held out of training where there are any (`reals.py` draws them); floors are worked out with other real
samples at the same n, and kept as long as the bench stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from statistics import fmean, stdev

import torch
from torch import Tensor, nn

from poise.data.source import DataConfig, DataSplits, SizedSource
from poise.data.stacked_digits import StackedDigits
from poise.data.toys import PlaneConfig
from poise.errors import RecipeError
from poise.measure.base import Floor, FloorSource, Measure, MeasuredValue, Requirement
from poise.measure.catalogue import EvaluationResult, MeasureResult, compute_or_reason
from poise.measure.context import EvalContext, Modes, Reconstructor
from poise.measure.features import (
    ClassifierExtractor,
    DiscriminatorExtractor,
    Extractor,
    ExtractorContext,
    make_extractor,
)
from poise.measure.memorization import nearest_neighbours
from poise.measure.modes import count_modes, count_numbers
from poise.measure.reference import (
    FloorDraw,
    ReferenceSamples,
    held_out_reference,
    random_order,
    split_reference,
    toy_reference,
)
from poise.measure.sample_set import BATCH, SampleSet, sample_set, samples_to_bytes
from poise.utils.image_grid import grid_capacity, sample_grid
from poise.utils.images import Bytes
from poise.utils.progress import Progress, no_progress

ABREAST = 3
MOST, TOYS, STACKS = 5_000, 2_500, 26_000
MOST_TRAINED = 100_000
"""Samples that are measured by default: at most that many pictures, points of the plane, stacks whose modes count."""


class Evaluator:
    """Real data, ready.

    Args:
        entry: the data's entry, which knows its modes.
        loaded: the data; what it holds out is measured against, else a part of it.
        features: a word for `extractor`.
        n: how many samples are compared; left out, as many as are held out, or where nothing is, half of all; at most
            5,000 (toys 2,500).
        d: gives the discriminator, or says why there is none.
        progress: told of work that takes its time.
        trust_code: whether a Python file may make features.
    """

    def __init__(
        self,
        entry: DataConfig | None,
        loaded: DataSplits,
        features: str = "auto",
        n: int | None = None,
        *,
        d: Callable[[], nn.Module] | str = "there is no discriminator here",
        progress: Progress = no_progress,
        trust_code: bool = False,
    ) -> None:
        self.entry, self.loaded, self.d, self.progress = entry, loaded, d, progress
        self.notes: list[str] = []
        setting = ExtractorContext(loaded.train, loaded.held_out, d, progress, trust_code, self.notes.append)
        self.extractor: Extractor = make_extractor(features, setting)
        self.available: set[Requirement] = set()
        self._floors: dict[str, Floor | None] = {}
        self._floor_contexts: dict[FloorSource, list[EvalContext]] = {}
        self.reference = self._reference_samples(n)
        self.real, self.n = self.reference.real, len(self.reference.real)
        self.notes += self.reference.notes
        many = self.reference.many
        self.n_modes = min(n or STACKS, len(many)) if len(many) else self.n

    def measure(
        self,
        samples: Callable[[int], Tensor],
        measures: Sequence[Measure],
        labels: Callable[[int], Tensor | None] = lambda n: None,
        duality_gap: Callable[[], float] | None = None,
        reconstructor: Reconstructor | None = None,
    ) -> EvaluationResult:
        """Measure samples, and say what of it could not be done.

        Args:
            samples: gives n of them: points, or pictures in [-1, 1] or as uint8.
            measures: which.
            labels: of which class the first n samples are meant to be, where that is known.
            duality_gap: works out the duality gap of the game they come from.
            reconstructor: rebuilds pictures, if what they come from can.
        """
        n_fakes, asked = self.n, labels(self.n)
        made = samples(max(n_fakes, self.n_modes if self._counts(measures) else 0))
        fakes = made if made.dtype == torch.uint8 else samples_to_bytes(made)
        fake = SampleSet(
            fakes[:n_fakes], self.extractor, None if asked is None else asked[:n_fakes], progress=self.progress
        )
        context = self._context(fake, partial(self._modes, fakes), duality_gap)
        context.reconstructor = reconstructor
        given = set(self.available)
        conditions: dict[Requirement, bool] = {
            "asked labels": asked is not None,
            "game": duality_gap is not None,
            "logits": self.extractor.classifies,
            "coder": reconstructor is not None,
            "likelihood": reconstructor is not None and reconstructor.bound is not None,
        }
        given.update(need for need, met in conditions.items() if met)
        told, skipped = {}, {}
        for measure in measures:
            self.progress(measure.name, 0.0)
            some = self._halved(context) if measure.floor == "halves" and measure.requires <= given else context
            figure = compute_or_reason(measure, some, given)
            if isinstance(figure, str):
                skipped[measure.name] = figure
            else:
                n = self.n_modes if "modes" in measure.requires else len(some.fake)
                told[measure.name] = MeasureResult(figure, self._floor(measure, given), None if n == self.n else n)
        return EvaluationResult(
            len(fake), self.extractor.name, told, skipped, (*self.notes, *self._notes_on(told, measures))
        )

    def nearest_training_grid(self, samples: Tensor, k: int = 3) -> Bytes:
        """A sheet: samples, each beside the k training pictures nearest to it in features, three such rows abreast.

        Raises:
            RecipeError: it is not known what was trained on.
        """
        if self.train is None:
            raise RecipeError("this run's training pictures have no end", where="--neighbours", cure="leave it out")
        fakes = SampleSet(samples_to_bytes(samples), self.extractor, progress=self.progress)
        places = nearest_neighbours(fakes.features.double(), self.train.features.double(), k).places
        rows = [
            torch.cat((fakes.normalized(slice(row, row + 1)), self.train.normalized(places[row])))
            for row in range(len(fakes))
        ]
        abreast = max(1, min(ABREAST, grid_capacity(self.loaded.train.shape)[1] // (k + 1)))
        return sample_grid(torch.cat(rows), None, abreast * (k + 1), alpha=getattr(self.entry, "alpha", True))

    def _context(
        self, fake: SampleSet, count: Callable[[], Modes], play: Callable[[], float] | None = None
    ) -> EvalContext:
        classes = len(self.loaded.train.classes)
        return EvalContext(
            fake, self.real, lambda: self.train, count, self._probed, play, classes=classes, progress=self.progress
        )

    @cached_property
    def _probed(self) -> DiscriminatorExtractor | None:
        return None if isinstance(self.d, str) else DiscriminatorExtractor(self.d(), "this run's")

    def _halved(self, context: EvalContext) -> EvalContext:
        """The first of the fakes, against as many reals as leave others of the held-out ones for a floor."""
        real = self.reference.copying[0].real
        return replace(context, fake=context.fake.subset(slice(len(real))), real=real)

    def _floor(self, measure: Measure, given: set[Requirement]) -> Floor | None:
        """The measure on real samples, worked out the first time that it is asked for; None if there is none."""
        if measure.name not in self._floors:
            self._floors[measure.name] = self._worked_out(measure, given)
        return self._floors[measure.name]

    def _worked_out(self, measure: Measure, given: set[Requirement]) -> Floor | None:
        contexts = self._contexts_for_floor(measure.floor)
        if measure.slow or (self.stacks and "modes" in measure.requires):
            contexts = contexts[:1]  # a training, or thousands of stacks to be read, for each
        figures = [compute_or_reason(measure, context, given) for context in contexts]
        values = [figure.value for figure in figures if isinstance(figure, MeasuredValue)]
        return Floor(fmean(values), stdev(values) if len(values) > 1 else None) if values else None

    def _contexts_for_floor(self, stand: FloorSource) -> list[EvalContext]:
        """Sittings with real samples in the fakes' place, the same ones for all measures: much is worked out once."""
        if stand not in self._floor_contexts:
            draws = {
                "other": lambda: self.reference.draws,
                "real": lambda: [FloorDraw(self.real, self.real)],
                "halves": lambda: self.reference.copying,
                "none": list[FloorDraw],
            }
            self._floor_contexts[stand] = [self._floor_context(draw) for draw in draws[stand]()]
        return self._floor_contexts[stand]

    def _floor_context(self, draw: FloorDraw) -> EvalContext:
        counted = draw.fake.samples if isinstance(self.entry, PlaneConfig) else self.reference.many
        return replace(self._context(draw.fake, partial(self._modes, counted)), real=draw.real)

    @property
    def stacks(self) -> bool:
        """Whether the samples are stacks, of which more are counted than compared."""
        return isinstance(self.loaded.train, StackedDigits)

    def _reference_samples(self, n: int | None) -> ReferenceSamples:
        """Which real samples are held against the fakes, and which stand in for them in the floors."""
        train, held_out = self.loaded.train, self.loaded.held_out
        if not isinstance(train, SizedSource):
            assert isinstance(self.entry, PlaneConfig)
            if self.entry.mode_centres() is not None:
                self.available.update(("modes", "centres"))
            return toy_reference(self.entry, n or TOYS, self.extractor)
        if train.classes:
            self.available.add("labels")
        if not isinstance(self.d, str):
            self.available.add("d")
        if not isinstance(train, StackedDigits):
            self.available.add("train")
        if not isinstance(held_out, SizedSource):
            return split_reference(train, n, MOST, self.extractor, self.progress)
        self.available.add("held out")
        reals = held_out_reference(train, held_out, n, MOST, self.extractor, self.progress)
        if isinstance(held_out, StackedDigits) and isinstance(
            self.extractor, ClassifierExtractor
        ):  # it can read the digits
            self.available.add("modes")
            reals.many = held_out.gather(random_order(len(held_out))[:STACKS]).images
        return reals

    @cached_property
    def train(self) -> SampleSet | None:
        """What was trained on, up to 100,000 pictures of it; None where that has no end."""
        train = self.loaded.train
        if not isinstance(train, SizedSource) or isinstance(train, StackedDigits):
            return None
        if len(train) > MOST_TRAINED:
            self.notes.append(f"copying is looked for in {MOST_TRAINED:,} of {len(train):,} training pictures")
        return sample_set(train, train.evenly_spaced(MOST_TRAINED), self.extractor, self.progress)

    def _counts(self, measures: Sequence[Measure]) -> bool:
        return any("modes" in measure.requires for measure in measures) and "modes" in self.available

    def _modes(self, samples: Tensor) -> Modes:
        samples = samples[: self.n_modes]
        if isinstance(self.entry, PlaneConfig):
            found = self.entry.mode_centres()
            assert found is not None
            return count_modes(samples, *found)
        assert isinstance(self.extractor, ClassifierExtractor), "stacks are looked at by a classifier"
        pile, numbers = SampleSet(samples, self.extractor), []
        with torch.no_grad():
            for start in range(0, len(samples), BATCH):
                self.progress("counting modes", start / len(samples))
                numbers.append(self.extractor.numbers(pile.normalized(slice(start, start + BATCH))))
        return count_numbers(torch.cat(numbers), len(self.loaded.train.classes))

    def _notes_on(self, told: dict[str, MeasureResult], measures: Sequence[Measure]) -> list[str]:
        """Which figures are of another number of samples, and why some have no floor."""
        notes, stands = [], {measure.name: measure.floor for measure in measures if measure.name in told}
        if {"modes", "reverse_kl", "high_quality"} & told.keys() and self.n_modes != self.n:
            notes.append(f"modes: of {self.n_modes:,} samples")
        for name, stand in stands.items():
            if stand == "halves" and (n := told[name].n) is not None:
                notes.append(f"{name}: of {n:,} samples, for the other held-out pictures are kept for its floor")
        if self.reference.no_floor and "other" in stands.values():
            notes.append(f"no floor for most: {self.reference.no_floor}")
        return notes
