"""What the fit check finds, one case per rule: the field, and a word of the reason."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.tiny import recipe
from poise.recipe.checks.compatibility import Findings, check_compatibility
from poise.recipe.model import Recipe

CONCAT: dict[str, Any] = {"kind": "concat", "dim": 2}
PROJECTION: dict[str, Any] = {"kind": "projection"}


def found(told: Recipe, classes: int | None = None) -> Findings:
    shape = (2,) if told.data.tag() == "ring" else (1, 8, 8)
    return check_compatibility(told, shape, classes)


REFUSED: list[tuple[str, dict[str, Any], list[dict[str, Any]], str, str]] = [
    ("an energy for a score", {"objective": {"kind": "energy"}}, [], "objective", "does not return"),
    ("targets there are none of", {"objective": {"kind": "hinge"}}, [{"kind": "soft_labels"}], "tricks.0", "has none"),
    ("labels in data without", {"conditioning": {"g": CONCAT, "d": PROJECTION}}, [], "conditioning", "no class labels"),
    ("labels for D alone", {"conditioning": {"d": PROJECTION}}, [], "conditioning.g", "G is not conditioned"),
    ("a class G was not told", {}, [{"kind": "auxiliary_classifier"}], "conditioning.g", "classifies"),
    ("packs that don't come out even", {}, [{"kind": "packing", "samples": 3}], "tricks.0", "a batch of 8"),
    (
        "a pack's one label",
        {"conditioning": {"g": CONCAT, "d": PROJECTION}},
        [{"kind": "packing"}],
        "tricks.0",
        "no common label",
    ),
    (
        "fakes in every cost",
        {"objective": {"kind": "relativistic_average"}},
        [{"kind": "top_k"}],
        "tricks.0",
        "the mean over all",
    ),
    (
        "signs that say nothing",
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
    refusals = found(recipe("pictures", *tricks, **changes), classes=0).refusals
    (one,) = [finding for finding in refusals if finding.field == where]
    assert word in one.message
    assert one.cure


CALM = {"kind": "adam", "lr": 1e-4, "betas": [0.0, 0.9]}
WASSERSTEIN: dict[str, Any] = {"objective": {"kind": "wasserstein"}, "optimizer": {"g": CALM, "d": CALM}}
SPECTRAL: dict[str, Any] = {
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "spectral"}}
}
WARNED: list[tuple[str, dict[str, Any], list[dict[str, Any]], str]] = [
    ("a critic without bounds", WASSERSTEIN, [], "objective"),
    ("a penalty that weighs nothing", WASSERSTEIN, [{"kind": "wgan_gp", "weight": 0.0}], "objective"),
    ("clipping what is normed", WASSERSTEIN | SPECTRAL, [{"kind": "weight_clipping"}], "tricks.0"),
    ("a slope that is not its own", {}, [{"kind": "r1"}], "tricks.0"),
    (
        "an average nobody is shown",
        {},
        [{"kind": "averaged_weights"}, {"kind": "mean_weights", "every": 2}],
        "tricks.1",
    ),
    ("copies that come too late", {}, [{"kind": "mean_weights"}], "tricks.0"),
    ("past selves of no past", {}, [{"kind": "past_selves"}], "tricks.0"),
    ("batch norm on a mixed batch", {"judging": "together"}, [], "judging"),
    ("a mixed batch compared", SPECTRAL | {"judging": "together"}, [{"kind": "minibatch_stddev"}], "judging"),
    ("a slope of samples that are tied", SPECTRAL, [{"kind": "minibatch_stddev"}, {"kind": "r1"}], "tricks.1"),
    ("noise that is charged for", {}, [{"kind": "consistency"}, {"kind": "instance_noise"}], "tricks.0"),
    (
        "pairs of two classes",
        {"objective": {"kind": "relativistic"}, "conditioning": {"g": CONCAT, "d": PROJECTION}},
        [{"kind": "history", "size": 20}],
        "tricks.0",
    ),
    (
        "a line between two classes",
        SPECTRAL | {"conditioning": {"g": CONCAT, "d": PROJECTION}},
        [{"kind": "wgan_gp"}, {"kind": "image_pool"}],
        "tricks.1",
    ),
    ("a head start beyond the end", {"tempo": {"kind": "ratio", "head_start": 12}}, [], "tempo.head_start"),
    ("a head start that D wins", {"tempo": {"kind": "ratio", "head_start": 3}}, [], "tempo.head_start"),
    (
        "a max pool",
        {"network": {"g": {"kind": "dcgan"}, "d": {"kind": "dcgan", "down": "max"}}},
        [],
        "network.d.down",
    ),
    ("labels that nobody checks", {"conditioning": {"g": CONCAT}}, [], "conditioning.d"),
    ("the same twice", {}, [{"kind": "lecam"}, {"kind": "lecam"}], "tricks.1"),
]


@pytest.mark.parametrize(
    ("changes", "tricks", "where"), [case[1:] for case in WARNED], ids=[case[0] for case in WARNED]
)
def test_warned(changes: dict[str, Any], tricks: list[dict[str, Any]], where: str) -> None:
    findings = found(recipe("pictures", *tricks, **changes), classes=10)
    assert findings.refusals == []
    assert where in [finding.field for finding in findings.warnings]


@pytest.mark.parametrize(
    ("changes", "tricks"),
    [
        (WASSERSTEIN, [{"kind": "weight_clipping"}]),
        (WASSERSTEIN | SPECTRAL, []),
        ({"conditioning": {"g": CONCAT, "d": PROJECTION}}, []),
        ({"conditioning": {"g": CONCAT}}, [{"kind": "auxiliary_classifier"}]),
        ({}, [{"kind": "soft_labels"}, {"kind": "noisy_labels"}]),
        ({"objective": {"kind": "relativistic"}}, [{"kind": "history", "size": 20}]),
        ({"conditioning": {"g": CONCAT, "d": PROJECTION}}, [{"kind": "image_pool"}]),
        ({}, [{"kind": "packing", "samples": 4}, {"kind": "minibatch_stddev"}]),
        ({"conditioning": {"g": CONCAT, "d": PROJECTION}}, [{"kind": "packing", "samples": 1}]),
        ({"objective": {"kind": "least_squares"}}, [{"kind": "adaptive_augment"}]),
        ({"objective": {"kind": "relativistic"}}, [{"kind": "adaptive_augment", "speed": 0.0, "start": 0.5}]),
    ],
)
def test_nothing_to_say(changes: dict[str, Any], tricks: list[dict[str, Any]]) -> None:
    findings = found(recipe("pictures", *tricks, **changes), classes=10)
    assert findings == Findings()


def test_a_pool_of_half_a_gigabyte_is_spoken_of() -> None:
    for size, said in ((10_000, False), (11_000, True)):
        told = recipe("pictures", {"kind": "experience_replay", "size": size})
        warnings = check_compatibility(told, (3, 64, 64)).warnings
        assert any("MB in memory and in every checkpoint" in finding.message for finding in warnings) == said
