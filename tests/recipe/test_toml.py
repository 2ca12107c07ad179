"""Recipes as plain dictionaries: reading, writing and `--set`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import pytest

from poise.core.config import ComponentConfig, Config
from poise.errors import RecipeError
from poise.recipe.model import NetworksConfig, Recipe
from poise.recipe.shipped import DEFAULT, list_recipes, load_recipe, load_table, recipe_names
from poise.recipe.toml import OPTIONAL, Table, parse_toml, read_file, set_value, to_toml


def sample() -> Table:
    return {
        "steps": 10,
        "optimizer": {"d": {"kind": "adam", "lr": 1e-3, "betas": [0.5, 0.999]}},
        "tricks": [
            {"kind": "soft_labels"},
            {"kind": "instance_noise", "sigma": 0.1},
            {"kind": "r1", "gamma": 1.0},
            {"kind": "r1", "gamma": 2.0},
        ],
    }


def changed(*assignments: str) -> Table:
    table = sample()
    for assignment in assignments:
        set_value(table, assignment)
    return table


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("steps=20", {"steps": 20}),
        (" steps = 20 ", {"steps": 20}),
        ('about="a = b # c"', {"about": "a = b # c"}),
        ("about='x'", {"about": "x"}),
        ("judging='''together'''", {"judging": "together"}),
        ("log.rows=5", {"log": {"rows": 5}}),
        ("a.b.c=true", {"a": {"b": {"c": True}}}),
        ("seed=0x10", {"seed": 16}),
        ("seed=1_000", {"seed": 1000}),
    ],
)
def test_set_at_the_top_level(assignment: str, expected: Table) -> None:
    table = changed(assignment)
    assert {key: table[key] for key in expected} == expected
    assert {key: table[key] for key in sample() if key not in expected} == {
        key: value for key, value in sample().items() if key not in expected
    }


def test_set_of_a_nested_key_keeps_its_neighbours() -> None:
    table = changed("optimizer.d.lr=1e-4")
    assert table["optimizer"]["d"] == {"kind": "adam", "lr": 1e-4, "betas": [0.5, 0.999]}
    assert type(table["optimizer"]["d"]["lr"]) is float


def test_set_a_table_and_a_list() -> None:
    table = changed('optimizer.d.lr={kind="linear", start=1e-3, end=0.0}', "optimizer.d.betas=[0.0, 0.9]")
    assert table["optimizer"]["d"]["lr"] == {"kind": "linear", "start": 1e-3, "end": 0.0}
    assert table["optimizer"]["d"]["betas"] == [0.0, 0.9]


@pytest.mark.parametrize("path", ["tricks.1.sigma=0.2", "tricks.instance_noise.sigma=0.2"])
def test_set_into_a_trick_by_number_or_kind(path: str) -> None:
    table = changed(path)
    expected = sample()
    expected["tricks"][1]["sigma"] = 0.2
    assert table == expected


def test_set_replaces_a_trick() -> None:
    table = changed('tricks.0={kind="r1"}', 'tricks.instance_noise={kind="averaged_weights"}')
    assert [trick["kind"] for trick in table["tricks"]] == ["r1", "averaged_weights", "r1", "r1"]


@pytest.mark.parametrize("plus", ["tricks+=", "tricks +=", "tricks+= ", " tricks += "])
def test_plus_adds_items_to_a_list(plus: str) -> None:
    table = changed(plus + '[{kind="r2"}, {kind="packing", samples=3}]')
    expected = sample()
    expected["tricks"] += [{"kind": "r2"}, {"kind": "packing", "samples": 3}]
    assert table == expected


def test_plus_creates_a_missing_list() -> None:
    table: Table = {}
    set_value(table, 'tricks+=[{kind="r1"}]')
    assert table == {"tricks": [{"kind": "r1"}]}


def test_plus_extends_a_nested_list() -> None:
    assert changed("tricks.0.real=[0.9]", "tricks.0.real+=[0.95]")["tricks"][0]["real"] == [0.9, 0.95]
    assert changed("optimizer.d.betas+=[0.5]")["optimizer"]["d"]["betas"] == [0.5, 0.999, 0.5]


def test_plus_does_not_change_the_given_list() -> None:
    """The list may be shared with other tables."""
    table = sample()
    before = table["tricks"]
    set_value(table, 'tricks+=[{kind="r2"}]')
    assert len(before) + 1 == len(table["tricks"])


def test_a_quoted_key_is_one_key() -> None:
    table = changed('data.options."a.b+"=1')
    assert table["data"]["options"] == {"a.b+": 1}


def test_a_missing_trick_is_refused_with_a_cure() -> None:
    for table in (sample(), {}):
        with pytest.raises(RecipeError, match=r"'tricks\+=\[\{kind=\"lecam\"\}\]'"):
            set_value(table, "tricks.lecam.weight=1.0")


def test_set_one_item_of_a_list() -> None:
    assert changed("optimizer.d.betas.0=0.9")["optimizer"]["d"]["betas"] == [0.9, 0.999]


def test_the_last_of_two_values_is_used() -> None:
    assert changed("steps=1", "steps=2")["steps"] == 2


def test_later_changes_see_earlier_ones() -> None:
    table = changed('tricks=[{kind="instance_noise"}]', "tricks.instance_noise.sigma=0.3")
    assert table["tricks"] == [{"kind": "instance_noise", "sigma": 0.3}]


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("tricks.r1.gamma=3", ["'r1'", "soft_labels, instance_noise, r1, r1"]),  # ambiguous
        ("tricks.flips.rate=3", ["'flips'"]),
        ("tricks.4.gamma=3", ["'4'"]),
        ("tricks.-1.gamma=3", ["'-1'"]),
        ("tricks.sigma=3", ["'sigma'"]),
        ("tricks.²=3", ["path=value"]),
        ("steps.much=3", ["'steps' is a single value"]),
        ("optimizer.d.lr.start.x=3", ["'optimizer.d.lr' is a single value"]),
        ("steps", ["path=value"]),
        ("", ["path=value"]),
        ("=", ["path=value"]),
        (".steps=3", ["path=value"]),
        ("steps=", ["no value"]),
        ("steps=1 2", ["not valid TOML"]),
        ("steps=[1", ["not valid TOML"]),
        ("judging=together", ["--set 'judging=\"together\"'"]),
        ("data.path=/pictures/of cats", ["--set 'data.path=\"/pictures/of cats\"'"]),
        ("data.path=~/cats", ["--set 'data.path=\"~/cats\"'"]),
        ("steps+=[1]", ["adds the items of a list"]),
        ('tricks+={kind="r1"}', ["adds the items of a list"]),
        ("tricks++=[1]", ["path=value"]),
        ('log.to+=["wandb"]', ["replace its default", "--set 'log.to=[...]'"]),
        ("steps=3\nbatch=8", ["--set"]),  # the second line would be ignored silently
        ("steps=3\n[log]", ["--set"]),
    ],
)
def test_a_refused_set_changes_nothing(assignment: str, parts: list[str]) -> None:
    table = sample()
    with pytest.raises(RecipeError) as refused:
        set_value(table, assignment)
    for part in parts:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)
    assert table == sample()


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_survives_the_round_trip(name: str) -> None:
    assert parse_toml(to_toml(load_table(name)), name) == load_table(name)


def test_the_names_of_shipped_recipes_are_those_of_their_files() -> None:
    assert DEFAULT in recipe_names()
    assert [recipe.name for recipe in list_recipes()] == recipe_names()
    for recipe in list_recipes():
        assert 10 < len(recipe.about) <= 200
        assert recipe.data == load_table(recipe.name)["data"]["kind"]


def test_found_by_name_and_by_path(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(to_toml(load_table("ring")))
    assert load_recipe(str(mine)) == load_recipe("ring") == load_table("ring")


def test_each_reading_returns_a_new_table() -> None:
    first = load_table("ring")
    before = copy.deepcopy(first)
    first["optimizer"]["d"]["lr"] = 9.0
    assert load_table("ring") == before


@pytest.mark.parametrize("depth", [3, 50, 51, 2000])
def test_at_most_fifty_levels(depth: int) -> None:
    text = "x = " + "[" * (depth - 1) + "]" * (depth - 1)  # the document itself is one level
    if depth <= 50:
        assert parse_toml(text, "here")
        return
    with pytest.raises(RecipeError, match="here: nested more than 50 levels deep"):
        parse_toml(text, "here")


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xef\xbb\xbfsteps = 3\r\n")
    assert read_file(path) == {"steps": 3}


def test_at_most_one_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"#" * 1_000_000)
    assert read_file(path) == {}
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(RecipeError, match="at most 1 MB, found 1,000,001 bytes"):
        read_file(path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.toml"
    path.write_text("steps = 3")

    def refuse(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(RecipeError, match="can't be read: Permission denied"):
        read_file(path)


def test_none_removes_a_table() -> None:
    table = {"network": {"g": {"kind": "mlp"}, "d": {"kind": "mlp", "norm": "none"}}, "steps": 3}
    set_value(table, "network.d=none")
    assert table == {"network": {"g": {"kind": "mlp"}}, "steps": 3}


@pytest.mark.parametrize(
    ("assignment", "found", "cure"),
    [
        ("steps=none", "found steps = 3", """text needs quotes: --set 'steps="none"'"""),
        (
            "network.d.norm=none",
            "found network.d.norm = 'batch'",
            """text needs quotes: --set 'network.d.norm="none"'""",
        ),
        ("network.g.norm=none", "found nothing", """text needs quotes: --set 'network.g.norm="none"'"""),
        ("steps.x.y=none", "found nothing", """--set 'steps.x.y="none"'"""),
        ("mesure=none", "found nothing", "did you mean 'measure'?"),
        ("log.to=none", "found a list", "--set 'log.to=[]' empties it"),
        ("tricks.r2=none", "found r1", "only what is there can be removed"),
        ("tricks.3=none", "found r1", "only what is there can be removed"),
    ],
)
def test_none_does_not_remove_other_values(assignment: str, found: str, cure: str) -> None:
    """A value "none" without quotes is a mistake, which must not silently become the default."""
    table = {"network": {"d": {"norm": "batch"}}, "steps": 3, "log": {"to": ["wandb"]}, "tricks": [{"kind": "r1"}]}
    before = copy.deepcopy(table)
    with pytest.raises(RecipeError) as caught:
        set_value(table, assignment)
    assert str(caught.value).startswith(f"--set {assignment}: ")
    assert found in str(caught.value)
    assert str(caught.value).endswith(cure)
    assert table == before


@pytest.mark.parametrize("value", ["none", "r1", '"r1"', "3", "{kind='r1'}"])
def test_only_a_list_can_be_added(value: str) -> None:
    """A word without quotes is not answered with the cure of "=", which would replace the list."""
    table = {"tricks": [{"kind": "r2"}]}
    with pytest.raises(RecipeError, match=r"'\+=' adds the items of a list to a list; for example --set 'tricks\+=\["):
        set_value(table, f"tricks+={value}")
    assert table == {"tricks": [{"kind": "r2"}]}


@pytest.mark.parametrize("path", OPTIONAL)
def test_what_a_recipe_can_do_without_is_removed_or_is_not_there(path: str) -> None:
    table: Table = {"steps": 3, "network": {"g": {"kind": "mlp"}}}
    set_value(table, f"{path}=none")
    assert table == {"steps": 3, "network": {"g": {"kind": "mlp"}}}
    set_value(table, f"{path}=[{{kind='r1'}}]" if path == "tricks" else f"{path}={{kind='a'}}")
    set_value(table, f"{path}=none")
    assert path.split(".")[-1] not in table.get(path.split(".")[0], table)


def test_a_trick_is_not_removed_from_a_recipe_without_tricks() -> None:
    with pytest.raises(RecipeError, match="'tricks' has no entry 'r1', found nothing; only what is there"):
        set_value({"steps": 3}, "tricks.r1=none")


def test_the_tables_that_a_recipe_can_do_without_are_those_of_its_model() -> None:
    def optional(model: type[Config], root: str = "") -> set[str]:
        found: set[str] = set()
        for name, field in model.model_fields.items():
            if field.annotation is not None and (tables := tables_in(field.annotation)):
                found |= set() if field.is_required() else {f"{root}{name}"}
                if len(tables) == 1 and not issubclass(tables[0], ComponentConfig):
                    found |= optional(tables[0], f"{root}{name}.")
        return found

    def tables_in(annotation: Any) -> list[type[Config]]:
        if isinstance(annotation, type):
            return [annotation] if issubclass(annotation, Config) else []
        return [table for part in get_args(annotation) for table in tables_in(part)]

    choices = {f"network.{name}" for name, field in NetworksConfig.model_fields.items() if field.default is None}
    choices |= {"measure.domain"}
    assert optional(Recipe) | choices == set(OPTIONAL)
