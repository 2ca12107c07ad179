"""Who takes part: each rule with its field, which tricks have a place in a game for one, and the shipped recipes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from contracts.tiny import Session, for_one, misfits, recipe, session, source, suited, with_encoder
from poise.core.config import find_components
from poise.core.types import Side
from poise.errors import RecipeError
from poise.objectives.base import Objective
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.checks.findings import Finding, Findings
from poise.recipe.checks.players import check_players
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.tricks.base import TrickConfig

TRICKS = find_components(TrickConfig, "poise.tricks")
OBJECTIVES = find_components(Objective, "poise.objectives")
FOR_ONE = [kind for kind, entry in OBJECTIVES.items() if not entry.output_kinds]  # type: ignore[attr-defined]
ASKING = [kind for kind, entry in TRICKS.items() if entry.needs_discriminator]  # type: ignore[attr-defined]
NOT_ASKING = [kind for kind in TRICKS if kind not in ASKING]
RATE: dict[str, Any] = {"kind": "adam", "lr": 1e-3}
D: dict[str, Any] = {"kind": "dcgan", "width": 2}


def heard(told: Recipe) -> Findings:
    findings = Findings()
    check_players(told, findings)
    return findings


def solo(*tricks: dict[str, Any], objective: str = "reconstruction", **changes: Any) -> Recipe:
    """A game for one on pictures, with changes."""
    return recipe("pictures", *tricks, **({"objective": {"kind": objective}} | for_one("pictures") | changes))


def one(found: list[Finding]) -> Finding:
    (finding,) = found
    assert finding.message
    assert finding.cure
    assert finding.tip
    return finding


def test_the_two_sorts_of_objectives() -> None:
    assert FOR_ONE == ["elbo", "reconstruction"]
    assert not any(solo(objective=kind).has_discriminator for kind in FOR_ONE)
    assert all(
        recipe("pictures", objective={"kind": kind}).has_discriminator for kind in OBJECTIVES if kind not in FOR_ONE
    )


@pytest.mark.parametrize("kind", FOR_ONE)
@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_a_game_for_one_fits(world: str, kind: str) -> None:
    told = recipe(world, **suited(world, kind))
    assert heard(told) == Findings()
    assert misfits(told, world) == Findings()


def test_a_game_of_two_fits() -> None:
    for world in ("points", "pictures"):
        assert heard(recipe(world)) == Findings()
        assert heard(recipe(world, {"kind": "feature_reconstruction"}, **with_encoder(world))) == Findings()


# ---------------------------------------------------------------- the rival


@pytest.mark.parametrize("missing", [{"network.d"}, {"optimizer.d"}, {"network.d", "optimizer.d"}])
@pytest.mark.parametrize("objective", ["non_saturating", "kl_divergence", "relativistic"])
def test_a_game_of_two_without_a_d(objective: str, missing: set[str]) -> None:
    changes: dict[str, Any] = {"objective": {"kind": objective}}
    if "network.d" in missing:
        changes["network"] = {"g": D}
    if "optimizer.d" in missing:
        changes["optimizer"] = {"g": RATE}
    refusals = heard(recipe("pictures", **changes)).refusals
    assert {finding.field for finding in refusals} == missing
    for finding in refusals:
        assert f"'{objective}' needs a discriminator" in finding.message
        assert f"no {finding.field}" in finding.message
        assert (finding.tip, "'reconstruction'" in finding.cure) == ("T25", True)


@pytest.mark.parametrize("objective", FOR_ONE)
@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("network.d", {"network": {**for_one("pictures")["network"], "d": D}}),
        ("optimizer.d", {"optimizer": {"g": RATE, "d": RATE}}),
        ("conditioning.d", {"conditioning": {"g": {"kind": "concat"}, "d": {"kind": "projection"}}}),
    ],
)
def test_a_game_for_one_with_something_of_ds(objective: str, field: str, changes: dict[str, Any]) -> None:
    finding = one(heard(solo(objective=objective, **changes)).refusals)
    assert (finding.field, finding.tip) == (field, "T25")
    assert f"'{objective}' trains without a discriminator" in finding.message
    assert "remove it" in finding.cure


def test_g_may_be_told_the_label_in_a_game_for_one() -> None:
    told = recipe("labelled", **suited("labelled", "reconstruction"))
    assert told.labels.g is not None
    assert misfits(told, "labelled") == Findings()


# ---------------------------------------------------------------- the tempo


def test_a_tempo_for_the_number_of_players() -> None:
    finding = one(heard(recipe("pictures", tempo={"kind": "alone"})).refusals)
    assert (finding.field, finding.tip) == ("tempo", "T12")
    assert "only G moves" in finding.message
    assert '"ratio"' in finding.cure
    for kind in ("ratio", "thresholds", "simultaneous"):
        finding = one(heard(solo(tempo={"kind": kind})).refusals)
        assert (finding.field, finding.tip) == ("tempo", "T25")
        assert f"'{kind}' moves two players" in finding.message
        assert '"alone"' in finding.cure


def test_alone_is_one_move_of_g() -> None:
    run = session("pictures", **suited("pictures", "reconstruction")).play(4)
    assert [(move.context.side, move.context.step, move.context.turn) for move in run.moves] == [
        (Side.G, step, 0) for step in range(4)
    ]
    assert run.game.d is None
    assert set(run.game.players) == {Side.G}


# ---------------------------------------------------------------- tricks


def test_there_are_tricks_of_both_sorts() -> None:
    assert {"r1", "soft_labels", "feature_matching", "packing", "judged_reconstruction"} <= set(ASKING)
    assert {"averaged_weights", "gradient_clipping", "posterior_kl"} <= set(NOT_ASKING)


@pytest.mark.parametrize("kind", ASKING)
def test_a_trick_that_asks_d_is_refused_in_a_game_for_one(kind: str) -> None:
    found = heard(solo({"kind": "averaged_weights"}, {"kind": kind})).refusals
    finding = one([finding for finding in found if finding.field == "tricks.1"])
    assert f"'{kind}' acts on D or its output" in finding.message
    assert finding.tip == TRICKS[kind].tip  # type: ignore[attr-defined]
    assert {finding.field for finding in found} == {"tricks.1"}
    assert heard(recipe("pictures", {"kind": kind}, **two())).refusals == []


def two() -> dict[str, Any]:
    """A game of two in which codes can be read."""
    return with_encoder("pictures")


@pytest.mark.parametrize("objective", FOR_ONE)
@pytest.mark.parametrize("kind", NOT_ASKING)
def test_one_that_does_not_is_taken_and_trains(kind: str, objective: str) -> None:
    told = solo({"kind": kind}, objective=objective)
    assert misfits(told, "pictures").refusals == []
    run = Session(told, source("pictures"))
    before = run.saved()
    after = run.play(3).saved()
    assert before.keys() <= after.keys() | {name for name in before if name.endswith("untouched")}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values() if tensor.is_floating_point())
    weights = [name for name in before if name.startswith("game/g.net") and name.endswith("weight")]
    assert weights
    assert any(not torch.equal(before[name], after[name]) for name in weights)


# ---------------------------------------------------------------- the encoder


@pytest.mark.parametrize("objective", FOR_ONE)
def test_a_game_for_one_without_an_encoder(objective: str) -> None:
    finding = one(heard(solo(objective=objective, network={"g": D})).refusals)
    assert (finding.field, finding.tip) == ("network.e", "T25")
    assert f"'{objective}' uses the latent codes" in finding.message


@pytest.mark.parametrize("kind", ["posterior_kl", "feature_reconstruction", "judged_reconstruction"])
def test_a_trick_that_reads_codes_without_an_encoder(kind: str) -> None:
    finding = one(heard(recipe("pictures", {"kind": kind})).refusals)
    assert finding.field == "network.e"
    assert f"'{kind}' uses the latent codes" in finding.message
    assert "network.e" in finding.cure
    assert heard(recipe("pictures", {"kind": kind, "weight": 0.0})) == Findings()


def test_an_encoder_that_nobody_reads_is_warned_of() -> None:
    for tricks in ((), ({"kind": "feature_reconstruction", "weight": 0.0},)):
        findings = heard(recipe("pictures", *tricks, **with_encoder("pictures")))
        assert findings.refusals == []
        finding = one(findings.warnings)
        assert (finding.field, finding.tip) == ("network.e", "T08b")
        assert "nothing uses" in finding.message


def test_free_codes_of_what_has_no_end() -> None:
    tables = suited("points", "reconstruction")
    tables["network"] = tables["network"] | {"e": {"kind": "free_codes"}}
    finding = one(heard(recipe("points", **tables)).refusals)
    assert (finding.field, finding.tip) == ("network.e", "T25")
    assert "endless" in finding.message
    assert heard(solo(network={"g": D, "e": {"kind": "free_codes"}})) == Findings()


# ---------------------------------------------------------------- the latents


@pytest.mark.parametrize("latent", ["sphere", "uniform", "truncated"])
def test_a_region_is_measured_against_a_gaussian(latent: str) -> None:
    other = {"latent": {"kind": latent, "dim": 3}}
    readers = [solo(objective="elbo", **other), solo({"kind": "posterior_kl"}, **other)]
    readers.append(recipe("pictures", {"kind": "posterior_kl"}, **two(), **other))
    for told in readers:
        finding = one(heard(told).refusals)
        assert (finding.field, finding.tip) == ("latent", "T08b")
        assert f"'{latent}'" in finding.message
        assert '"gaussian"' in finding.cure
    assert heard(solo(**other)) == Findings()
    assert heard(recipe("pictures", {"kind": "feature_reconstruction"}, **two(), **other)) == Findings()


# ---------------------------------------------------------------- before anything else


def test_what_is_missing_is_refused_before_anything_is_looked_at() -> None:
    """A norm that would be doubted, a picture that no network takes: nobody gets that far."""
    told = recipe("pictures", {"kind": "r1"}, network={"g": D})
    findings = check_compatibility(told, (3, 7, 9), 0)
    assert [finding.field for finding in findings.refusals] == ["network.d"]
    assert findings.warnings == []
    with pytest.raises(RecipeError, match=r"no network\.d"):
        findings.raise_first()


@pytest.mark.parametrize("name", ["autoencoder", "latent-optimisation", "vae", "vae-gan", "kl-gan"])
def test_shipped_recipes_fit(name: str) -> None:
    told = decode(load_table(name))
    assert heard(told) == Findings()
    for shape in ((1, 32, 32), (3, 32, 32)):
        assert check_compatibility(told, shape, 10) == Findings()
    solos = ("autoencoder", "latent-optimisation", "vae")
    assert told.has_discriminator is (name not in solos)
    assert told.needs_codes is (name != "kl-gan")
    assert told.needs_code_variance is (name in ("vae", "vae-gan"))
