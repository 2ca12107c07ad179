"""Runs that differ in one tip have the same data order, initial weights and latents for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from contracts.rows.translation import CRITIC
from contracts.tiny import Session, findings_of, one_thread, recipe, session, source
from poise.core.config import find_components
from poise.core.types import Side
from poise.errors import RecipeError
from poise.tricks.base import TrickConfig

TRICKS = list(find_components(TrickConfig, "poise.tricks"))

NET = {"kind": "dcgan", "width": 2}


def networks(g: dict[str, Any] | None = None, d: dict[str, Any] | None = None) -> dict[str, Any]:
    """The networks of the base with changes."""
    return {"network": {"g": NET | (g or {}), "d": NET | (d or {})}}


SWITCHES: dict[str, dict[str, Any]] = {
    **{f"objective {kind}": {"objective": {"kind": kind}} for kind in ("minimax", "least_squares", "hinge")},
    **{f"objective {kind}": {"objective": {"kind": kind}} for kind in ("wasserstein", "relativistic")},
    "sgd for D": {"optimizer": {"g": {"kind": "adam", "lr": 1e-2}, "d": {"kind": "sgd", "lr": 0.1}}},
    "rmsprop": {"optimizer": {"g": {"kind": "rmsprop"}, "d": {"kind": "rmsprop"}}},
    "one batch for D": {"judging": "together"},
    "simultaneous": {"tempo": {"kind": "simultaneous"}},
    "G moves first": {"tempo": {"kind": "ratio", "first": "g"}},
    "activation": networks({"activation": "relu"}, {"activation": "relu"}),
    "sigmoid output": networks({"output": "sigmoid"}),
    "spectral and batch norm in both": networks({"norm": "spectral_batch"}, {"norm": "spectral_batch"}),
}

REBUILT: dict[str, tuple[dict[str, Any], set[str]]] = {
    "spectral instead of batch norm in D": (networks(d={"norm": "spectral"}), {"d"}),
    "virtual batch norm in G": (networks({"norm": "virtual"}), {"g"}),
    "no norm in D": (networks(d={"norm": "none"}), {"d"}),
    "layer norm in G": (networks({"norm": "layer"}), {"g"}),
    "upsampling": (networks({"up": "nearest"}), {"g"}),
    "another latent dimension": ({"latent": {"kind": "gaussian", "dim": 5}}, {"g"}),
    "wider D": (networks(d={"width": 3}), {"d"}),
}
"""Changes that add layers to a network or change their shapes, so that it has other initial weights; and which one."""

REBUILT_BY_TRICKS = {"packing": {"d"}, "posterior_kl": {"e"}}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def weights(played: Session) -> dict[str, dict[str, Tensor]]:
    """The initial tensors of G, D and the encoder, by their names without those of modules that wrap a layer."""
    wrappers = (("parametrizations.weight.original", "weight"), ("net.", ""), ("layer.", ""))
    found: dict[str, dict[str, Tensor]] = {}
    for side, player in played.game.players.items():
        nets = {side.value: player.net} | ({"e": player.encoder} if player.encoder is not None else {})
        for key, net in nets.items():
            found[key] = {}
            for name, tensor in net.state_dict().items():
                for wrapper, short in wrappers:
                    name = name.replace(wrapper, short)
                found[key][name] = tensor.detach().clone()
    return found


@cache
def base(world: str, seed: int = 0) -> tuple[dict[str, dict[str, Tensor]], Session]:
    """The initial weights of the base, and the base after two steps."""
    played = session(world, seed=seed)
    return weights(played), played.play(2)


def world_of(trick: str) -> str:
    """The first world whose data and networks the trick fits."""
    for world in ("pictures", "labelled", "coded", "translated"):
        try:
            if not findings_of(recipe(world, {"kind": trick}), world).refusals:
                return world
        except RecipeError:
            continue
    raise AssertionError(f"{trick} fits none of the worlds")


def assert_paired(arm: Session, world: str, rebuilt: set[str]) -> None:
    """The arm has the weights of the base, except in networks that were `rebuilt`, and the same batches and latents."""
    before, played = base(world)
    after = weights(arm)
    for key, tensors in before.items():
        shared = [name for name in tensors if name in after[key] and after[key][name].shape == tensors[name].shape]
        equal = [name for name in shared if torch.equal(tensors[name], after[key][name])]
        if key in rebuilt:
            assert len(equal) < len(tensors), f"{key} is as in the base"
        else:
            assert equal == shared, f"{key}: {sorted({*shared} - {*equal})}"
            assert tensors.keys() <= after[key].keys()
            assert len(equal) > len(tensors) / 2
    arm.play(2)
    for side in Side:
        for ours, theirs in zip(arm.of(side), played.of(side), strict=True):
            assert torch.equal(ours.latents, theirs.latents) or arm.recipe.latent != played.recipe.latent
            if ours.real is not None and theirs.real is not None:
                assert torch.equal(ours.real, theirs.real)


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_changes_nothing_else(trick: str) -> None:
    world = world_of(trick)
    settings = {"network": CRITIC} if trick == "frozen_critic" else {}
    assert_paired(session(world, {"kind": trick} | settings), world, REBUILT_BY_TRICKS.get(trick, set()))


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_nothing_else(name: str) -> None:
    assert_paired(session("pictures", **SWITCHES[name]), "pictures", set())


@pytest.mark.parametrize("name", REBUILT)
def test_other_layers_change_the_weights_of_their_own_network_alone(name: str) -> None:
    changes, rebuilt = REBUILT[name]
    assert_paired(session("pictures", **changes), "pictures", rebuilt)


def test_a_latent_on_the_sphere_has_the_direction_of_the_gaussian_one() -> None:
    arm, (_, played) = session("pictures", latent={"kind": "sphere", "dim": 3}).play(2), base("pictures")
    for ours, theirs in zip(arm.moves, played.moves, strict=True):
        direction = torch.nn.functional.cosine_similarity(ours.latents, theirs.latents)
        torch.testing.assert_close(direction, torch.ones_like(direction))


def test_more_moves_of_d_take_the_batches_in_the_same_order() -> None:
    arm = session("pictures", tempo={"kind": "ratio", "d": 3}).play(2)
    one = session("pictures").play(6)
    for ours, theirs in zip(arm.of(Side.D), one.of(Side.D), strict=True):
        assert torch.equal(ours.real, theirs.real)  # type: ignore[arg-type]


def test_seeds_differ_in_everything() -> None:
    (first, played), (second, other) = base("pictures"), base("pictures", 1)
    for key in ("g", "d"):
        assert any(not torch.equal(first[key][name], second[key][name]) for name in first[key])
    for ours, theirs in zip(played.moves, other.moves, strict=True):
        assert not torch.equal(ours.latents, theirs.latents)
        if ours.real is not None and theirs.real is not None:
            assert not torch.equal(ours.real, theirs.real)


def test_every_seed_sees_all_of_the_data() -> None:
    total = len(source("pictures"))  # type: ignore[arg-type]
    seen = torch.cat([move.real for move in session("pictures").play(total // 8).of(Side.D)])  # type: ignore[misc]
    assert len(torch.unique(seen.flatten(1), dim=0)) == total
