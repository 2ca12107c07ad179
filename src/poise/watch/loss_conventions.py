"""How another trainer's losses are to be understood: D's loss as a sum or as a mean, and the family.

The detectors compare D's loss per sample: the mean of its losses on real and on fake samples. Many trainers log the
sum. Squares have a factor of 1/2 (Mao 2017), which CycleGAN's code does not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from poise.watch.base import Family
from poise.watch.column_names import CLASS_LOSS, normalize_name
from poise.watch.text_tables import COUNTED_STEP, Flat

FIRST_ROWS = 10


class Trainer(NamedTuple):
    """A log format that is recognised by its columns, and whose losses are twice those of the detectors.

    Attributes:
        title: the format, for notes.
        columns: the normalised names that must be present.
        family: the family of its losses, if it has only one or a default.
        is_sum: whether D's loss is the sum on real and on fake samples; if not, the losses of both players are squares
            without the factor of 1/2.
    """

    title: str
    columns: frozenset[str]
    family: Family | None = None
    is_sum: bool = True

    @property
    def reason(self) -> str:
        """Why its losses are halved."""
        what = "it is the sum on real and on fake samples" if self.is_sum else "squares have no factor of 1/2"
        return f"{what} in {self.title} (otherwise pass --no-sum)"


TRAINERS = (
    Trainer("StyleGAN's stats", frozenset({"lossdloss", "losssignsreal"}), "logistic"),
    Trainer("StudioGAN", frozenset({"disloss", "genloss", "progress"})),
    Trainer("StudioGAN", frozenset({"discriminatorloss", "generatorloss", "progress"})),
    Trainer("mimicry", frozenset({"errd", "errg", "dx", "dgz"})),
    Trainer("PyTorch's DCGAN tutorial", frozenset({"lossd", "lossg", "dx", "dgz"}), "logistic"),
    Trainer("the DCGAN tutorials", frozenset({"dloss", "gloss", "dx", "dgz"}), "logistic"),
    Trainer("DCGAN-tensorflow", frozenset({"dloss", "gloss", "time", normalize_name(COUNTED_STEP)}), "logistic"),
    Trainer("lightweight-gan and stylegan2-pytorch", frozenset({"d", "g", "gp"}), "hinge"),
    Trainer("rosinality's StyleGAN2", frozenset({"d", "g", "r1", "path"}), "logistic"),
    Trainer("Chainer's DCGAN", frozenset({"disloss", "genloss", "elapsedtime"}), "logistic"),
    Trainer("CycleGAN", frozenset({"da", "db", "ga", "gb", "cyclea", "cycleb"}), "least_squares", is_sum=False),
)
"""D's loss is real plus fake in the code of each but CycleGAN's. PyTorch-GAN and Keras-GAN log the mean."""


def recognise_trainer(names: Iterable[str]) -> Trainer | None:
    """The format to which the columns belong, if it is one of `TRAINERS`."""
    keys = {normalize_name(name) for name in names}
    return next((trainer for trainer in TRAINERS if trainer.columns <= keys), None)


def parts_are_summed(lines: list[Flat], total: str, parts: tuple[str, ...]) -> bool | None:
    """Whether a total is the sum of its two parts (True) or their mean (False); None if it is neither."""
    rows = [(line[total], sum(line[part] for part in parts)) for line in lines if {total, *parts} <= line.keys()]
    rows = [row for row in rows if all(map(math.isfinite, row))]
    if not rows:
        return None
    size = median(abs(summed) for _, summed in rows)
    if size and median(abs(logged - summed) for logged, summed in rows) <= 0.02 * size:
        return True
    return False if size and median(abs(logged - summed / 2) for logged, summed in rows) <= 0.02 * size else None


def starts_as_a_sum(d: list[float], g: list[float]) -> bool:
    """Whether D's loss starts near 2 ln 2 while G's starts near ln 2.

    These are the cross-entropies of a D that cannot yet distinguish real from fake samples; as a mean, D's loss would
    be ln 2 too.
    """
    if len(d) < 4 or len(g) < 4:
        return False
    first_d, first_g = median(d[:FIRST_ROWS]), median(g[:FIRST_ROWS])
    return abs(first_d - 2 * math.log(2)) < 0.12 * 2 * math.log(2) and abs(first_g - math.log(2)) < 0.25 * math.log(2)


def class_loss_among(names: Iterable[str]) -> str | None:
    """The column of a class loss, as ACGAN has."""
    return next((name for name in names if CLASS_LOSS.fullmatch(normalize_name(name))), None)


def guess_family(d_losses: list[float], names: Iterable[str]) -> tuple[Family | None, str]:
    """The family of the losses, and the reason for it.

    More than 5 % of D's losses below 0 indicate a Wasserstein critic. Otherwise names of columns decide, or the
    defaults of a trainer that is recognised by its columns.
    """
    names = list(names)
    negative = sum(loss < 0 for loss in d_losses)
    if d_losses and negative > 0.05 * len(d_losses):
        return "wasserstein", f"guessed: D's loss is below 0 in {negative / len(d_losses):.0%} of the rows"
    hinge = next((name for name in names if "hinge" in name.lower()), None)
    if hinge is not None:
        return "hinge", f"guessed from the name {hinge}"
    trainer = recognise_trainer(names)
    if trainer is not None and trainer.family is not None:
        return trainer.family, f"guessed: the columns are those of {trainer.title}"
    return None, "pass --loss-family"
