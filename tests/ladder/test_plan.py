"""The recipes of the four rungs: equal in everything that is shared, and otherwise the shipped recipes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from contracts.tiny import CPU, Session, source, unequal
from poise.core.random_streams import RandomStreams
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.ladder import plan as planning
from poise.ladder.plan import REFERENCE, RUNGS, ladder_tables
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.recipe.toml import Table

SHARED = ("data", "latent", "batch", "steps", "seed", "log", "measure")
PICTURES = {"kind": "npz", "path": "pictures.npz", "size": 16}
every_rung = pytest.mark.parametrize("rung", list(RUNGS))


def thin(seed: int = 5) -> dict[str, Recipe]:
    """All rungs on 8 x 8 digits, with very narrow networks."""
    recipes = {}
    for rung, result in ladder_tables({"kind": "digits", "size": 8}, 3, seed, 4).items():
        networks = {name: {**network, "width": 2} for name, network in result["network"].items()}
        recipes[rung] = decode(result | {"network": networks, "latent": {"kind": "gaussian", "dim": 3}})
    return recipes


def test_order_of_rungs() -> None:
    assert list(ladder_tables()) == list(RUNGS) == ["autoencoder", "vae", "gan", "vae-gan"]
    assert [item["name"] for item in ladder_tables().values()] == list(RUNGS)


@every_rung
def test_shared_fields_are_equal(rung: str) -> None:
    result, model = (decode(ladder_tables()[name]).canonical() for name in (rung, REFERENCE))
    for name in SHARED:
        assert result[name] == model[name], name
    assert result["network"]["g"] == model["network"]["g"]


def test_defaults_come_from_the_reference_recipe() -> None:
    model = load_table(REFERENCE)
    for item in ladder_tables().values():
        assert {name: item[name] for name in ("data", "latent", "batch")} == {
            name: model[name] for name in ("data", "latent", "batch")
        }
        assert (item["steps"], item["seed"]) == (3000, 0)
        assert item["network"]["g"] == model["network"]["g"]


@every_rung
@pytest.mark.parametrize("words", [(), (PICTURES, 100, 3, 16)], ids=["plain", "told"])
def test_other_fields_equal_the_shipped_recipe(rung: str, words: tuple[Any, ...]) -> None:
    own, result = load_table(RUNGS[rung]), ladder_tables(*words)[rung]
    assert set(result) == set(own) | set(SHARED)
    odd = {name for name in result if result[name] != own.get(name)}
    assert odd <= {*SHARED, "name", "network"}
    assert {name: part for name, part in result["network"].items() if name != "g"} == {
        name: part for name, part in own["network"].items() if name != "g"
    }


def test_changed_reference_recipe_applies_to_all_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever values the shipped recipes have."""
    odd = {"batch": 24, "latent": {"kind": "sphere", "dim": 11}, "data": {"kind": "digits", "size": 16}}

    def changed(name: str) -> Table:
        result = load_table(name)
        wide = {"network": result["network"] | {"g": {"kind": "dcgan", "width": 12}}}
        return result | odd | wide if name == REFERENCE else result

    monkeypatch.setattr(planning, "load_table", changed)
    for rung, result in ladder_tables().items():
        assert {name: result[name] for name in odd} == odd, rung
        assert result["network"]["g"] == {"kind": "dcgan", "width": 12}, rung


def test_plans_are_independent() -> None:
    """Each call returns new tables."""
    before = ladder_tables()
    changed = ladder_tables({"kind": "digits", "size": 8}, 1, 2, 3)
    assert ladder_tables() == before
    assert changed["vae"] != before["vae"]


@every_rung
@pytest.mark.parametrize(("shape", "classes"), [((1, 32, 32), 10), ((3, 16, 16), 0)], ids=str)
def test_every_rung_is_a_valid_recipe(rung: str, shape: tuple[int, ...], classes: int) -> None:
    data = {"kind": "digits", "size": shape[1]} if classes else PICTURES
    assert check_compatibility(decode(ladder_tables(data)[rung]), shape, classes).refusals == []


@every_rung
def test_arguments_are_applied(rung: str) -> None:
    recipe = decode(ladder_tables(PICTURES, 60, 7, 5)[rung])
    assert recipe.canonical()["data"].items() >= PICTURES.items()
    assert (recipe.steps, recipe.seed, recipe.batch) == (60, 7, 5)
    assert recipe.measure is not None
    assert (recipe.measure.every, recipe.log.saves, recipe.log.samples) == (30, 10, 10)
    assert {"fid", "coverage", "high_frequencies"} == set(recipe.measure.measures)


@every_rung
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_few_steps(rung: str, steps: int) -> None:
    recipe = decode(ladder_tables(None, steps)[rung])
    assert recipe.steps == steps
    assert recipe.measure is not None
    assert 1 <= recipe.measure.every <= steps
    assert 1 <= recipe.log.saves <= steps


def test_decoders_start_with_the_same_weights() -> None:
    data_spec, compute = source("pictures").spec(), ComputeSettings(CPU, "fp32")
    first = {
        rung: build_game(recipe, data_spec, compute, RandomStreams(recipe.seed)).g.net.state_dict()
        for rung, recipe in thin().items()
    }
    for rung, weights in first.items():
        assert unequal(weights, first[REFERENCE]) == [], rung
    other = thin(seed=6)[REFERENCE]
    assert unequal(
        build_game(other, data_spec, compute, RandomStreams(other.seed)).g.net.state_dict(), first[REFERENCE]
    )


def test_all_rungs_train_on_the_same_images_in_the_same_order() -> None:
    """The first images that are drawn in each step."""
    seen: dict[str, list[torch.Tensor]] = {}
    for rung, recipe in thin().items():
        moves = Session(recipe, source("pictures")).play(3).moves
        drawn = [[m.real for m in moves if m.context.step == step and m.real is not None] for step in range(3)]
        seen[rung] = [image_sets[0] for image_sets in drawn]
    for rung, image_sets in seen.items():
        assert [len(image_set) for image_set in image_sets] == [4, 4, 4]
        assert all(
            torch.equal(image_set, other) for image_set, other in zip(image_sets, seen[REFERENCE], strict=True)
        ), rung
    assert not torch.equal(seen[REFERENCE][0], seen[REFERENCE][1])
