"""How different the samples of one pile are from each other, whatever the other pile does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from poise.measure.base import BLOCK, Measure, MeasuredValue, validate_features
from poise.measure.prdc import distances

FEW = 512
"""As many samples of a pile are compared pair by pair."""


def vendi(features: Tensor) -> float:
    """The effective number of different samples, 1 to N (Vendi score; Friedman & Dieng 2023, arXiv:2210.02410).

    exp(-sum l log l) over the eigenvalues l of K / N, where K holds the cosines of features, N x d. Worked out on
    whichever of K / N and the d x d matrix with the same eigenvalues is smaller. For class probabilities p, features
    sqrt(p) give the kernel sum_y sqrt(p_y q_y). A row of zeros is alike to nothing, not even to itself.
    """
    rows = normalize(features.detach().to("cpu", torch.float64), dim=1)
    small = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    shares = torch.linalg.eigvalsh(small / len(rows)).clamp_min(0)
    return float(torch.exp(-torch.xlogy(shares, shares).sum()))


def diversity(fake: Tensor, real: Tensor, most: int = FEW) -> float:
    """Mean distance between two fakes over that between two reals, features N x d; 1 for equal laws, 0 on collapse.

    Of each pile the first `most` samples are compared.

    Raises:
        ValueError: see `matching`.
    """
    fake, real = validate_features(fake, real)
    apart = _apart(real[:most])
    return _apart(fake[:most]) / apart if apart else float("nan")


def _apart(pile: Tensor) -> float:
    total = sum(float(distances(some, pile).sum()) for some in pile.split(BLOCK))
    return total / (len(pile) * (len(pile) - 1))


VENDI = Measure(
    name="vendi",
    about="effective number of different samples, 1 to n (Friedman 2023); variety alone: noise scores high",
    better="floor",
    compute=lambda context: MeasuredValue(vendi(context.fake.features)),
)
DIVERSITY = Measure(
    name="diversity",
    about="mean distance between fakes over that between reals, 1 if alike (after Karras 2018); variety alone",
    better="floor",
    compute=lambda context: MeasuredValue(diversity(context.fake.features, context.real.features)),
)
