"""The step: how a GAN is trained here, top to bottom. Read this first.

    TEMPO > OPPONENT > z > G > fakes > OFFER > VIEW > D judges
          > AIM > objective + TERMs > backward > GRADS > step > AFTER

Every trick acts at one of the words in capitals (`poise/seams.py`), and is in a list that is folded there;
a list without tricks is empty and costs nothing. Nothing here waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.core import Exchange, Moment, Side, Targets, in_full
from poise.objectives.base import Costs
from poise.seams import fold_aims, fold_offer, fold_views
from poise.training.feed import Feed
from poise.training.game import Game
from poise.training.ledger import Ledger


def alternate(game: Game, feed: Feed, moment: Moment, ledger: Ledger) -> None:
    """One step: D's moves, each on fresh reals, then G's."""
    moves = game.tempo.moves(moment)
    for side, times in ((Side.D, moves.d), (Side.G, moves.g)):
        for turn in range(times):
            move(game, feed, moment.of(side, turn), ledger)


def move(game: Game, feed: Feed, moment: Moment, ledger: Ledger) -> None:
    """One move of one player, while the other keeps still."""
    with game.players[moment.side.rival].still():
        with game.numerics():
            exchange = draw(game, feed, moment)
            offer(game, exchange)
            face(game, exchange)
        cost = charge(game, exchange, ledger)
        descend(game, cost, moment, ledger)
    remember(game, exchange)


def draw(game: Game, feed: Feed, moment: Moment) -> Exchange:
    """Reals from the data, latents from their law, fakes from G; D's move needs no gradient through G."""
    needs = game.needs(moment)
    real, labels = feed.batch(moment) if "real" in needs.piles else (None, None)
    latents = game.latent.draw(moment.batch, moment.generator("latents"))
    with torch.set_grad_enabled(moment.side is Side.G):
        fake = in_full(game.plays(Side.G, moment)(latents))
    return Exchange(moment, latents, fake, real, labels, sloped=needs.slopes)


def offer(game: Game, exchange: Exchange) -> None:
    """What D is handed in place of G's newest fakes."""
    exchange.fake = fold_offer(game.tricks_of(exchange.moment.side).offers, exchange.fake, exchange.moment)


def face(game: Game, exchange: Exchange) -> None:
    """D sees both piles through the views, and judges."""
    moment = exchange.moment
    for pile in exchange.sloped:
        exchange.pile(pile).requires_grad_()
    views = game.tricks_of(moment.side).views
    fake = fold_views(views, exchange.fake, "fake", moment)
    real = None if exchange.real is None else fold_views(views, exchange.real, "real", moment)
    exchange.verdicts = game.judge(game.plays(Side.D, moment), real, fake)


def charge(game: Game, exchange: Exchange, ledger: Ledger) -> Tensor:
    """What the move costs: the objective, after aim, and the terms that are due."""
    moment, side = exchange.moment, exchange.moment.side
    costs = adversarial(game, exchange)
    total = sum((cost.mean() for cost in costs[1:]), costs[0].mean())
    ledger.note(f"{side}/adversarial", total.detach() / len(costs))
    for term in game.tricks_of(side).terms:
        if term.due(moment):
            cost = term.cost(exchange)
            ledger.note(f"{side}/{term.name}", cost)
            total = total + term.force(moment) * cost
    if side is Side.D:
        ledger.scores(exchange.score("real"), exchange.score("fake"))
    return total


def adversarial(game: Game, exchange: Exchange) -> Costs:
    """The objective's cost for the side that moves, per sample."""
    moment = exchange.moment
    fake = exchange.score("fake")
    if moment.side is Side.G:
        return game.objective.g_costs(fake, exchange.score("real") if game.objective.compares else None)
    real, aims = exchange.score("real"), game.tricks_of(Side.D).aims
    hard = Targets(torch.ones_like(real), torch.zeros_like(fake)) if aims else None
    return game.objective.d_costs(real, fake, hard and fold_aims(aims, hard, moment))


def descend(game: Game, cost: Tensor, moment: Moment, ledger: Ledger) -> None:
    """One backward, the gradients folded, one optimiser step."""
    player = game.players[moment.side]
    player.forget()
    cost.backward()
    for trick in game.tricks_of(moment.side).grads:
        trick.adjust(player, moment)
    ledger.norm(f"{moment.side}/grad_norm", [w.grad for w in player.weights if w.grad is not None])
    player.advance(moment)


def remember(game: Game, exchange: Exchange) -> None:
    """What the tricks keep of this move."""
    side = exchange.moment.side
    for trick in game.tricks_of(side).afters:
        trick.remember(game.players[side], exchange)
