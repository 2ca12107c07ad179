"""The evaluator: prepares real data once, so that any number of sample sets can be measured against it.

Samples are compared with held-out real samples if there are any (`reference.py` draws them). Floors are computed from
other real samples at the same n and cached in the evaluator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from numbers import Integral, Real
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor, nn

from poise.data.config import DataConfig
from poise.data.source import DataSplits, ImageDataset, SizedSource
from poise.data.split import held_out_split
from poise.data.stacked_digits import StackedDigits
from poise.data.toys import PlaneConfig
from poise.data.vectors import NO_MEASURES, VectorSetsConfig
from poise.errors import RecipeError
from poise.measure.base import Floor, FloorSource, Measure, MeasuredValue, Requirement
from poise.measure.catalogue import EvaluationResult, MeasureResult, compute_or_reason
from poise.measure.classifier_file import StoredClassifier
from poise.measure.context import EvalContext, Modes, Reconstructor, Translation
from poise.measure.extractors import (
    TRAINED,
    ClassifierExtractor,
    DiscriminatorExtractor,
    ExtractorContext,
    make_extractor,
)
from poise.measure.feature_functions import stored_extractor
from poise.measure.features import Extractor
from poise.measure.memorization import nearest_neighbours
from poise.measure.modes import count_mode_indices, count_modes
from poise.measure.reference import (
    FloorDraw,
    ReferenceSamples,
    held_out_reference,
    random_order,
    split_reference,
    toy_reference,
)
from poise.measure.sample_set import (
    SampleSet,
    batch_slices,
    check_finite,
    check_form,
    describe_non_finite,
    sample_set,
    samples_to_bytes,
)
from poise.utils.image_grid import grid_capacity, sample_grid
from poise.utils.images import Bytes
from poise.utils.printing import count_noun, describe_type
from poise.utils.progress import Progress, no_progress

MAX_SAMPLES, NUM_POINTS, NUM_STACKS = 5_000, 2_500, 26_000
"""The default number of samples: at most that many images, 2-D points, and stacks of digits whose modes are counted."""

ENOUGH_TO_RANK = 100
"""The number of real samples from which on measures rank two generators reliably.

Two pairs of generators of colour emoji, whose FID in pixels differs by 15 % with 480 real images, had the right order
with 100 real images in 87 and 92 % of 60 draws, with 50 in 60 and 78 %, and with 25 or fewer in 40 to 63 %.
"""

MAX_TRAINING_SAMPLES = 100_000
"""The largest number of training samples that are searched for nearest neighbours."""

MAX_GROUPS_PER_ROW = 3
"""The largest number of samples with their neighbours in one row of the grid of neighbours."""


def notes_on_few(n: int, requested: int | None) -> list[str]:
    """A note if only n real samples are compared with, unless the user requested so few."""
    if n >= ENOUGH_TO_RANK or (requested is not None and requested <= n):
        return []
    return [f"compared with only {count_noun(n, 'real sample')}: small differences may be chance"]


def notes_on_known_images(data: DataSplits) -> list[str]:
    """A note if samples of a run are measured against the images that it is trained on, because none are held out."""
    if not isinstance(data.train, SizedSource) or isinstance(data.held_out, SizedSource):
        return []
    return ["nothing is held out: the measures compare with training images, so a G that memorises them scores best"]


def check_neighbours(data: DataSplits) -> None:
    """Raises RecipeError if samples have no nearest training images, before anything is computed."""
    if not isinstance(data.train, SizedSource) or isinstance(data.train, StackedDigits):
        message = "the training data of this run has no fixed set of images"
        raise RecipeError(message, where="--neighbours", cure="leave it out")


def split_for_training(data: DataSplits) -> tuple[SizedSource, SizedSource] | None:
    """Images to train features on and others to compare with, if nothing is held out; None if something is.

    Features know the images that they are trained on: these are classified with more certainty, and spread in another
    way, than any other images. The halves depend on the contents and the classes only, see `held_out_split`.
    """
    train = data.train
    if not isinstance(train, ImageDataset) or isinstance(data.held_out, SizedSource):
        return None
    first, second = (
        train.select(indices, None if train.labels is None else train.labels[indices], train.classes)
        for indices in held_out_split(train.pixel_hashes(), train.labels, 0.5)
    )
    return (first, second) if len(second) else None


def check_arguments(data_config: object, data: object, n: object) -> None:
    """Refuse arguments of `Evaluator` of another type, or of values that it can't work with.

    Raises:
        RecipeError: one is; names it.
    """
    if not isinstance(data, DataSplits):
        what, cure = "must be what poise.data.load returns", "load it first"
        raise RecipeError(what, where="data", found=describe_type(data), cure=cure)
    if not (data_config is None or isinstance(data_config, DataConfig)):
        what, cure = "must be the config of the data, or None for images", "such as poise.data.FolderConfig(path=...)"
        raise RecipeError(what, where="data_config", found=describe_type(data_config), cure=cure)
    has_points = not isinstance(data.train, SizedSource) and not isinstance(data_config, VectorSetsConfig)
    if has_points and not isinstance(data_config, PlaneConfig):
        cure = "pass the config that they were loaded by, such as poise.data.RingConfig()"
        raise RecipeError("points are measured with their config", where="data_config", cure=cure)
    if n is not None and (isinstance(n, bool) or not isinstance(n, Integral) or n < 1):
        found = f"{n}" if isinstance(n, Real) else describe_type(n)
        raise RecipeError("must be a whole number of samples from 1 on", where="n", found=found)


class Evaluator:
    """Measures samples against real data.

    Args:
        data_config: the config of the data, which defines its modes and whether flips of training images count as
            training images (`mirror`); None for images without such flips.
        data: the data; samples are compared with its held-out split, or with a part of it if nothing is held out.
        features: see `poise.measure.extractors.make_extractor`; or a classifier that `poise.train_classifier` has
            returned, or the file of one.
        n: the number of samples to compare, 1 or more; by default the number of held-out samples, or half of all if
            none are held out, at most 5,000 (2,500 for 2-D data). If none are held out and features are trained on the
            data, half of it is for that, and the other half counts as all.
        max_n: the largest default of `n`.
        d: returns the discriminator, or is the reason why there is none.
        progress: called with what is being computed and which share of it is done.
        trust_code: whether a Python file may provide the features.

    Raises:
        RecipeError: an argument is none of these, or there are no such features for this data.
        DataError: the file of the features does not exist or can't be read.
    """

    def __init__(
        self,
        data_config: DataConfig | None,
        data: DataSplits,
        features: str | Path | StoredClassifier = "auto",
        n: int | None = None,
        *,
        max_n: int = MAX_SAMPLES,
        d: Callable[[], nn.Module] | str = "there is no discriminator",
        progress: Progress = no_progress,
        trust_code: bool = False,
    ) -> None:
        check_arguments(data_config, data, n)
        self.data_config, self.data, self.d, self.progress = data_config, data, d, progress
        self.mirror = bool(getattr(data_config, "mirror", False))
        self.notes: list[str] = []
        halves = split_for_training(data) if isinstance(features, str) and features in ("auto", *TRAINED) else None
        train, held_out = halves or (data.train, data.held_out)
        context = ExtractorContext(train, held_out, d, progress, trust_code, self.notes.append)
        self.extractor: Extractor = stored_extractor(features) or make_extractor(str(features), context)
        self._halves = halves if isinstance(self.extractor, tuple(TRAINED.values())) else None
        self.available: set[Requirement] = set()
        self.max_n = min(max_n, MAX_SAMPLES)
        self._floors: dict[str, Floor | None] = {}
        self._floor_contexts: dict[FloorSource, list[EvalContext]] = {}
        self.reference = self._reference_samples(n)
        self.real, self.n = self.reference.real, len(self.reference.real)
        self.notes += self.reference.notes
        self.notes += notes_on_few(self.n, n)
        num_available = len(self.reference.mode_samples)
        self.num_mode_samples = min(n or NUM_STACKS, num_available) if num_available else self.n

    def measure(
        self,
        samples: Callable[[int], Tensor],
        measures: Sequence[Measure],
        labels: Callable[[int], Tensor | None] = lambda n: None,
        duality_gap: Callable[[], float] | None = None,
        reconstructor: Reconstructor | None = None,
        translation: Callable[[int], Translation | None] = lambda n: None,
    ) -> EvaluationResult:
        """Measure samples; measures that cannot be computed are skipped with a reason.

        If a sample has a value that is not finite, such as NaN, all measures of the samples are skipped.

        Args:
            samples: returns n samples: points, n x 2, floating point; or images with the channels and the size of the
                data, floating point in [-1, 1], n x C x H x W, or as uint8 from 0 to 255, n x H x W x C. More than n
                are cut off.
            measures: the measures to compute.
            labels: returns the classes that the first n samples were generated for, or None if they are not known.
            duality_gap: estimates the duality gap of the game that the samples come from.
            reconstructor: reconstructs images, if the samples come from a run with an encoder.
            translation: returns what is known of the first n samples if they were translated, or None. The class of a
                source, if it is known, is that which its translation should have.

        Raises:
            RecipeError: there are fewer than n samples, or they have another shape or type.
        """
        translated = translation(self.n)
        of_sources = None if translated is None else translated.labels
        fake_labels = labels(self.n) if of_sources is None else of_sources
        num_generated = max(self.n, self.num_mode_samples if self._needs_mode_samples(measures) else 0)
        generated = samples(num_generated)
        check_form(generated, num_generated, self.data.train.shape)
        fakes = generated if generated.dtype == torch.uint8 else samples_to_bytes(generated)
        fake_labels = None if fake_labels is None else fake_labels[: self.n]
        fake = SampleSet(fakes[: self.n], self.extractor, fake_labels, progress=self.progress)
        context = self._context(fake, partial(self._count_modes, fakes), duality_gap)
        context.reconstructor, context.translation = reconstructor, translated
        context.refusal = describe_non_finite(generated[:num_generated])
        available = set(self.available)
        conditions: dict[Requirement, bool] = {
            "fake labels": fake_labels is not None,
            "game": duality_gap is not None,
            "logits": self.extractor.classifies,
            "class logits": self.extractor.has_data_classes,
            "encoder": reconstructor is not None,
            "likelihood": reconstructor is not None and reconstructor.elbo_terms is not None,
            "latents": of_sources is None,
            "source labels": of_sources is not None,
            "targets": translated is not None and translated.targets is not None,
            "cycle": translated is not None and translated.cycle_errors is not None,
        }
        available.update(requirement for requirement, is_met in conditions.items() if is_met)
        results, skipped = {}, {}
        for measure in measures:
            self.progress(measure.name, 0.0)
            uses_half = measure.floor == "halves" and measure.requires <= available
            measure_context = self._copying_context(context) if uses_half else context
            measured = compute_or_reason(measure, measure_context, available)
            if isinstance(measured, str):
                skipped[measure.name] = measured
            else:
                n = self.num_mode_samples if "modes" in measure.requires else len(measure_context.fake)
                floor = self._floor(measure, available)
                baseline = self._baseline(measure, context)
                results[measure.name] = MeasureResult(measured, floor, None if n == self.n else n, baseline)
        notes_on_sources = () if translated is None else translated.notes
        notes = (*self.notes, *notes_on_sources, *self._result_notes(results, measures))
        return EvaluationResult(len(fake), self.extractor.name, results, skipped, notes)

    def nearest_training_grid(self, samples: Tensor, k: int = 3) -> Bytes:
        """An image grid of samples, each followed by the k training images that are nearest to it in features.

        If the run trains on flipped images too, an image is shown as its flip where that is nearer. A row of the grid
        holds up to three such groups.

        Raises:
            RecipeError: see `check_neighbours`.
            DataError: samples are not finite.
        """
        check_neighbours(self.data)
        check_finite(samples, "--neighbours")
        assert self.train is not None
        fakes = SampleSet(samples_to_bytes(samples), self.extractor, progress=self.progress)
        known = [self.train] if self.flipped_train is None else [self.train, self.flipped_train]
        features = torch.cat([samples.features for samples in known]).double()
        indices = nearest_neighbours(fakes.features.double(), features, k * len(known)).indices
        groups = []
        for i, row in enumerate(indices.tolist()):
            nearest: dict[int, Tensor] = {}
            for version, image in (divmod(index, len(self.train)) for index in row):
                nearest.setdefault(image, known[version].normalized(slice(image, image + 1)))
            groups.append(torch.cat((fakes.normalized(slice(i, i + 1)), *list(nearest.values())[:k])))
        num_columns = grid_capacity(self.data.train.shape)[1]
        groups_per_row = max(1, min(MAX_GROUPS_PER_ROW, num_columns // (k + 1)))
        alpha = getattr(self.data_config, "alpha", True)
        return sample_grid(torch.cat(groups), None, groups_per_row * (k + 1), alpha=alpha)

    def _context(
        self, fake: SampleSet, count_modes: Callable[[], Modes], duality_gap: Callable[[], float] | None = None
    ) -> EvalContext:
        return EvalContext(
            fake,
            self.real,
            lambda: self.train,
            lambda: self.flipped_train,
            count_modes,
            self._d_extractor,
            duality_gap,
            num_classes=len(self.data.train.classes),
            progress=self.progress,
        )

    @cached_property
    def _d_extractor(self) -> DiscriminatorExtractor | None:
        return None if isinstance(self.d, str) else DiscriminatorExtractor(self.d(), "this run's")

    def _baseline(self, measure: Measure, context: EvalContext) -> float | None:
        """The measure of untranslated images, see `Measure.has_baseline`; None if there is none."""
        translation = context.translation
        if not measure.has_baseline or translation is None or translation.sources.shape != context.fake.samples.shape:
            return None
        sources = replace(context, fake=SampleSet(translation.sources, self.extractor))
        measured = compute_or_reason(measure, sources, set(measure.requires))
        return measured.value if isinstance(measured, MeasuredValue) else None

    def _copying_context(self, context: EvalContext) -> EvalContext:
        """The context with so few samples that the same number of other held-out samples remains for a floor."""
        real = self.reference.copying_draws[0].real
        return replace(context, fake=context.fake.subset(slice(len(real))), real=real)

    def _floor(self, measure: Measure, available: set[Requirement]) -> Floor | None:
        """The measure of real samples, computed on first use; None if there is no floor."""
        if measure.name not in self._floors:
            self._floors[measure.name] = self._compute_floor(measure, available)
        return self._floors[measure.name]

    def _compute_floor(self, measure: Measure, available: set[Requirement]) -> Floor | None:
        contexts = self._get_floor_contexts(measure.floor)
        if measure.slow or (self.is_stacked and "modes" in measure.requires):
            contexts = contexts[:1]  # each draw would train a model or classify thousands of stacks
        results = [compute_or_reason(measure, context, available) for context in contexts]
        values = [result.value for result in results if isinstance(result, MeasuredValue)]
        return Floor(fmean(values), stdev(values) if len(values) > 1 else None) if values else None

    def _get_floor_contexts(self, source: FloorSource) -> list[EvalContext]:
        """Contexts with real samples in place of the fake ones; all measures share them and their cached results."""
        if source not in self._floor_contexts:
            draws = {
                "other": lambda: self.reference.floor_draws,
                "real": lambda: [FloorDraw(self.real, self.real)],
                "halves": lambda: self.reference.copying_draws,
                "none": list[FloorDraw],
            }
            self._floor_contexts[source] = [self._floor_context(draw) for draw in draws[source]()]
        return self._floor_contexts[source]

    def _floor_context(self, draw: FloorDraw) -> EvalContext:
        is_plane = isinstance(self.data_config, PlaneConfig)
        mode_samples = draw.fake.samples if is_plane else self.reference.mode_samples
        return replace(self._context(draw.fake, partial(self._count_modes, mode_samples)), real=draw.real)

    @property
    def is_stacked(self) -> bool:
        """Whether the samples are stacks of digits, of which more are counted than compared."""
        return isinstance(self.data.train, StackedDigits)

    def _reference_samples(self, n: int | None) -> ReferenceSamples:
        """The real samples to compare with and those for the floors; fills `available` with what the data provides."""
        train, held_out = self.data.train, self.data.held_out
        if isinstance(self.data_config, VectorSetsConfig):
            raise RecipeError(NO_MEASURES, where="data.kind", found=f"'{self.data_config.tag()}'")
        if not isinstance(train, SizedSource):
            assert isinstance(self.data_config, PlaneConfig)
            if self.data_config.mode_centres() is not None:
                self.available.update(("modes", "mode centres"))
            return toy_reference(train, n or NUM_POINTS, self.extractor)
        if train.classes and (held_out is None or held_out.classes):
            self.available.add("labels")
        if not isinstance(self.d, str):
            self.available.add("d")
        if not isinstance(train, StackedDigits):
            self.available.add("train")
        if self._halves is not None:
            trained_on, others = self._halves
            self.notes.append(
                f"nothing is held out: the features are trained on {len(trained_on):,} of the real images, and the "
                f"other {len(others):,} are for the comparison and its floors"
            )
            return split_reference(others, n, self.max_n, self.extractor, self.progress)
        if not isinstance(held_out, SizedSource):
            return split_reference(train, n, self.max_n, self.extractor, self.progress)
        self.available.add("held out")
        reference = held_out_reference(
            train, held_out, n, self.max_n, self.extractor, self.progress, mirror=self.mirror
        )
        if isinstance(held_out, StackedDigits) and isinstance(self.extractor, ClassifierExtractor):
            self.available.add("modes")
            reference.mode_samples = held_out.gather(random_order(len(held_out))[:NUM_STACKS]).images
        return reference

    @cached_property
    def train(self) -> SampleSet | None:
        """The training samples, at most 100,000; None if their number is not fixed."""
        train = self.data.train
        if not isinstance(train, SizedSource) or isinstance(train, StackedDigits):
            return None
        if len(train) > MAX_TRAINING_SAMPLES:
            self.notes.append(f"copies are searched for in {MAX_TRAINING_SAMPLES:,} of {len(train):,} training images")
        return sample_set(train, train.evenly_spaced(MAX_TRAINING_SAMPLES), self.extractor, self.progress)

    @cached_property
    def flipped_train(self) -> SampleSet | None:
        """The flips of the training samples; None if the run does not train on them."""
        train = self.data.train
        if not self.mirror or not isinstance(train, SizedSource) or isinstance(train, StackedDigits):
            return None
        indices = train.evenly_spaced(MAX_TRAINING_SAMPLES)
        flipped = torch.ones(len(indices), dtype=torch.bool)
        return sample_set(train, indices, self.extractor, self.progress, flipped=flipped)

    def _needs_mode_samples(self, measures: Sequence[Measure]) -> bool:
        return any("modes" in measure.requires for measure in measures) and "modes" in self.available

    def _count_modes(self, samples: Tensor) -> Modes:
        samples = samples[: self.num_mode_samples]
        if isinstance(self.data_config, PlaneConfig):
            centres = self.data_config.mode_centres()
            assert centres is not None
            return count_modes(samples, *centres)
        assert isinstance(self.extractor, ClassifierExtractor), "the modes of stacked digits require a classifier"
        stacks, indices = SampleSet(samples, self.extractor), []
        with torch.no_grad():
            for part in batch_slices(len(samples)):
                self.progress("counting modes", part.start / len(samples))
                indices.append(self.extractor.mode_indices(stacks.normalized(part)))
        return count_mode_indices(torch.cat(indices), len(self.data.train.classes))

    def _result_notes(self, results: dict[str, MeasureResult], measures: Sequence[Measure]) -> list[str]:
        """Notes on values that use another number of samples, and on missing floors."""
        notes, floors = [], {measure.name: measure.floor for measure in measures if measure.name in results}
        if (
            any("modes" in measure.requires for measure in measures if measure.name in results)
            and self.num_mode_samples != self.n
        ):
            notes.append(f"modes: computed from {self.num_mode_samples:,} samples")
        for name, floor in floors.items():
            if floor == "halves" and (n := results[name].n) is not None:
                notes.append(f"{name}: computed from {n:,} samples; the other held-out images are used for its floor")
        if self.reference.no_floor_reason and "other" in floors.values():
            notes.append(f"most measures have no floor: {self.reference.no_floor_reason}")
        return notes
