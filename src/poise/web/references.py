"""Reference values of series: where a loss or an accuracy is if D can't distinguish real from fake samples."""

from __future__ import annotations

import math
from typing import Any

from poise.core.metrics_log import decode_number

LOG_2 = math.log(2)

EQUILIBRIUM = {
    "non_saturating": (LOG_2, LOG_2),
    "minimax": (LOG_2, -LOG_2),
    "relativistic": (LOG_2, LOG_2),
    "relativistic_average": (LOG_2, LOG_2),
    "hinge": (1.0, 0.0),
}
"""The adversarial losses of D and of G at equilibrium by objective, as its class states them, which imports torch."""

ACCURACIES = ("d/accuracy", "d/real_accuracy", "d/fake_accuracy")

MEANING = "D can't distinguish real from fake samples"


def references(recipe: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The reference values of a recipe's series, by name.

    Args:
        recipe: the content of `recipe.toml`.

    Returns:
        For each series `value` and `meaning`; none for objectives whose equilibrium has no fixed value.
    """
    objective = recipe.get("objective")
    table = objective if isinstance(objective, dict) else {}
    half = {"value": 0.5, "meaning": f"{MEANING}: half of them are classified correctly"}
    found: dict[str, dict[str, Any]] = dict.fromkeys(ACCURACIES, half)
    losses = _equilibrium(table)
    if losses is not None:
        for side, value in zip("dg", losses, strict=True):
            found[f"{side}/adversarial"] = {"value": value, "meaning": MEANING}
    return found if table.get("kind") not in ("reconstruction", "elbo") else {}


def _equilibrium(table: dict[str, Any]) -> tuple[float, float] | None:
    """The losses of D and of G at equilibrium; None if they are not known."""
    kind = table.get("kind")
    if kind == "least_squares":
        try:
            a, b, c = (decode_number(table.get(name, default)) for name, default in (("a", 0), ("b", 1), ("c", 1)))
        except ValueError:
            return None
        return (b - a) ** 2 / 8, ((a + b) / 2 - c) ** 2 / 2
    return EQUILIBRIUM.get(kind) if isinstance(kind, str) else None
