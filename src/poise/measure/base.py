"""What a measure is: a name, a direction, what it needs, and a function of a sitting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from poise.measure.context import EvalContext

Better = Literal["less", "more", "floor"]
FloorSource = Literal["other", "real", "halves", "none"]
Requirement = Literal[
    "logits", "labels", "asked labels", "train", "held out", "modes", "centres", "game", "d", "coder", "likelihood"
]

MISSING_REASONS: dict[Requirement, str] = {
    "logits": "these features come without a classifier",
    "labels": "the data has no labels",
    "asked labels": "it is not known of which class each sample is meant to be",
    "train": "it is not known what was trained on, or it has no end",
    "held out": "no pictures were held out",
    "modes": "this data has no modes to count, or these features can't tell them",
    "centres": "this data has no modes in the plane",
    "game": "only the players of a toy's run can be played on",
    "d": "there is no discriminator whose features could be read",
    "coder": "nothing here rebuilds a picture that it has not trained on",
    "likelihood": "only a variational autoencoder says how likely a picture is",
}
"""What to say where a need is not met."""

BLOCK = 1024
"""Rows of a distance or kernel matrix that are worked out at a time."""


class MeasuredValue(NamedTuple):
    """A measured number, with its standard error where that is known."""

    value: float
    stderr: float | None = None


class Floor(NamedTuple):
    """A measure of real samples in the fakes' place: the mean of its draws and, of several, the standard deviation."""

    value: float
    std: float | None = None


class Measure(NamedTuple):
    """One measure.

    Attributes:
        name: what `--measures` calls it.
        about: a line: what it says, its range, its source.
        better: whether less or more of it is better, or whatever is nearest to its floor.
        compute: the function.
        floor: what is put in the fakes' place for the floor: `other` real samples, the `real` ones themselves, others
            that were held out as well (`halves`: then the figure itself is taken at no more than half of what is held
            out), or nothing.
        requires: what the data or the run must have for it, beside features.
        slow: whether it takes a training of its own; such ones are left out unless they are asked for.
    """

    name: str
    about: str
    better: Better
    compute: Callable[[EvalContext], MeasuredValue]
    requires: frozenset[Requirement] = frozenset()
    floor: FloorSource = "other"
    slow: bool = False


def validate_features(fake: Tensor, real: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Both piles' features as float64 on the CPU.

    Raises:
        ValueError: not two matrices of the same width with at least `least` rows, or a number is not finite.
    """
    piles = []
    for name, pile in (("fake", fake), ("real", real)):
        if pile.dim() != 2 or len(pile) < least:
            raise ValueError(f"{name} features must be a matrix of {least} rows or more, found {list(pile.shape)}")
        pile = pile.detach().to("cpu", torch.float64)
        if not bool(torch.isfinite(pile).all()):
            raise ValueError(f"{name} features hold a number that is not finite")
        piles.append(pile)
    if piles[0].shape[1] != piles[1].shape[1]:
        found = " and ".join(str(pile.shape[1]) for pile in piles)
        raise ValueError(f"fake and real features must be of one width, found {found}")
    return piles[0], piles[1]
