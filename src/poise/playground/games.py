"""One or two games from one seed, trained in turns, a step each, in run folders of their own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import numpy as np

from poise.core.types import Side
from poise.errors import Stopped
from poise.playground.commands import DENSITY_SIDE, Start
from poise.playground.table import recipe_table
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.folder import is_run_folder
from poise.training.train import open_trainer
from poise.utils.files import make_folder, remove_folder
from poise.utils.image_grid import write_png
from poise.utils.locks import is_held
from poise.utils.system import disk_errors
from poise.utils.temporary import remove_orphans

PLANE = (2,)
"""The shape of a point."""

NAMES = "ab"
"""The ends of the names of the run folders."""

RUN_NAME = re.compile(rf"\d{{8}}-\d{{6}}(-\d+)?-[{NAMES}]")
"""The names of the run folders."""


class OpenGame:
    """A game whose run folder is open.

    Args:
        recipe: the recipe.
        folder: the run folder, which does not exist yet.

    Raises:
        RecipeError: the parts of the recipe don't fit together; nothing has been written.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        with ExitStack() as opened:
            self.trainer = opened.enter_context(open_trainer(recipe, folder, device="cpu"))
            opened.enter_context(self.trainer.session())
            self._opened = opened.pop_all()

    @property
    def ended(self) -> bool:
        """Whether all steps are made."""
        return self.trainer.done >= self.trainer.recipe.steps

    def close(self, error: BaseException | None) -> None:
        """End the run: it is done if all steps are made, failed with `error`, and otherwise stopped, with a checkpoint.

        Raises:
            PoiseError: the checkpoint could not be written.
            BaseException: `error`, unless it says that the run was stopped.
        """
        with suppress(Stopped), self._opened:
            if error is not None:
                raise error
            if not self.ended:
                self.trainer.stop("the playground")


class Games:
    """The games that are open, one or two."""

    def __init__(self) -> None:
        self.open: list[OpenGame] = []
        self._moving: OpenGame | None = None

    @property
    def runs(self) -> list[str]:
        """The names of their run folders."""
        return [game.trainer.folder.path.name for game in self.open]

    @property
    def steps(self) -> list[int]:
        """The number of steps that each has made."""
        return [game.trainer.done for game in self.open]

    @property
    def ended(self) -> bool:
        """Whether all steps are made."""
        return all(game.ended for game in self.open)

    def step(self, mover: Side | None = None, *, log_now: bool = False) -> None:
        """Make a step of each game; see `Trainer.step`.

        Raises:
            PoiseError: a game can't go on, or a signal has asked it to stop.
        """
        for game in self.open:
            self._moving = game
            game.trainer.step(mover, log_now=log_now)
        self._moving = None

    def exclude(self, seconds: float) -> None:
        """Let the last `seconds`, which were a pause, not count for the speed of training that is logged."""
        for game in self.open:
            game.trainer.stopwatch.exclude(seconds)

    def check_signals(self) -> None:
        """Stop if a signal has asked for it during a pause.

        Raises:
            Stopped: a signal has arrived.
        """
        for game in self.open:
            if requested_by := game.trainer.signals.requested_by:
                raise Stopped(f"stopped by {requested_by}")

    def close(self, error: BaseException | None) -> None:
        """End all games, the last one first: the one that raised `error` with it, the others as `OpenGame.close` says.

        Raises:
            BaseException: the first error of a game's end, unless that game was moving.
        """
        with ExitStack() as closing:
            for game in self.open:
                closing.callback(game.close, error if game is self._moving else None)


@contextmanager
def open_games(start: Start, folder: Path) -> Iterator[Games]:
    """The games of `start`, open in this block and ended after it; they replace the games that were played before.

    Args:
        start: what the learner chose.
        folder: the folder of the run folders, which are named by date and time.

    Raises:
        RecipeError: the parts of a game don't fit together; nothing has been written but the drawing.
        PoiseError: a game could not go on.
    """
    games, recipes = Games(), checked_recipes(start, folder)
    stem = unused_stem(folder, f"{datetime.now():%Y%m%d-%H%M%S}")
    remove_games(folder)
    error: BaseException | None = None
    try:
        for name, recipe in zip(NAMES, recipes, strict=False):
            games.open.append(OpenGame(recipe, folder / f"{stem}-{name}"))
        yield games
    except BaseException as raised:
        error = raised
        raise
    finally:
        games.close(error)


def checked_recipes(start: Start, folder: Path) -> list[Recipe]:
    """The recipes of the games; a drawn density is written to `folder`.

    Raises:
        RecipeError: the parts of one don't fit together.
    """
    density = None if start.density is None else write_drawing(start.drawn(), folder / "drawings")
    recipes = [decode(recipe_table(game, start.seed, density)) for game in start.games]
    for recipe in recipes:
        check_compatibility(recipe, PLANE).raise_first()
    return recipes


def write_drawing(drawn: bytes, folder: Path) -> Path:
    """Write a drawn density, 64 x 64 bytes, as a PNG file named by its content, dark where it is high.

    Returns:
        Its path.
    """
    pixels = 255 - np.frombuffer(drawn, np.uint8).reshape(DENSITY_SIDE, DENSITY_SIDE, 1)
    path = folder / f"{hashlib.sha256(drawn).hexdigest()[:16]}.png"
    with disk_errors(folder):
        make_folder(folder)
    write_png(pixels, path)
    return path


def remove_games(folder: Path) -> None:
    """Delete the run folders of games that have ended, as far as they can be deleted.

    What has another name stays, so a folder that was renamed is kept. So does a game that a process still trains.

    Args:
        folder: the folder of the run folders.
    """
    remove_orphans(folder)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        is_game = RUN_NAME.fullmatch(path.name) and is_run_folder(path) and not path.is_symlink()
        if is_game and not is_held(path / "run.lock"):
            with suppress(OSError):
                remove_folder(path)


def unused_stem(folder: Path, stem: str) -> str:
    """`stem`, or the first of stem-2, stem-3, ... of which no run folder exists."""
    found, n = stem, 1
    while any((folder / f"{found}-{name}").exists() for name in NAMES):
        n += 1
        found = f"{stem}-{n}"
    return found
