"""The recipe and its TOML: round trips, the canonical form, the hash and differences."""

from __future__ import annotations

import json
import random
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poise.recipe.decode import decode
from poise.recipe.model import Recipe, differences
from poise.recipe.shipped import load_table, recipe_names
from poise.recipe.toml import parse_toml, set_value

# ---- values as they are written after --set ---------------------------------------------------


def typed(value: Any) -> str:
    """A TOML value on one line, as `--set` takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {typed(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(typed, value)) + "]"
    if isinstance(value, str):
        escaped = "".join(
            f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c
            for c in json.dumps(value, ensure_ascii=False)[1:-1]
        )
        return f'"{escaped}"'
    return repr(value)


def number(low: float = 0.0, high: float = 1e6, *, open_low: bool = False) -> st.SearchStrategy[float]:
    return st.floats(low, high, exclude_min=open_low, allow_nan=False)


@st.composite
def ramp(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> dict[str, Any]:
    over = draw(st.sampled_from(["progress", "steps"]))
    largest = 1.0 if over == "progress" else 1e5
    after, until = sorted(draw(st.lists(number(0, largest), min_size=2, max_size=2, unique=True)))
    table = {"start": draw(numbers), "end": draw(numbers), "after": after, "until": until, "over": over}
    return {"kind": draw(st.sampled_from(["linear", "cosine"])), **table}


@st.composite
def step_schedule(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> dict[str, Any]:
    at = sorted(draw(st.lists(number(0, 1e5), min_size=1, max_size=4, unique=True)))
    values = draw(st.lists(numbers, min_size=len(at) + 1, max_size=len(at) + 1))
    return {"kind": "steps", "values": values, "at": at, "over": draw(st.sampled_from(["progress", "steps"]))}


def schedule(low: float = 0.0, high: float = 1e6) -> st.SearchStrategy[Any]:
    numbers = number(low, high)
    integers = st.integers(int(low), int(high))  # an integer is accepted for a float
    return numbers | integers | ramp(numbers) | step_schedule(numbers)


def span() -> st.SearchStrategy[list[float]]:
    return st.lists(number(0, 2), min_size=2, max_size=2).map(sorted)


def trick(kind: str, **options: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"kind": st.just(kind)}, optional=options)


TRICKS = st.lists(
    trick("soft_labels", real=span(), fake=span())
    | trick("instance_noise", sigma=schedule())
    | trick("r1", gamma=schedule(), every=st.integers(1, 64))
    | trick("averaged_weights", half_life=number(), ramp_up=number(0, 1)),
    max_size=5,
)

text = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=40)
name = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)
beta = number(0, 1).filter(lambda b: b < 1)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": name,
    "about": text,
    "seed": st.integers(0, 2**63 - 1),
    "steps": st.integers(1, 10**9),
    "batch": st.integers(1, 65536),
    "judging": st.sampled_from(["apart", "together"]),
    "data": st.fixed_dictionaries(
        {"kind": st.just("grid")}, optional={"side": st.integers(1, 100), "step": number(0, 9, open_low=True)}
    )
    | st.fixed_dictionaries({"kind": st.sampled_from(["ring", "two_moons", "spiral"])}, optional={"sigma": number()}),
    "latent": st.fixed_dictionaries(
        {"kind": st.sampled_from(["gaussian", "sphere", "uniform", "truncated"])},
        optional={"dim": st.integers(1, 65536)},
    ),
    "network.g.width": st.integers(1, 65536),
    "network.d.norm": st.sampled_from(["batch", "none"]),
    "objective.kind": st.sampled_from(["minimax", "non_saturating"]),
    "optimizer.g.lr": schedule(),
    "optimizer.d.lr": schedule(),
    "optimizer.d.betas": st.tuples(beta, beta).map(list),
    "optimizer.g.eps": number(0, 1, open_low=True),
    "tempo.d": st.integers(1, 1000),
    "tricks": TRICKS,
    "log.rows": st.integers(1, 10**6),
    "log.keep": st.integers(2, 1000),
}

CHANGES = st.fixed_dictionaries({}, optional=FIELDS)


def built(changes: dict[str, Any]) -> Recipe:
    table = load_table("ring")
    for path, value in changes.items():
        set_value(table, f"{path}={typed(value)}")
    return decode(table)


many = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(CHANGES)
def test_any_setting_survives_the_round_trip(changes: dict[str, Any]) -> None:
    recipe = built(changes)
    written = recipe.to_toml()
    again = decode(parse_toml(written, "recipe.toml"))
    assert again == recipe
    assert again.to_toml() == written
    assert again.hash == recipe.hash
    assert differences(recipe, again) == []


@many
@given(CHANGES, st.randoms())
def test_the_order_of_keys_does_not_matter(changes: dict[str, Any], streams: random.Random) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = list(value)
            streams.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    recipe = built(changes)
    assert decode(shuffled(recipe.canonical())).hash == recipe.hash


@many
@given(CHANGES, CHANGES)
def test_different_recipes_have_different_hashes(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = built(one), built(other)
    assert (first.hash == second.hash) == (first == second)


@many
@given(CHANGES)
def test_kind_is_the_first_key_of_every_table(changes: dict[str, Any]) -> None:
    def check_order(value: Any) -> None:
        if isinstance(value, dict):
            assert "kind" not in list(value)[1:]
            list(map(check_order, value.values()))
        elif isinstance(value, list):
            list(map(check_order, value))

    check_order(built(changes).canonical())
    check_order(parse_toml(built(changes).to_toml(), "recipe.toml"))


# ---- the shipped recipes ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_survives_the_round_trip(name: str) -> None:
    recipe = decode(load_table(name))
    written = recipe.to_toml()
    again = decode(parse_toml(written, name))
    assert again == recipe
    assert again.to_toml() == written
    assert again.hash == recipe.hash
    assert recipe.name == name


def test_shipped_recipes_have_different_hashes() -> None:
    assert len({decode(load_table(name)).hash for name in recipe_names()}) == len(recipe_names())


def test_the_canonical_form_contains_defaults() -> None:
    bare = load_table("ring")
    del bare["log"]
    written = decode(bare).canonical()
    intervals = {"rows": 50, "samples": 500, "saves": 500}
    assert written["log"] == intervals | {"keep": 2, "sheet": 100, "frames": 10.0, "to": ["tensorboard"]}
    assert written["seed"] == 0
    assert written["judging"] == "apart"
    assert written["tempo"] == {"kind": "ratio", "first": "d", "head_start": 0, "d": 1, "g": 1}


def test_an_explicit_default_does_not_change_the_hash() -> None:
    plain, spelled = load_table("ring"), load_table("ring")
    spelled["seed"], spelled["tempo"]["d"], spelled["optimizer"]["d"]["eps"] = 0, 1, 1e-8
    assert decode(spelled).hash == decode(plain).hash


def test_an_integer_equals_the_same_float() -> None:
    integers, broken = load_table("ring"), load_table("ring")
    integers["optimizer"]["d"]["lr"], broken["optimizer"]["d"]["lr"] = 1, 1.0
    assert decode(integers) == decode(broken)
    assert decode(integers).hash == decode(broken).hash


def test_none_is_an_absent_key() -> None:
    recipe = decode(load_table("dcgan"))
    assert recipe.network.g.depth is None
    assert "depth" not in recipe.canonical()["network"]["g"]


def test_the_order_of_tricks_changes_the_hash() -> None:
    one, other = ({"kind": "r1"}, {"kind": "instance_noise"})
    first, second = (load_table("ring") | {"tricks": tricks} for tricks in ([one, other], [other, one]))
    assert decode(first).hash != decode(second).hash


def test_repeated_tricks_are_numbered() -> None:
    tricks = [{"kind": "r1"}, {"kind": "instance_noise"}, {"kind": "r1"}, {"kind": "r1"}]
    assert decode(load_table("ring") | {"tricks": tricks}).trick_names() == ["r1", "instance_noise", "r1_2", "r1_3"]


def test_recipes_are_frozen() -> None:
    recipe = decode(load_table("ring"))
    with pytest.raises(ValueError, match="frozen"):
        recipe.steps = 3  # type: ignore[misc]


# ---- differences --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("steps=7", []),
        ("log.rows=7", []),
        ("log.keep=7", []),
        ('name="other"', []),
        ('about="other"', []),
        ("seed=7", ["seed"]),
        ("batch=7", ["batch"]),
        ("optimizer.d.lr=7", ["optimizer.d.lr"]),
        ("network.g.width=7", ["network.g.width"]),
        ("optimizer.g.betas=[0.0, 0.9]", ["optimizer.g.betas"]),
        ("tricks.r1.gamma=7", ["tricks.0.gamma"]),
        ("tricks.instance_noise.sigma.end=0.01", ["tricks.1.sigma.end"]),
        ('objective.kind="minimax"', ["objective.kind"]),
        ('judging="together"', ["judging"]),
    ],
)
def test_differences_are_the_fields_that_may_not_change(change: str, expected: list[str]) -> None:
    adam = {"kind": "adam", "lr": 1e-3}
    plain = load_table("ring") | {
        "optimizer": {"g": adam, "d": dict(adam)},
        "tricks": [{"kind": "r1"}, {"kind": "instance_noise", "sigma": {"kind": "linear", "start": 0.1, "end": 0.0}}],
    }
    old = decode(plain)
    set_value(plain, change)
    new = decode(plain)
    assert differences(old, new) == expected
    assert differences(new, old) == expected


def test_differences_include_added_and_removed_fields() -> None:
    old, new = {**load_table("ring"), "tricks": []}, load_table("ring")
    new["tricks"] = [{"kind": "r1"}]
    new["optimizer"]["d"]["lr"] = {"kind": "linear", "start": 1e-3, "end": 0.0}
    found = differences(decode(old), decode(new))
    assert "tricks" in found
    assert "optimizer.d.lr.kind" in found
    assert all(path == "tricks" or path.startswith("optimizer.d.lr") for path in found)


def test_differences_include_a_value_that_was_None_before() -> None:
    old, new = load_table("dcgan"), load_table("dcgan")
    new["network"]["g"]["depth"] = 3
    assert differences(decode(old), decode(new)) == ["network.g.depth"]


def test_a_schedule_in_place_of_a_number_is_one_difference() -> None:
    table = load_table("ring")
    set_value(table, "optimizer.d.lr=1.0")
    set_value(table, "batch=8")
    assert differences(decode(load_table("ring")), decode(table)) == ["batch", "optimizer.d.lr"]
