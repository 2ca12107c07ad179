"""Refusals and warnings of the compatibility check, one case per rule: the field and a part of the reason."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.tiny import recipe
from poise.recipe.checks.compatibility import Findings, check_compatibility
from poise.recipe.model import Recipe

CONCAT: dict[str, Any] = {"kind": "concat", "dim": 2}
PROJECTION: dict[str, Any] = {"kind": "projection"}


def check(config: Recipe, classes: int | None = None) -> Findings:
    shape = (2,) if config.data.tag() == "ring" else (1, 8, 8)
    return check_compatibility(config, shape, classes)


REFUSED: list[tuple[str, dict[str, Any], list[dict[str, Any]], str, str]] = [
    ("an energy for a score", {"objective": {"kind": "energy"}}, [], "objective", "does not return"),
    (
        "targets without an objective that has them",
        {"objective": {"kind": "hinge"}},
        [{"kind": "soft_labels"}],
        "tricks.0",
        "has none",
    ),
    (
        "class labels for data without",
        {"conditioning": {"g": CONCAT, "d": PROJECTION}},
        [],
        "conditioning",
        "no class labels",
    ),
    ("conditioning of D alone", {"conditioning": {"d": PROJECTION}}, [], "conditioning.g", "G is not conditioned"),
    ("a classifier without a conditional G", {}, [{"kind": "auxiliary_classifier"}], "conditioning.g", "classifies"),
    ("a batch that is not a multiple of the pack", {}, [{"kind": "packing", "samples": 3}], "tricks.0", "a batch of 8"),
    (
        "a label for a pack",
        {"conditioning": {"g": CONCAT, "d": PROJECTION}},
        [{"kind": "packing"}],
        "tricks.0",
        "no common label",
    ),
    (
        "sample selection without per-sample losses",
        {"objective": {"kind": "relativistic_average"}},
        [{"kind": "top_k"}],
        "tricks.0",
        "the mean over all",
    ),
    (
        "score signs without a threshold",
        {"objective": {"kind": "relativistic"}},
        [{"kind": "adaptive_augment"}],
        "tricks.0",
        "does not have",
    ),
]


@pytest.mark.parametrize(
    ("changes", "tricks", "where", "word"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_refused(changes: dict[str, Any], tricks: list[dict[str, Any]], where: str, word: str) -> None:
    refusals = check(recipe("pictures", *tricks, **changes), classes=0).refusals
    (one,) = [finding for finding in refusals if finding.field == where]
    assert word in one.message
    assert one.cure


NO_MOMENTUM = {"kind": "adam", "lr": 1e-4, "betas": [0.0, 0.9]}
WASSERSTEIN: dict[str, Any] = {"objective": {"kind": "wasserstein"}, "optimizer": {"g": NO_MOMENTUM, "d": NO_MOMENTUM}}
SPECTRAL: dict[str, Any] = {
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "spectral"}}
}
SPECTRAL_BATCH: dict[str, Any] = {
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "spectral_batch"}}
}
WARNED: list[tuple[str, dict[str, Any], list[dict[str, Any]], str]] = [
    ("an unbounded critic", WASSERSTEIN, [], "objective"),
    ("a penalty of weight 0", WASSERSTEIN, [{"kind": "wgan_gp", "weight": 0.0}], "objective"),
    ("spectral norm and free weights", WASSERSTEIN | SPECTRAL, [{"kind": "minibatch_discrimination"}], "objective"),
    ("spectral norm and batch norm", WASSERSTEIN | SPECTRAL_BATCH, [], "objective"),
    ("clipping with spectral norm", WASSERSTEIN | SPECTRAL, [{"kind": "weight_clipping"}], "tricks.0"),
    ("a gradient penalty with batch norm", {}, [{"kind": "r1"}], "tricks.0"),
    (
        "an unused average",
        {},
        [{"kind": "averaged_weights"}, {"kind": "mean_weights", "every": 2}],
        "tricks.1",
    ),
    ("an average that starts after the end", {}, [{"kind": "mean_weights"}], "tricks.0"),
    ("past selves that start after the end", {}, [{"kind": "past_selves"}], "tricks.0"),
    ("batch norm on a mixed batch", {"judging": "together"}, [], "judging"),
    (
        "minibatch statistics of a mixed batch",
        SPECTRAL | {"judging": "together"},
        [{"kind": "minibatch_stddev"}],
        "judging",
    ),
    (
        "a gradient penalty with minibatch discrimination",
        SPECTRAL,
        [{"kind": "minibatch_discrimination"}, {"kind": "r1"}],
        "tricks.1",
    ),
    ("consistency with instance noise", {}, [{"kind": "consistency"}, {"kind": "instance_noise"}], "tricks.0"),
    (
        "relativistic pairs of different classes",
        {"objective": {"kind": "relativistic"}, "conditioning": {"g": CONCAT, "d": PROJECTION}},
        [{"kind": "history", "size": 20}],
        "tricks.0",
    ),
    (
        "interpolation between different classes",
        SPECTRAL | {"conditioning": {"g": CONCAT, "d": PROJECTION}},
        [{"kind": "wgan_gp"}, {"kind": "image_pool"}],
        "tricks.1",
    ),
    ("a head start as long as the run", {"tempo": {"kind": "ratio", "head_start": 12}}, [], "tempo.head_start"),
    ("a head start with an unbounded score", {"tempo": {"kind": "ratio", "head_start": 3}}, [], "tempo.head_start"),
    (
        "a max pool",
        {"network": {"g": {"kind": "dcgan"}, "d": {"kind": "dcgan", "down": "max"}}},
        [],
        "network.d.down",
    ),
    ("an unchecked class", {"conditioning": {"g": CONCAT}}, [], "conditioning.d"),
    ("the same trick twice", {}, [{"kind": "lecam"}, {"kind": "lecam"}], "tricks.1"),
]


@pytest.mark.parametrize(
    ("changes", "tricks", "where"), [case[1:] for case in WARNED], ids=[case[0] for case in WARNED]
)
def test_warned(changes: dict[str, Any], tricks: list[dict[str, Any]], where: str) -> None:
    findings = check(recipe("pictures", *tricks, **changes), classes=10)
    assert findings.refusals == []
    assert where in [finding.field for finding in findings.warnings]


@pytest.mark.parametrize(
    ("changes", "tricks"),
    [
        (WASSERSTEIN, [{"kind": "weight_clipping"}]),
        (WASSERSTEIN | SPECTRAL, []),
        (WASSERSTEIN | SPECTRAL, [{"kind": "minibatch_stddev"}]),
        (WASSERSTEIN | SPECTRAL, [{"kind": "minibatch_discrimination", "kernels": 0}]),
        (WASSERSTEIN | SPECTRAL, [{"kind": "minibatch_discrimination"}, {"kind": "weight_clipping"}]),
        (WASSERSTEIN | SPECTRAL_BATCH, [{"kind": "weight_clipping"}]),
        ({"conditioning": {"g": CONCAT, "d": PROJECTION}}, []),
        ({"conditioning": {"g": CONCAT}}, [{"kind": "auxiliary_classifier"}]),
        ({}, [{"kind": "soft_labels"}, {"kind": "noisy_labels"}]),
        ({"objective": {"kind": "relativistic"}}, [{"kind": "history", "size": 20}]),
        ({"conditioning": {"g": CONCAT, "d": PROJECTION}}, [{"kind": "image_pool"}]),
        ({}, [{"kind": "packing", "samples": 4}, {"kind": "minibatch_stddev"}]),
        (SPECTRAL, [{"kind": "minibatch_stddev"}, {"kind": "r1"}]),
        (WASSERSTEIN | SPECTRAL, [{"kind": "minibatch_stddev"}, {"kind": "wgan_gp"}]),
        ({"conditioning": {"g": CONCAT, "d": PROJECTION}}, [{"kind": "packing", "samples": 1}]),
        ({"objective": {"kind": "least_squares"}}, [{"kind": "adaptive_augment"}]),
        ({"objective": {"kind": "relativistic"}}, [{"kind": "adaptive_augment", "speed": 0.0, "start": 0.5}]),
    ],
)
def test_no_findings(changes: dict[str, Any], tricks: list[dict[str, Any]]) -> None:
    findings = check(recipe("pictures", *tricks, **changes), classes=10)
    assert findings == Findings()


def test_a_pool_of_half_a_gigabyte_causes_a_warning() -> None:
    for size, warned in ((10_000, False), (11_000, True)):
        config = recipe("pictures", {"kind": "experience_replay", "size": size})
        warnings = check_compatibility(config, (3, 64, 64)).warnings
        assert any("MB in memory and in every checkpoint" in finding.message for finding in warnings) == warned
