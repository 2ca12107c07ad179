"""The step of a game for one: G rebuilds what its encoder has seen, and nobody judges. Read `step.py` first.

reals > encoder > codes > G > rebuilt > objective + TERMs > backward > GRADS > step > AFTER
"""

from __future__ import annotations

from poise.core.move import MoveData
from poise.core.types import MoveContext, Side
from poise.engine.batches import RealBatches
from poise.engine.game import Game
from poise.engine.step import add_loss_terms, apply_update, backward
from poise.engine.step_metrics import StepMetrics


def reconstruction_step(game: Game, batches: RealBatches, context: MoveContext, metrics: StepMetrics) -> None:
    """One step: G and its encoder pay for how far what they rebuild is from the real."""
    context = context.for_move(Side.G, 0)
    with game.in_move(context):
        move = reconstruct(game, batches, context)
        backward(game, add_loss_terms(game, move, game.objective.reconstruction_loss(move)), move, metrics)
    apply_update(game, move, metrics)


def reconstruct(game: Game, batches: RealBatches, context: MoveContext) -> MoveData:
    """Reals from the data as the objective takes them, their codes, and what G makes of these."""
    real, labels = batches.load(context, labels=game.uses_labels)
    assert real is not None
    seen = game.objective.prepare_real(real, context)
    make, rebuilt = game.generate_fn(context, labels), game.reconstruct_fn(batches, context, seen, labels)()
    return MoveData(
        context, rebuilt.latents, rebuilt.images, seen, labels, labels, generate_fn=make, reconstruct_fn=lambda: rebuilt
    )
