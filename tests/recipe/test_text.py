"""Recipes as plain dictionaries: reading, writing, and `--set`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from poise.errors import RecipeError
from poise.recipe.shipped import DEFAULT, list_recipes, load_recipe, load_table, recipe_names
from poise.recipe.toml import Table, parse_toml, read_file, set_value, to_toml


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
    made = sample()
    for assignment in assignments:
        set_value(made, assignment)
    return made


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
def test_set_at_the_top(assignment: str, expected: Table) -> None:
    made = changed(assignment)
    assert {key: made[key] for key in expected} == expected
    assert {key: made[key] for key in sample() if key not in expected} == {
        key: value for key, value in sample().items() if key not in expected
    }


def test_set_deep_leaves_the_neighbours() -> None:
    made = changed("optimizer.d.lr=1e-4")
    assert made["optimizer"]["d"] == {"kind": "adam", "lr": 1e-4, "betas": [0.5, 0.999]}
    assert type(made["optimizer"]["d"]["lr"]) is float


def test_set_a_table_and_a_list() -> None:
    made = changed('optimizer.d.lr={kind="linear", start=1e-3, end=0.0}', "optimizer.d.betas=[0.0, 0.9]")
    assert made["optimizer"]["d"]["lr"] == {"kind": "linear", "start": 1e-3, "end": 0.0}
    assert made["optimizer"]["d"]["betas"] == [0.0, 0.9]


@pytest.mark.parametrize("way", ["tricks.1.sigma=0.2", "tricks.instance_noise.sigma=0.2"])
def test_set_into_a_trick_by_number_or_kind(way: str) -> None:
    made = changed(way)
    expected = sample()
    expected["tricks"][1]["sigma"] = 0.2
    assert made == expected


def test_set_replaces_a_trick() -> None:
    made = changed('tricks.0={kind="r1"}', 'tricks.instance_noise={kind="averaged_weights"}')
    assert [trick["kind"] for trick in made["tricks"]] == ["r1", "averaged_weights", "r1", "r1"]


@pytest.mark.parametrize("plus", ["tricks+=", "tricks +=", "tricks+= ", " tricks += "])
def test_plus_adds_items_to_a_list(plus: str) -> None:
    made = changed(plus + '[{kind="r2"}, {kind="packing", samples=3}]')
    expected = sample()
    expected["tricks"] += [{"kind": "r2"}, {"kind": "packing", "samples": 3}]
    assert made == expected


def test_plus_makes_a_list_where_there_is_none() -> None:
    table: Table = {}
    set_value(table, 'tricks+=[{kind="r1"}]')
    assert table == {"tricks": [{"kind": "r1"}]}


def test_plus_reaches_a_list_within() -> None:
    assert changed("tricks.0.real=[0.9]", "tricks.0.real+=[0.95]")["tricks"][0]["real"] == [0.9, 0.95]
    assert changed("optimizer.d.betas+=[0.5]")["optimizer"]["d"]["betas"] == [0.5, 0.999, 0.5]


def test_plus_leaves_the_list_it_was_given_alone() -> None:
    """Shipped recipes are read once and changed by many."""
    made = sample()
    before = made["tricks"]
    set_value(made, 'tricks+=[{kind="r2"}]')
    assert len(before) + 1 == len(made["tricks"])


def test_a_quoted_key_is_one_key() -> None:
    made = changed('data.options."a.b+"=1')
    assert made["data"]["options"] == {"a.b+": 1}


def test_a_trick_that_is_not_there_is_helped() -> None:
    for made in (sample(), {}):
        with pytest.raises(RecipeError, match=r"'tricks\+=\[\{kind=\"lecam\"\}\]'"):
            set_value(made, "tricks.lecam.weight=1.0")


def test_set_one_item_of_a_list() -> None:
    assert changed("optimizer.d.betas.0=0.9")["optimizer"]["d"]["betas"] == [0.9, 0.999]


def test_set_twice_takes_the_last() -> None:
    assert changed("steps=1", "steps=2")["steps"] == 2


def test_later_changes_see_earlier_ones() -> None:
    made = changed('tricks=[{kind="instance_noise"}]', "tricks.instance_noise.sigma=0.3")
    assert made["tricks"] == [{"kind": "instance_noise", "sigma": 0.3}]


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("tricks.r1.gamma=3", ["'r1'", "soft_labels, instance_noise, r1, r1"]),  # which of the two?
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
        ("steps=3\nbatch=8", ["--set"]),  # the second line would be lost in silence
        ("steps=3\n[log]", ["--set"]),
    ],
)
def test_set_refused_and_nothing_changed(assignment: str, parts: list[str]) -> None:
    made = sample()
    with pytest.raises(RecipeError) as refused:
        set_value(made, assignment)
    for part in parts:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)
    assert made == sample()


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_file_is_read_and_written_alike(name: str) -> None:
    assert parse_toml(to_toml(load_table(name)), name) == load_table(name)


def test_shipped_names_are_the_files_own() -> None:
    assert DEFAULT in recipe_names()
    assert [recipe.name for recipe in list_recipes()] == recipe_names()
    for recipe in list_recipes():
        assert 10 < len(recipe.about) <= 200
        assert recipe.data == load_table(recipe.name)["data"]["kind"]


def test_found_by_name_and_by_path(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(to_toml(load_table("ring")))
    assert load_recipe(str(mine)) == load_recipe("ring") == load_table("ring")


def test_reading_gives_a_table_of_its_own() -> None:
    first = load_table("ring")
    before = copy.deepcopy(first)
    first["optimizer"]["d"]["lr"] = 9.0
    assert load_table("ring") == before


@pytest.mark.parametrize("depth", [3, 50, 51, 2000])
def test_fifty_is_the_deepest(depth: int) -> None:
    text = "x = " + "[" * (depth - 1) + "]" * (depth - 1)  # the document itself is one level
    if depth <= 50:
        assert parse_toml(text, "here")
        return
    with pytest.raises(RecipeError, match="here: nested more than 50 levels deep"):
        parse_toml(text, "here")


def test_a_byte_order_mark_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xef\xbb\xbfsteps = 3\r\n")
    assert read_file(path) == {"steps": 3}


def test_one_megabyte_is_the_largest(tmp_path: Path) -> None:
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


def test_a_whole_table_is_taken_out() -> None:
    table = {"network": {"g": {"kind": "mlp"}, "d": {"kind": "mlp", "norm": "none"}}, "steps": 3}
    set_value(table, "network.d=none")
    assert table == {"network": {"g": {"kind": "mlp"}}, "steps": 3}


@pytest.mark.parametrize("assignment", ["steps=none", "network.d.norm=none", "network.x=none", "network.d+=none"])
def test_what_is_no_table_is_not_taken_out(assignment: str) -> None:
    """A field's own "none" without its quotes is a slip, and would silently become the default."""
    table = {"network": {"d": {"norm": "batch"}}, "steps": 3}
    with pytest.raises(RecipeError, match="text needs quotes"):
        set_value(table, assignment)
    assert table == {"network": {"d": {"norm": "batch"}}, "steps": 3}
