"""Tests of the catalogue: it is complete, agrees with the components, and all its commands run."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.tiny import Session
from poise.cli.train import train as train_command
from poise.core.config import find_components
from poise.data.source import ImageDataset, Source
from poise.errors import RecipeError
from poise.objectives.base import Objective
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import DEFAULT, load_table
from poise.recipe.toml import set_value
from poise.tips import record
from poise.tips.catalogue import Tip, find, parts, tips
from poise.tricks.base import TrickConfig

ROOT = Path(__file__).parents[2]
LISTS = """
    T01 T02 T03 T04 T05a T05b T05c T06a T06b T07a T07b T08a T08b T09a T09b T10 T11 T12 T13 T14a T14b T15 T16 T17 T18
    T19 T20 T21 T22 T23 T24 T25 M01 M02 M03
"""
IDS = LISTS.split()
TRICKS: dict[str, type[TrickConfig]] = find_components(TrickConfig, "poise.tricks")  # type: ignore[assignment]
OBJECTIVES = sorted(find_components(Objective, "poise.objectives"))
SWITCHES = sorted({switch for tip in tips() for switch in (tip.switch, *(part.switch for part in tip.parts))})
every_tip = pytest.mark.parametrize("tip", tips(), ids=lambda tip: tip.id)


def assignments(switch: str) -> list[str]:
    """The assignments of a switch."""
    options = shlex.split(switch)
    assert options[::2] == ["--set"] * (len(options) // 2), "nothing but --set PATH=VALUE"
    return options[1::2]


def test_the_catalogue_has_every_tip_once_and_in_order() -> None:
    assert [tip.id for tip in tips()] == IDS
    assert len({tip.name for tip in tips()}) == len(IDS)


def test_every_trick_is_listed_under_its_tip() -> None:
    listed = sorted((part.kind, tip.id) for tip in tips() for part in tip.parts if part.at == "tricks")
    assert listed == sorted((kind, trick.tip) for kind, trick in TRICKS.items()), "see src/poise/tips/catalogue.toml"


def test_every_objective_is_listed_under_a_tip() -> None:
    listed = {part.kind for tip in tips() for part in tip.parts if part.at == "objective"}
    assert set(OBJECTIVES) - listed == set(), "add a part to a tip in src/poise/tips/catalogue.toml"


def test_the_recipes_page_has_a_row_for_every_objective_and_trick() -> None:
    rows = [line for line in (ROOT / "docs/recipes.md").read_text("utf-8").splitlines() if line.startswith("|")]
    named = {name for row in rows for name in re.findall("`(.*?)`", row.split("|")[1])}
    assert {*OBJECTIVES, *TRICKS} - named == set(), "add a row to docs/recipes.md"


@every_tip
def test_required_content(tip: Tip) -> None:
    assert len(tip.summary) > 150
    assert "\n" not in tip.summary.strip()
    assert tip.source
    assert tip.evidence
    for evidence in tip.evidence:
        assert evidence.says in ("for", "against", "open")
        assert evidence.text
        assert evidence.source or evidence.says == "open", "a claim has a source"
    for number in re.findall(r"arXiv:(\S+?)(?=[;,)\s]|$)", " ".join((*tip.source, *(e.source for e in tip.evidence)))):
        assert re.fullmatch(r"\d{4}\.\d{4,5}", number), number
    for part in tip.parts:
        assert part.kind in parts()[part.at], f"{part.at} has no kind {part.kind}"
        assert part.note
        assert part.kind in part.switch or f"tricks.{part.kind}" in part.switch


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_gives_a_compatible_recipe(switch: str) -> None:
    changed = load_table(DEFAULT)
    for assignment in assignments(switch):
        set_value(changed, assignment)
    recipe = decode(changed)
    findings = check_compatibility(recipe, (1, 32, 32), 10)
    assert not findings.refusals
    assert not findings.warnings, "following a tip raises no warning"
    for assignment in assignments(switch):
        path, value = assignment.split("=", 1)
        assert value.strip()
        assert path.rstrip("+").split(".")[0] in recipe.canonical()


@pytest.mark.parametrize("tip", tips(), ids=lambda tip: tip.id)
def test_switches_that_restate_the_default(tip: Tip) -> None:
    """The summaries of tips that the default recipe already follows mention this; all others change the recipe."""
    changed = load_table(DEFAULT)
    for assignment in assignments(tip.switch):
        set_value(changed, assignment)
    same = decode(changed).hash == decode(load_table(DEFAULT)).hash
    assert same == (tip.id in ("T02", "T04", "T05a", "T06a", "T08a"))
    assert "default" in tip.summary or not same


def small(switch: str) -> list[str]:
    """Assignments for a small and short run that do not interfere with the switch."""
    widths = [] if "width" in switch else ["network.g.width=8", "network.d.width=8"]
    narrow = ["network.g.width=8"] if re.search(r'network\.g=\{kind="(unet|translator|refiner)"', switch) else []
    return ["batch=8", "log.sheet=4", "measure=none", *widths, *assignments(switch), *narrow, "log.rows=1"]


@every_tip
def test_the_switch_of_every_tip_trains(tip: Tip, tmp_path: Path) -> None:
    """The command of the page, for small networks."""
    train_command(DEFAULT, data="digits", out=str(tmp_path / "run"), steps=2, changes=small(tip.switch))
    rows = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(isinstance(stat["mean"], float) for row in rows for stat in row["stats"].values())


def two_domains() -> ImageDataset:
    """Digits and their inverted twins."""
    plain = digits()
    assert isinstance(plain, ImageDataset)
    images = np.asarray(plain.images)
    both = ImageDataset(np.concatenate((images, 255 - images), 3))
    both.parts = (1, 1)
    return both


@pytest.mark.parametrize("switch", sorted(set(SWITCHES) - {tip.switch for tip in tips()}))
def test_the_switch_of_every_part_trains(switch: str) -> None:
    changed = load_table(DEFAULT)
    for assignment in small(switch):
        set_value(changed, assignment)
    recipe = decode(changed)
    run = Session(recipe, two_domains() if recipe.network.direction in ("a_to_b", "both_ways") else digits()).play(2)
    for name, tensor in run.saved().items():
        assert torch.isfinite(tensor).all(), name


@cache
def digits() -> Source:
    """The training images of the default recipe."""
    return decode(load_table(DEFAULT)).data.load().train


def test_derived_files_are_up_to_date() -> None:
    """If this fails, run `python -m poise.tips.record`."""
    stored = ROOT / "src/poise/tips/parts.json"
    assert stored.read_text("utf-8") == record.parts_text()
    assert (ROOT / "docs/tips.md").read_text("utf-8") == record.page() + "\n"
    recipes = (ROOT / "docs/recipes.md").read_text("utf-8")
    assert record.insert_tables(recipes) == recipes


def table_of(name: str) -> str:
    """A generated table of the page on recipes."""
    page = (ROOT / "docs/recipes.md").read_text("utf-8")
    return page.partition(f"<!-- {name}, written by")[2].partition(f"<!-- end of {name} -->")[0]


def test_the_page_lists_all_fields_that_accept_a_schedule() -> None:
    """Compared with the JSON schema of a recipe, in which a schedule is a reference to its kinds."""
    schemas = Recipe.model_json_schema()["$defs"]
    expected = {
        (schema["properties"]["kind"]["const"], name)
        for schema in schemas.values()
        for name, field in schema.get("properties", {}).items()
        if "#/$defs/Staircase" in json.dumps(field)
    }
    table = table_of("the fields that accept a schedule")
    rows = [re.findall(r"`(\w+)`", line.partition(" | ")[2]) for line in table.splitlines()[3:]]
    assert {(kind, name) for kind, *names in rows for name in names} == expected
    assert {("layer_noise", "sigma"), ("adam", "betas"), ("soft_labels", "real"), ("elbo", "beta")} <= expected


def test_the_page_lists_every_field_with_its_default() -> None:
    """Compared with the JSON schema: a table of a kind has all fields of the schemas with that kind."""
    rows = [line.split(" | ") for line in table_of("all fields").splitlines()[3:]]
    listed = {(kind.strip("`"), name) for _, kind, names in rows for name in re.findall(r"`(\w+)`", names)}
    schemas = Recipe.model_json_schema()["$defs"].values()
    kinds = [(schema["properties"]["kind"]["const"], schema) for schema in schemas if "kind" in schema["properties"]]
    components = {kind for _, kind, _ in rows}
    expected = {
        (kind, name)
        for kind, schema in kinds
        if f"`{kind}`" in components
        for name in schema["properties"]
        if name != "kind"
    }
    assert expected <= listed
    page = table_of("all fields")
    for default in ("`lr` = 0.0002, `betas` = [0.5, 0.999]", "`batch` = 64", "`from` (required)", "`depth` (unset)"):
        assert default in page


def test_lines_around_a_table_that_are_missing_are_an_error() -> None:
    with pytest.raises(ValueError, match="the lines around the table of all fields are missing"):
        record.insert_tables("# Recipes\n")


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("T07a", ["T07a"]),
        ("t07", ["T07a", "T07b"]),
        ("soft-labels", ["T07a"]),
        ("soft_labels", ["T07a"]),
        ("packing", ["T16"]),
        ("m02", ["M02"]),
        (" Historical-Averaging ", ["T20"]),
        ("EMA", ["T21"]),
        ("label_smoothing", ["T07a"]),
    ],
)
def test_find_by_id_name_and_kind(query: str, ids: list[str]) -> None:
    assert [tip.id for tip in find(query)] == ids


def test_find_suggests_the_closest_name() -> None:
    with pytest.raises(RecipeError, match="did you mean 'soft-labels'"):
        find("soft-lables")
    with pytest.raises(RecipeError, match="poise tips lists them"):
        find("xyzzy")


def test_json_lists_fields_with_defaults() -> None:
    (tip,) = find("soft-labels")
    assert tip.as_json()["options"][0]["fields"] == {"real": [0.7, 1.2], "fake": [0.0, 0.3]}
    assert parts()["optimizer.g"]["adam"]["lr"] is not None
