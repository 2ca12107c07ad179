"""Reference values of series: where a loss or an accuracy is if D can't distinguish real from fake samples."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from poise.core.metrics_log import decode_number
from poise.tips.catalogue import parts

LOG_2 = math.log(2)

EQUILIBRIUM = {
    "relativistic": (LOG_2, LOG_2),
    "relativistic_average": (LOG_2, LOG_2),
    "hinge": (1.0, 0.0),
}
"""The adversarial losses of D and of G at equilibrium by objective, as its class states them, which imports torch.

Those of the other objectives depend on D's targets: `cross_entropy_losses`, `least_squares_losses`.
"""

SIDE_ACCURACIES = ("d/real_accuracy", "d/fake_accuracy")

MEANING = "D can't distinguish real from fake samples"

Losses = tuple[float, float]
"""The adversarial losses of D and of G."""


class TargetMoments(NamedTuple):
    """The distribution of D's targets.

    Attributes:
        real: the mean of those of real samples.
        fake: the mean of those of fake ones.
        variance: the sum of both variances.
    """

    real: float
    fake: float
    variance: float

    @property
    def middle(self) -> float:
        """The mean of all targets; 1/2 unless one side alone is softened, or more than the other one."""
        return (self.real + self.fake) / 2


HARD = TargetMoments(1.0, 0.0, 0.0)


def references(recipe: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The reference values of a recipe's series, by name.

    Args:
        recipe: the content of `recipe.toml`.

    Returns:
        For each series `value` and `meaning`; none for objectives whose equilibrium has no fixed value.
    """
    objective = recipe.get("objective")
    table = objective if isinstance(objective, dict) else {}
    if table.get("kind") in ("reconstruction", "elbo"):
        return {}
    targets = target_moments(recipe)
    half = {"value": 0.5, "meaning": f"{MEANING}: half of them are classified correctly"}
    found: dict[str, dict[str, Any]] = {"d/accuracy": half}
    if targets is not None and math.isclose(targets.middle, 0.5):  # otherwise D takes all samples for the same
        found |= dict.fromkeys(SIDE_ACCURACIES, half)
    losses = _equilibrium(table, targets)
    if losses is not None and all(map(math.isfinite, losses)):
        for side, value in zip("dg", losses, strict=True):
            found[f"{side}/adversarial"] = {"value": value, "meaning": MEANING}
    return found


def target_moments(recipe: dict[str, Any]) -> TargetMoments | None:
    """D's targets, which soft labels draw uniformly from a range per side; None if they change or are not known.

    Noisy labels exchange targets of both sides, which changes neither their mean nor the sum of their squares, and so
    none of the losses of a D that can't distinguish the sides.
    """
    found = recipe.get("tricks")
    tricks = found if isinstance(found, list) else []
    soft = [one for one in tricks if isinstance(one, dict) and one.get("kind") == "soft_labels"]
    if not soft:
        return HARD
    table = parts()["tricks"]["soft_labels"] | soft[-1]  # only the last one decides
    try:
        ends = [[decode_number(end) for end in table[side]] for side in ("real", "fake")]
        (low, high), (fake_low, fake_high) = ends
    except (TypeError, ValueError):
        return None
    variance = sum((end - start) * (end - start) / 12 for start, end in ends)
    return TargetMoments((low + high) / 2, (fake_low + fake_high) / 2, variance)


def _equilibrium(table: dict[str, Any], targets: TargetMoments | None) -> Losses | None:
    """The losses at equilibrium; None if they are not known."""
    kind = table.get("kind")
    if kind not in ("least_squares", "non_saturating", "minimax"):
        return EQUILIBRIUM.get(kind) if isinstance(kind, str) else None
    if targets is None:
        return None
    if kind != "least_squares":
        return cross_entropy_losses(targets, is_minimax=kind == "minimax")
    try:
        a, b, c = (decode_number(table.get(name, default)) for name, default in (("a", 0), ("b", 1), ("c", 1)))
    except ValueError:
        return None
    return least_squares_losses(targets, a, b, c)


def cross_entropy_losses(targets: TargetMoments, *, is_minimax: bool) -> Losses | None:
    """The losses where D's probability is the constant that minimises its loss.

    With t = `targets.middle` that constant is t. D's loss is -t log t - (1 - t) log(1 - t), G's is -log t, or as
    minimax log(1 - t). None unless 0 < t < 1: otherwise D's loss has no minimum.
    """
    t = targets.middle
    if not 0 < t < 1:
        return None
    real, fake = math.log(t), math.log1p(-t)
    return -t * real - (1 - t) * fake, fake if is_minimax else -real


def least_squares_losses(targets: TargetMoments, a: float, b: float, c: float) -> Losses:
    """The losses where D's score is the constant that minimises its loss; a target t stands for a + t (b - a).

    With t = `targets.middle`, targets r and f and the sum v of their variances: D's loss is
    (b - a)^2 ((r - f)^2 / 8 + v / 4), G's is (a + t (b - a) - c)^2 / 2.
    """
    span, apart = b - a, targets.real - targets.fake
    away = a + targets.middle * span - c
    return span * span * (apart * apart / 8 + targets.variance / 4), away * away / 2
