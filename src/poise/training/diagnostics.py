"""Diagnostics: statistics of G's samples and of both players' updates, computed for each logged row.

The latents are always the same, networks are in evaluation mode, with the precision of the run, and none of the run's
random streams is used. All numbers stay on the device until they are copied in one transfer.

Of a G that translates, only the images that it generates are examined. Where these are of two domains, a statistic is
the smaller one of both, so that one direction does not hide the collapse of the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.core.metrics_log import Stat
from poise.core.random_streams import RandomStreams
from poise.core.types import Side, to_float64
from poise.data.source import DataSplits, SizedSource
from poise.engine.batches import sampling_latent
from poise.engine.game import Game
from poise.networks.base import call_network
from poise.networks.translation import GeneratedPart, generated_parts
from poise.recipe.model import Recipe
from poise.runs.generate import generate
from poise.runs.labels import proportional_labels
from poise.training.memorization import Fraction, MemorizationCheck

COUNT = 64
"""The number of samples that are examined."""

GREY_LIMIT = 0.95
"""Pixels of a smaller absolute value are grey, the others black or white."""

NOISE = 1e-6
"""A denominator below this fraction of its scale is rounding noise, and the ratio is left out."""


def mean_pairwise_distance(samples: Tensor) -> Tensor:
    """The mean Euclidean distance between two of n samples, n x ..., 0-dim."""
    flat = samples.float().flatten(1)
    return torch.pdist(flat.to(pairwise_device(flat.device))).mean()


def pairwise_device(device: torch.device) -> torch.device:
    """The device for pairwise distances and adaptive pooling: `device`, or the CPU for mps, which supports neither."""
    return torch.device("cpu") if device.type == "mps" else device


def mean_norm(samples: Tensor) -> Tensor:
    """The mean Euclidean norm of n samples, n x ..., 0-dim: the scale of their distances."""
    return samples.float().flatten(1).norm(dim=1).mean()


def share_of_grey(images: Tensor) -> Tensor:
    """The fraction of pixels that are neither black nor white, 0-dim."""
    return (images.abs() < GREY_LIMIT).float().mean()


def most_common_classes(counts: Sequence[int], max_classes: int) -> list[int]:
    """Class counts with 0 in place of all but the `max_classes` largest."""
    largest = sorted(range(len(counts)), key=lambda index: -counts[index])[:max_classes]
    return [count if index in largest else 0 for index, count in enumerate(counts)]


def label_pairs(labels: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Other labels for N samples, and pairs of samples of the same label.

    Args:
        labels: int64, N.
        counts: the number of training images of each class.

    Returns:
        For each sample the next class that has images, int64, N; and pairs of indices of samples that have the same
        label, int64, M x 2.
    """
    classes = [index for index, count in enumerate(counts) if count]
    following = dict(zip(classes, classes[1:] + classes[:1], strict=True))
    order = labels.argsort(stable=True)
    adjacent = torch.stack((order[:-1], order[1:]), 1)
    other_labels = torch.tensor([following[label] for label in labels.tolist()])
    return other_labels, adjacent[labels[adjacent[:, 0]] == labels[adjacent[:, 1]]]


class Diagnostics:
    """Computes the diagnostics of one run.

    Args:
        recipe: the recipe; which diagnostics there are depends on its labels, networks and packing.
        data: the data splits; real samples are the reference of most diagnostics.
        game: the players.
        device: the device of the players.
    """

    def __init__(self, recipe: Recipe, data: DataSplits, game: Game, device: torch.device) -> None:
        self.game, self.device, self.streams = game, device, RandomStreams(0, device)
        self.one = torch.ones((), device=device)
        latent, source = sampling_latent(recipe.latent, data, device), data.train
        if latent.is_space:
            self.latents = latent.sample(COUNT, self.streams("vitals"))
        else:
            self.latents = latent.block(0, COUNT, self.streams, "vitals")
        self.labels: Tensor | None = None
        if recipe.labels.g:
            counts = most_common_classes(source.class_counts, COUNT // 4)
            self.labels = proportional_labels(COUNT, counts, 0).to(device)
            self.other_labels, self.pairs = (part.to(device) for part in label_pairs(self.labels.cpu(), counts))
            self.compares_labels = len(self.pairs) > 0 and bool((self.other_labels != self.labels).any())
        real = source.preview(COUNT).to(device)
        self.real_labels: Tensor | None = None
        if recipe.labels.d and isinstance(source, SizedSource):
            real_labels = source.gather_labels(source.evenly_spaced(COUNT))
            self.real_labels = None if real_labels is None else real_labels.to(device)
        d = None if game.d is None or recipe.pack > 1 else game.d.net
        self.feature_network = None if getattr(d, "width", None) is None else d
        self.real = real
        parts = generated_parts(recipe.network.direction, source.parts)
        self.examined = [ExaminedPart(part, recipe, data, real) for part in parts]
        self._weights_before: dict[Side, list[Tensor]] = {}

    def before_step(self) -> None:
        """Copy the weights, so that `compute` can tell how far the next step has moved them."""
        for side, player in self.game.players.items():
            self._weights_before[side] = [weight.detach().clone() for weight in player.weights]

    @torch.no_grad()
    def compute(self) -> dict[str, Stat]:
        """All diagnostics by their names in `rows.jsonl`.

        A ratio whose denominator is 0 or rounding noise is left out.
        """
        fractions: list[tuple[str, Fraction]] = []
        for side, before in self._weights_before.items():
            updates = torch._foreach_sub([weight.detach() for weight in self.game.players[side].weights], before)
            fractions.append((f"{side}/update", (torch.stack(torch._foreach_norm(updates)).norm(), self.one, self.one)))
        self._weights_before.clear()
        fake = self._generate(self.labels)
        for examined in self.examined:
            fractions += examined.compute(fake).items()
        if self.feature_network is not None:
            fake_features = self._features(self.feature_network, fake, self.labels)
            real_features = self._features(self.feature_network, self.real, self.real_labels)
            if fake_features is not None and real_features is not None:
                distances = mean_pairwise_distance(fake_features), mean_pairwise_distance(real_features)
                fractions.append(("g/feature_diversity", (*distances, mean_norm(real_features))))
        if self.labels is not None and self.compares_labels:
            other = self._generate(self.other_labels)
            fractions += [("g/label_effect", self._label_effect(one.part, fake, other)) for one in self.examined]
        tensors = [torch.stack([part.to(self.device) for part in fraction]) for _, fraction in fractions]
        numbers = torch.stack([to_float64(tensor) for tensor in tensors]).tolist()
        ratios: dict[str, float] = {}
        for (name, _), (numerator, denominator, scale) in zip(fractions, numbers, strict=True):
            if not denominator <= NOISE * scale:
                ratio, known = numerator / denominator, ratios.get(name, math.inf)
                ratios[name] = ratio if ratio < known or math.isnan(ratio) else known
        return {name: Stat.of(ratio) for name, ratio in ratios.items()}

    def _generate(self, labels: Tensor | None) -> Tensor:
        with self.game.autocast():
            return generate(self.game.g.net, self.latents, labels, streams=self.streams, block=COUNT).float()

    def _features(self, d: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor | None:
        training = d.training
        d.eval()
        try:
            with self.game.autocast(), self.streams.seeded_global("vitals/layers"):
                return call_network(d, images, labels).features
        finally:
            d.train(training)

    def _label_effect(self, part: GeneratedPart, fake: Tensor, other: Tensor) -> Fraction:
        """How far a sample moves with another label, relative to another z with the same label."""
        flat = part.of(fake).flatten(1)
        by_label = (part.of(other).flatten(1) - flat).norm(dim=1).mean()
        by_latent = (flat[self.pairs[:, 0]] - flat[self.pairs[:, 1]]).norm(dim=1).mean()
        return by_label, by_latent, mean_norm(flat)


class ExaminedPart:
    """The statistics of G's samples, or of the part of them that it generates in one domain.

    Args:
        part: the part.
        recipe: the recipe.
        data: the data splits.
        real: real samples, n x shape, on the device.
    """

    def __init__(self, part: GeneratedPart, recipe: Recipe, data: DataSplits, real: Tensor) -> None:
        self.part, self.device, real = part, real.device, part.of(real)
        self.real_distance, self.real_norm = mean_pairwise_distance(real), mean_norm(real)
        self.has_images = real.dim() == 4
        self.real_grey = share_of_grey(real) if self.has_images else None
        self.memorization: MemorizationCheck | None = None
        if self.has_images:
            data = data if part.is_whole else data.domain(part.index)
            known, new = data.train, data.held_out
            if isinstance(known, SizedSource) and isinstance(new, SizedSource):
                self.memorization = MemorizationCheck(
                    known, new, pairwise_device(self.device), mirror=recipe.mirrors_images
                )

    def compute(self, samples: Tensor) -> dict[str, Fraction]:
        """The statistics of samples, n x shape, by their names in `rows.jsonl`."""
        fake = self.part.of(samples)
        fractions: dict[str, Fraction] = {
            "g/diversity": (mean_pairwise_distance(fake), self.real_distance, self.real_norm)
        }
        if self.real_grey is not None:
            fractions["g/shades"] = share_of_grey(fake), self.real_grey, torch.ones_like(self.real_grey)
        if self.memorization is not None:
            fractions |= self.memorization.compute(fake.to(pairwise_device(self.device)))
        return fractions
