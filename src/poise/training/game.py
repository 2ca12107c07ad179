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

from poise.codes import drawn
from poise.core import Batch, Moment, Pile, Rebuilt, Side, Verdict, in_full
from poise.latents import Latent
from poise.networks.base import coded, heard
from poise.objectives.base import Rule
from poise.players import Player
from poise.seams import (
    After,
    Aim,
    Grads,
    Offer,
    Opponent,
    Pick,
    Surgery,
    Tempo,
    Term,
    Trick,
    View,
    fold_opponent,
    fold_views,
)

if TYPE_CHECKING:
    from poise.training.feed import Feed

Judge = Callable[[nn.Module, Batch | None, Batch], dict[Pile, Verdict]]
Seam = TypeVar("Seam", bound=Trick)


def apart(d: nn.Module, real: Batch | None, fake: Batch) -> dict[Pile, Verdict]:
    """D judges an all-real batch, then an all-fake one (tip T04)."""
    verdicts: dict[Pile, Verdict] = {} if real is None else {"real": heard(d, *real)}
    verdicts["fake"] = heard(d, *fake)
    return verdicts


def together(d: nn.Module, real: Batch | None, fake: Batch) -> dict[Pile, Verdict]:
    """D judges both in one batch: the same numbers, faster, unless D mixes its samples (a batch norm)."""
    if real is None:
        return {"fake": heard(d, *fake)}
    labels = None if real.labels is None or fake.labels is None else torch.cat((real.labels, fake.labels))
    both = heard(d, torch.cat((real.images, fake.images)), labels)
    share = len(both.score) * len(real.images) // (len(real.images) + len(fake.images))  # D may judge several at once
    return {"real": both.part(slice(share)), "fake": both.part(slice(share, None))}


class Needs(NamedTuple):
    """What a move needs: piles that D judges, those whose slope is read, and whether reals are drawn."""

    piles: frozenset[Pile]
    slopes: tuple[Pile, ...]
    reals: bool


@dataclass(frozen=True)
class Acting:
    """The tricks that act in one side's moves, by seam, in the order in which they act."""

    opponents: tuple[Opponent, ...]
    offers: tuple[Offer, ...]
    views: tuple[View, ...]
    aims: tuple[Aim, ...]
    picks: tuple[Pick, ...]
    terms: tuple[Term, ...]
    grads: tuple[Grads, ...]
    afters: tuple[After, ...]

    @classmethod
    def sort(cls, tricks: list[Trick], side: Side) -> Acting:
        """Each trick to every seam it is made for: by its `rank`, and in the recipe's order among equals."""
        tricks = sorted(tricks, key=lambda trick: trick.rank)

        def those(seam: type[Seam]) -> tuple[Seam, ...]:
            return tuple(t for t in tricks if isinstance(t, seam) and side in t.sides)

        return cls(*map(those, (Opponent, Offer, View, Aim, Pick, Term, Grads, After)))  # type: ignore[arg-type]


class Game(nn.Module):
    """Everything that a step reads.

    Args:
        d: the discriminator's player; None in a game for one, in which G rebuilds what its encoder has seen.
        g: the generator's player.
        objective: what the verdicts cost, and what it must remember for that.
        latent: what G starts from.
        tempo: who moves how often.
        tricks: in the recipe's order.
        judge: `apart` or `together`.
        autocast: the context in which networks run forward, a new one each time.
        labelled: whether labels are drawn: a network or a term of this game reads them.
    """

    def __init__(
        self,
        d: Player | None,
        g: Player,
        objective: Rule[Any],
        latent: Latent,
        tempo: Tempo,
        tricks: list[Trick],
        judge: Judge = apart,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        labelled: bool = False,
    ) -> None:
        super().__init__()
        self.d, self.g, self.tempo = d, g, tempo
        self.tricks = nn.ModuleDict({trick.name: trick for trick in tricks})
        self.objective, self.latent, self.judge, self.numerics = objective, latent, judge, autocast
        self.labelled = labelled
        self.players = {player.side: player for player in (d, g) if player is not None}
        self._needs: dict[tuple[Side, tuple[bool, ...]], Needs] = {}
        self._clocks = [trick.clock for trick in tricks if isinstance(trick, Surgery)]
        self._acting = {side: Acting.sort(tricks, side) for side in Side}
        piles: tuple[Pile, Pile] = ("real", "fake")
        self._always = {Side.D: frozenset(piles), Side.G: frozenset(piles if objective.compares else piles[1:])}

    @contextmanager
    def during(self, moment: Moment) -> Iterator[None]:
        """A move: who does not move keeps still, and layers that surgery brought know when it is."""
        for clock in self._clocks:
            clock.now = moment
        try:
            with ExitStack() as quiet:
                for side, player in self.players.items():
                    if side is not moment.side:
                        quiet.enter_context(player.still())
                yield
        finally:
            for clock in self._clocks:
                clock.now = None

    def tricks_of(self, side: Side) -> Acting:
        """The tricks that act in the moves of `side`."""
        return self._acting[side]

    def plays(self, side: Side, moment: Moment) -> nn.Module:
        """Who plays `side` in this move: its network, or a stand-in while the rival moves."""
        net = self.players[side].net
        return net if side is moment.side else fold_opponent(self._acting[moment.side].opponents, side, net, moment)

    def asking(self, d: nn.Module, moment: Moment) -> Callable[[Tensor, Tensor | None], Verdict]:
        """How a term shows D other samples than the two piles: through this move's views, in the run's precision.

        What views draw for one term they do not draw for the next.
        """
        calls = count()

        def ask(images: Tensor, labels: Tensor | None) -> Verdict:
            views, now = self._acting[moment.side].views, moment.again(next(calls))
            with self.numerics():
                return heard(d, fold_views(views, images, "between", now), labels)

        return ask

    def making(self, moment: Moment, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
        """How G makes samples in this move: with a gradient in its own only, in the run's precision."""

        def make(latents: Tensor) -> Tensor:
            with self.numerics(), torch.set_grad_enabled(moment.side is Side.G):
                return in_full(heard(self.plays(Side.G, moment), latents, labels))

        return make

    def rebuilding(
        self, feed: Feed, moment: Moment, real: Tensor | None, labels: Tensor | None
    ) -> Callable[[], Rebuilt]:
        """How this move's reals are encoded, and made anew by G."""
        make = self.making(moment, labels)

        def rebuild() -> Rebuilt:
            assert real is not None, "nothing in this move asked for the reals"
            assert self.g.encoder is not None, "this game has no encoder"
            with self.numerics(), torch.set_grad_enabled(moment.side is Side.G):
                codes = coded(self.g.encoder, real, lambda: feed.places(moment))
                latents = self.latent.held(drawn(codes, moment.generator("codes")))
            return Rebuilt(codes, latents, make(latents))

        return rebuild

    def needs(self, moment: Moment) -> Needs:
        """What the objective and the terms that are due read in this move."""
        due = tuple(term.due(moment) for term in self._acting[moment.side].terms)
        known = self._needs.get((moment.side, due))
        return known or self._needs.setdefault((moment.side, due), self._work_out(moment.side, due))

    def _work_out(self, side: Side, due: tuple[bool, ...]) -> Needs:
        terms = [term for term, now in zip(self._acting[side].terms, due, strict=True) if now]
        piles = self._always[side].union(*(term.piles | term.slopes for term in terms))
        slopes = frozenset[Pile]().union(*(term.slopes for term in terms))
        return Needs(piles, tuple(sorted(slopes)), "real" in piles or any(term.reads_reals for term in terms))

    def shown(self, *, raw: bool = False) -> nn.Module:
        """The generator that samples come from: an average if a trick keeps one, else (or if `raw`) the live one."""
        stand_ins = [] if raw else [trick.shown(Side.G) for trick in self._acting[Side.G].afters]
        return next((net for net in stand_ins if net is not None), self.g.net)
