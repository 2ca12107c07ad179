"""From a recipe to a game: build the networks, the optimisers and the tricks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import nn

from poise.core.hooks import LayerContext, LossTerm, NetworkTransform, Trick, apply_network_transforms
from poise.core.player import Player
from poise.core.random_streams import RandomStreams
from poise.core.schedules import bounds
from poise.core.types import DataSpec, Side, packed_shape
from poise.data.source import CALIBRATION_SAMPLES
from poise.engine.compute import ComputeSettings
from poise.engine.game import Discriminate, Game, discriminate_jointly, discriminate_separately
from poise.engine.initial_weights import ClassRows, InitialTensors, align_names, copy_matching_, fit_classes
from poise.errors import RecipeError
from poise.networks.base import (
    DiscriminatorConfig,
    EncoderConfig,
    EncoderModule,
    TranslatorConfig,
    WithClassifier,
    WithCodes,
    mixes_samples,
)
from poise.networks.critics import Critic
from poise.networks.sync_batch_norm import synchronise_
from poise.networks.translation import build_judges, build_translation
from poise.optimizers import OptimizerConfig
from poise.recipe.model import Recipe
from poise.tricks.base import TrickContext

Net = TypeVar("Net", bound=nn.Module)


def build_game(
    recipe: Recipe,
    data_spec: DataSpec,
    compute: ComputeSettings,
    streams: RandomStreams,
    initial: InitialTensors | None = None,
    critics: Mapping[str, Critic] = MappingProxyType({}),
    rows: ClassRows | None = None,
) -> Game:
    """Build the game that a recipe describes, in the state before step 0.

    The initial weights of each network come from a random stream of their own, so that changing one network does not
    change the initial weights of the others. Those that match a tensor of `initial` are replaced by it, also in the
    averages and copies that tricks keep. `critics` are the frozen networks that tricks need, by trick. `rows` are those
    of the classes in `initial`, if it is of data with other classes.
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
            encoder = _to_device(_encoder(recipe, recipe.network.e, data_spec), compute)
    layer_contexts = [LayerContext()] if recipe.sync_batch_norm else []
    for layer_context in layer_contexts:
        for net in (*nets.values(), *([] if encoder is None else [encoder])):
            synchronise_(net, layer_context)
    tricks = _tricks(recipe, nets, data_spec, critics)
    transforms = [
        trick for trick in sorted(tricks, key=lambda trick: trick.rank) if isinstance(trick, NetworkTransform)
    ]
    for side, net in nets.items():
        nets[side] = _to_device(apply_network_transforms(transforms, side, net, streams), compute)
    if initial is not None:
        for name, net in (("g", nets[Side.G]), ("d", nets.get(Side.D)), ("e", encoder)):
            if net is not None:
                copy_matching_(net, fit_classes(net, align_names(net, initial.get(name, {})), rows))
    if transforms or initial is not None:  # build the other tricks again, for the networks as they are now
        rebuilt = _tricks(recipe, nets, data_spec, critics)
        pairs = zip(tricks, rebuilt, strict=True)
        tricks = [old if isinstance(old, NetworkTransform) else new for old, new in pairs]
    d, d_optimizer = nets.get(Side.D), recipe.optimizer.d
    return Game(
        d=None if d is None or d_optimizer is None else _player(Side.D, d, d_optimizer),
        g=_player(Side.G, nets[Side.G], recipe.optimizer.g, recipe.network.e, encoder),
        objective=_to_device(recipe.objective.build(), compute),
        latent=recipe.latent,
        tempo=recipe.tempo.build(),
        tricks=[_to_device(trick, compute) for trick in tricks],
        discriminate=discriminate_separately if d is None else _discriminate(recipe, d, tricks),
        autocast=compute.autocast,
        uses_labels=recipe.uses_labels,
        layer_contexts=layer_contexts,
    )


def build_generator(recipe: Recipe, data_spec: DataSpec, streams: RandomStreams) -> nn.Module:
    """G alone, on the CPU, as `build_game` builds it: with the layers that tricks insert, and without anything else.

    Nothing else of the recipe is built, so that Python files are executed only if G needs them.
    """
    with streams.seeded_global("init/g"):
        net = _generator(recipe, data_spec)
    if recipe.sync_batch_norm:
        synchronise_(net, LayerContext())
    context = TrickContext({Side.G: net}, data_spec)
    named = zip(recipe.tricks, recipe.trick_names(), strict=True)
    tricks = [config.build(name, context) for config, name in named if config.changes_generator]
    transforms = [
        trick for trick in sorted(tricks, key=lambda trick: trick.rank) if isinstance(trick, NetworkTransform)
    ]
    return apply_network_transforms(transforms, Side.G, net, streams)


def _generator(recipe: Recipe, data_spec: DataSpec) -> nn.Module:
    """The network, then what its norm adds, then the module that gives it the labels."""
    config, labels = recipe.network.g, recipe.labels.g
    if isinstance(config, TranslatorConfig) and recipe.network.direction is not None:
        direction, shape, parts = recipe.network.direction, data_spec.shape, data_spec.parts
        net = build_translation(config, direction, shape, parts, labels, data_spec.num_classes)
        return config.apply_norm(net, _calibration_batch(data_spec, CALIBRATION_SAMPLES))
    reference = recipe.latent.sample(CALIBRATION_SAMPLES, RandomStreams(recipe.seed)("reference/g"))
    net = config.build_for(labels, recipe.latent.dim, data_spec.shape, reference=reference)
    return net if labels is None else labels.wrap(net, data_spec.num_classes, recipe.latent.std)


def _encoder(recipe: Recipe, config: EncoderConfig, data_spec: DataSpec) -> nn.Module:
    """A network from samples to latent codes, or to the mean and log-variance of a Gaussian over codes."""
    has_variance = recipe.needs_code_variance
    out_dim, reference = recipe.latent.dim * (1 + has_variance), _calibration_batch(data_spec, CALIBRATION_SAMPLES)
    net = config.build(data_spec.shape, out_dim, data_spec.num_samples, reference=reference)
    return EncoderModule(net, has_variance=has_variance)


def _calibration_batch(data_spec: DataSpec, size: int) -> torch.Tensor:
    """A batch of real samples for virtual batch norm: repeated if too few, zeros if none are at hand."""
    samples = data_spec.calibration_samples
    samples = torch.zeros(1, *data_spec.shape) if samples is None else samples
    return samples[torch.arange(size) % len(samples)]


def _discriminator(recipe: Recipe, config: DiscriminatorConfig, data_spec: DataSpec) -> nn.Module:
    """The network as for G, and the head of an auxiliary classifier if a trick needs one."""
    labels = recipe.labels.d
    shape = packed_shape(data_spec.shape, recipe.pack)
    input_shape = shape if labels is None else labels.input_shape(shape)
    net = build_judges(config, recipe.network.judges or "all", input_shape, data_spec.parts)
    net = config.apply_norm(
        net, _calibration_batch(data_spec, CALIBRATION_SAMPLES * recipe.pack).reshape(CALIBRATION_SAMPLES, *shape)
    )
    required = recipe.required_outputs if labels is None else recipe.required_outputs | labels.required_outputs
    if required and getattr(net, "width", None) is None:
        cure = "return a DiscriminatorOutput with features, and set the attribute 'width' to their length"
        what = "this D returns no features, and a part of the recipe needs them"
        raise RecipeError(what, where="network.d", cure=cure)
    net = net if labels is None else labels.wrap(net, data_spec.num_classes)
    net = WithClassifier(net, data_spec.num_classes) if "classes" in required else net
    return WithCodes(net, recipe.latent.code_layout.size * recipe.pack) if "codes" in required else net


def _tricks(
    recipe: Recipe, nets: dict[Side, nn.Module], data_spec: DataSpec, critics: Mapping[str, Critic]
) -> list[Trick]:
    objective = recipe.objective
    layout, direction = recipe.latent.code_layout, recipe.network.direction
    alpha = bool(data_spec.parts) or getattr(recipe.data, "alpha", True)
    context = TrickContext(nets, data_spec, objective.decision_threshold, objective, direction, critics, layout, alpha)
    return [config.build(name, context) for config, name in zip(recipe.tricks, recipe.trick_names(), strict=True)]


def _to_device(net: Net, compute: ComputeSettings) -> Net:
    return net.to(compute.device).to(memory_format=torch.channels_last)


def _player(
    side: Side,
    net: nn.Module,
    optimizer: OptimizerConfig,
    encoder_config: EncoderConfig | None = None,
    encoder: nn.Module | None = None,
) -> Player:
    """A player whose optimiser is built on first use, which sampling never needs."""
    lr_scale = 1.0 if encoder_config is None else encoder_config.pace
    return Player(side, net, optimizer.build, optimizer.group_options, encoder, lr_scale)


def _discriminate(recipe: Recipe, d: nn.Module, tricks: list[Trick]) -> Discriminate:
    """One forward pass over real and fake samples where the recipe says so, or where it is equivalent and faster.

    It is not faster if a penalty needs the input gradient of one of the two only, which would then run through both.
    """
    if recipe.judging == "together":
        return discriminate_jointly
    terms = [trick for trick in tricks if isinstance(trick, LossTerm) and any(bounds(trick.weight))]
    input_gradients = [term.needs_input_gradient for term in terms if Side.D in term.sides]
    only_one = len(frozenset[str]().union(*input_gradients)) == 1
    return discriminate_separately if mixes_samples(d) or only_one else discriminate_jointly
