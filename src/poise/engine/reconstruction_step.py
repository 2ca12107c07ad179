"""The step of training without a discriminator: G reconstructs encoded samples. Read `step.py` first.

real samples > encoder > codes > G > reconstructions > objective, loss terms > backward > gradient transforms
      > optimiser > post-update
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from poise.core.move import MoveData
from poise.core.types import MoveContext, Side
from poise.engine.batches import RealBatches
from poise.engine.game import Game
from poise.engine.step import add_loss_terms, apply_update, compute_gradients
from poise.engine.step_metrics import StepMetrics


def reconstruction_step(game: Game, batches: RealBatches, context: MoveContext, metrics: StepMetrics) -> None:
    """One step: G and its encoder are updated to reduce the reconstruction loss."""
    move = compute_gradients(game, context.for_move(Side.G, 0), partial(forward, game, batches), metrics)
    apply_update(game, move, metrics)


def forward(game: Game, batches: RealBatches, context: MoveContext) -> tuple[MoveData, Tensor]:
    """The reconstructions and their loss."""
    move = reconstruct(game, batches, context)
    return move, add_loss_terms(game, move, game.objective.reconstruction_loss(move))


def reconstruct(game: Game, batches: RealBatches, context: MoveContext) -> MoveData:
    """Load real samples, encode them and decode their codes with G."""
    loaded, labels = batches.load(context, labels=game.uses_labels)
    assert loaded is not None
    real = game.objective.prepare_real(loaded, context)
    generate, batch = game.generate_fn(context, labels), game.reconstruct_fn(batches, context, real, labels)()
    move = MoveData(context, batch.latents, batch.images, real, labels, labels, generate_fn=generate)
    move.reconstruct_fn = lambda: batch
    return move
