"""The players of a recipe: each rule with its field, the tricks without a discriminator, and the shipped recipes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from contracts.tiny import Session, findings_of, recipe, session, source, suited, with_encoder, without_discriminator
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
from poise.user_code.components import UserGenerator

TRICKS = find_components(TrickConfig, "poise.tricks")
OBJECTIVES = find_components(Objective, "poise.objectives")
WITHOUT_D = [kind for kind, entry in OBJECTIVES.items() if not entry.output_kinds]  # type: ignore[attr-defined]
NEEDING_D = [kind for kind, entry in TRICKS.items() if entry.needs_discriminator]  # type: ignore[attr-defined]
NOT_NEEDING_D = [kind for kind in TRICKS if kind not in NEEDING_D]
RATE: dict[str, Any] = {"kind": "adam", "lr": 1e-3}
D: dict[str, Any] = {"kind": "dcgan", "width": 2}


def check(config: Recipe) -> Findings:
    findings = Findings()
    check_players(config, findings)
    return findings


def without_d(*tricks: dict[str, Any], objective: str = "reconstruction", **changes: Any) -> Recipe:
    """A recipe on images that trains without a discriminator, with changes."""
    return recipe(
        "pictures", *tricks, **({"objective": {"kind": objective}} | without_discriminator("pictures") | changes)
    )


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    assert finding.message
    assert finding.cure
    assert finding.tip
    return finding


def test_which_objectives_train_without_a_discriminator() -> None:
    assert WITHOUT_D == ["elbo", "reconstruction"]
    assert not any(without_d(objective=kind).has_discriminator for kind in WITHOUT_D)
    assert all(
        recipe("pictures", objective={"kind": kind}).has_discriminator for kind in OBJECTIVES if kind not in WITHOUT_D
    )


@pytest.mark.parametrize("kind", WITHOUT_D)
@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_training_without_a_discriminator_is_valid(world: str, kind: str) -> None:
    config = recipe(world, **suited(world, kind))
    assert check(config) == Findings()
    assert findings_of(config, world) == Findings()


def test_training_with_a_discriminator_is_valid() -> None:
    for world in ("points", "pictures"):
        assert check(recipe(world)) == Findings()
        assert check(recipe(world, {"kind": "feature_reconstruction"}, **with_encoder(world))) == Findings()


# ---------------------------------------------------------------- the discriminator


@pytest.mark.parametrize("missing", [{"network.d"}, {"optimizer.d"}, {"network.d", "optimizer.d"}])
@pytest.mark.parametrize("objective", ["non_saturating", "kl_divergence", "relativistic"])
def test_a_missing_discriminator_is_refused(objective: str, missing: set[str]) -> None:
    changes: dict[str, Any] = {"objective": {"kind": objective}}
    if "network.d" in missing:
        changes["network"] = {"g": D}
    if "optimizer.d" in missing:
        changes["optimizer"] = {"g": RATE}
    refusals = check(recipe("pictures", **changes)).refusals
    assert {finding.field for finding in refusals} == missing
    for finding in refusals:
        assert f"'{objective}' needs a discriminator" in finding.message
        assert f"no {finding.field}" in finding.message
        assert (finding.tip, "'reconstruction'" in finding.cure) == ("T25", True)


@pytest.mark.parametrize("objective", WITHOUT_D)
@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("network.d", {"network": {**without_discriminator("pictures")["network"], "d": D}}),
        ("optimizer.d", {"optimizer": {"g": RATE, "d": RATE}}),
        ("conditioning.d", {"conditioning": {"g": {"kind": "concat"}, "d": {"kind": "projection"}}}),
    ],
)
def test_parts_of_an_unused_discriminator_are_refused(objective: str, field: str, changes: dict[str, Any]) -> None:
    finding = only(check(without_d(objective=objective, **changes)).refusals)
    assert (finding.field, finding.tip) == (field, "T25")
    assert f"'{objective}' trains without a discriminator" in finding.message
    assert "remove it" in finding.cure


def test_g_may_be_conditional_without_a_discriminator() -> None:
    config = recipe("labelled", **suited("labelled", "reconstruction"))
    assert config.labels.g is not None
    assert findings_of(config, "labelled") == Findings()


# ---------------------------------------------------------------- the tempo


def test_the_tempo_must_match_the_number_of_players() -> None:
    finding = only(check(recipe("pictures", tempo={"kind": "alone"})).refusals)
    assert (finding.field, finding.tip) == ("tempo", "T12")
    assert "only G moves" in finding.message
    assert '"ratio"' in finding.cure
    for kind in ("ratio", "thresholds", "simultaneous"):
        finding = only(check(without_d(tempo={"kind": kind})).refusals)
        assert (finding.field, finding.tip) == ("tempo", "T25")
        assert f"'{kind}' moves two players" in finding.message
        assert '"alone"' in finding.cure


def test_alone_makes_one_move_of_g_per_step() -> None:
    run = session("pictures", **suited("pictures", "reconstruction")).play(4)
    assert [(move.context.side, move.context.step, move.context.turn) for move in run.moves] == [
        (Side.G, step, 0) for step in range(4)
    ]
    assert run.game.d is None
    assert set(run.game.players) == {Side.G}


# ---------------------------------------------------------------- tricks


def test_some_tricks_need_a_discriminator_and_some_do_not() -> None:
    assert {"r1", "soft_labels", "feature_matching", "packing", "judged_reconstruction"} <= set(NEEDING_D)
    assert {"averaged_weights", "gradient_clipping", "posterior_kl"} <= set(NOT_NEEDING_D)


@pytest.mark.parametrize("kind", NEEDING_D)
def test_a_trick_that_needs_d_is_refused_without_a_discriminator(kind: str) -> None:
    found = check(without_d({"kind": "averaged_weights"}, {"kind": kind})).refusals
    finding = only([finding for finding in found if finding.field == "tricks.1"])
    assert f"'{kind}' acts on D or its output" in finding.message
    assert finding.tip == TRICKS[kind].tip  # type: ignore[attr-defined]
    assert {finding.field for finding in found} == {"tricks.1"}
    assert check(recipe("pictures", {"kind": kind}, **with_encoder_tables())).refusals == []


def with_encoder_tables() -> dict[str, Any]:
    """The tables of a recipe with a discriminator and an encoder."""
    return with_encoder("pictures")


@pytest.mark.parametrize("objective", WITHOUT_D)
@pytest.mark.parametrize("kind", NOT_NEEDING_D)
def test_a_trick_that_does_not_need_d_trains_without_a_discriminator(kind: str, objective: str) -> None:
    config = without_d({"kind": kind}, objective=objective)
    assert findings_of(config, "pictures").refusals == []
    run = Session(config, source("pictures"))
    before = run.saved()
    after = run.play(3).saved()
    assert before.keys() <= after.keys() | {name for name in before if name.endswith("untouched")}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values() if tensor.is_floating_point())
    weights = [name for name in before if name.startswith("game/g.net") and name.endswith("weight")]
    assert weights
    assert any(not torch.equal(before[name], after[name]) for name in weights)


# ---------------------------------------------------------------- the encoder


@pytest.mark.parametrize("objective", WITHOUT_D)
def test_an_objective_that_uses_codes_needs_an_encoder(objective: str) -> None:
    finding = only(check(without_d(objective=objective, network={"g": D})).refusals)
    assert (finding.field, finding.tip) == ("network.e", "T25")
    assert f"'{objective}' uses the latent codes" in finding.message


@pytest.mark.parametrize("kind", ["posterior_kl", "feature_reconstruction", "judged_reconstruction"])
def test_a_trick_that_uses_codes_needs_an_encoder(kind: str) -> None:
    finding = only(check(recipe("pictures", {"kind": kind})).refusals)
    assert finding.field == "network.e"
    assert f"'{kind}' uses the latent codes" in finding.message
    assert "network.e" in finding.cure
    assert check(recipe("pictures", {"kind": kind, "weight": 0.0})) == Findings()


def test_an_unused_encoder_causes_a_warning() -> None:
    for tricks in ((), ({"kind": "feature_reconstruction", "weight": 0.0},)):
        findings = check(recipe("pictures", *tricks, **with_encoder("pictures")))
        assert findings.refusals == []
        finding = only(findings.warnings)
        assert (finding.field, finding.tip) == ("network.e", "T08b")
        assert "nothing uses" in finding.message


def test_free_codes_of_endless_data_are_refused() -> None:
    tables = suited("points", "reconstruction")
    tables["network"] = tables["network"] | {"e": {"kind": "free_codes"}}
    finding = only(check(recipe("points", **tables)).refusals)
    assert (finding.field, finding.tip) == ("network.e", "T25")
    assert "endless" in finding.message
    assert check(without_d(network={"g": D, "e": {"kind": "free_codes"}})) == Findings()


def test_free_codes_of_flipped_images_are_refused() -> None:
    """An image and its flip would share a code; an encoder that sees the image has one for each."""

    def check_with(encoder: str, *, mirror: bool) -> Findings:
        data = {"kind": "npz", "path": "images.npz", "size": 8, "mirror": mirror}
        return check(without_d(network={"g": D, "e": {"kind": encoder}}, data=data))

    finding = only(check_with("free_codes", mirror=True).refusals)
    assert (finding.field, finding.tip) == ("data.mirror", "T25")
    assert "the same code" in finding.message
    assert "network.e" in finding.cure
    assert check_with("dcgan", mirror=True) == check_with("free_codes", mirror=False) == Findings()


@pytest.mark.parametrize("tricks", [[], [{"kind": "feature_reconstruction"}]])
def test_style_mixing_is_refused_where_g_decodes_codes(tricks: list[dict[str, Any]]) -> None:
    """It would decode a sample from the styles of another latent; without codes it is valid."""
    styles: dict[str, Any] = {"kind": "stylegan2", "width": 2}
    tables = with_encoder("pictures") if tricks else without_discriminator("pictures") | {"objective": {"kind": "elbo"}}

    def check_with(**options: Any) -> Findings:
        network = tables["network"] | {"g": styles | options}
        return check(recipe("pictures", *tricks, **tables | {"network": network}))

    assert only(check_with().refusals).field == "network.g.style_mixing"
    assert check_with(style_mixing=0.0) == Findings()
    assert check(recipe("pictures", network={"g": styles, "d": D})) == Findings()


# ---------------------------------------------------------------- the latents


@pytest.mark.parametrize("latent", ["sphere", "uniform", "truncated"])
def test_the_kl_divergence_needs_gaussian_latents(latent: str) -> None:
    other = {"latent": {"kind": latent, "dim": 3}}
    readers = [without_d(objective="elbo", **other), without_d({"kind": "posterior_kl"}, **other)]
    readers.append(recipe("pictures", {"kind": "posterior_kl"}, **with_encoder_tables(), **other))
    for config in readers:
        finding = only(check(config).refusals)
        assert (finding.field, finding.tip) == ("latent", "T08b")
        assert f"'{latent}'" in finding.message
        assert '"gaussian"' in finding.cure
    assert check(without_d(**other)) == Findings()
    assert check(recipe("pictures", {"kind": "feature_reconstruction"}, **with_encoder_tables(), **other)) == Findings()


# ---------------------------------------------------------------- the order of the checks


def test_missing_players_are_refused_before_other_checks() -> None:
    """A norm that would cause a warning and a shape that no network accepts are not checked."""
    config = recipe("pictures", {"kind": "r1"}, network={"g": D})
    findings = check_compatibility(config, (3, 7, 9), 0)
    assert [finding.field for finding in findings.refusals] == ["network.d"]
    assert findings.warnings == []
    with pytest.raises(RecipeError, match=r"no network\.d"):
        findings.raise_first()


@pytest.mark.parametrize("name", ["autoencoder", "latent-optimisation", "vae", "vae-gan", "kl-gan"])
def test_shipped_recipes_have_the_right_players(name: str) -> None:
    config = decode(load_table(name))
    assert check(config) == Findings()
    for shape in ((1, 32, 32), (3, 32, 32)):
        assert check_compatibility(config, shape, 10) == Findings()
    solos = ("autoencoder", "latent-optimisation", "vae")
    assert config.has_discriminator is (name not in solos)
    assert config.needs_codes is (name != "kl-gan")
    assert config.needs_code_variance is (name in ("vae", "vae-gan"))


def test_a_translator_and_a_source_need_each_other() -> None:
    refusals = check_compatibility(recipe("pictures", latent={"kind": "source"})).refusals
    assert [finding.field for finding in refusals] == ["latent"]
    assert "starts from samples of the data, but 'dcgan' maps vectors" in refusals[0].message
    plain = recipe("pictures", latent={"kind": "source"})
    own = plain.network.model_copy(update={"g": UserGenerator(file="g.py", name="G")})
    refusals = check_compatibility(plain.model_copy(update={"network": own})).refusals
    assert "but a G from a Python file maps vectors" in refusals[0].message
