"""The step of a game for one: G rebuilds what its encoder has seen, and nobody judges. Read `step.py` first.

reals > encoder > codes > G > rebuilt > objective + TERMs > backward > GRADS > step > AFTER
"""

from __future__ import annotations

from poise.core import Exchange, Moment, Side
from poise.training.feed import Feed
from poise.training.game import Game
from poise.training.ledger import Ledger
from poise.training.step import act, descend, with_terms


def alone(game: Game, feed: Feed, moment: Moment, ledger: Ledger) -> None:
    """One step: G and its encoder pay for how far what they rebuild is from the real."""
    moment = moment.of(Side.G, 0)
    with game.during(moment):
        exchange = encode(game, feed, moment)
        descend(game, with_terms(game, exchange, game.objective.alone(exchange)), exchange, ledger)
    act(game, exchange, ledger)


def encode(game: Game, feed: Feed, moment: Moment) -> Exchange:
    """Reals from the data as the objective takes them, their codes, and what G makes of these."""
    real, labels = feed.draw(moment, labels=game.labelled)
    assert real is not None
    seen = game.objective.seen(real, moment)
    make, rebuilt = game.making(moment, labels), game.rebuilding(feed, moment, seen, labels)()
    return Exchange(moment, rebuilt.latents, rebuilt.images, seen, labels, labels, make=make, rebuild=lambda: rebuilt)
