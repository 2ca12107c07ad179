"""Tests of the rules of the tips, each with each of its outcomes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from poise.core.random_streams import RandomStreams
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.errors import RecipeError
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table, recipe_names
from poise.recipe.toml import Table, set_value
from poise.tips.catalogue import parts, tips
from poise.tips.recipe_view import FIXED, RecipeView
from poise.tips.rules import RULES, tip_status, tip_statuses


def changed_table(name: str, *assignments: str) -> Table:
    table = load_table(name)
    for assignment in assignments:
        set_value(table, assignment)
    return table


TIPS = {tip.id: tip for tip in tips()}

CASES: list[tuple[str, str, str, list[str]]] = [
    ("T01", "followed", "dcgan", []),
    ("T01", "not followed", "dcgan", ['network.g.output="sigmoid"']),
    ("T01", "open", "ring", []),
    ("T02", "followed", "dcgan", []),
    ("T02", "not followed", "minimax-dcgan", []),
    ("T02", "open", "lsgan", []),
    ("T03", "followed", "dcgan", []),
    ("T03", "not followed", "dcgan", ['latent.kind="uniform"']),
    ("T04", "followed", "dcgan", []),
    ("T04", "not followed", "dcgan", ['judging="together"']),
    ("T04", "open", "ring", ['judging="together"']),
    ("T04", "not followed", "ring", ['judging="together"', 'tricks+=[{kind="minibatch_stddev"}]']),
    ("T05a", "followed", "dcgan", []),
    ("T05a", "not followed", "dcgan", ['tricks+=[{kind="r1"}]']),
    ("T05a", "open", "wgan-gp", []),
    ("T05b", "followed", "hinge-sngan", []),
    ("T05b", "open", "dcgan", []),
    ("T05c", "followed", "dcgan", ['network.d.norm="layer"']),
    ("T05c", "not followed", "dcgan", ['tricks+=[{kind="dragan"}]']),
    ("T05c", "open", "dcgan", []),
    ("T06a", "followed", "dcgan", []),
    ("T06a", "not followed", "dcgan", ['network.d.down="max"']),
    ("T06a", "not followed", "hinge-sngan", []),
    ("T06b", "followed", "wgan-gp", []),
    ("T06b", "not followed", "ring", ["tricks.r1.every=8"]),
    ("T06b", "not followed", "wgan", ["tricks=[]"]),
    ("T06b", "open", "dcgan", []),
    ("T07a", "followed", "dcgan", ['tricks+=[{kind="soft_labels"}]']),
    ("T07a", "open", "dcgan", []),
    ("T08a", "followed", "dcgan", []),
    ("T08a", "open", "ring", []),
    ("T08b", "followed", "ebgan", []),
    ("T08b", "open", "dcgan", []),
    ("T10", "followed", "dcgan", []),
    ("T10", "not followed", "wgan", ['optimizer.d={kind="adam", lr=1e-4}']),
    ("T10", "followed", "wgan", []),
    ("T10", "open", "wgan-gp", ['optimizer.g={kind="sgd", lr=1e-2}']),
    ("T11", "followed", "dcgan", []),
    ("T12", "followed", "dcgan", []),
    ("T12", "open", "dcgan", ['tempo={kind="thresholds"}']),
    ("T13", "followed", "cgan", []),
    ("T13", "followed", "acgan", []),
    ("T13", "open", "dcgan", []),
    ("T14a", "not followed", "dcgan", []),
    ("T14a", "followed", "dcgan", ['tricks.instance_noise={kind="instance_noise"}']),
    ("T14a", "followed", "dcgan", ['tricks.instance_noise.sigma={kind="steps", values=[0.5, 0.0], at=[0.5]}']),
    (
        "T14a",
        "not followed",
        "dcgan",
        ['tricks.instance_noise.sigma={start=0.5, end=0.0, over="steps", until=1000000}'],
    ),
    (
        "T14a",
        "not followed",
        "dcgan",
        ['tricks.instance_noise.sigma={kind="steps", values=[0.5, 0.0], at=[90000], over="steps"}'],
    ),
    ("T14a", "open", "wgan", []),
    ("T14a", "followed", "ring", []),
    ("T15", "followed", "wgan-gp", []),
    ("T15", "not followed", "wgan-gp", ["tempo.d=1"]),
    ("T15", "open", "dcgan", []),
    ("T15", "open", "dcgan", ["tempo.d=5", "tempo.g=5"]),
    ("T15", "open", "wgan", ['tempo={kind="thresholds"}']),
    ("T16", "followed", "dcgan", ['tricks+=[{kind="packing"}]']),
    ("T16", "open", "dcgan", []),
    ("T17", "followed", "cgan", []),
    ("T17", "open", "dcgan", []),
    ("T19", "followed", "dcgan", ['tricks+=[{kind="image_pool"}]']),
    ("T21", "followed", "dcgan", []),
    ("T21", "open", "dcgan", ["tricks=[]"]),
    ("T22", "followed", "dcgan", []),
    ("T22", "not followed", "dcgan", ["network.d.width=4"]),
    ("T22", "open", "ebgan", []),
    ("T23", "followed", "dcgan", []),
    ("T24", "open", "ebgan", []),
    ("T24", "followed", "dcgan", ["tempo.head_start=100"]),
    ("T24", "open", "dcgan", []),
    ("T25", "followed", "gan", []),
    ("T25", "open", "dcgan", []),
    ("T25", "followed", "vae", []),
    ("T08b", "followed", "vae-gan", []),
    ("T08b", "followed", "kl-gan", []),
    ("T08b", "open", "vae", []),
    ("T10", "open", "vae", []),
    ("T15", "open", "autoencoder", []),
    ("T03", "followed", "latent-optimisation", []),
    ("T03", "open", "infogan", []),
    ("T03", "open", "pix2pix", []),
    ("T05a", "followed", "stacked-digits-small", []),
    ("T06a", "not followed", "cyclegan", []),
    ("T06a", "not followed", "pix2pix", []),
    ("T06a", "not followed", "stacked-digits-small", []),
    ("M01", "followed", "r3gan", []),
    ("M01", "not followed", "r3gan", ['tricks=[{kind="r1"}]']),
    ("M01", "not followed", "dcgan", ['objective.kind="relativistic"', 'tricks+=[{kind="r1"}, {kind="r2"}]']),
    ("M01", "open", "dcgan", []),
    ("M01", "not followed", "r3gan", ["tricks.r2.every=8"]),
    ("M02", "followed", "dcgan", ['tricks+=[{kind="diff_augment"}]']),
    ("M03", "followed", "hinge-sngan", []),
    ("M03", "followed", "sagan", []),
    ("M03", "followed", "dcgan", ['tricks+=[{kind="orthogonal"}]']),
    ("M03", "followed", "stylegan2", []),
    ("M03", "open", "dcgan", []),
    ("M03", "followed", "dcgan", ['network.g={kind="biggan"}']),
    ("M03", "followed", "dcgan", ['tricks+=[{kind="frozen_layers"}]']),
]


@pytest.mark.parametrize(("tip", "status", "name", "changes"), CASES)
def test_rule(tip: str, status: str, name: str, changes: list[str]) -> None:
    found = tip_status(tip, RecipeView(changed_table(name, *changes)))
    assert found.status == status, found.reason
    assert found.reason


@pytest.mark.parametrize("part", [part.kind for part in TIPS["M03"].parts if part.at == "tricks"])
def test_each_of_the_later_additions_counts(part: str) -> None:
    assert tip_status("M03", RecipeView({"tricks": [{"kind": part}]})).reason == part


def test_layers_are_known_of_every_network_without_a_field_for_them() -> None:
    missing = [
        (side, kind)
        for side in ("g", "d")
        for kind, fields in parts()[f"network.{side}"].items()
        for place, name in enumerate(("activation", "norm"))
        if name not in fields and not FIXED.get((side, kind), ("", ""))[place]
    ]
    assert missing == []


@pytest.mark.parametrize(
    "name", ["align", "cyclegan", "pix2pix", "r3gan", "simgan", "stacked-digits-small", "stylegan2"]
)
def test_the_layers_of_networks_without_a_field_for_them(name: str) -> None:
    recipe = decode(changed_table(name, *(["data.kind='clouds'"] if name == "align" else [])))
    game = build_game(
        recipe, recipe.data.load().train.spec(), ComputeSettings(torch.device("cpu"), "fp32"), RandomStreams(0)
    )
    for side, config, player in (("g", recipe.network.g, game.g), ("d", recipe.network.d, game.d)):
        activation, norm = FIXED.get((side, config.tag()), ("", "")) if config is not None else ("", "")
        modules = [] if player is None else list(player.net.modules())
        if activation:
            assert any(isinstance(one, torch.nn.ReLU) for one in modules) == (activation == "relu")
        if norm:
            assert any(isinstance(one, _BatchNorm) for one in modules) == (norm == "batch")


def test_every_tip_has_a_rule() -> None:
    assert set(RULES) == {tip.id for tip in tips()}


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_has_a_status_for_every_tip(name: str) -> None:
    statuses = tip_statuses(load_table(name))
    assert [tip.id for tip, _ in statuses] == [tip.id for tip in tips()]
    assert all(status.reason for _, status in statuses)


@pytest.mark.parametrize(
    "table",
    [{}, {"tricks": [{}, 3, {"kind": 4}]}, {"network": {"d": 7}}, {"objective": "hinge", "tempo": []}],
    ids=str,
)
def test_incomplete_tables_are_accepted(table: dict[str, Any]) -> None:
    """Validation is left to `train`."""
    assert len(tip_statuses(table)) == len(tips())


@pytest.mark.parametrize(
    "table",
    [
        {"tricks": 5},
        {"tempo": {"kind": "ratio", "d": "x"}},
        {"network": {"g": {"kind": "mlp", "width": 0}, "d": {"kind": "mlp", "width": 0}}},
    ],
    ids=str,
)
def test_a_field_of_a_wrong_type_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="poise train names it"):
        tip_statuses(table)
