"""What the page may ask for: what follows the schema is taken as it is, and everything else is one sentence."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poise.errors import RecipeError
from poise.playground.commands import COMMANDS, Command, GameSpec, Start, parse_arguments
from poise.playground.options import DATA, DEFAULT_GAME, OBJECTIVES, PENALTIES, RANGES, TRICKS

DRAWING = base64.b64encode(bytes(4095) + b"\xff").decode()
START: dict[str, Any] = {"games": [DEFAULT_GAME], "seed": 3, "density": None, "speed": 50}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def number(name: str) -> st.SearchStrategy[float]:
    low, high, _ = RANGES[name]
    whole = name in ("d_moves", "width", "latent_dim", "batch", "seed")
    return st.integers(int(low), int(high)) if whole else st.floats(low, high)


def within_penalty(game: dict[str, Any]) -> dict[str, Any]:
    """The game with a weight that its penalty may have."""
    weight = PENALTIES[game["penalty"]].weight if game["penalty"] else None
    return game if weight is None else game | {"penalty_weight": min(game["penalty_weight"], weight.range.max)}


games = st.fixed_dictionaries(
    {
        "data": st.sampled_from(sorted(DATA)),
        "objective": st.sampled_from(sorted(OBJECTIVES)),
        "penalty": st.none() | st.sampled_from(sorted(PENALTIES)),
        "tricks": st.lists(st.sampled_from(sorted(TRICKS)), unique=True),
        **{name: number(name) for name in RANGES if name in GameSpec.model_fields},
    }
).map(within_penalty)
starts = st.fixed_dictionaries(
    {
        "games": st.lists(games, min_size=1, max_size=2),
        "seed": number("seed"),
        "density": st.just(DRAWING),
        "speed": number("speed"),
    }
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parse(name: str, body: bytes) -> Command | str:
    """The arguments, or the sentence that refuses them."""
    try:
        return parse_arguments(name, body)
    except RecipeError as error:
        return str(error)


def refusal(name: str, arguments: Any) -> str:
    with pytest.raises(RecipeError) as refused:
        parse_arguments(name, json.dumps(arguments).encode())
    assert "\n" not in str(refused.value)
    return str(refused.value)


@quick
@given(starts)
def test_every_choice_within_the_bounds_is_taken_as_it_is(start: dict[str, Any]) -> None:
    parsed = parse_arguments("start", json.dumps(start).encode())
    assert isinstance(parsed, Start)
    assert parsed.model_dump() == start


@quick
@given(starts, st.data())
def test_a_start_with_any_field_replaced_is_taken_or_refused_in_one_sentence(
    start: dict[str, Any], data: st.DataObject
) -> None:
    field, value = data.draw(st.sampled_from(sorted(GameSpec.model_fields))), data.draw(json_values)
    start["games"][0][field] = value
    parsed = parse("start", json.dumps(start).encode())
    if isinstance(parsed, str):
        assert "\n" not in parsed
    else:
        assert isinstance(parsed, Start)
        kept = getattr(parsed.games[0], field)
        assert kept == value
        assert type(kept) is type(value) or (type(kept) is float and type(value) is int)


@quick
@given(st.sampled_from(sorted(COMMANDS)), st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_a_command_or_one_sentence(name: str, body: bytes) -> None:
    parsed = parse(name, body)
    assert "\n" not in parsed if isinstance(parsed, str) else isinstance(parsed, COMMANDS[name])


@pytest.mark.parametrize("name", [name for name in RANGES if name in GameSpec.model_fields])
def test_each_number_is_refused_beyond_its_bounds(name: str) -> None:
    low, high, _ = RANGES[name]
    whole = GameSpec.model_fields[name].annotation is int
    for value in (low - 1 if whole else low / 2, high + 1 if whole else high * 2, None, str(low), True):
        assert f"games.0.{name}" in refusal("start", START | {"games": [DEFAULT_GAME | {name: value}]})
    for value in (low, high):
        assert parse_arguments("start", json.dumps(START | {"games": [DEFAULT_GAME | {name: value}]}).encode())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"games": []}, "games: must not be empty"),
        ({"games": [DEFAULT_GAME] * 3}, "games: must have at most 2 values"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"speed": 0}, "speed"),
        ({"path": "/etc/passwd"}, "path: is not known here"),
        ({"games": [DEFAULT_GAME | {"path": "/etc/passwd"}]}, "games.0.path: is not known here"),
        ({"games": [DEFAULT_GAME | {"data": "folder"}]}, "games.0.data: is not one of the options"),
        ({"games": [DEFAULT_GAME | {"tricks": ["packing", "packing"]}]}, "games.0: has a trick twice"),
        (
            {"games": [DEFAULT_GAME | {"penalty": "weight_clipping", "penalty_weight": 2.0}]},
            "games.0: has a penalty_weight that is not within 0.001 to 1, the bounds of its penalty",
        ),
        ({"games": [DEFAULT_GAME | {"data": "density"}]}, "start: has data that is to be drawn, and no drawing"),
        ({"density": "AAAA"}, "start: has a drawing that is not base64 of 64 x 64 bytes"),
        ({"density": "*" * 5464}, "start: has a drawing that is not base64 of 64 x 64 bytes"),
        ({"density": base64.b64encode(bytes(4096)).decode()}, "start: has an empty drawing"),
        ({"density": "A" * 9000}, "density: must have at most 8,192 characters"),
    ],
)
def test_a_refusal_names_the_field_and_the_reason(changes: dict[str, Any], words: str) -> None:
    assert words in refusal("start", START | changes)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("pause", {"now": 1}),
        ("stop", []),
        ("reset", None),
        ("reset", {"speed": 0}),
        ("step", {}),
        ("step", {"player": "e"}),
        ("resume", {"a": 1}),
    ],
)
def test_the_other_commands_are_as_strict(name: str, arguments: Any) -> None:
    refusal(name, arguments)


def test_the_server_s_part_imports_no_torch() -> None:
    code = (
        "import sys, poise.playground.commands, poise.playground.options as o, poise.playground.table;"
        "o.options_json(); print('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
