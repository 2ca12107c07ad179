"""Every part on two ranks: all ranks keep the same state, and what need not depend on their number does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from contracts.ranks import free_port, rank_environment
from contracts.test_tricks import OBJECTIVES, TRICKS

DRAWN_ON_EACH_RANK = {
    "trick adaptive_augment",
    "trick consistency",
    "trick diff_augment",
    "trick dragan",
    "trick input_dropout",
    "trick instance_noise",
    "trick layer_noise",
    "trick noisy_labels",
    "trick path_length",
    "trick standing_dropout",
    "trick wgan_gp",
    "objective elbo",
}
"""They draw random numbers for single samples, which differ from those of one rank with the same distribution."""

STATISTICS_OF_A_PART = {
    "batch norm",
    "objective relativistic_average",
    "trick feature_matching",
    "trick minibatch_discrimination",
    "trick minibatch_stddev",
    "trick pulling_away",
    "trick top_k",
}
"""They compare the samples of a batch, and a rank sees only its own ones."""

ONE_PART_AFTER_ANOTHER = {
    "batch norm",
    "sync batch norm",
    "trick experience_replay",
    "trick history",
    "trick image_pool",
    "trick path_length",
}
"""They keep something that each part of a batch changes, where ranks would change it together."""

TOLERANCE = 1e-6
"""Of the largest weight, after three steps of SGD in float32."""


def play() -> dict[str, dict[str, Any]]:
    """The results of `rank_worker.py` by game."""
    port, worker = free_port(), Path(__file__).with_name("rank_worker.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(worker)],
            env=rank_environment(rank, 2, port),
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    output = processes[0].communicate(timeout=280)[0]
    assert [process.wait(60) for process in processes] == [0, 0]
    return {game.pop("game"): game for game in map(json.loads, output.splitlines())}


def test_every_part_on_two_ranks() -> None:
    games, others = play(), DRAWN_ON_EACH_RANK | STATISTICS_OF_A_PART
    assert {f"trick {kind}" for kind in TRICKS} - games.keys() == set()
    assert {f"objective {kind}" for kind in OBJECTIVES} - games.keys() == set()
    assert {name: game["differing"] for name, game in games.items() if game["differing"]} == {}
    distances = {name: game["distance"] for name, game in games.items()}
    assert {name: distance for name, distance in distances.items() if distance > TOLERANCE and name not in others} == {}
    assert {name for name in others if distances[name] <= TOLERANCE} == set()
    apart = {name: game["of_parts"] for name, game in games.items() if game["of_parts"] > TOLERANCE}
    assert apart.keys() == ONE_PART_AFTER_ANOTHER, apart
