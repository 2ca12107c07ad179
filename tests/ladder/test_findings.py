"""The findings of a ladder agree with its results, whichever way they go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poise.ladder.findings import LadderFinding, compare_rungs
from poise.ladder.read import Rung

NAMES = ("autoencoder", "vae", "gan", "vae-gan")
EXPECTED: dict[str, dict[str, float]] = {
    "autoencoder": {"fid": 90.0, "reconstruction": 0.02, "pca_reconstruction": 0.05},
    "vae": {"fid": 40.0, "coverage": 0.5, "high_frequencies": 0.4},
    "gan": {"fid": 10.0, "coverage": 0.8, "high_frequencies": 0.9},
    "vae-gan": {"fid": 20.0},
}
FITTED = {"fid": 60.0}
PLANE, RANDOM, CODES, BLUR, QUALITY, HYBRID = range(6)

Figures = dict[str, dict[str, float]]


def rungs(figures: Figures, fitted: dict[str, float] | None = None) -> list[Rung]:
    """Rungs with these results."""
    result = []
    for name, values in figures.items():
        groups: dict[str, Any] = {"measures": {key: {"value": value} for key, value in values.items()}}
        if name == "autoencoder" and fitted is not None:
            groups["fitted"] = {key: {"value": value} for key, value in fitted.items()}
        result.append(Rung(name, Path(name), {"latent": {"dim": 7}}, {}, groups, []))
    return result


def changed(name: str, **values: float) -> Figures:
    """The expected results with other values for one rung."""
    return EXPECTED | {name: EXPECTED[name] | values}


def without(name: str, measure: str | None = None) -> Figures:
    """The expected results without a rung, or without one of its measures."""
    left = {key: value for key, value in EXPECTED.items() if key != name}
    if measure is None:
        return left
    return EXPECTED | {name: {key: value for key, value in EXPECTED[name].items() if key != measure}}


def test_results_as_expected() -> None:
    found = compare_rungs(rungs(EXPECTED, FITTED))
    assert [one.confirmed for one in found] == [True] * 6
    for one, parts in zip(
        found,
        [
            ("0.0200", "0.0500", "7 dimensions", ": lower"),
            ("FID 40 for the VAE", "90 for the autoencoder"),
            ("FID 60 with codes", "40 for the VAE"),
            ("90% for the GAN", "40% for the VAE"),
            ("FID 10 for the GAN", "40 for the VAE", "coverage 0.800 and 0.500"),
            ("FID 20 for the VAE-GAN", "40 for the VAE"),
        ],
        strict=True,
    ):
        for part in parts:
            assert part in one.found


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]], ids=["up", "down"])
def test_order_of_rungs_does_not_matter(order: tuple[str, ...]) -> None:
    assert compare_rungs(rungs({name: EXPECTED[name] for name in order}, FITTED)) == compare_rungs(
        rungs(EXPECTED, FITTED)
    )


@pytest.mark.parametrize(
    ("which", "figures", "fitted", "parts"),
    [
        (PLANE, changed("autoencoder", reconstruction=0.06), 60.0, ["0.0600 versus 0.0500", "not lower"]),
        (PLANE, changed("autoencoder", reconstruction=0.05), 60.0, ["0.0500 versus 0.0500", "not lower"]),
        (RANDOM, changed("autoencoder", fid=39.0), 60.0, ["FID 40 for the VAE, 39 for the autoencoder"]),
        (RANDOM, changed("autoencoder", fid=40.0), 60.0, ["FID 40 for the VAE, 40 for the autoencoder"]),
        (CODES, EXPECTED, 35.0, ["FID 35 with codes", "40 for the VAE"]),
        (CODES, EXPECTED, 40.0, ["FID 40 with codes"]),
        (BLUR, changed("gan", high_frequencies=0.3), 60.0, ["30% for the GAN and 40% for the VAE"]),
        (BLUR, changed("gan", high_frequencies=1.7), 60.0, ["170% for the GAN and 40% for the VAE"]),
        (QUALITY, changed("gan", coverage=0.4), 60.0, ["FID 10 for the GAN", "coverage 0.400 and 0.500"]),
        (QUALITY, changed("gan", coverage=0.5), 60.0, ["coverage 0.500 and 0.500"]),
        (QUALITY, changed("gan", fid=50.0), 60.0, ["FID 50 for the GAN, 40 for the VAE"]),
        (HYBRID, changed("vae-gan", fid=45.0), 60.0, ["FID 45 for the VAE-GAN, 40 for the VAE"]),
    ],
)
def test_one_unexpected_result(which: int, figures: Figures, fitted: float, parts: list[str]) -> None:
    """Reversing one pair of results reverses one finding, whose sentence contains the new values."""
    found = compare_rungs(rungs(figures, {"fid": fitted}))
    assert [one.confirmed for one in found] == [number != which for number in range(6)]
    for part in parts:
        assert part in found[which].found
    before = compare_rungs(rungs(EXPECTED, FITTED))
    assert [one.expected for one in found] == [one.expected for one in before]
    assert found[which].found != before[which].found


def test_all_results_unexpected() -> None:
    figures = {
        "autoencoder": {"fid": 10.0, "reconstruction": 0.09, "pca_reconstruction": 0.05},
        "vae": {"fid": 40.0, "coverage": 0.5, "high_frequencies": 0.8},
        "gan": {"fid": 90.0, "coverage": 0.3, "high_frequencies": 0.2},
        "vae-gan": {"fid": 60.0},
    }
    found = compare_rungs(rungs(figures, {"fid": 20.0}))
    assert [one.confirmed for one in found] == [False] * 6


def test_sentences_contain_no_judgement() -> None:
    """Only `confirmed` says whether a result is as expected; the sentence has just the values."""
    for figures in (EXPECTED, changed("vae", fid=1.0, coverage=0.99, high_frequencies=1.0)):
        for one in compare_rungs(rungs(figures, FITTED)):
            words = one.found.replace(",", " ").replace(":", " ").split()
            assert not {"better", "best", "sharper", "wins"} & set(words), one.found
            if "less" in words:
                assert one.confirmed == ("not" not in words)


def expected_of(found: list[LadderFinding]) -> list[str]:
    return [one.expected for one in found]


@pytest.mark.parametrize(
    ("figures", "gone"),
    [
        (without("autoencoder"), {PLANE, RANDOM, CODES}),
        (without("vae"), {RANDOM, CODES, BLUR, QUALITY, HYBRID}),
        (without("gan"), {BLUR, QUALITY}),
        (without("vae-gan"), {HYBRID}),
        (without("autoencoder", "pca_reconstruction"), {PLANE}),
        (without("autoencoder", "reconstruction"), {PLANE}),
        (without("autoencoder", "fid"), {RANDOM}),
        (without("gan", "high_frequencies"), {BLUR}),
        (without("vae", "high_frequencies"), {BLUR}),
        (without("gan", "fid"), {QUALITY}),
        (without("vae-gan", "fid"), {HYBRID}),
        ({}, set(range(6))),
    ],
)
def test_missing_results_give_no_finding(figures: Figures, gone: set[int]) -> None:
    every = expected_of(compare_rungs(rungs(EXPECTED, FITTED)))
    assert expected_of(compare_rungs(rungs(figures, FITTED))) == [every[at] for at in range(6) if at not in gone]


def test_no_finding_without_fitted_codes() -> None:
    every = expected_of(compare_rungs(rungs(EXPECTED, FITTED)))
    assert expected_of(compare_rungs(rungs(EXPECTED))) == [every[at] for at in range(6) if at != CODES]


@pytest.mark.parametrize("fid", [5.0, 50.0])
def test_quality_without_coverage_uses_fid(fid: float) -> None:
    figures = changed("gan", fid=fid) | {"vae": {"fid": 40.0, "high_frequencies": 0.4}}
    found = compare_rungs(rungs(figures, FITTED))[QUALITY]
    assert found.confirmed == (fid < 40)
    assert "coverage" not in found.found


def test_zero_is_a_result() -> None:
    found = compare_rungs(rungs(changed("gan", fid=0.0, high_frequencies=0.0), FITTED))
    assert len(found) == 6
    assert found[QUALITY].confirmed
    assert not found[BLUR].confirmed
