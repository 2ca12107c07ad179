"""From a recipe to a game: the parts built, the tricks put in their places."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from poise.core.hooks import LossTerm, NetworkTransform, Trick, apply_network_transforms
from poise.core.player import Player
from poise.core.random_streams import RandomStreams
from poise.core.schedules import bounds
from poise.core.types import DataSpec, Side, packed_shape
from poise.data.source import CALIBRATION_SAMPLES
from poise.engine.compute import ComputeSettings
from poise.engine.game import Discriminate, Game, discriminate_jointly, discriminate_separately
from poise.errors import RecipeError
from poise.networks.base import DiscriminatorConfig, EncoderConfig, EncoderModule, WithClassifier, mixes_samples
from poise.optimizers import OptimizerConfig
from poise.recipe.model import Recipe
from poise.tricks.base import TrickContext

Net = TypeVar("Net", bound=nn.Module)


def build_game(recipe: Recipe, data_spec: DataSpec, compute: ComputeSettings, streams: RandomStreams) -> Game:
    """The game that `recipe` describes, for samples of `data_spec`, before step 0.

    Each network's initial weights are a random stream of their own, so that changing one player's size
    leaves the other's start as it was.
    """
    with streams.seeded_global("init/g"):
        g = _generator(recipe, data_spec)
    nets: dict[Side, nn.Module] = {Side.G: g}
    if recipe.network.d is not None:
        with streams.seeded_global("init/d"):
            nets[Side.D] = _discriminator(recipe, recipe.network.d, data_spec)
    encoder = None
    if recipe.network.e is not None:
        with streams.seeded_global("init/e"):
            encoder = _ready(_encoder(recipe, recipe.network.e, data_spec), compute)
    tricks = _tricks(recipe, nets, data_spec)
    surgeries = [trick for trick in tricks if isinstance(trick, NetworkTransform)]
    nets = {
        side: _ready(apply_network_transforms(surgeries, side, net, streams), compute) for side, net in nets.items()
    }
    if surgeries:  # the others are built anew, to see the networks as they are now
        again = _tricks(recipe, nets, data_spec)
        tricks = [old if isinstance(old, NetworkTransform) else new for old, new in zip(tricks, again, strict=True)]
    d, (g, d_rule) = nets.get(Side.D), (recipe.optimizer.g, recipe.optimizer.d)
    return Game(
        d=None if d is None or d_rule is None else _player(Side.D, d, d_rule),
        g=_player(Side.G, nets[Side.G], g, recipe.network.e, encoder),
        objective=_ready(recipe.objective.build(), compute),
        latent=recipe.latent,
        tempo=recipe.tempo.build(),
        tricks=[_ready(trick, compute) for trick in tricks],
        discriminate=discriminate_separately if d is None else _judge(recipe, d, tricks),
        autocast=compute.autocast,
        uses_labels=recipe.uses_labels,
    )


def _generator(recipe: Recipe, data_spec: DataSpec) -> nn.Module:
    """The network, what its norm adds, then the shell that tells it the label."""
    entry, labels = recipe.network.g, recipe.labels.g
    dim = recipe.latent.dim if labels is None else labels.latent_dim(recipe.latent.dim)
    net = entry.build(dim, data_spec.shape)
    net = entry.apply_norm(net, recipe.latent.sample(CALIBRATION_SAMPLES, RandomStreams(recipe.seed)("reference/g")))
    return net if labels is None else labels.wrap(net, data_spec.num_classes, recipe.latent.std)


def _encoder(recipe: Recipe, entry: EncoderConfig, data_spec: DataSpec) -> nn.Module:
    """From a sample to its code, or to the region it may lie in."""
    region = recipe.needs_code_variance
    net = entry.build(data_spec.shape, recipe.latent.dim * (1 + region), data_spec.num_samples)
    return EncoderModule(entry.apply_norm(net, _some(data_spec, CALIBRATION_SAMPLES)), has_variance=region)


def _some(data_spec: DataSpec, count: int) -> torch.Tensor:
    """As many reals to calibrate with, the same ones over again if need be; black ones where there are none at hand."""
    few = torch.zeros(1, *data_spec.shape) if data_spec.calibration_samples is None else data_spec.calibration_samples
    return few[torch.arange(count) % len(few)]


def _discriminator(recipe: Recipe, entry: DiscriminatorConfig, data_spec: DataSpec) -> nn.Module:
    """The same as for G; and the head of a classifier, if some trick reads one."""
    labels = recipe.labels.d
    shape = packed_shape(data_spec.shape, recipe.pack)
    net = entry.build(shape if labels is None else labels.input_shape(shape))
    net = entry.apply_norm(
        net, _some(data_spec, CALIBRATION_SAMPLES * recipe.pack).reshape(CALIBRATION_SAMPLES, *shape)
    )
    reads = recipe.required_outputs if labels is None else recipe.required_outputs | labels.required_outputs
    if reads and getattr(net, "width", None) is None:
        cure = "answer with a Verdict that has features, and say their length by the attribute 'width'"
        raise RecipeError("this D has no features, and something here reads them", where="network.d", cure=cure)
    net = net if labels is None else labels.wrap(net, data_spec.num_classes)
    return WithClassifier(net, data_spec.num_classes) if "classes" in recipe.required_outputs else net


def _tricks(recipe: Recipe, nets: dict[Side, nn.Module], data_spec: DataSpec) -> list[Trick]:
    context = TrickContext(nets, data_spec, recipe.objective.decision_threshold, recipe.objective)
    return [entry.build(name, context) for entry, name in zip(recipe.tricks, recipe.trick_names(), strict=True)]


def _ready(net: Net, compute: ComputeSettings) -> Net:
    return net.to(compute.device).to(memory_format=torch.channels_last)


def _player(
    side: Side,
    net: nn.Module,
    rule: OptimizerConfig,
    entry: EncoderConfig | None = None,
    encoder: nn.Module | None = None,
) -> Player:
    """A player; its optimiser is built once somebody asks for it, which sampling never does."""
    return Player(side, net, rule.build, rule.group_options, encoder, 1.0 if entry is None else entry.pace)


def _judge(recipe: Recipe, d: nn.Module, tricks: list[Trick]) -> Discriminate:
    """One pass over both piles where that is wanted, or where it is the same mathematics and saves time.

    It saves none if a penalty differentiates one pile only: its gradient would run through both.
    """
    if recipe.judging == "together":
        return discriminate_jointly
    acting = [trick for trick in tricks if isinstance(trick, LossTerm) and any(bounds(trick.weight))]
    slopes = [trick.needs_input_gradient for trick in acting if Side.D in trick.sides]
    halves = len(frozenset[str]().union(*slopes)) == 1
    return discriminate_separately if mixes_samples(d) or halves else discriminate_jointly
