"""Samples for other latents than those of the move, as some loss terms need them; possibly fewer than a batch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from poise.core.types import MoveContext
from poise.engine.game import Game


def generate_fn(game: Game, context: MoveContext, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
    """A function that generates samples in this move: for n latents it uses the first n labels."""

    def generate(latents: Tensor) -> Tensor:
        return game.generate_fn(context, None if labels is None else labels[: len(latents)])(latents)

    return generate
