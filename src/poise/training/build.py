"""From a recipe to a game: the parts built, the tricks put in their places."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from poise.core import Side, Subject, packed
from poise.data.source import FEW
from poise.dials import extremes
from poise.errors import RecipeError
from poise.networks.base import Classifier, Coded, Discriminator, Encoder, mixes_samples
from poise.optimizers import OptimizerEntry
from poise.players import Player
from poise.randomness import Dice
from poise.recipe.model import Recipe
from poise.seams import Stage, Surgery, Term, Trick, fold_surgery
from poise.training.game import Game, Judge, apart, together
from poise.training.machine import Machine

Net = TypeVar("Net", bound=nn.Module)


def build(recipe: Recipe, subject: Subject, machine: Machine, dice: Dice) -> Game:
    """The game that `recipe` describes, for samples of `subject`, before step 0.

    Each network's initial weights are a random stream of their own, so that changing one player's size
    leaves the other's start as it was.
    """
    with dice.everywhere("init/g"):
        g = _generator(recipe, subject)
    nets: dict[Side, nn.Module] = {Side.G: g}
    if recipe.network.d is not None:
        with dice.everywhere("init/d"):
            nets[Side.D] = _discriminator(recipe, recipe.network.d, subject)
    encoder = None
    if recipe.network.e is not None:
        with dice.everywhere("init/e"):
            encoder = _ready(_encoder(recipe, recipe.network.e, subject), machine)
    tricks = _tricks(recipe, nets, subject)
    surgeries = [trick for trick in tricks if isinstance(trick, Surgery)]
    nets = {side: _ready(fold_surgery(surgeries, side, net, dice), machine) for side, net in nets.items()}
    if surgeries:  # the others are built anew, to see the networks as they are now
        again = _tricks(recipe, nets, subject)
        tricks = [old if isinstance(old, Surgery) else new for old, new in zip(tricks, again, strict=True)]
    d, (g, d_rule) = nets.get(Side.D), (recipe.optimizer.g, recipe.optimizer.d)
    return Game(
        d=None if d is None or d_rule is None else _player(Side.D, d, d_rule),
        g=_player(Side.G, nets[Side.G], g, recipe.network.e, encoder),
        objective=_ready(recipe.objective.build(), machine),
        latent=recipe.latent,
        tempo=recipe.tempo.build(),
        tricks=[_ready(trick, machine) for trick in tricks],
        judge=apart if d is None else _judge(recipe, d, tricks),
        autocast=machine.autocast,
        labelled=recipe.labelled,
    )


def _generator(recipe: Recipe, subject: Subject) -> nn.Module:
    """The network, what its norm adds, then the shell that tells it the label."""
    entry, labels = recipe.network.g, recipe.labels.g
    dim = recipe.latent.dim if labels is None else labels.latent(recipe.latent.dim)
    net = entry.build(dim, subject.shape)
    net = entry.finish(net, recipe.latent.draw(FEW, Dice(recipe.seed)("reference/g")))
    return net if labels is None else labels.dress(net, subject.classes, recipe.latent.deviation)


def _encoder(recipe: Recipe, entry: Encoder, subject: Subject) -> nn.Module:
    """From a sample to its code, or to the region it may lie in."""
    region = recipe.reads_region
    net = entry.build(subject.shape, recipe.latent.dim * (1 + region), subject.count)
    return Coded(entry.finish(net, _some(subject, FEW)), region=region)


def _some(subject: Subject, count: int) -> torch.Tensor:
    """As many reals to calibrate with, the same ones over again if need be; black ones where there are none at hand."""
    few = torch.zeros(1, *subject.shape) if subject.few is None else subject.few
    return few[torch.arange(count) % len(few)]


def _discriminator(recipe: Recipe, entry: Discriminator, subject: Subject) -> nn.Module:
    """The same as for G; and the head of a classifier, if some trick reads one."""
    labels = recipe.labels.d
    shape = packed(subject.shape, recipe.pack)
    net = entry.build(shape if labels is None else labels.shape(shape))
    net = entry.finish(net, _some(subject, FEW * recipe.pack).reshape(FEW, *shape))
    reads = recipe.reads if labels is None else recipe.reads | labels.reads
    if reads and getattr(net, "width", None) is None:
        cure = "answer with a Verdict that has features, and say their length by the attribute 'width'"
        raise RecipeError("this D has no features, and something here reads them", where="network.d", cure=cure)
    net = net if labels is None else labels.dress(net, subject.classes)
    return Classifier(net, subject.classes) if "classes" in recipe.reads else net


def _tricks(recipe: Recipe, nets: dict[Side, nn.Module], subject: Subject) -> list[Trick]:
    stage = Stage(nets, subject, recipe.objective.undecided, recipe.objective)
    return [entry.build(name, stage) for entry, name in zip(recipe.tricks, recipe.trick_names(), strict=True)]


def _ready(net: Net, machine: Machine) -> Net:
    return net.to(machine.device).to(memory_format=torch.channels_last)


def _player(
    side: Side, net: nn.Module, rule: OptimizerEntry, entry: Encoder | None = None, encoder: nn.Module | None = None
) -> Player:
    """A player; its optimiser is built once somebody asks for it, which sampling never does."""
    return Player(side, net, rule.build, rule.settings, encoder, 1.0 if entry is None else entry.pace)


def _judge(recipe: Recipe, d: nn.Module, tricks: list[Trick]) -> Judge:
    """One pass over both piles where that is wanted, or where it is the same mathematics and saves time.

    It saves none if a penalty differentiates one pile only: its gradient would run through both.
    """
    if recipe.judging == "together":
        return together
    acting = [trick for trick in tricks if isinstance(trick, Term) and any(extremes(trick.weight))]
    slopes = [trick.slopes for trick in acting if Side.D in trick.sides]
    halves = len(frozenset[str]().union(*slopes)) == 1
    return apart if mixes_samples(d) or halves else together
