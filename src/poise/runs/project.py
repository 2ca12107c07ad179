"""Projects an image into the latent space of a run: finds a latent whose sample is near the image.

The projection is a function of the run, the image and the settings. `optimize_latent.py` has the optimisation,
`latent_space.py` where it takes place, `measure/image_distance.py` what it minimises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.data.source import DataSplits, SizedSource
from poise.errors import RecipeError
from poise.measure.extractors import ExtractorContext, IdentityExtractor, make_extractor
from poise.measure.image_distance import ImageDistance
from poise.measure.sample_set import BATCH_SIZE
from poise.networks.base import intermediate_space
from poise.runs.encode import codes_to_latents, encode_samples
from poise.runs.generate import BLOCK, generate
from poise.runs.latent_space import NUM_MEAN, LatentSpace, Space, Start, WSpace, ZSpace, repeat_label
from poise.runs.optimize_latent import Trajectory, optimize_latent
from poise.runs.run import Run
from poise.utils.images import to_float
from poise.utils.progress import Progress, no_progress

MAX_STARTS = 2048
"""The largest number of random samples to start from over all labels, if there are several."""

NUM_RANDOM = 64
"""The number of random samples whose distances the result is compared with."""

NUM_REAL, NUM_SEARCHED = 500, 2000
"""The numbers of training images that set the scale of the distance, and that are searched for the nearest one."""


@dataclass(frozen=True)
class ProjectionSettings:
    """How an image is projected.

    Attributes:
        steps: the number of steps.
        seed: the seed of the random latents and of the noise.
        space: the latent space; None for w if the generator has one, otherwise z.
        label: the label of the samples; None for the one with the nearest start, if the generator takes labels.
        starts: the number of random latents from which the nearest is the start, per label; in w it has no effect.
        raw: whether to use the non-averaged weights.
    """

    steps: int = 500
    seed: int = 0
    space: Space | None = None
    label: int | None = None
    starts: int = 64
    raw: bool = False


class Encoded(NamedTuple):
    """A latent z from an encoder, 1 x dim, and what it is."""

    latent: Tensor
    description: str


class NearestStart(NamedTuple):
    """The start that is nearest to the target, and its distance."""

    distance: float
    start: Start


class Comparison(NamedTuple):
    """Distances to compare the result with.

    Attributes:
        random: the median distance of random samples with the label of the result.
        nearest: the smallest distance of a training image.
        num_searched: the number of training images that were searched.
    """

    random: float
    nearest: float
    num_searched: int


class Projection(NamedTuple):
    """A projected image.

    Attributes:
        space: the latent space of the result.
        label: the label of the result; None if the generator takes none.
        start: what the optimisation started from, such as "the mean of w".
        trajectory: the steps and the result, with its latent and image.
        comparison: distances to compare it with.
        distance: what the distances are computed from; 1 is that of two random training images.
        notes: remarks on the distance.
    """

    space: Space
    label: int | None
    start: str
    trajectory: Trajectory
    comparison: Comparison
    distance: str
    notes: tuple[str, ...]

    @property
    def latent(self) -> Tensor:
        """The latent of the result, dim."""
        return self.trajectory.latent

    @property
    def image(self) -> Tensor:
        """The result, C x H x W in [-1, 1]."""
        return self.trajectory.image


def project(
    run: Run,
    target: Tensor,
    settings: ProjectionSettings,
    *,
    data_root: Path | None = None,
    progress: Progress = no_progress,
) -> Projection:
    """Find a latent whose sample is near `target`.

    The distance is an `ImageDistance` in pixels and in the features that `poise measure` chooses for the data: those of
    a classifier, or pixels alone.

    Args:
        run: a run on images.
        target: the image, C x H x W in [-1, 1].
        settings: see there.
        data_root: the folder in which named data sets are looked for.
        progress: called with the progress of slow work.

    Raises:
        RecipeError: the generator has no such space, or takes no labels.
        DataError: the data is missing, or not what the run was trained on.
        CheckpointError: the run has no valid checkpoint.
    """
    run.check_space()
    net, streams = run.generator(raw=settings.raw), RandomStreams(settings.seed)
    space_name = choose_space(net, settings.space)
    splits, notes = run.load(data_root), list[str]()
    assert isinstance(splits.train, SizedSource), "image data has a number of images"
    distance = _make_distance(splits, run.trust_code, notes.append, progress)
    distance_to_target = distance.to(target)
    progress("comparing with training images", 0.0)
    nearest, index, num_searched = _nearest_real(splits.train, distance_to_target)
    encoded = _encode(run, target, index, streams)
    progress("comparing with random samples", 0.0)
    with _evaluation(net, streams):
        spaces = _make_spaces(run, net, space_name, settings, streams, notes.append)
        starts = {label: _nearest_start(space, encoded, distance_to_target) for label, space in spaces.items()}
        label = min(starts, key=lambda label: starts[label].distance)
        start, noise = starts[label].start, streams("project/noise")
        trajectory = optimize_latent(spaces[label], start, distance_to_target, settings.steps, noise, progress)
    latents = run.latents(NUM_RANDOM, settings.seed)
    with torch.no_grad():
        random = distance_to_target(generate(net, latents, repeat_label(label, latents), streams=streams))
    comparison = Comparison(float(random.median()), nearest, num_searched)
    return Projection(space_name, label, start.description, trajectory, comparison, distance.name, tuple(notes))


def choose_space(net: nn.Module, wanted: Space | None) -> Space:
    """The space of a projection: the one that is wanted; otherwise w if the generator has one, and z if not.

    Raises:
        RecipeError: w is wanted, and the generator has none.
    """
    has_w = intermediate_space(net) is not None
    if wanted == "w" and not has_w:
        cure = "use --space z; networks such as stylegan2 have a w"
        raise RecipeError("this run's generator has no intermediate latents w", where="--space", cure=cure)
    return wanted or ("w" if has_w else "z")


def _make_distance(
    splits: DataSplits, trust_code: bool, note: Callable[[str], None], progress: Progress
) -> ImageDistance:
    """The distance in pixels and in the features that are chosen for the data."""
    train = splits.train
    context = ExtractorContext(train, splits.held_out, progress=progress, trust_code=trust_code, note=note)
    extractor = make_extractor("auto", context)
    return ImageDistance(train.preview(NUM_REAL), None if isinstance(extractor, IdentityExtractor) else extractor)


@contextmanager
def _evaluation(net: nn.Module, streams: RandomStreams) -> Iterator[None]:
    """Put the generator in evaluation mode, let its random layers draw from `streams`, and restore both afterwards."""
    training = net.training
    net.eval()
    try:
        with streams.seeded_global("sample/layers"):
            yield
    finally:
        net.train(training)


@torch.no_grad()
def _nearest_real(train: SizedSource, distance: Callable[[Tensor], Tensor]) -> tuple[float, int, int]:
    """The smallest distance of a training image, its index, and how many were searched."""
    indices = train.evenly_spaced(NUM_SEARCHED)
    batches = [distance(to_float(train.gather(part).images)) for part in indices.split(BATCH_SIZE)]
    distances = torch.cat(batches)
    nearest = int(distances.argmin())
    return float(distances[nearest]), int(indices[nearest]), len(indices)


def _encode(run: Run, target: Tensor, nearest_index: int, streams: RandomStreams) -> Encoded | None:
    """The code of the target, or that of the nearest training image if only these have one; None without an encoder."""
    encoder = run.recipe.network.e
    if encoder is None or not run.recipe.needs_codes:
        return None
    codes = encode_samples(run.game, target[None], torch.tensor([nearest_index]), streams)
    whose = "the nearest training image" if encoder.by_index else "the image"
    return Encoded(codes_to_latents(run.recipe.latent, codes), f"the code of {whose}")


def _make_spaces(
    run: Run,
    net: nn.Module,
    name: Space,
    settings: ProjectionSettings,
    streams: RandomStreams,
    note: Callable[[str], None],
) -> dict[int | None, LatentSpace]:
    """The latent space for each label that the result may have."""
    labels: list[int | None] = [settings.label]
    if settings.label is None and run.recipe.labels.g is not None:
        labels = [label for label, count in enumerate(run.class_counts) if count]
    intermediate = intermediate_space(net)
    if name == "w" and intermediate is not None:
        latents = run.latents(NUM_MEAN, settings.seed)
        return {label: WSpace(intermediate, label, latents, streams) for label in labels}
    starts, most = settings.starts, max(1, MAX_STARTS // len(labels))
    if len(labels) > 1 and starts > most:
        starts = most
        note(f"{most:,} starts for each of {len(labels):,} classes, {MAX_STARTS:,} in all; give a label for more")
    latents = run.latents(starts, settings.seed)
    return {label: ZSpace(net, run.recipe.latent, label, latents, streams) for label in labels}


@torch.no_grad()
def _nearest_start(space: LatentSpace, encoded: Encoded | None, distance: Callable[[Tensor], Tensor]) -> NearestStart:
    """The start in one space that is nearest to the target."""
    starts = space.starts() + ([] if encoded is None else [space.start_from_code(*encoded)])
    latents = torch.cat([start.latent for start in starts])
    distances = torch.cat([distance(space.synthesize(part)) for part in latents.split(BLOCK)])
    nearest = int(distances.argmin())
    return NearestStart(float(distances[nearest]), starts[nearest])
