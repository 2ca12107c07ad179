"""The recipe of a game: networks on points in the plane that are small enough for hundreds of steps per second."""

from __future__ import annotations

from pathlib import Path

from poise.playground.commands import GameSpec
from poise.playground.options import DATA, MAX_STEPS, TRICKS, WEIGHT_FIELDS, Table

DEPTH = 2
"""The number of hidden layers of each network."""

CLUSTERED = ("ring", "grid")
"""The data with modes, which can be counted."""


def recipe_table(game: GameSpec, seed: int, density: Path | None) -> Table:
    """The table of a recipe, for `poise.recipe.decode`.

    The monitor ends the run when it diverges, instead of going back: a learner should see it.

    Args:
        game: what the learner chose.
        seed: the seed.
        density: the image of the drawn density; None if there is none.
    """
    data = {"kind": game.data} | DATA[game.data].table | ({"path": str(density)} if game.data == "density" else {})
    network = {"kind": "mlp", "width": game.width, "depth": DEPTH}
    tricks = [{"kind": kind, **TRICKS[kind].table} for kind in game.tricks]
    if game.penalty is not None:
        tricks.insert(0, {"kind": game.penalty, WEIGHT_FIELDS[game.penalty]: game.penalty_weight})
    measured = {"every": 500, "measures": ["modes", "high_quality"], "n": 1000}
    return {
        "name": "playground",
        "seed": seed,
        "steps": MAX_STEPS,
        "batch": game.batch,
        "data": data,
        "latent": {"kind": "gaussian", "dim": game.latent_dim},
        "network": {"g": network | {"activation": "relu"}, "d": network},
        "objective": {"kind": game.objective},
        "optimizer": {"g": {"kind": "adam", "lr": game.lr_g}, "d": {"kind": "adam", "lr": game.lr_d}},
        "tempo": {"kind": "ratio", "d": game.d_moves},
        "tricks": tricks,
        "log": {"rows": 20, "samples": 1000, "saves": 2000, "sheet": 512, "to": []},
        "monitor": {"roll_backs": 0},
    } | ({"measure": measured} if game.data in CLUSTERED else {})
