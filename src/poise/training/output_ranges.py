"""What the user's own networks answer: whether G's samples can be pictures, and whether D's scores can be logits.

Pictures lie in [-1, 1], and most objectives read a score of either sign and any size. A G that ends in a sigmoid, in
[0, 255] or in a ReLU, and a D that ends in a sigmoid, train without an error and badly. Nothing declares how a network
ends, so it is asked: as it begins, and with weights that are drawn anew and large. What stays on one side of nought
with all of them was built so; what a network happens to answer at its start says little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import DiscriminatorOutput, packed_shape
from poise.data.source import Source
from poise.latents import Latent
from poise.networks.base import call_network
from poise.recipe.checks.findings import Finding
from poise.recipe.model import Recipe
from poise.user_code.components import UserDiscriminator, UserGenerator, UserObjective

ASKED, REDRAWN = 8, 4
"""Samples of a sort that a network is asked about, and how often its weights are drawn anew."""

GAIN = 3.0
"""How large the weights are that are drawn: of a standard deviation of this over the root of the inputs."""

FAR = 10.0
"""A first sample beyond this is on another scale. A linear end (R3GAN's, StyleGAN's) begins with some as far as 5."""

DROWNED = 0.2
"""Below this share of what the label does to a first sample, z counts as drowned."""

EDGE = 1e-3
"""What bfloat16 may lie beyond a bound."""


class OutputRange(NamedTuple):
    """The least and the greatest number that a network answered.

    Attributes:
        low, high: as it begins.
        least, most: with any of the weights.
    """

    low: float
    high: float
    least: float
    most: float

    @property
    def constant(self) -> bool:
        """Whether the answer was the same to everything, whatever the weights."""
        return self.least == self.most


def check_output_ranges(recipe: Recipe, source: Source) -> list[Finding]:
    """Warnings about own networks whose answers can't be what the game takes them for. Touches no stream of a run."""
    found: list[Finding] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        g, d, streams = recipe.network.g, recipe.network.d, RandomStreams(recipe.seed)
        labels = torch.arange(ASKED) % max(1, len(source.classes))
        if isinstance(g, UserGenerator) and len(source.shape) == 3:
            dim = recipe.latent.dim if recipe.labels.g is None else recipe.labels.g.latent_dim(recipe.latent.dim)
            z = torch.randn(ASKED, dim) if recipe.labels.g else recipe.latent.sample(ASKED, streams("ranges"))
            found += sample_range_warning(
                output_range(g.build(dim, source.shape), lambda net: call_network(net, z, labels))
            )
        free = (
            isinstance(d, UserDiscriminator)
            and d.output_kind == "score"
            and not isinstance(recipe.objective, UserObjective)
        )
        if isinstance(d, UserDiscriminator) and free and recipe.objective.tag() != "least_squares":
            shape = packed_shape(source.shape, recipe.pack)
            shape = shape if recipe.labels.d is None else recipe.labels.d.input_shape(shape)
            origins = [2 * torch.rand(ASKED, *shape) - 1]
            if shape == source.shape:
                origins.append(source.preview(ASKED))
            sided = not (recipe.objective.is_relativistic or recipe.objective.needs_lipschitz_bound)
            told = output_range(
                d.build(shape), lambda net: torch.cat([_scores(net, origin, labels) for origin in origins])
            )
            found += score_range_warning(told, str(recipe.objective.tag()), sided=sided)
    return found


@torch.no_grad()
def label_dominates(net: nn.Module, latent: Latent, classes: int, streams: RandomStreams) -> list[Finding]:
    """A warning if in a fresh G the label moves samples much more than z does: each class would be one picture.

    Compared are the mean standard deviations of a sample's numbers over latents, the label being the same, and over
    labels, the latent being the same. The network is left as it is.
    """
    count = min(classes, ASKED)
    z = latent.sample(ASKED, streams("ranges/latents")).repeat_interleave(count, 0)
    labels = (torch.arange(len(z)) % count).to(z.device)
    training = net.training
    net.eval()
    try:
        made = call_network(net, z, labels).float().flatten(1).unflatten(0, (ASKED, count))
    finally:
        net.train(training)
    by_latent, by_label = (float(made.std(dim).mean()) for dim in (0, 1))
    if by_latent >= DROWNED * by_label:
        return []
    reason = f"another label moves a first sample {by_label / max(by_latent, 1e-12):.0f} times as far as another z does"
    cure = "bring both to one scale: latent.kind gaussian, or sphere with length sqrt_dim"
    return [Finding("latent", reason, "T17", cure)]


def _scores(net: nn.Module, origin: Tensor, labels: Tensor) -> Tensor:
    said = call_network(net, origin, labels[: len(origin)])
    return (said.score if isinstance(said, DiscriminatorOutput) else said).flatten()


@torch.no_grad()
def output_range(net: nn.Module, ask: Callable[[nn.Module], Tensor]) -> OutputRange:
    """How far a network's answers reach. Its weights are lost."""
    net.eval()
    first = ask(net).float()
    answers = [first, *(ask(net).float() for _ in _redrawn(net))]
    ends = [(float(one.min()), float(one.max())) for one in answers if one.isfinite().all()]
    if not ends:
        return OutputRange(float("-inf"), float("inf"), float("-inf"), float("inf"))
    (low, high), least, most = ends[0], min(low for low, _ in ends), max(high for _, high in ends)
    return OutputRange(low, high, least, most)


def _redrawn(net: nn.Module) -> Iterator[None]:
    for _ in range(REDRAWN):
        for weight in net.parameters():
            inputs = weight[0].numel() if weight.dim() > 1 else 1
            weight.copy_(GAIN / max(1, inputs) ** 0.5 * torch.randn_like(weight))
        yield


def sample_range_warning(told: OutputRange) -> list[Finding]:
    """What is wrong with a G of pictures that reaches so far, if anything is."""

    def warn(reason: str, cure: str) -> list[Finding]:
        return [Finding("network.g", f"{reason}, and pictures lie in [-1, 1]", "T01", cure)]

    if told.constant:
        return []
    if told.least >= 0 and told.most <= 1 + EDGE:
        return warn("all its samples lie in [0, 1], as behind a sigmoid", "end it in a tanh, or in 2 * x - 1")
    if told.least >= 0:
        return warn(f"its samples are never below 0 and go up to {told.most:.4g}", "end it in a tanh, not in 0 to 255")
    if max(-told.low, told.high) > FAR:
        return warn(f"its first samples lie in [{told.low:.3g}, {told.high:.3g}]", "end it in a tanh")
    return []


def score_range_warning(told: OutputRange, objective: str, *, sided: bool = True) -> list[Finding]:
    """What is wrong with a D whose scores reach so far, if anything is.

    Args:
        told: its scores of noise and of real samples.
        objective: what reads them.
        sided: whether a score that never changes its sign is wrong as well: not where scores are only compared.
    """

    def warn(reason: str, cure: str) -> list[Finding]:
        return [Finding("network.d", f"{reason}, and '{objective}' reads a free score (a logit)", "T06a", cure)]

    everywhere = "of noise and of real samples, whatever its weights"
    if told.constant:
        return warn(f"its score is {told.most:.3g} for everything, whatever its weights", "look at how it ends")
    if told.least >= 0 and told.most <= 1 + EDGE:
        return warn(f"all its scores lie in [0, 1], {everywhere}", "leave the sigmoid (or softmax) at its end out")
    if sided and told.least >= 0:
        return warn(f"its scores are never below 0, {everywhere}", "end it in a linear layer")
    if sided and told.most <= 0:
        cure = 'end it in a linear layer, or say that it is minus an energy: says = "energy"'
        return warn(f"its scores are never above 0, {everywhere}", cure)
    return []
