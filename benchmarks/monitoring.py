"""The overhead of the monitor: the default recipe with and without it, alternately for the steps of one logged row.

    python benchmarks/monitoring.py
    python benchmarks/monitoring.py --recipe ring --rounds 40

With the monitor, every gradient is checked before the step, diagnostics are computed once per row, and the monitor
reads the row. Without it, none of this happens; the row itself is computed in both cases. The median over rounds of the
ratio of both times is printed.
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


def without_gradient_checks(state: TrainState) -> TrainState:
    """Disable the check for non-finite gradients."""
    for player in state.game.players.values():
        player.set_found_inf = lambda norms: None  # type: ignore[method-assign]
    return state


def time_row(state: TrainState, monitor: Monitor | None) -> float:
    """The seconds that the steps of one row and the row itself take."""
    start = time.perf_counter()
    for remaining in range(state.recipe.log.rows, 0, -1):
        if monitor is not None and remaining == 1:
            state.diagnostics.before_step()
        state.step()
    stats = state.step_metrics.reduce()
    if monitor is not None:
        monitor.hear(state.steps_done, stats | state.diagnostics.compute())
    return time.perf_counter() - start


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="dcgan")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="two rounds of two small steps; not a measurement")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = load_table(args.recipe)
    if args.quick:
        args.rounds = 2
        table |= {"batch": 4, "log": {**table.get("log", {}), "rows": 2}}
    recipe = decode(table)
    data, compute = recipe.data.load(), choose_compute("cpu", "auto", recipe)
    monitored = TrainState(recipe, compute, data)
    plain = without_gradient_checks(TrainState(recipe, compute, data))
    monitor = Monitor(family=str(recipe.objective.tag()), length=recipe.steps)
    time_row(monitored, monitor), time_row(plain, None)  # warm-up
    ratios = []
    for turn in range(args.rounds):
        seconds = {}
        for name in ("with", "without") if turn % 2 else ("without", "with"):
            seconds[name] = time_row(monitored, monitor) if name == "with" else time_row(plain, None)
        ratios.append(seconds["with"] / seconds["without"])
        print(f"{seconds['without']:.3f} s without, {seconds['with']:.3f} s with: ratio {ratios[-1]:.4f}", flush=True)
    low, _, high = quantiles(ratios, n=4)
    print(f"{args.recipe}, {recipe.log.rows} steps per row, time with the monitor / without it:")
    print(f"median {median(ratios):.4f}, quartiles {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    main()
