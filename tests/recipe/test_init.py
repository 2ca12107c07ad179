"""The table `[init]`: its keys, and what of it may change when a run is resumed."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.tiny import recipe
from poise.errors import RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import differences, with_free_fields
from poise.recipe.toml import parse_toml

SHA = "ab" * 32


def with_init(**init: Any) -> dict[str, Any]:
    return recipe("points").canonical() | {"init": {"from": "runs/a", **init}}


def test_it_round_trips_through_toml_under_its_toml_keys() -> None:
    before = decode(with_init(players=["d"], sha256=SHA, weights="best"))
    table = parse_toml(before.to_toml(), "recipe.toml")
    assert table["init"] == {"from": "runs/a", "weights": "best", "players": ["d"], "sha256": SHA}
    assert decode(table) == before
    assert before.init is not None
    assert (before.init.run, before.init.players) == ("runs/a", ("d",))


def test_both_players_start_from_the_newest_weights_by_default() -> None:
    init = decode(with_init()).init
    assert init is not None
    assert (init.weights, init.players, init.sha256) == ("newest", ("g", "d"), None)
    assert "init" not in recipe("points").canonical()


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ({"frm": "runs/a"}, ["init.frm", "did you mean 'from'?"]),
        ({"run": "runs/a"}, ["init.run", "unknown key"]),
        ({"players": ["g", "e"]}, ["init.players.1", "'e'"]),
        ({"players": []}, ["init.players"]),
        ({"weights": "last"}, ["init.weights", "'last'"]),
        ({"sha256": "ab"}, ["init.sha256"]),
        ({"from": ""}, ["init.from"]),
    ],
    ids=str,
)
def test_an_invalid_key_or_value_is_named(init: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        decode(with_init(**init))
    assert all(word in str(error.value) for word in words), error.value


def test_the_path_is_not_part_of_the_identity_of_a_run() -> None:
    """As with the path of the data; the checksum is."""
    here, there = decode(with_init(sha256=SHA)), decode(with_init(sha256=SHA, **{"from": "/mnt/runs/a"}))
    assert here.core == there.core
    assert differences(here, there) == []
    assert decode(with_free_fields(parse_toml(here.core, ""), there)) == there
    assert differences(here, decode(with_init(sha256="cd" * 32))) == ["init.sha256"]
    assert differences(here, decode(with_init(sha256=SHA, players=["g"]))) == ["init.players"]
    assert differences(recipe("points"), decode(with_init())) == ["init.players", "init.weights"]
