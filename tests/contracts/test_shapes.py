"""Every network of images, on images that are not square: it trains with the tricks that it fits, and resumes."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from contracts.tiny import Session, unequal
from poise.core.config import find_components
from poise.core.types import Shape
from poise.data.source import ImageDataset
from poise.networks.attention import SelfAttention
from poise.networks.base import DiscriminatorConfig, EncoderConfig, GeneratorConfig, TranslatorConfig
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.generate import generate

SIZES = ((48, 64), (64, 32), (24, 40))
SQUARE = {"unrolled"}
"""The networks of the stacked-digits test, whose digits are square."""

TRANSLATORS = find_components(TranslatorConfig, "poise.networks")
GENERATORS = {
    kind: entry for kind, entry in find_components(GeneratorConfig, "poise.networks").items() if kind not in TRANSLATORS
}
DISCRIMINATORS = find_components(DiscriminatorConfig, "poise.networks")
ENCODERS = find_components(EncoderConfig, "poise.networks")
TRICKS: list[dict[str, Any]] = [
    {"kind": "diff_augment"},
    {"kind": "adaptive_augment", "speed": 0.0, "start": 0.7},
    {"kind": "consistency"},
    {"kind": "instance_noise"},
    {"kind": "r1"},
    {"kind": "minibatch_stddev"},
    {"kind": "packing"},
    {"kind": "history", "size": 8},
]
"""Tricks that transform images, or that depend on the shape of D's maps."""


@cache
def images_of(size: tuple[int, int], channels: int = 3) -> ImageDataset:
    """16 random images."""
    random = np.random.Generator(np.random.Philox(5))
    return ImageDataset(random.integers(0, 256, (16, *size, channels), dtype=np.uint8))


def networks_of(g: str, d: str | None, e: str | None) -> dict[str, Any]:
    """Networks of these kinds with few channels."""
    table: dict[str, Any] = {}
    for side, kind, family in (("g", g, GENERATORS), ("d", d, DISCRIMINATORS), ("e", e, ENCODERS)):
        if kind is not None:
            known = family[kind].model_fields
            small = {"width": 4, "widest": 8, "mapping_layers": 1, "style_dim": 8, "layers": 2}
            table[side] = {"kind": kind} | {name: value for name, value in small.items() if name in known}
    return table


def recipe_of(size: tuple[int, int], network: dict[str, Any], *tricks: dict[str, Any]) -> Recipe:
    """Three steps with the objective that these networks need."""
    adam = {"kind": "adam", "lr": 1e-3}
    d = network.get("d")
    energy = d is not None and DISCRIMINATORS[d["kind"]]().output_kind == "energy"  # type: ignore[attr-defined]
    return decode(
        {
            "steps": 3,
            "batch": 4,
            "data": {"kind": "npz", "path": "images.npz", "size": list(size)},
            "latent": {"kind": "gaussian", "dim": 8},
            "network": network,
            "objective": {"kind": "elbo" if d is None else "energy" if energy else "non_saturating"},
            "optimizer": {"g": adam} if d is None else {"g": adam, "d": adam},
            "tempo": {"kind": "ratio" if d else "alone"},
            "tricks": list(tricks),
        }
    )


def with_fitting_tricks(size: tuple[int, int], network: dict[str, Any]) -> Recipe:
    """The recipe with those of `TRICKS` that are not refused, one after the other."""
    fitting: list[dict[str, Any]] = []
    for trick in TRICKS if "d" in network else ():
        if not check_compatibility(recipe_of(size, network, *fitting, trick), (3, *size), 0).refusals:
            fitting.append(trick)
    return recipe_of(size, network, *fitting)


def check_trains(recipe: Recipe, size: tuple[int, int]) -> Session:
    """Three steps; every number is finite, and samples have the shape of the data."""
    assert not check_compatibility(recipe, (3, *size), 0).refusals
    run = Session(recipe, images_of(size)).play(3)
    assert [name for name, tensor in run.saved().items() if not torch.isfinite(tensor).all()] == []
    latents = recipe.latent.sample(2, run.streams("test"))
    assert generate(run.game.g.net, latents, None, streams=run.streams, block=2).shape == (2, 3, *size)
    return run


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", sorted((GENERATORS.keys() & DISCRIMINATORS.keys()) - SQUARE))
def test_a_pair_trains_with_the_tricks_that_it_fits(kind: str, size: tuple[int, int]) -> None:
    recipe = with_fitting_tricks(size, networks_of(kind, kind, None))
    left_out = {trick["kind"] for trick in TRICKS} - {str(trick.tag()) for trick in recipe.tricks}
    assert left_out == set(), "each of these works with any shape"
    check_trains(recipe, size)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", sorted(DISCRIMINATORS.keys() - GENERATORS.keys()))
def test_a_discriminator_alone_of_its_kind(kind: str, size: tuple[int, int]) -> None:
    recipe = with_fitting_tricks(size, networks_of("dcgan", kind, None))
    assert {"diff_augment", "packing", "instance_noise"} <= {trick.tag() for trick in recipe.tricks}
    check_trains(recipe, size)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", sorted(kind for kind, entry in ENCODERS.items() if not entry.by_index))  # type: ignore[attr-defined]
def test_an_encoder(kind: str, size: tuple[int, int]) -> None:
    check_trains(recipe_of(size, networks_of("dcgan", None, kind)), size)


@pytest.mark.parametrize("kind", ["resnet", "biggan"])
def test_attention_at_the_map_of_a_shorter_side(kind: str) -> None:
    network = networks_of(kind, kind, None)
    for side in network.values():
        side["attention"] = 12
    run = check_trains(recipe_of((48, 64), network), (48, 64))
    for player in run.game.players.values():
        (layer,) = (module for module in player.net.modules() if isinstance(module, SelfAttention))
        sizes: list[tuple[int, ...]] = []
        layer.register_forward_hook(lambda _, given, made, sizes=sizes: sizes.append(tuple(made.shape[2:])))
        run.play(1)
        assert set(sizes) == {(12, 16)}
    network["g"]["attention"] = 16
    (finding,) = check_compatibility(recipe_of((48, 64), network), (3, 48, 64), 0).refusals
    assert finding.field == "network.g"
    assert "shorter side of 16" in finding.message
    assert "48, 24, 12" in finding.cure


@pytest.mark.parametrize(("up", "down"), [("transposed", "conv"), ("pixel_shuffle", "max"), ("bilinear", "average")])
def test_every_resampling_layer(up: str, down: str) -> None:
    network = networks_of("dcgan", "dcgan", None)
    network["g"]["up"], network["d"]["down"] = up, down
    check_trains(recipe_of((24, 40), network), (24, 40))


def test_resumes_bit_for_bit() -> None:
    recipe = with_fitting_tricks((24, 40), networks_of("dcgan", "dcgan", None))
    whole, half = Session(recipe, images_of((24, 40))).play(3), Session(recipe, images_of((24, 40))).play(1)
    assert unequal(whole.saved(), half.resumed().play(2).saved()) == []


@pytest.mark.parametrize("size", [(50, 70), (45, 64), (32, 256), (8, 512)])
def test_other_shapes_are_refused_by_both_players_with_usable_ones(size: tuple[int, int]) -> None:
    shape: Shape = (3, *size)
    for family, kind in product((GENERATORS, DISCRIMINATORS), sorted(GENERATORS.keys() - SQUARE - {"mlp"})):
        misfit = family[kind]().incompatibility(shape)  # type: ignore[attr-defined]
        assert misfit is not None, kind
        assert misfit[1].startswith("set data.size to "), kind
