"""The game: both players, the objective, the tempo and the tricks. It holds all the state of a run.

A `Game` is an `nn.Module`, so weights, averages, pools and counters form one `state_dict`. What a step needs is
computed once, when the game is built: which tricks act in which player's moves, which samples D is run on, and whether
real and fake samples share one forward pass. When training without a discriminator, there is only G with its encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from poise.core.hooks import (
    FakeReplacement,
    GradientTransform,
    InputTransform,
    LayerContext,
    LossTerm,
    NetworkTransform,
    OpponentSwap,
    PostUpdate,
    SampleSelection,
    TargetTransform,
    Tempo,
    Trick,
    apply_input_transforms,
    apply_opponent_swaps,
)
from poise.core.latent_codes import sample_codes
from poise.core.player import Player
from poise.core.types import Batch, DiscriminatorOutput, MoveContext, Origin, ReconstructedBatch, Side, to_float32
from poise.engine.batches import RealBatches
from poise.latents import Latent
from poise.networks.base import call_encoder, call_network
from poise.objectives.base import ObjectiveModule

Discriminate = Callable[[nn.Module, Batch | None, Batch], dict[Origin, DiscriminatorOutput]]
HookT = TypeVar("HookT", bound=Trick)


def discriminate_separately(d: nn.Module, real: Batch | None, fake: Batch) -> dict[Origin, DiscriminatorOutput]:
    """Run D on a batch of real samples, then on a batch of fake samples (tip T04)."""
    outputs: dict[Origin, DiscriminatorOutput] = {} if real is None else {"real": call_network(d, *real)}
    outputs["fake"] = call_network(d, *fake)
    return outputs


def discriminate_jointly(d: nn.Module, real: Batch | None, fake: Batch) -> dict[Origin, DiscriminatorOutput]:
    """Run D once on both: faster, and equivalent unless D's outputs depend on the batch (batch norm)."""
    if real is None:
        return {"fake": call_network(d, *fake)}
    labels = None if real.labels is None or fake.labels is None else torch.cat((real.labels, fake.labels))
    both = call_network(d, torch.cat((real.images, fake.images)), labels)
    num_real = len(both.score) * len(real.images) // (len(real.images) + len(fake.images))  # a score may be of a pack
    return {"real": both.select(slice(num_real)), "fake": both.select(slice(num_real, None))}


class MoveRequirements(NamedTuple):
    """What a move needs.

    Attributes:
        outputs: the origins of the samples that D is run on.
        input_gradients: the origins of the samples whose input gradient is used.
        real: whether real samples are loaded.
    """

    outputs: frozenset[Origin]
    input_gradients: tuple[Origin, ...]
    real: bool


@dataclass(frozen=True)
class ActiveTricks:
    """The tricks that act in one player's moves, by hook, in the order in which they act."""

    opponent_swaps: tuple[OpponentSwap, ...]
    fake_replacements: tuple[FakeReplacement, ...]
    input_transforms: tuple[InputTransform, ...]
    target_transforms: tuple[TargetTransform, ...]
    sample_selections: tuple[SampleSelection, ...]
    loss_terms: tuple[LossTerm, ...]
    gradient_transforms: tuple[GradientTransform, ...]
    post_updates: tuple[PostUpdate, ...]

    @classmethod
    def by_hook(cls, tricks: list[Trick], side: Side) -> ActiveTricks:
        """Assign each trick to all hooks that it inherits from, ordered by `rank` and then by the recipe."""
        tricks = sorted(tricks, key=lambda trick: trick.rank)

        def acting_at(hook: type[HookT]) -> tuple[HookT, ...]:
            return tuple(t for t in tricks if isinstance(t, hook) and side in t.sides)

        return cls(
            opponent_swaps=acting_at(OpponentSwap),
            fake_replacements=acting_at(FakeReplacement),
            input_transforms=acting_at(InputTransform),
            target_transforms=acting_at(TargetTransform),
            sample_selections=acting_at(SampleSelection),
            loss_terms=acting_at(LossTerm),
            gradient_transforms=acting_at(GradientTransform),
            post_updates=acting_at(PostUpdate),
        )


class Game(nn.Module):
    """Everything that a training step uses.

    Args:
        d: the discriminator's player; None when training without a discriminator, where G learns to reconstruct.
        g: the generator's player.
        objective: the losses of both players.
        latent: the distribution of the latents.
        tempo: how often each player moves.
        tricks: the tricks in the order of the recipe.
        discriminate: `discriminate_separately` or `discriminate_jointly`.
        autocast: returns a new context manager for the forward passes.
        uses_labels: whether labels are loaded, because a network or a loss term uses them.
        layer_contexts: those of layers that no trick has inserted.
    """

    def __init__(
        self,
        d: Player | None,
        g: Player,
        objective: ObjectiveModule[Any],
        latent: Latent,
        tempo: Tempo,
        tricks: list[Trick],
        discriminate: Discriminate = discriminate_separately,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        uses_labels: bool = False,
        layer_contexts: Sequence[LayerContext] = (),
    ) -> None:
        super().__init__()
        self.d, self.g, self.tempo = d, g, tempo
        self.tricks = nn.ModuleDict({trick.name: trick for trick in tricks})
        self.objective, self.latent, self.discriminate, self.autocast = objective, latent, discriminate, autocast
        self.uses_labels = uses_labels
        self.players = {player.side: player for player in (d, g) if player is not None}
        self._requirements: dict[tuple[Side, tuple[bool, ...]], MoveRequirements] = {}
        of_tricks = [trick.layer_context for trick in tricks if isinstance(trick, NetworkTransform)]
        self._layer_contexts = [*of_tricks, *layer_contexts]
        self._active = {side: ActiveTricks.by_hook(tricks, side) for side in Side}
        origins: tuple[Origin, Origin] = ("real", "fake")
        self._always_required = {
            Side.D: frozenset(origins),
            Side.G: frozenset(origins if objective.is_relativistic else origins[1:]),
        }

    @contextmanager
    def in_move(self, context: MoveContext) -> Iterator[None]:
        """A move: the other player's weights are frozen, and inserted layers know the context."""
        opponent = self.players.get(context.side.opponent)
        for layer_context in self._layer_contexts:
            layer_context.current = context
        try:
            with nullcontext() if opponent is None else opponent.no_weight_grad():
                yield
        finally:
            for layer_context in self._layer_contexts:
                layer_context.current = None

    def active_tricks(self, side: Side) -> ActiveTricks:
        """The tricks that act in the moves of `side`."""
        return self._active[side]

    def network_for(self, side: Side, context: MoveContext) -> nn.Module:
        """The network that plays `side` in this move; a trick may replace that of the player that does not move."""
        net = self.players[side].net
        if side is context.side:
            return net
        return apply_opponent_swaps(self._active[context.side].opponent_swaps, side, net, context)

    def discriminate_fn(
        self, d: nn.Module, context: MoveContext
    ) -> Callable[[Tensor, Tensor | None], DiscriminatorOutput]:
        """A function that runs D on other samples than the real and fake ones, through the input transforms of the
        move.

        Each call draws new random numbers for the input transforms.
        """
        calls = count()

        def discriminate(images: Tensor, labels: Tensor | None) -> DiscriminatorOutput:
            tricks, call_context = self._active[context.side].input_transforms, context.with_call(next(calls))
            with self.autocast():
                return call_network(d, apply_input_transforms(tricks, images, "between", call_context), labels)

        return discriminate

    def generate_fn(self, context: MoveContext, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
        """A function that generates samples in this move from n latents, n x dim, and the first n labels.

        Gradients are computed only if it is G's move.
        """

        def generate(latents: Tensor) -> Tensor:
            first = None if labels is None else labels[: len(latents)]
            with self.autocast(), torch.set_grad_enabled(context.side is Side.G):
                return to_float32(call_network(self.network_for(Side.G, context), latents, first))

        return generate

    def reconstruct_fn(
        self, batches: RealBatches, context: MoveContext, real: Tensor | None, labels: Tensor | None
    ) -> Callable[[], ReconstructedBatch]:
        """A function that encodes this move's real samples and decodes their codes with G."""
        generate = self.generate_fn(context, labels)

        def reconstruct() -> ReconstructedBatch:
            assert real is not None, "no part of the game needs real samples in this move"
            assert self.g.encoder is not None, "this game has no encoder"
            with self.autocast(), torch.set_grad_enabled(context.side is Side.G):
                codes = call_encoder(self.g.encoder, real, lambda: batches.indices(context))
                latents = self.latent.project(sample_codes(codes, context.generator("codes")))
            return ReconstructedBatch(codes, latents, generate(latents))

        return reconstruct

    def requirements(self, context: MoveContext) -> MoveRequirements:
        """What the objective and the loss terms that are due need in this move."""
        due = tuple(term.is_due(context) for term in self._active[context.side].loss_terms)
        known = self._requirements.get((context.side, due))
        return known or self._requirements.setdefault(
            (context.side, due), self._compute_requirements(context.side, due)
        )

    def _compute_requirements(self, side: Side, due: tuple[bool, ...]) -> MoveRequirements:
        terms = [term for term, now in zip(self._active[side].loss_terms, due, strict=True) if now]
        origins = self._always_required[side].union(*(term.needs_output | term.needs_input_gradient for term in terms))
        input_gradients = frozenset[Origin]().union(*(term.needs_input_gradient for term in terms))
        needs_real = "real" in origins or any(term.needs_real for term in terms)
        return MoveRequirements(origins, tuple(sorted(input_gradients)), needs_real)

    def sampling_network(self, *, raw: bool = False) -> nn.Module:
        """The generator to sample from: with averaged weights if a trick keeps them, unless `raw` is set."""
        averages = [] if raw else [trick.sampling_network(Side.G) for trick in self._active[Side.G].post_updates]
        return next((net for net in averages if net is not None), self.g.net)
