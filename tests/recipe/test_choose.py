"""The default recipe for a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from poise.data.facts import ImageFacts
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.choose import (
    ENOUGH_IMAGES,
    FEW_IMAGES,
    RECIPE,
    Limits,
    batch_size,
    choose,
    image_size,
    largest_size,
)
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.recipe.toml import Table

DATA = {"kind": "folder", "path": "images"}


def facts(count: int = 50_000, shape: tuple[int, int] = (64, 64), *, grey: bool = False) -> ImageFacts:
    return ImageFacts(count, [shape], grey)


def at_speed(images_per_second: float) -> Callable[[Table], float]:
    """A machine whose speed falls with the number of pixels, and has the given value at 32 x 32."""
    return lambda table: images_per_second * (32 / table["data"]["size"]) ** 2


def never(table: Table) -> float:
    raise AssertionError("nothing needs to be measured")


def kinds(table: dict[str, Any]) -> set[str]:
    return {trick["kind"] for trick in table["tricks"]}


@pytest.mark.parametrize("count", [60, 600, 6_000, 60_000])
@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize("shape", [(28, 28), (32, 48), (1080, 1920)])
def test_every_choice_is_a_valid_recipe(count: int, grey: bool, shape: tuple[int, int]) -> None:
    choice = choose(facts(count, shape, grey=grey), DATA, Limits(), at_speed(500))
    recipe = decode(choice.table)
    assert recipe.batch <= count // 2
    assert getattr(recipe.data, "path", None) == "images"
    assert len(choice.reasons) == 2 + (count < 600)
    assert ("near-copies of training images" in choice.reasons[-1]) == (count < 600)
    assert f"{count:,}" in choice.reasons[0]


def test_the_size_suits_most_of_differently_sized_images() -> None:
    """And neither the first one nor the two that happen to have the same side."""
    shapes = [(40, 60), (40, 60), *((500 + 2 * i, 700 + i) for i in range(400))]
    choice = choose(ImageFacts(402, shapes, False), DATA, Limits(), at_speed(1e9))
    assert (
        choice.table["data"]["size"]
        == choose(facts(402, (898, 899)), DATA, Limits(), at_speed(1e9)).table["data"]["size"]
    )
    assert choice.table["data"]["size"] > 128


@pytest.mark.parametrize("grey", [True, False])
def test_the_recipe_is_the_one_that_the_study_chose(grey: bool) -> None:
    assert choose(facts(grey=grey), DATA, Limits(size=32), never).table["name"] == RECIPE


@pytest.mark.parametrize(("count", "grey", "augmented"), [(FEW_IMAGES - 1, False, True), (FEW_IMAGES, False, False)])
def test_few_colour_images_are_augmented(count: int, grey: bool, augmented: bool) -> None:
    choice = choose(facts(count, grey=grey), DATA, Limits(size=32), never)
    assert ("diff_augment" in kinds(choice.table)) == augmented
    assert ("DiffAugment" in choice.reasons[0]) == augmented


@pytest.mark.parametrize(("seconds", "limit"), [(300, 833), (1800, 5_000), (3600, FEW_IMAGES), (36_000, FEW_IMAGES)])
def test_in_less_time_only_fewer_images_are_augmented(seconds: float, limit: int) -> None:
    for count in (limit - 1, limit):
        choice = choose(facts(count), DATA, Limits(seconds=seconds, size=32), never)
        assert ("diff_augment" in kinds(choice.table)) == (count < limit)
        assert (f"fewer than {limit:,} images in" in choice.reasons[0]) == (count < limit)


@pytest.mark.parametrize("grey", [True, False])
def test_copying_is_measured_for_few_images(grey: bool) -> None:
    for count in (FEW_IMAGES - 1, FEW_IMAGES):
        measures = choose(facts(count, grey=grey), DATA, Limits(size=32), never).table["measure"]["measures"]
        assert ("copying" in measures) == (count < FEW_IMAGES)


def test_grey_images_are_not_augmented() -> None:
    assert "diff_augment" not in kinds(choose(facts(500, grey=True), DATA, Limits(size=32), never).table)


def test_limits_are_kept() -> None:
    choice = choose(facts(60), DATA, Limits(seconds=10, size=128, batch=50), never)
    assert choice.table["data"] == {**DATA, "size": 128}
    assert choice.table["batch"] == 50
    assert "128 x 128 pixels, as given" in choice.reasons[1]


@pytest.mark.parametrize(
    ("usual", "count", "size"),
    [(64, 1000, 64), (64, 128, 64), (64, 127, 32), (64, 9, 4), (64, 4, 4), (64, 3, 2), (64, 1, 2)],
)
def test_a_batch_is_at_most_half_of_the_images(usual: int, count: int, size: int) -> None:
    assert batch_size(usual, count) == size


@pytest.mark.parametrize(
    ("side", "size"), [(8, 16), (16, 16), (23, 16), (24, 32), (32, 32), (47, 32), (48, 64), (96, 128), (5000, 256)]
)
def test_images_are_enlarged_by_a_third_at_most(side: int, size: int) -> None:
    assert largest_size(side) == size


def test_the_time_limits_the_size() -> None:
    rates = {64: 400.0, 128: 100.0, 256: 25.0}
    for seconds, expected in ((600, 32), (1249, 32), (1250, 64), (4999, 64), (5000, 128), (20_000, 256)):
        size, reason = image_size(256, seconds, rates.__getitem__)
        assert size == expected
        assert (f"{2 * size} x {2 * size}" in reason) == (size < 256)
    assert ENOUGH_IMAGES == 400 * 1250


def test_small_images_need_no_measurement() -> None:
    assert choose(facts(shape=(32, 40)), DATA, Limits(), never).table["data"]["size"] == 32
    assert choose(facts(shape=(17, 40)), DATA, Limits(), never).table["data"]["size"] == 16


@pytest.mark.parametrize(("kind", "recipe", "enough"), [("pairs", "pix2pix", 80_000), ("domains", "cyclegan", 200_000)])
def test_images_of_two_domains_are_translated_in_patches_that_suit_their_size(
    kind: str, recipe: str, enough: int
) -> None:
    data, found = {"kind": kind, "path": "images"}, facts(400, (256, 256))._replace(parts=(1, 3))
    speed = enough / (3600 * (32 / 128) ** 2)  # at 128 x 128 the time suffices to the image
    choice = choose(found, data, Limits(), at_speed(1.001 * speed))
    channels = {} if kind == "pairs" else {"channels": 3}
    assert (choice.table["name"], choice.table["data"]) == (recipe, data | {"size": 128} | channels)
    assert any("read in colour" in reason for reason in choice.reasons) == (kind == "domains")
    assert choose(found, data, Limits(), at_speed(0.99 * speed)).table["data"]["size"] == 64
    layers = {}
    for size in (16, 32, 64, 128, 256):
        table = choose(found, data, Limits(size=size, batch=2), never).table
        layers[size] = table["network"]["d"]["layers"]
        config = decode(table)
        assert config.batch == 2
        parts = (1, 3) if kind == "pairs" else (3, 3)
        assert check_compatibility(config, (sum(parts), size, size), 0, parts).refusals == []
    assert layers == {16: 1, 32: 1, 64: 2, 128: 3, 256: 3}
    assert layers[32] == load_table(recipe)["network"]["d"]["layers"]
    reason = "400 pairs of images" if kind == "pairs" else "two domains of images"
    assert choice.reasons[0] == f"{reason} of about 256 x 256: the recipe {recipe}"
