"""Feature extractors by name: raw values, a classifier trained on the run's data, D, or a network from a file.

Distances in different features are different numbers, so every result names its features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poise.core.types import Shape
from poise.data.source import SizedSource, Source
from poise.data.stacked_digits import StackedDigits, mode_numbers
from poise.errors import RecipeError
from poise.measure import feature_cache
from poise.measure.classifier import MIN_SIDE, TrainedClassifier, can_train_on, load_or_train
from poise.measure.features import Extractor, ExtractorOutput, resize
from poise.measure.pretrained import load_pretrained
from poise.measure.rotations import MIN_IMAGES, RotatedImages
from poise.networks.base import call_network
from poise.utils.progress import Progress, no_progress

MAX_SIDE = 32
"""The size that `pixels` reduces larger images to; the Frechet distance needs a matrix of all pairs of values."""


class IdentityExtractor:
    """The values themselves: points of the plane, or pixels."""

    classifies = has_data_classes = False

    def __init__(self, shape: Shape) -> None:
        self.resizes = len(shape) == 3 and max(shape[1:]) > MAX_SIDE
        kind = "pixels" if len(shape) == 3 else "points"
        self.name = f"{kind} (resized to {MAX_SIDE} x {MAX_SIDE}, antialiased)" if self.resizes else kind
        self.key = feature_cache.cache_key(self.name)

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`."""
        return ExtractorOutput((resize(samples, MAX_SIDE) if self.resizes else samples).flatten(1))


class ClassifierExtractor:
    """The 64 features of the small classifier; for stacked digits, those of each channel, concatenated.

    Args:
        train: the labelled samples that the classifier is trained on.
        held_out: the samples that it is tested on; None to reserve some of `train`.
        progress: called with what is being computed and which share of it is done.
    """

    description = "classifier"

    @staticmethod
    def why_unavailable(train: SizedSource) -> str:
        """Why none can be trained on `train`; empty if one can."""
        if can_train_on(_classifier_source(train)):
            return ""
        return "a classifier requires labels, with twenty images per class on average"

    def __init__(self, train: SizedSource, held_out: SizedSource | None, progress: Progress = no_progress) -> None:
        self.num_channels = train.stack if isinstance(train, StackedDigits) else 1
        self.classifies = self.has_data_classes = self.num_channels == 1
        held_out = None if held_out is None else _classifier_source(held_out)
        self.classifier = load_or_train(_classifier_source(train), held_out, progress)
        per_channel = f" on each of {self.num_channels} channels" if self.num_channels > 1 else ""
        accuracy = f"accuracy {self.classifier.accuracy:.1%} on unseen images"
        self.name = f"{self.classifier.name}{per_channel}, {accuracy}"
        self.key = feature_cache.cache_key(self.classifier.name, self.num_channels)

    @property
    def warning(self) -> str:
        """Why its features are not meaningful, as the end of a sentence; empty if it has learned the classes."""
        return _describe_failure(self.classifier)

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`; there are no logits for stacked digits, whose modes `mode_indices` returns."""
        if self.num_channels == 1:
            return ExtractorOutput(*self.classifier.net(samples))
        return ExtractorOutput(torch.cat([features for features, _ in self._classify_channels(samples)], 1))

    def mode_indices(self, samples: Tensor) -> Tensor:
        """The predicted mode of each stack of digits, B."""
        return mode_numbers(torch.stack([logits.argmax(1) for _, logits in self._classify_channels(samples)], 1))

    def _classify_channels(self, samples: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [self.classifier.net(samples[:, channel : channel + 1]) for channel in range(self.num_channels)]


class RotationExtractor:
    """The 64 features of the small classifier, trained to tell how images were rotated: see `poise.measure.rotations`.

    Args:
        train: the images that the classifier is trained on.
        held_out: the images that it is tested on; None to reserve some of `train`.
        progress: called with what is being computed and which share of it is done.
    """

    classifies = has_data_classes = False
    description = "classifier of rotations"

    @staticmethod
    def why_unavailable(train: SizedSource) -> str:
        """Why none can be trained on `train`; empty if one can."""
        if isinstance(train, StackedDigits) or min(train.shape[1:]) < MIN_SIDE or len(train) < MIN_IMAGES:
            return f"a classifier of rotations requires {MIN_IMAGES} images of at least {MIN_SIDE} x {MIN_SIDE} pixels"
        return ""

    def __init__(self, train: SizedSource, held_out: SizedSource | None, progress: Progress = no_progress) -> None:
        test = None if held_out is None else RotatedImages(held_out)
        self.classifier = load_or_train(RotatedImages(train), test, progress)
        accuracy = f"accuracy {self.classifier.accuracy:.1%} on unseen images"
        self.name = f"{self.classifier.name} of rotations, {accuracy}"
        self.key = feature_cache.cache_key(self.name)

    @property
    def warning(self) -> str:
        """Why its features are not meaningful, as the end of a sentence; empty if it has learned the rotations."""
        return _describe_failure(self.classifier)

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`; there are no logits, as rotations are not classes of the data."""
        return ExtractorOutput(self.classifier.net(samples)[0])


class DiscriminatorExtractor:
    """The features of a discriminator before its score; they are not comparable between runs.

    They have no key: D may be of the user's code, and its settings are not known here.
    """

    classifies = has_data_classes = False
    key = None

    def __init__(self, d: nn.Module, name: str) -> None:
        self.d, self.name = d.eval(), f"features of D ({name})"

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        """See `Extractor`."""
        return ExtractorOutput(call_network(self.d, samples, None).features.float())


class ExtractorContext(NamedTuple):
    """What an extractor can be made from.

    Attributes:
        train: the training split, or the data that takes its place.
        held_out: the held-out split, if there is one.
        d: returns the discriminator of the run; or the reason why its features are not available.
        progress: called with what is being computed and which share of it is done.
        trust_code: whether Python files may be run.
        note: called with remarks that belong to every result.
    """

    train: Source
    held_out: Source | None
    d: Callable[[], nn.Module] | str = "there is no discriminator"
    progress: Progress = no_progress
    trust_code: bool = False
    note: Callable[[str], None] = lambda sentence: None


WITHOUT_FILE = ("auto", "pixels", "points", "d")
"""The names of features that need neither a file nor training."""


def make_extractor(spec: str, context: ExtractorContext) -> Extractor:
    """The extractor that `--features` names.

    Args:
        spec: one of `auto` (the first of these that is possible: a classifier that has learned the classes of the data,
            one that has learned to tell how images were rotated, pixels or points), `pixels`, `classifier`,
            `rotations`, `d`, `inception=FILE`, `FILE.py:NAME`, or NAME=FILE with the name of a torchvision network and
            a file of its weights.
        context: what the extractor can be made from.

    Raises:
        RecipeError: there are no such features, or not for this data; or these take no file.
        DataError: the file does not exist or cannot be read.
    """
    name, train = spec.partition("=")[0], context.train
    if name != spec and name in (*WITHOUT_FILE, *TRAINED):
        raise RecipeError("takes no file", where="--features", found=f"'{spec}'", cure=f"use --features {name}")
    if name == "auto":
        return _choose_extractor(context)
    if name in ("pixels", "points") or (not isinstance(train, SizedSource) and name in TRAINED):
        return IdentityExtractor(train.shape)
    if name == "d":
        if isinstance(context.d, str):
            raise RecipeError(context.d, where="--features", found="d", cure="choose other features, or auto")
        return DiscriminatorExtractor(context.d(), "this run's")
    if not isinstance(train, SizedSource):
        raise RecipeError("no such features for 2-D points", where="--features", found=name, cure="leave it out")
    if name in TRAINED:
        check_features(name, train)
        classifier = TRAINED[name](train, _sized_held_out(context), context.progress)
        if classifier.warning:
            reason = f"the {classifier.description} has {classifier.warning}"
            context.note(f"the features are not meaningful: {reason}; use --features pixels")
        return classifier
    alpha = not isinstance(train, StackedDigits)
    others = "auto, pixels, classifier, rotations, d, FILE.safetensors"
    return load_pretrained(spec, trust_code=context.trust_code, alpha=alpha, others=others)


def _choose_extractor(context: ExtractorContext) -> Extractor:
    """The extractor for `auto`, see `make_extractor`."""
    train, raw = context.train, IdentityExtractor(context.train.shape)
    if not isinstance(train, SizedSource):
        return raw
    failures: list[str] = []
    chosen: Extractor = raw
    description = "pixels"
    for extractor in TRAINED.values():
        if not extractor.why_unavailable(train):
            classifier = extractor(train, _sized_held_out(context), context.progress)
            if not classifier.warning:
                chosen, description = classifier, f"those of a {classifier.description}"
                break
            failures.append(f"a {classifier.description} has {classifier.warning}")
    for failure in failures:
        context.note(f"the features are {description}, because {failure}")
    return chosen


def _sized_held_out(context: ExtractorContext) -> SizedSource | None:
    return context.held_out if isinstance(context.held_out, SizedSource) else None


def check_features(name: str, train: Source) -> None:
    """Raises RecipeError if these features are not available for this data, before anything is trained or written."""
    if name in TRAINED and isinstance(train, SizedSource) and (reason := TRAINED[name].why_unavailable(train)):
        raise RecipeError(reason, where="--features", cure="use --features pixels")


TRAINED: dict[str, type[ClassifierExtractor | RotationExtractor]] = {
    "classifier": ClassifierExtractor,
    "rotations": RotationExtractor,
}
"""The extractors that are trained on the data, in the order in which `auto` tries them."""


def _describe_failure(trained: TrainedClassifier) -> str:
    """Why the features of a classifier are not meaningful, as the end of a sentence; empty if it has learned."""
    if trained.has_learned:
        return ""
    accuracy = f"an accuracy of {trained.accuracy:.1%} on {trained.num_tested:,} unseen images"
    return f"{accuracy}, of which {trained.majority_share:.1%} are of the largest class (p = {trained.p_value:.2g})"


def _classifier_source(source: SizedSource) -> SizedSource:
    """The labelled images that a classifier of this data is trained on; for stacked digits, the single digits."""
    return source.digits if isinstance(source, StackedDigits) else source
