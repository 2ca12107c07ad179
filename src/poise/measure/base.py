"""The definition of a measure: its name, its direction, what it requires and how it is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from poise.measure.context import EvalContext
from poise.utils.printing import count_noun

Better = Literal["less", "more", "floor"]
FloorSource = Literal["other", "real", "halves", "none"]
Requirement = Literal[
    "logits",
    "class logits",
    "labels",
    "fake labels",
    "train",
    "held out",
    "modes",
    "mode centres",
    "game",
    "d",
    "encoder",
    "likelihood",
    "latents",
    "targets",
    "cycle",
    "source labels",
]

MISSING_REASONS: dict[Requirement, str] = {
    "logits": "the feature extractor does not classify",
    "class logits": "the feature extractor does not know the classes of the data",
    "labels": "the data has no labels",
    "fake labels": "the classes of the samples are not known",
    "train": "the training samples are not known, or the data has no fixed size",
    "held out": "no images are held out",
    "mode centres": "this data has no modes in the plane",
    "modes": "this data has no modes to count, or these features cannot identify them",
    "game": "the duality gap is computed only for runs on 2-D data",
    "d": "there is no discriminator whose features could be extracted",
    "encoder": "there is no encoder that can reconstruct held-out images",
    "likelihood": "only a variational autoencoder has a likelihood",
    "latents": "the samples were translated; class_agreement is this measure for translations",
    "targets": "the samples are not translations of images whose true translation is known",
    "cycle": "the samples are not of a generator that translates both ways",
    "source labels": "the samples are not translations between domains that are labelled with the same classes",
}
"""The message for each requirement that is not met; of several, the first in this order is given."""

WITHOUT_SAMPLES: frozenset[Requirement] = frozenset({"game", "d", "encoder", "likelihood", "cycle"})
"""Measures that require one of these look at a network of the run, and not at its generated samples."""

BLOCK_SIZE = 1024
"""The number of rows of a distance or kernel matrix that are computed at a time."""


class MeasuredValue(NamedTuple):
    """A measured number, with its standard error where that is known."""

    value: float
    stderr: float | None = None


class Floor(NamedTuple):
    """A measure of real samples in place of the fake ones: the mean of its draws and, of several, their standard
    deviation."""

    value: float
    std: float | None = None


class Measure(NamedTuple):
    """One measure.

    Attributes:
        name: the name that `--measures` accepts.
        description: one line: what it measures, its range and its source.
        better: whether less or more is better, or whatever is nearest to the floor.
        compute: computes the value.
        requires: what the data or the run must provide besides features.
        floor: the samples that replace the fake ones for the floor: `other` real samples; the `real` samples
            themselves; `halves`: other held-out samples, so that the value itself uses at most half of the held-out
            samples; or `none`.
        slow: whether it trains a model of its own; slow measures are computed only on request.
        has_baseline: whether the sources of translated samples, in place of the samples, give a baseline, where they
            have as many channels: what a G that changes nothing would get.
    """

    name: str
    description: str
    better: Better
    compute: Callable[[EvalContext], MeasuredValue]
    requires: frozenset[Requirement] = frozenset()
    floor: FloorSource = "other"
    slow: bool = False
    has_baseline: bool = False


class TooFewRows(ValueError):
    """There are fewer samples than a measure needs.

    Attributes:
        least: how many it needs.
    """

    def __init__(self, message: str, least: int) -> None:
        super().__init__(message)
        self.least = least


def validate_matrix(values: Tensor, name: str, min_rows: int = 1) -> Tensor:
    """Values as float64 on the CPU.

    Raises:
        ValueError: they are not a finite matrix with at least `min_rows` rows; names them. It is `TooFewRows` if they
            are a matrix.
    """
    if values.dim() != 2 or len(values) < min_rows:
        message = f"{name} must be a matrix of at least {count_noun(min_rows, 'row')}, found shape {list(values.shape)}"
        raise TooFewRows(message, min_rows) if values.dim() == 2 else ValueError(message)
    values = values.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} must be finite")
    return values


def validate_features(fake: Tensor, real: Tensor, min_rows: int = 2) -> tuple[Tensor, Tensor]:
    """The features of fake and real samples as float64 on the CPU.

    Raises:
        ValueError: they are not two finite matrices of the same width with at least `min_rows` rows.
    """
    matrices = [validate_matrix(fake, "fake features", min_rows), validate_matrix(real, "real features", min_rows)]
    if matrices[0].shape[1] != matrices[1].shape[1]:
        found = " and ".join(str(features.shape[1]) for features in matrices)
        raise ValueError(f"fake and real features must have the same width, found {found}")
    return matrices[0], matrices[1]
