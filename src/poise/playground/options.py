"""What a learner may choose in the playground: data, objectives, penalties, tricks, and numbers within bounds."""

from __future__ import annotations

from typing import Any, NamedTuple

from poise.tips.catalogue import tips

Table = dict[str, Any]

MAX_STEPS = 20_000
"""The number of steps after which a game ends."""

MAX_SECONDS = 900
"""The seconds of training, pauses excluded, after which a game ends."""


class Range(NamedTuple):
    """The bounds of a number, and its default."""

    min: float
    max: float
    default: float


class Weight(NamedTuple):
    """The number that goes with a penalty.

    Attributes:
        label: its name on the page.
        range: its bounds, and the value to begin with.
    """

    label: str
    range: Range


class Choice(NamedTuple):
    """An entry of a menu.

    Attributes:
        label: its name on the page.
        table: its table in a recipe, without the kind if this is the key of the menu.
        tip: the id of its tip; empty if the catalogue has none for it.
        weight: its weight, of a penalty.
    """

    label: str
    table: Table
    tip: str = ""
    weight: Weight | None = None


def _tip_of(at: str, kind: str) -> str:
    """The id of the tip that a component belongs to."""
    return next((tip.id for tip in tips() for part in tip.parts if (part.at, part.kind) == (at, kind)), "")


def _trick(kind: str, label: str, weight: Weight | None = None, **fields: Any) -> tuple[str, Choice]:
    return kind, Choice(label, fields, _tip_of("tricks", kind), weight)


DATA = {
    "ring": Choice("Eight clusters on a circle", {"sigma": 0.05}),
    "grid": Choice("25 clusters on a grid", {}),
    "two_moons": Choice("Two moons", {}),
    "swiss_roll": Choice("Swiss roll", {}),
    "spiral": Choice("Spiral", {}),
    "density": Choice("Your drawing", {}),
}
"""The distributions in the plane. The circle is that of the literature with wider clusters, which are easier to see."""

OBJECTIVES = {
    kind: Choice(label, {}, _tip_of("objective", kind))
    for kind, label in {
        "non_saturating": "Non-saturating",
        "minimax": "Minimax",
        "least_squares": "Least squares",
        "hinge": "Hinge",
        "wasserstein": "Wasserstein",
        "relativistic": "Relativistic pairs",
    }.items()
}


def _weight(default: float) -> Weight:
    return Weight("Weight of the penalty", Range(0.001, 100, default))


PENALTIES = dict(
    (
        _trick("r1", "R1: gradient at real points", _weight(0.1)),
        _trick("r2", "R2: gradient at generated points", _weight(0.1)),
        _trick("wgan_gp", "WGAN-GP: gradient norm between them", _weight(0.1)),
        _trick("dragan", "DRAGAN: gradient norm around real points", _weight(1.0)),
        _trick("weight_clipping", "Weight clipping", Weight("Largest weight of D", Range(0.001, 1, 0.1))),
    )
)
"""What bounds D's gradient. Its strength is a field of another name in each: see `WEIGHT_FIELDS`."""

WEIGHT_FIELDS = {"r1": "gamma", "r2": "gamma", "wgan_gp": "weight", "dragan": "weight", "weight_clipping": "limit"}
"""The field of each penalty that `penalty_weight` sets."""

TRICKS = dict(
    (
        _trick("soft_labels", "Soft labels"),
        _trick("noisy_labels", "Noisy labels"),
        _trick("instance_noise", "Instance noise"),
        _trick("packing", "Packing (pairs of points)"),
        _trick("minibatch_discrimination", "Minibatch discrimination"),
        _trick("feature_matching", "Feature matching"),
        _trick("experience_replay", "Experience replay"),
        _trick("past_selves", "Opponents from the past"),
        _trick("historical_averaging", "Historical averaging"),
        _trick("top_k", "Top-k training"),
        _trick("gradient_clipping", "Gradient clipping", max_norm=1.0),
        _trick("averaged_weights", "Averaged weights of G"),
    )
)

RANGES = {
    "lr_g": Range(1e-5, 0.1, 1e-3),
    "lr_d": Range(1e-5, 0.1, 1e-3),
    "penalty_weight": Range(0.001, 100, 0.1),
    "d_moves": Range(1, 10, 1),
    "width": Range(4, 256, 64),
    "latent_dim": Range(1, 64, 2),
    "batch": Range(8, 512, 128),
    "seed": Range(0, 999_999, 0),
    "speed": Range(1, 1000, 100),
}
"""The bounds of the numbers; `speed` is the largest number of steps per second. A penalty may narrow its weight's."""

DEFAULT_GAME: Table = {
    "data": "ring",
    "objective": "non_saturating",
    "penalty": None,
    "tricks": [],
    **{name: RANGES[name].default for name in RANGES if name not in ("seed", "speed")},
}


def options_json() -> Table:
    """All options, as the page gets them."""
    menus = {"data": DATA, "objectives": OBJECTIVES, "penalties": PENALTIES, "tricks": TRICKS}

    def entry(kind: str, choice: Choice) -> Table:
        weight = (
            {} if choice.weight is None else {"weight": {"label": choice.weight.label} | choice.weight.range._asdict()}
        )
        return {"kind": kind, "label": choice.label, "tip": choice.tip or None} | weight

    listed = {name: [entry(kind, choice) for kind, choice in menu.items()] for name, menu in menus.items()}
    return listed | {"ranges": {name: bounds._asdict() for name, bounds in RANGES.items()}, "default": DEFAULT_GAME}
