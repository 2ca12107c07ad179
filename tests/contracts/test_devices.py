"""Nothing in a step makes a tensor on another device, or reads a value: shown on the device `meta`, without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from contracts.meta_device import META, OneDevice, play_on_meta_device
from contracts.test_tricks import CODED, OBJECTIVES, TRICKS, strong, worlds
from contracts.tiny import findings_of, recipe, source, suited
from poise.core.types import MoveContext, Origin
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table, recipe_names
from poise.tricks.instance_noise import InstanceNoise

TEMPOS = ({"kind": "simultaneous"}, {"kind": "ratio", "d": 2})


@pytest.mark.parametrize("every_world", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["last", "all"])
@pytest.mark.parametrize("kind", list(TRICKS))
def test_tricks(kind: str, every_world: bool) -> None:
    fitting = worlds(kind)
    for world in fitting if every_world else fitting[-1:]:
        play_on_meta_device(recipe(world, strong(kind)), source(world))


@pytest.mark.parametrize("kind", list(OBJECTIVES))
@pytest.mark.parametrize("world", ["points", CODED])
def test_objectives(kind: str, world: str) -> None:
    game = recipe(world, **suited(world, kind))
    if not findings_of(game, world).refusals:
        play_on_meta_device(game, source(world))


@pytest.mark.parametrize("tempo", TEMPOS, ids=lambda tempo: tempo["kind"])
def test_tempos(tempo: dict[str, Any]) -> None:
    play_on_meta_device(recipe("labelled", tempo=tempo), source("labelled"))


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_recipes(name: str) -> None:
    game = decode(load_table(name) | {"batch": 8})
    play_on_meta_device(game, game.data.load().train)


def test_a_tensor_on_the_host_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_the_host(_: InstanceNoise, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        return images.flatten(1) @ torch.eye(images[0].numel())

    monkeypatch.setattr(InstanceNoise, "transform_input", on_the_host)
    with pytest.raises(AssertionError, match="was called with tensors on cpu and meta"):
        play_on_meta_device(recipe("points", strong("instance_noise")), source("points"))


def test_a_value_that_is_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def reading(_: InstanceNoise, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        return images * float(images.mean())

    monkeypatch.setattr(InstanceNoise, "transform_input", reading)
    with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
        play_on_meta_device(recipe("points", strong("instance_noise")), source("points"))


def test_copies_between_devices_and_scalars_are_allowed() -> None:
    with OneDevice():
        moved = torch.ones(3).to(META)
        assert (moved * torch.tensor(2.0)).device == META
