"""Vital signs: a few numbers about G's samples and both players' steps, taken once a row for the monitor.

The same latents each time, in evaluation mode, without touching any of the run's random numbers; each number stays on
the device until all of them move in one transfer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from poise.core.metrics_log import Stat
from poise.core.random_streams import RandomStreams
from poise.core.types import Side, to_float64
from poise.data.source import DataSplits, SizedSource
from poise.engine.game import Game
from poise.networks.base import call_network
from poise.recipe.model import Recipe
from poise.runs.generate import generate, proportional_labels
from poise.training.memorization import Fraction, MemorizationCheck

COUNT = 64
"""Samples that are looked at."""

SHADE = 0.95
"""Pixels nearer to 0 than this are shades, the others black or white."""

NOISE = 1e-6
"""A number below this share of its scale is rounding noise, and nothing is divided by it."""


def mean_pairwise_distance(samples: Tensor) -> Tensor:
    """The mean Euclidean distance between two of n samples (n x anything), 0-dim."""
    flat = samples.float().flatten(1)
    return torch.pdist(flat.to(supports_pairwise(flat.device))).mean()


def supports_pairwise(device: torch.device) -> torch.device:
    """Where distances of all pairs and means over uneven fields can be worked out: not on mps, which lacks both."""
    return torch.device("cpu") if device.type == "mps" else device


def mean_norm(samples: Tensor) -> Tensor:
    """The mean Euclidean length of n samples (n x anything), 0-dim: the scale of their distances."""
    return samples.float().flatten(1).norm(dim=1).mean()


def share_of_grey(images: Tensor) -> Tensor:
    """The share of pixels that are neither black nor white, 0-dim."""
    return (images.abs() < SHADE).float().mean()


def most_common_classes(counts: Sequence[int], most: int) -> list[int]:
    """Class counts with 0 in place of all but the `most` largest."""
    kept = sorted(range(len(counts)), key=lambda kind: -counts[kind])[:most]
    return [count if kind in kept else 0 for kind, count in enumerate(counts)]


def arranged(labels: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """For each of N labels the next class with a picture, N; and pairs of places that have the same label, M x 2."""
    kinds = [kind for kind, count in enumerate(counts) if count]
    following = dict(zip(kinds, kinds[1:] + kinds[:1], strict=True))
    order = labels.argsort(stable=True)
    neighbours = torch.stack((order[:-1], order[1:]), 1)
    others = torch.tensor([following[kind] for kind in labels.tolist()])
    return others, neighbours[labels[neighbours[:, 0]] == labels[neighbours[:, 1]]]


class Diagnostics:
    """Takes them.

    Args:
        recipe: whose tricks say what can be looked at.
        loaded: real samples to compare with.
        game: the players.
        device: where they are.
    """

    def __init__(self, recipe: Recipe, loaded: DataSplits, game: Game, device: torch.device) -> None:
        self.game, self.device, self.streams = game, device, RandomStreams(0, device)
        self.one = torch.ones((), device=device)
        self.latents = recipe.latent.sample(COUNT, self.streams("vitals"))
        source = loaded.train
        self.labels: Tensor | None = None
        if recipe.labels.g:
            counts = most_common_classes(source.class_counts, COUNT // 4)
            self.labels = proportional_labels(COUNT, counts, 0).to(device)
            self.others, self.pairs = (part.to(device) for part in arranged(self.labels.cpu(), counts))
            self.compares_labels = len(self.pairs) > 0 and bool((self.others != self.labels).any())
        real = source.preview(COUNT).to(device)
        self.kinds: Tensor | None = None
        if recipe.labels.d and isinstance(source, SizedSource):
            kinds = source.gather_labels(source.evenly_spaced(COUNT))
            self.kinds = None if kinds is None else kinds.to(device)
        d = None if game.d is None or recipe.pack > 1 else game.d.net
        self.featured = None if getattr(d, "width", None) is None else d
        self.real, self.pictures = real, real.dim() == 4
        self.real_spread, self.real_shades = (
            mean_pairwise_distance(real),
            share_of_grey(real) if self.pictures else None,
        )
        others, self.neighbours = loaded.held_out, None
        if self.pictures and isinstance(source, SizedSource) and isinstance(others, SizedSource):
            self.neighbours = MemorizationCheck(source, others, supports_pairwise(device))
        self._before: dict[Side, list[Tensor]] = {}

    def before_step(self) -> None:
        """Remember the weights: the next step's length is wanted."""
        for side, player in self.game.players.items():
            self._before[side] = [weight.detach().clone() for weight in player.weights]

    @torch.no_grad()
    def compute(self) -> dict[str, Stat]:
        """All of them, by the names of `rows.jsonl`; a ratio to 0, or to rounding noise, is left out."""
        told: dict[str, Fraction] = {}
        for side, before in self._before.items():
            moved = torch._foreach_sub([weight.detach() for weight in self.game.players[side].weights], before)
            told[f"{side}/update"] = torch.stack(torch._foreach_norm(moved)).norm(), self.one, self.one
        self._before.clear()
        fake = self._made(self.labels)
        told["g/diversity"] = mean_pairwise_distance(fake), self.real_spread, mean_norm(self.real)
        if self.real_shades is not None:
            told["g/shades"] = share_of_grey(fake), self.real_shades, self.one
        if self.neighbours is not None:
            told |= self.neighbours.compute(fake.to(supports_pairwise(self.device)))
        if self.featured is not None:
            piles = ((fake, self.labels), (self.real, self.kinds))
            ours, theirs = (self._features(self.featured, images, kinds) for images, kinds in piles)
            if ours is not None and theirs is not None:
                told["g/feature_diversity"] = (
                    mean_pairwise_distance(ours),
                    mean_pairwise_distance(theirs),
                    mean_norm(theirs),
                )
        if self.labels is not None and self.compares_labels:
            told["g/label_effect"] = self._label_effect(fake)
        fractions = [torch.stack([part.to(self.device) for part in fraction]) for fraction in told.values()]
        parts = torch.stack([to_float64(fraction) for fraction in fractions]).tolist()
        named = zip(told, parts, strict=True)
        return {name: Stat.of(above / below) for name, (above, below, scale) in named if not below <= NOISE * scale}

    def _made(self, labels: Tensor | None) -> Tensor:
        return generate(self.game.g.net, self.latents, labels, streams=self.streams, block=COUNT)

    def _features(self, d: nn.Module, images: Tensor, kinds: Tensor | None) -> Tensor | None:
        training = d.training
        d.eval()
        try:
            with self.streams.seeded_global("vitals/layers"):
                return call_network(d, images, kinds).features
        finally:
            d.train(training)

    def _label_effect(self, fake: Tensor) -> Fraction:
        """How far another label moves a sample, and how far another z of its own label does."""
        flat = fake.flatten(1)
        by_label = (self._made(self.others).flatten(1) - flat).norm(dim=1).mean()
        by_latent = (flat[self.pairs[:, 0]] - flat[self.pairs[:, 1]]).norm(dim=1).mean()
        return by_label, by_latent, mean_norm(fake)
