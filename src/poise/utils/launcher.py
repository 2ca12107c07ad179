"""What torchrun, or another launcher of several processes, tells each of them by environment variables."""

from __future__ import annotations

import os

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Those by which the processes find each other. A process in which one of them is missing is alone."""


def number_of_ranks() -> int:
    """The number of processes that train together; 1 without a launcher."""
    return _number("WORLD_SIZE", 1) if all(os.environ.get(name) for name in VARIABLES) else 1


def rank_of_process() -> int:
    """The number of this process among them, from 0."""
    return _number("RANK", 0) if number_of_ranks() > 1 else 0


def restarts() -> int:
    """How often torchrun has restarted all of them because one had failed."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) if number_of_ranks() > 1 else 0


def max_restarts() -> int:
    """How often torchrun would do so."""
    return _number("TORCHELASTIC_MAX_RESTARTS", 0) if number_of_ranks() > 1 else 0


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
