"""Plays tiny games on the ranks that torchrun has started; rank 0 prints a line of JSON for each game.

`differing` are the names of the state that differ between the ranks after three steps. `distance` is the largest
difference of a weight to the same game on a single rank, in units of the largest weight, and `of_parts` that to a
single rank that computes its batches in as many parts.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import torch

from contracts.test_tricks import OBJECTIVES, TRICKS, strong, worlds
from contracts.tiny import Session, bits, findings_of, recipe, source, suited
from poise.core.process_ranks import connected_ranks
from poise.core.ranks import ALONE, Ranks
from poise.recipe.decode import decode
from poise.recipe.model import Recipe

STEPS = 3
PLAIN = {side: {"kind": "sgd", "lr": 0.05} for side in "gd"}
"""Adam divides by the size of a gradient, so that a rounding error of a small one becomes a step."""

TEMPOS = ({"kind": "ratio", "d": 2}, {"kind": "simultaneous"}, {"kind": "thresholds", "d_above": 0.3, "g_above": 0.3})


def games() -> Iterator[tuple[str, str, Recipe]]:
    """A name, the world and the recipe of each game."""
    for kind in TRICKS:
        for world in worlds(kind)[:1]:
            yield f"trick {kind}", world, without_norms(recipe(world, strong(kind), optimizer=PLAIN), world)
    for kind in OBJECTIVES:
        tables = suited("points", kind)
        tables["optimizer"] = {side: PLAIN[side] for side in tables.get("optimizer", PLAIN)}
        game = recipe("points", **tables)
        if not findings_of(game, "points").refusals:
            yield f"objective {kind}", "points", game
    for tempo in TEMPOS:
        yield f"tempo {tempo['kind']}", "points", recipe("points", tempo=tempo, optimizer=PLAIN)
    yield "batch norm", "pictures", recipe("pictures", optimizer=PLAIN)
    yield "sync batch norm", "pictures", recipe("pictures", optimizer=PLAIN, sync_batch_norm=True)
    yield "labels", "labelled", without_norms(recipe("labelled", optimizer=PLAIN), "labelled")
    mirrored = recipe("pictures", optimizer=PLAIN, data={"kind": "digits", "size": 8, "mirror": True})
    yield "mirror", "pictures", without_norms(mirrored, "pictures")


def without_norms(game: Recipe, world: str) -> Recipe:
    """The recipe with networks without norms, unless it then is refused."""
    table = game.canonical()
    for network in table["network"].values():
        if isinstance(network, dict) and "norm" in network:
            network["norm"] = "none"
    changed = decode(table)
    return game if findings_of(changed, world).refusals else changed


def played(game: Recipe, world: str, ranks: Ranks = ALONE, accumulate: int = 1) -> dict[str, torch.Tensor]:
    """The state after some steps."""
    return Session(game, source(world), ranks=ranks, accumulate=accumulate).play(STEPS).saved()


def compare(game: Recipe, world: str, ranks: Ranks) -> dict[str, Any]:
    """See the module."""
    state = {name: tensor for name, tensor in played(game, world, ranks).items() if not name.startswith("ledger/")}
    sums = torch.tensor([[zlib.crc32(bits(state[name]).numpy().tobytes()) for name in sorted(state)]])
    first, second = ranks.gather(sums)
    differing = [name for name, same in zip(sorted(state), (first == second).tolist(), strict=True) if not same]
    if not ranks.leads:
        return {}
    distances = {"distance": played(game, world), "of_parts": played(game, world, accumulate=ranks.size)}
    return {"differing": differing} | {name: distance(state, other) for name, other in distances.items()}


def distance(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of a weight, in units of the largest weight of `other`."""
    weights = [
        name for name in state if name.startswith("game/") and ".net." in name and state[name].is_floating_point()
    ]
    scale = max(float(other[name].abs().max()) for name in weights)
    return max(float((state[name] - other[name]).abs().max()) for name in weights) / scale


def main() -> None:
    """See the module."""
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False
    with connected_ranks("cpu") as (ranks, _):
        for name, world, game in games():
            result = compare(game, world, ranks)
            if ranks.leads:
                sys.stdout.write(json.dumps({"game": name, **result}) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
