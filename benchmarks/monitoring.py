"""What the monitor costs: the default recipe with it and without, a row's worth of steps each in turn.

    python benchmarks/monitoring.py
    python benchmarks/monitoring.py --recipe ring --rounds 40

With: every gradient is looked at before the step, vital signs are taken once a row, and the monitor hears the row.
Without: none of it; the row itself is worked out in both. Printed: the median over rounds of the ratio of both times.
"""

from __future__ import annotations

import argparse
import time
from statistics import median, quantiles

import torch

from poise.engine.compute import choose_compute
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.training.state import TrainState
from poise.watch.monitor import Monitor


def deaf(here: TrainState) -> TrainState:
    """A run whose players look at no gradient."""
    for player in here.game.players.values():
        player.set_found_inf = lambda norms: None  # type: ignore[method-assign]
    return here


def interval(here: TrainState, monitor: Monitor | None) -> float:
    """Seconds for one row's steps and the row."""
    began = time.perf_counter()
    for left in range(here.recipe.log.rows, 0, -1):
        if monitor is not None and left == 1:
            here.diagnostics.before_step()
        here.step()
    stats = here.step_metrics.reduce()
    if monitor is not None:
        monitor.hear(here.steps_done, stats | here.diagnostics.compute())
    return time.perf_counter() - began


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="dcgan")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="two rounds of two small steps: not a measurement")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    told = load_table(asked.recipe)
    if asked.quick:
        asked.rounds = 2
        told |= {"batch": 4, "log": {**told.get("log", {}), "rows": 2}}
    recipe = decode(told)
    loaded, compute = recipe.data.load(), choose_compute("cpu", "auto", recipe)
    watched, bare = TrainState(recipe, compute, loaded), deaf(TrainState(recipe, compute, loaded))
    monitor = Monitor(family=str(recipe.objective.tag()), length=recipe.steps)
    interval(watched, monitor), interval(bare, None)  # first steps are slower
    ratios = []
    for turn in range(asked.rounds):
        pair = {}
        for name in ("with", "without") if turn % 2 else ("without", "with"):
            pair[name] = interval(watched, monitor) if name == "with" else interval(bare, None)
        ratios.append(pair["with"] / pair["without"])
        print(f"{pair['without']:.3f} s without, {pair['with']:.3f} s with: {ratios[-1]:.4f}", flush=True)
    low, _, high = quantiles(ratios, n=4)
    rows = f"{recipe.log.rows} steps and their row"
    print(f"{asked.recipe}, {rows}: median ratio {median(ratios):.4f}, quartiles {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    main()
