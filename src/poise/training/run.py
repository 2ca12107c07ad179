"""A run, opened from its folder: its recipe, its newest save, and samples of it. Works while it still trains."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poise.core import Shape
from poise.data.source import ToyEntry
from poise.errors import SaveError
from poise.randomness import Dice
from poise.recipe.model import Recipe
from poise.recipe.read import decode
from poise.recipe.text import read_file
from poise.training import save, state
from poise.training.build import build
from poise.training.folder import RunFolder, read_lines
from poise.training.game import Game
from poise.training.machine import Machine
from poise.training.record import generate


class Run:
    """A finished or running run.

    Args:
        path: the run folder.

    Raises:
        SaveError: it is not one.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(Path(path))
        self.path = self.folder.path
        self.info: dict[str, Any] = self.folder.read_info()

    @cached_property
    def recipe(self) -> Recipe:
        """What was trained."""
        return decode(read_file(self.folder.recipe), str(self.folder.recipe))

    @property
    def shape(self) -> Shape:
        """The shape of one sample."""
        return tuple(self.info["data"]["shape"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows so far, as `rows.jsonl` has them."""
        return list(read_lines(self.folder.rows)) if self.folder.rows.is_file() else []

    @cached_property
    def save(self) -> save.Save:
        """The newest whole save.

        Raises:
            SaveError: there is none; says what is wrong with the others.
        """
        newest, damaged = save.newest(self.folder.saves)
        if newest is None:
            raise SaveError("no valid save", where=str(self.folder.saves), found="; ".join(damaged) or "none at all")
        return newest

    @cached_property
    def game(self) -> Game:
        """The game as it was saved, on the CPU in float32."""
        recipe = self.recipe
        game = build(recipe, self.shape, Machine(torch.device("cpu"), "fp32"), Dice(recipe.seed))
        state.restore_game(game, self.save.tensors)
        return game

    def generator(self, *, raw: bool = False) -> nn.Module:
        """The generator that samples come from: the averaged one if there is one, the live one if `raw`."""
        return self.game.shown(raw=raw)

    def latents(self, n: int, seed: int = 0) -> Tensor:
        """n latents, a function of the seed."""
        return self.recipe.latent.draw(n, Dice(seed)("sample"))

    def sample(self, n: int, seed: int = 0, *, raw: bool = False) -> Tensor:
        """n samples, B x shape, in [-1, 1] for pictures."""
        return generate(self.generator(raw=raw), self.latents(n, seed))

    def real(self, n: int) -> Tensor | None:
        """n real points for toys, which need no files; None for pictures."""
        entry = self.recipe.data
        return entry.load().train.some(n) if isinstance(entry, ToyEntry) else None
