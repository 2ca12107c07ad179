"""The step: how a GAN is trained here, top to bottom. Read this first.

    TEMPO > OPPONENT > z > G > fakes > OFFER > VIEW > D judges
          > AIM > objective > PICK + TERMs > backward > GRADS > step > AFTER

Every trick acts at one of the words in capitals (`poise/seams.py`), and is in a list that is folded there;
a list without tricks is empty and costs nothing. Nothing here waits for the device. `alone.py` is the road without D.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.core import Batch, Exchange, Moment, Side, Targets
from poise.objectives.base import Costs
from poise.seams import fold_aims, fold_offer, fold_picks, fold_views
from poise.training.feed import Feed
from poise.training.game import Game
from poise.training.ledger import Ledger


def alternate(game: Game, feed: Feed, moment: Moment, ledger: Ledger) -> None:
    """One step: one player's moves (D's, unless the tempo says otherwise), then the other's."""
    for side in game.tempo.order:
        turn, last = 0, None
        while game.tempo.again(moment.of(side, turn), last):
            last = move(game, feed, moment.of(side, turn), ledger)
            turn += 1


def simultaneous(game: Game, feed: Feed, moment: Moment, ledger: Ledger) -> None:
    """One step in which both move at once: each knows the other only as it was before."""
    exchanges = [think(game, feed, moment.of(side, 0), ledger) for side in Side]
    for exchange in exchanges:
        act(game, exchange, ledger)


def move(game: Game, feed: Feed, moment: Moment, ledger: Ledger) -> Exchange:
    """One move of one player, while the other keeps still."""
    exchange = think(game, feed, moment, ledger)
    act(game, exchange, ledger)
    return exchange


def think(game: Game, feed: Feed, moment: Moment, ledger: Ledger) -> Exchange:
    """The first half of a move: what it costs, and which way is down."""
    with game.during(moment):
        with game.numerics():
            exchange = draw(game, feed, moment)
            offer(game, exchange)
            face(game, exchange)
        descend(game, charge(game, exchange, ledger), exchange, ledger)
    return exchange


def act(game: Game, exchange: Exchange, ledger: Ledger) -> None:
    """The second half: the step itself, and what is kept of it."""
    game.players[exchange.moment.side].advance(exchange.moment)
    remember(game, exchange, ledger)


def draw(game: Game, feed: Feed, moment: Moment) -> Exchange:
    """Reals from the data, latents from their law, fakes from G; D's move needs no gradient through G."""
    needs = game.needs(moment)
    real, labels = feed.draw(moment, reals=needs.reals, labels=game.labelled)
    latents, make = game.latent.draw(moment.batch, moment.generator("latents")), game.making(moment, labels)
    rebuild = game.rebuilding(feed, moment, real, labels)
    return Exchange(moment, latents, make(latents), real, labels, labels, needs.slopes, needs.piles, make, rebuild)


def offer(game: Game, exchange: Exchange) -> None:
    """What D is handed in place of G's newest fakes."""
    newest, offers = Batch(exchange.fake, exchange.asked), game.tricks_of(exchange.moment.side).offers
    exchange.fake, exchange.asked = fold_offer(offers, newest, exchange.moment)


def face(game: Game, exchange: Exchange) -> None:
    """D sees both piles through the views, and judges."""
    moment = exchange.moment
    for pile in exchange.sloped:
        exchange.pile(pile).requires_grad_()
    views, d = game.tricks_of(moment.side).views, game.plays(Side.D, moment)
    fake = fold_views(views, exchange.fake, "fake", moment)
    real = fold_views(views, exchange.pile("real"), "real", moment) if exchange.judges_reals else None
    reals = None if real is None else Batch(real, exchange.labels)
    exchange.verdicts = game.judge(d, reals, Batch(fake, exchange.asked))
    exchange.ask = game.asking(d, moment)


def charge(game: Game, exchange: Exchange, ledger: Ledger) -> Tensor:
    """What the move costs: the objective, after aim, where it counts, and the terms that are due."""
    side = exchange.moment.side
    costs = fold_picks(game.tricks_of(side).picks, adversarial(game, exchange), exchange)
    total = sum((cost.mean() for cost in costs[1:]), costs[0].mean())
    exchange.readings["adversarial"] = total.detach() / len(costs)
    if side is Side.D:
        ledger.scores(exchange.score("real"), exchange.score("fake"))
    return with_terms(game, exchange, total)


def with_terms(game: Game, exchange: Exchange, total: Tensor) -> Tensor:
    """The cost so far, and the terms that are due."""
    for term in game.tricks_of(exchange.moment.side).terms:
        if term.due(exchange.moment):
            cost = exchange.readings[term.name] = term.cost(exchange)
            total = total + term.force(exchange.moment) * cost
    return total


def adversarial(game: Game, exchange: Exchange) -> Costs:
    """The objective's cost for the side that moves, per sample."""
    moment = exchange.moment
    fake = exchange.score("fake")
    if moment.side is Side.G:
        return game.objective.g_costs(fake, exchange.score("real") if game.objective.compares else None, moment)
    real, aims = exchange.score("real"), game.tricks_of(Side.D).aims
    hard = Targets(torch.ones_like(real), torch.zeros_like(fake)) if aims else None
    return game.objective.d_costs(real, fake, hard and fold_aims(aims, hard, moment), moment)


def descend(game: Game, cost: Tensor, exchange: Exchange, ledger: Ledger) -> None:
    """One backward, and the gradients folded; the step itself comes in `act`."""
    side = exchange.moment.side
    player = game.players[side]
    player.forget()
    cost.backward()
    player.heed(ledger.norm(f"{side}/grad_norm", [w.grad for w in player.weights if w.grad is not None]))
    for trick in game.tricks_of(side).grads:
        trick.adjust(player, exchange)


def remember(game: Game, exchange: Exchange, ledger: Ledger) -> None:
    """What the objective and the tricks keep of this move, and what the rows will show of it."""
    side = exchange.moment.side
    game.objective.remember(exchange)
    for trick in game.tricks_of(side).afters:
        trick.remember(game.players[side], exchange)
    for name, reading in exchange.readings.items():
        ledger.note(f"{side}/{name}", reading)
