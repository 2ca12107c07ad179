"""Every objective with every penalty, norm and way to condition on labels: refused for a valid reason, or it trains.

The reasons are stated here once more, from the papers' side; a combination that `fit` refuses without one of them
fails, and so does one that it lets through and that does not take three finite steps. Every run looks at all of them
and trains a sample that has every pair (`sampling.py`); `make slow` trains them all. Objectives that read nothing are
games for one: nobody could be penalised, normed or told the label there, so they are left out.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch

from contracts.sampling import SAMPLE_OR_ALL, sample
from contracts.tiny import Session
from poise.core.config import find_components
from poise.data.source import ImageDataset
from poise.networks.norms import Norm
from poise.objectives.base import Objective
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe

OBJECTIVES = {kind: part for kind, part in find_components(Objective, "poise.objectives").items() if part.output_kinds}  # type: ignore[attr-defined]
NORMS: tuple[str, ...] = get_args(Norm)
PENALTIES = (None, "r1", "r2", "wgan_gp", "dragan", "weight_clipping", "lecam")
CONDITIONINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "concat and channels": {"g": {"kind": "concat", "dim": 2}, "d": {"kind": "channels", "dim": 2}},
    "class norm and projection": {"g": {"kind": "class_norm"}, "d": {"kind": "projection"}},
    "concat and classifier": {"g": {"kind": "concat", "dim": 2}},
}


def reasons(objective: str, norm: str, conditioning: str) -> set[str]:
    """The fields for which this combination must be refused."""
    energies = "score" not in OBJECTIVES[objective].output_kinds
    found = set()
    if conditioning in ("concat and channels", "concat and classifier") and norm == "virtual":
        found.add("conditioning.g")  # the reference batch has no labels
    if conditioning == "concat and channels" and (norm == "virtual" or energies):
        found.add("conditioning.d")  # nor has it there; and an energy says how well D rebuilds, not whether y fits
    if conditioning == "class norm and projection" and norm not in ("batch", "spectral_batch"):
        found.add("conditioning.g")  # no batch norm to make conditional
    if conditioning == "class norm and projection" and energies:
        found.add("conditioning.d")
    return found


@cache
def labelled() -> ImageDataset:
    """24 random images of three classes."""
    random = np.random.Generator(np.random.Philox(11))
    images = random.integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    return ImageDataset(images, np.arange(24) % 3, ("a", "b", "c"))


def recipe_of(objective: str, penalty: str | None, norm: str, conditioning: str) -> Recipe:
    d = (
        {"kind": "dcgan", "width": 2}
        if "score" in OBJECTIVES[objective].output_kinds
        else {"kind": "autoencoder", "width": 2}
    )
    tricks = [] if penalty is None else [{"kind": penalty}]
    if conditioning == "concat and classifier":
        tricks.append({"kind": "auxiliary_classifier"})
    adam = {"kind": "adam", "lr": 1e-3}
    table: dict[str, Any] = {
        "steps": 3,
        "batch": 4,
        "data": {"kind": "digits", "size": 8},
        "latent": {"kind": "gaussian", "dim": 3},
        "network": {"g": {"kind": "dcgan", "width": 2, "norm": norm}, "d": {**d, "norm": norm}},
        "objective": {"kind": objective},
        "optimizer": {"g": adam, "d": adam},
        "tempo": {"kind": "ratio"},
        "tricks": tricks,
    }
    return decode(table | ({"conditioning": CONDITIONINGS[conditioning]} if conditioning != "none" else {}))


ALL = list(product(OBJECTIVES, NORMS, PENALTIES, CONDITIONINGS))
PLAYED = [case for case in ALL if not reasons(case[0], case[1], case[3])]
SAMPLE = set(sample(PLAYED))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_refused_for_a_valid_reason_or_not_at_all(objective: str) -> None:
    for norm, penalty, conditioning in product(NORMS, PENALTIES, CONDITIONINGS):
        recipe = recipe_of(objective, penalty, norm, conditioning)
        findings = check_compatibility(recipe, labelled().shape, len(labelled().classes))
        assert {finding.field for finding in findings.refusals} == reasons(objective, norm, conditioning), recipe
        assert all(finding.cure and finding.message for finding in findings.refusals + findings.warnings)


@SAMPLE_OR_ALL
@pytest.mark.parametrize(("objective", "norm"), sorted(product(OBJECTIVES, NORMS)))
def test_what_is_not_refused_takes_three_finite_steps(objective: str, norm: str, whole: bool) -> None:
    for case in PLAYED if whole else SAMPLE:
        if case[:2] != (objective, norm):
            continue
        _, _, penalty, conditioning = case
        recipe = recipe_of(objective, penalty, norm, conditioning)
        run = Session(recipe, labelled()).play(3)
        spoilt = [name for name, tensor in run.saved().items() if not torch.isfinite(tensor).all()]
        assert not spoilt, f"{penalty}, {conditioning}: {spoilt[:3]}"


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_an_objective_is_refused_with_the_wrong_output_of_d(objective: str) -> None:
    """A score in place of an energy, or an energy in place of a score, is refused at the objective."""
    reads = OBJECTIVES[objective].output_kinds
    for judgement, kind in (("score", "dcgan"), ("energy", "autoencoder")):
        recipe = recipe_of(objective, None, "none", "none")
        network = {"g": {"kind": "dcgan"}, "d": {"kind": kind}}
        swapped = decode(recipe.canonical() | {"network": network})
        at_fault = {finding.field for finding in check_compatibility(swapped, (1, 8, 8)).refusals}
        assert at_fault == (set() if judgement in reads else {"objective"})
