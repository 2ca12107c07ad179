"""The gradients of a move: those of one part of the batch after another, then of all ranks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from poise.core.move import MoveData, join_parts
from poise.core.types import MoveContext
from poise.engine.game import Game

Forward = Callable[[MoveContext], tuple[MoveData, Tensor]]
"""The forward passes and the loss of a move, or of a part of it."""


def accumulate_gradients(game: Game, context: MoveContext, forward: Forward) -> MoveData:
    """Compute the gradient of the mean loss over the parts of a batch, mostly a single one, and over all ranks.

    The graph of a part is freed before the next one is computed, so that the memory is that of a part. In what is
    returned, the parts are joined.
    """
    player, parts, moves = game.players[context.side], context.parts, []
    player.clear_gradients()
    for part in parts:
        with game.in_move(part):
            move, loss = forward(part)
            (loss if len(parts) == 1 else loss / len(parts)).backward()
        moves.append(move if len(parts) == 1 else move.detach())
    context.ranks.average(player.gradients())
    return join_parts(moves, context)
