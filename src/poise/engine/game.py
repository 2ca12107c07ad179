"""The game: both players, the tricks and the rules. All the state that a run has is here.

A `Game` is an `nn.Module`, so weights, averages, pools and counters are one `state_dict`. What a step
reads is worked out once, when the game is put together: which tricks act in whose moves, what D must
judge, whether real and fake may be judged in one pass. A game for one has no D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from poise.core.hooks import (
    FakeReplacement,
    GradientTransform,
    InputTransform,
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
from poise.latents import Latent
from poise.networks.base import call_encoder, call_network
from poise.objectives.base import ObjectiveModule

if TYPE_CHECKING:
    from poise.engine.batches import RealBatches

Discriminate = Callable[[nn.Module, Batch | None, Batch], dict[Origin, DiscriminatorOutput]]
HookT = TypeVar("HookT", bound=Trick)


def discriminate_separately(d: nn.Module, real: Batch | None, fake: Batch) -> dict[Origin, DiscriminatorOutput]:
    """D judges an all-real batch, then an all-fake one (tip T04)."""
    verdicts: dict[Origin, DiscriminatorOutput] = {} if real is None else {"real": call_network(d, *real)}
    verdicts["fake"] = call_network(d, *fake)
    return verdicts


def discriminate_jointly(d: nn.Module, real: Batch | None, fake: Batch) -> dict[Origin, DiscriminatorOutput]:
    """D judges both in one batch: the same numbers, faster, unless D mixes its samples (a batch norm)."""
    if real is None:
        return {"fake": call_network(d, *fake)}
    labels = None if real.labels is None or fake.labels is None else torch.cat((real.labels, fake.labels))
    both = call_network(d, torch.cat((real.images, fake.images)), labels)
    share = len(both.score) * len(real.images) // (len(real.images) + len(fake.images))  # D may judge several at once
    return {"real": both.select(slice(share)), "fake": both.select(slice(share, None))}


class MoveRequirements(NamedTuple):
    """What a move needs: piles that D judges, those whose slope is read, and whether reals are drawn."""

    outputs: frozenset[Origin]
    input_gradients: tuple[Origin, ...]
    real: bool


@dataclass(frozen=True)
class ActiveTricks:
    """The tricks that act in one side's moves, by seam, in the order in which they act."""

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
        """Each trick to every seam it is made for: by its `rank`, and in the recipe's order among equals."""
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
    """Everything that a step reads.

    Args:
        d: the discriminator's player; None in a game for one, in which G rebuilds what its encoder has seen.
        g: the generator's player.
        objective: what the verdicts cost, and what it must remember for that.
        latent: what G starts from.
        tempo: who moves how often.
        tricks: in the recipe's order.
        discriminate: `apart` or `together`.
        autocast: the context in which networks run forward, a new one each time.
        uses_labels: whether labels are drawn: a network or a term of this game reads them.
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
    ) -> None:
        super().__init__()
        self.d, self.g, self.tempo = d, g, tempo
        self.tricks = nn.ModuleDict({trick.name: trick for trick in tricks})
        self.objective, self.latent, self.discriminate, self.autocast = objective, latent, discriminate, autocast
        self.uses_labels = uses_labels
        self.players = {player.side: player for player in (d, g) if player is not None}
        self._requirements: dict[tuple[Side, tuple[bool, ...]], MoveRequirements] = {}
        self._layer_contexts = [trick.layer_context for trick in tricks if isinstance(trick, NetworkTransform)]
        self._active = {side: ActiveTricks.by_hook(tricks, side) for side in Side}
        origins: tuple[Origin, Origin] = ("real", "fake")
        self._always_required = {
            Side.D: frozenset(origins),
            Side.G: frozenset(origins if objective.is_relativistic else origins[1:]),
        }

    @contextmanager
    def in_move(self, context: MoveContext) -> Iterator[None]:
        """A move: who does not move keeps still, and layers that surgery brought know when it is."""
        for clock in self._layer_contexts:
            clock.current = context
        try:
            with ExitStack() as quiet:
                for side, player in self.players.items():
                    if side is not context.side:
                        quiet.enter_context(player.no_weight_grad())
                yield
        finally:
            for clock in self._layer_contexts:
                clock.current = None

    def active_tricks(self, side: Side) -> ActiveTricks:
        """The tricks that act in the moves of `side`."""
        return self._active[side]

    def network_for(self, side: Side, context: MoveContext) -> nn.Module:
        """Who plays `side` in this move: its network, or a stand-in while the rival moves."""
        net = self.players[side].net
        return (
            net
            if side is context.side
            else apply_opponent_swaps(self._active[context.side].opponent_swaps, side, net, context)
        )

    def discriminate_fn(
        self, d: nn.Module, context: MoveContext
    ) -> Callable[[Tensor, Tensor | None], DiscriminatorOutput]:
        """How a term shows D other samples than the two piles: through this move's views, in the run's precision.

        What views draw for one term they do not draw for the next.
        """
        calls = count()

        def ask(images: Tensor, labels: Tensor | None) -> DiscriminatorOutput:
            views, now = self._active[context.side].input_transforms, context.with_call(next(calls))
            with self.autocast():
                return call_network(d, apply_input_transforms(views, images, "between", now), labels)

        return ask

    def generate_fn(self, context: MoveContext, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
        """How G makes samples in this move: with a gradient in its own only, in the run's precision."""

        def make(latents: Tensor) -> Tensor:
            with self.autocast(), torch.set_grad_enabled(context.side is Side.G):
                return to_float32(call_network(self.network_for(Side.G, context), latents, labels))

        return make

    def reconstruct_fn(
        self, batches: RealBatches, context: MoveContext, real: Tensor | None, labels: Tensor | None
    ) -> Callable[[], ReconstructedBatch]:
        """How this move's reals are encoded, and made anew by G."""
        make = self.generate_fn(context, labels)

        def rebuild() -> ReconstructedBatch:
            assert real is not None, "nothing in this move asked for the reals"
            assert self.g.encoder is not None, "this game has no encoder"
            with self.autocast(), torch.set_grad_enabled(context.side is Side.G):
                codes = call_encoder(self.g.encoder, real, lambda: batches.indices(context))
                latents = self.latent.project(sample_codes(codes, context.generator("codes")))
            return ReconstructedBatch(codes, latents, make(latents))

        return rebuild

    def requirements(self, context: MoveContext) -> MoveRequirements:
        """What the objective and the terms that are due read in this move."""
        due = tuple(term.is_due(context) for term in self._active[context.side].loss_terms)
        known = self._requirements.get((context.side, due))
        return known or self._requirements.setdefault(
            (context.side, due), self._compute_requirements(context.side, due)
        )

    def _compute_requirements(self, side: Side, due: tuple[bool, ...]) -> MoveRequirements:
        terms = [term for term, now in zip(self._active[side].loss_terms, due, strict=True) if now]
        origins = self._always_required[side].union(*(term.needs_output | term.needs_input_gradient for term in terms))
        slopes = frozenset[Origin]().union(*(term.needs_input_gradient for term in terms))
        return MoveRequirements(
            origins, tuple(sorted(slopes)), "real" in origins or any(term.needs_real for term in terms)
        )

    def sampling_network(self, *, raw: bool = False) -> nn.Module:
        """The generator that samples come from: an average if a trick keeps one, else (or if `raw`) the live one."""
        stand_ins = [] if raw else [trick.sampling_network(Side.G) for trick in self._active[Side.G].post_updates]
        return next((net for net in stand_ins if net is not None), self.g.net)
