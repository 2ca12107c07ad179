"""Checks the output range of user-defined networks: can G's samples be images, and can D's scores be logits?

Images lie in [-1, 1], and most objectives expect unbounded scores of either sign. A G that ends in a sigmoid, in a ReLU
or in [0, 255], and a D that ends in a sigmoid, train badly and without an error. User code does not declare its last
layer, so the network is run with its initial weights and with several sets of large random weights. An output that has
the same sign with all of these weights is so by design; the initial outputs alone say little.
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

NUM_SAMPLES, NUM_REDRAWS = 8, 4
"""The samples per batch on which a network is run, and how often its weights are drawn anew."""

GAIN = 3.0
"""The scale of the new weights: their standard deviation is this over the square root of the number of inputs."""

MAX_INITIAL = 10.0
"""First samples beyond this are on a wrong scale. A linear output (R3GAN, StyleGAN) may begin with values up to 5."""

MIN_LATENT_EFFECT = 0.2
"""The effect of z on a first sample, relative to that of the label, below which the label dominates."""

TOLERANCE = 1e-3
"""How far bfloat16 may exceed a bound."""


class OutputRange(NamedTuple):
    """The smallest and the largest output of a network.

    Attributes:
        initial_low, initial_high: with the initial weights.
        low, high: over all sets of weights.
    """

    initial_low: float
    initial_high: float
    low: float
    high: float

    @property
    def is_constant(self) -> bool:
        """Whether the output was the same for all inputs and all weights."""
        return self.low == self.high


def check_output_ranges(recipe: Recipe, source: Source) -> list[Finding]:
    """Warnings about user-defined networks with unsuitable output ranges. No random stream of a run is used."""
    findings: list[Finding] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        g, d, streams = recipe.network.g, recipe.network.d, RandomStreams(recipe.seed)
        labels = torch.arange(NUM_SAMPLES) % max(1, len(source.classes))
        if isinstance(g, UserGenerator) and len(source.shape) == 3:
            dim = recipe.latent.dim if recipe.labels.g is None else recipe.labels.g.latent_dim(recipe.latent.dim)
            z = (
                torch.randn(NUM_SAMPLES, dim)
                if recipe.labels.g
                else recipe.latent.sample(NUM_SAMPLES, streams("ranges"))
            )
            samples = output_range(g.build(dim, source.shape), lambda net: call_network(net, z, labels))
            findings += sample_range_warning(samples)
        needs_logits = (
            isinstance(d, UserDiscriminator)
            and d.output_kind == "score"
            and not isinstance(recipe.objective, UserObjective)
        )
        if isinstance(d, UserDiscriminator) and needs_logits and recipe.objective.tag() != "least_squares":
            shape = packed_shape(source.shape, recipe.pack)
            shape = shape if recipe.labels.d is None else recipe.labels.d.input_shape(shape)
            batches = [2 * torch.rand(NUM_SAMPLES, *shape) - 1]
            if shape == source.shape:
                batches.append(source.preview(NUM_SAMPLES))
            both_signs = not (recipe.objective.is_relativistic or recipe.objective.needs_lipschitz_bound)
            scores = output_range(
                d.build(shape), lambda net: torch.cat([_scores(net, batch, labels) for batch in batches])
            )
            findings += score_range_warning(scores, str(recipe.objective.tag()), both_signs=both_signs)
    return findings


@torch.no_grad()
def label_dominates(net: nn.Module, latent: Latent, classes: int, streams: RandomStreams) -> list[Finding]:
    """A warning if, in an untrained G, the label moves samples much more than z does.

    Each class would then be a single image. The mean standard deviation of a sample's values over latents with the same
    label is compared with that over labels with the same latent. The network is left unchanged.
    """
    count = min(classes, NUM_SAMPLES)
    z = latent.sample(NUM_SAMPLES, streams("ranges/latents")).repeat_interleave(count, 0)
    labels = (torch.arange(len(z)) % count).to(z.device)
    training = net.training
    net.eval()
    try:
        samples = call_network(net, z, labels).float().flatten(1).unflatten(0, (NUM_SAMPLES, count))
    finally:
        net.train(training)
    by_latent, by_label = (float(samples.std(dim).mean()) for dim in (0, 1))
    if by_latent >= MIN_LATENT_EFFECT * by_label:
        return []
    ratio = by_label / max(by_latent, 1e-12)
    reason = f"another label changes a sample of the untrained G {ratio:.0f} times as much as another z does"
    cure = "scale both alike: latent.kind gaussian, or sphere with length sqrt_dim"
    return [Finding("latent", reason, "T17", cure)]


def _scores(net: nn.Module, batch: Tensor, labels: Tensor) -> Tensor:
    output = call_network(net, batch, labels[: len(batch)])
    return (output.score if isinstance(output, DiscriminatorOutput) else output).flatten()


@torch.no_grad()
def output_range(net: nn.Module, run: Callable[[nn.Module], Tensor]) -> OutputRange:
    """The range of a network's outputs. Its weights are overwritten.

    Args:
        net: the network.
        run: runs the network on fixed inputs.
    """
    net.eval()
    initial = run(net).float()
    outputs = [initial, *(run(net).float() for _ in _random_weights(net))]
    ranges = [(float(output.min()), float(output.max())) for output in outputs if output.isfinite().all()]
    if not ranges:
        return OutputRange(float("-inf"), float("inf"), float("-inf"), float("inf"))
    return OutputRange(*ranges[0], min(low for low, _ in ranges), max(high for _, high in ranges))


def _random_weights(net: nn.Module) -> Iterator[None]:
    """Overwrite the weights of a network several times with large random ones."""
    for _ in range(NUM_REDRAWS):
        for weight in net.parameters():
            inputs = weight[0].numel() if weight.dim() > 1 else 1
            weight.copy_(GAIN / max(1, inputs) ** 0.5 * torch.randn_like(weight))
        yield


def sample_range_warning(samples: OutputRange) -> list[Finding]:
    """A warning if samples in this range can't be images."""

    def warn(reason: str, cure: str) -> list[Finding]:
        return [Finding("network.g", f"{reason}, but images lie in [-1, 1]", "T01", cure)]

    if samples.is_constant:
        return []
    if samples.low >= 0 and samples.high <= 1 + TOLERANCE:
        return warn("all its samples lie in [0, 1], as after a sigmoid", "end it with a tanh, or with 2 * x - 1")
    if samples.low >= 0:
        reason = f"its samples are never below 0 and go up to {samples.high:.4g}"
        return warn(reason, "end it with a tanh, not with values from 0 to 255")
    if max(-samples.initial_low, samples.initial_high) > MAX_INITIAL:
        reason = f"its first samples lie in [{samples.initial_low:.3g}, {samples.initial_high:.3g}]"
        return warn(reason, "end it with a tanh")
    return []


def score_range_warning(scores: OutputRange, objective: str, *, both_signs: bool = True) -> list[Finding]:
    """A warning if scores in this range can't be logits.

    Args:
        scores: the range of D's scores of noise and of real samples.
        objective: the kind of the objective.
        both_signs: whether the objective needs scores of both signs; one that only compares scores does not.
    """

    def warn(reason: str, cure: str) -> list[Finding]:
        return [Finding("network.d", f"{reason}, but '{objective}' needs unbounded scores (logits)", "T06a", cure)]

    conditions = "for noise and for real samples, with any weights"
    if scores.is_constant:
        return warn(f"its score is {scores.high:.3g} for all inputs, with any weights", "check its last layers")
    if scores.low >= 0 and scores.high <= 1 + TOLERANCE:
        return warn(f"all its scores lie in [0, 1], {conditions}", "remove the sigmoid (or softmax) at its end")
    if both_signs and scores.low >= 0:
        return warn(f"its scores are never below 0, {conditions}", "end it with a linear layer")
    if both_signs and scores.high <= 0:
        cure = 'end it with a linear layer, or, if its score is minus an energy, declare output_kind = "energy"'
        return warn(f"its scores are never above 0, {conditions}", cure)
    return []
