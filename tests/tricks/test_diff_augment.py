"""DiffAugment, compared with the authors' formulas in NumPy: transformations, distributions, streams and gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest
from torch import Tensor

from contracts.tiny import Session, context, findings_of, recipe, session, source
from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec, MoveContext, Side
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.tricks.adaptive_augment import AdaptiveAugmentConfig
from poise.tricks.augment_ops import random_integers, uniform
from poise.tricks.base import TrickContext
from poise.tricks.diff_augment import TRANSFORMS, DiffAugment, DiffAugmentConfig, Policy, colour, cutout, translation
from tricks.small import as_float64, randn

ALL: tuple[Policy, ...] = ("colour", "translation", "cutout")
DIFF: dict[str, Any] = {"kind": "diff_augment"}
Numbers = NDArray[np.float64]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augment(*policy: Policy) -> DiffAugment:
    return DiffAugmentConfig(policy=policy).build("diff", TrickContext({}, DataSpec((3, 8, 8))))


# ---------------------------------------------------------------- the authors' formulas


def authors_colour(x: Numbers, b: Numbers, s: Numbers, c: Numbers) -> Numbers:
    """rand_brightness, rand_saturation and rand_contrast of DiffAugment_pytorch.py; b, s and c are U[0, 1]."""
    x = x + (b[:, None, None, None] - 0.5)
    mean = x.mean(1, keepdims=True)
    x = (x - mean) * (s[:, None, None, None] * 2) + mean
    mean = x.mean((1, 2, 3), keepdims=True)
    return (x - mean) * (c[:, None, None, None] + 0.5) + mean


def authors_translation(x: Numbers, down: NDArray[np.int64], right: NDArray[np.int64]) -> Numbers:
    """rand_translation: sampled at clamped coordinates of an image that is padded by one zero pixel."""
    n, _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))).transpose(0, 2, 3, 1)
    rows = np.clip(np.arange(height)[None] + down[:, None] + 1, 0, height + 1)
    columns = np.clip(np.arange(width)[None] + right[:, None] + 1, 0, width + 1)
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None]].transpose(0, 3, 1, 2)


def authors_cutout(x: Numbers, top: NDArray[np.int64], left: NDArray[np.int64], side: int) -> Numbers:
    """rand_cutout: zeros at clamped coordinates around an offset."""
    n, _, height, width = x.shape
    mask = np.ones((n, height, width))
    for i in range(n):
        rows = np.clip(np.arange(side) + top[i] - side // 2, 0, height - 1)
        columns = np.clip(np.arange(side) + left[i] - side // 2, 0, width - 1)
        mask[i, rows[:, None], columns[None]] = 0
    return x * mask[:, None]


SHAPES = [(1, 8, 8), (3, 8, 8), (4, 16, 16), (3, 5, 5), (2, 7, 7), (3, 32, 32)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.04)])
def test_colour_equals_the_authors_code(shape: tuple[int, ...], dtype: torch.dtype, rtol: float) -> None:
    images = randn(20, *shape).to(dtype)
    augmented = colour(images, seeded())
    again = seeded()
    b, s, c = (as_float64(uniform(images, 0.0, 1.0, again)) for _ in range(3))
    expected, colours = as_float64(images), shape[0] - (shape[0] in (2, 4))  # the last channel of these is alpha
    expected[:, :colours] = authors_colour(expected[:, :colours], b, s, c)
    np.testing.assert_allclose(as_float64(augmented), expected, rtol=rtol, atol=rtol * 4)
    assert augmented.dtype == dtype


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_translation_equals_the_authors_code(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images, max_shift = randn(60, *shape).to(dtype), int(shape[1] * 0.125 + 0.5)
    augmented, again = translation(images, seeded()), seeded()
    down, right = (random_integers(images, -max_shift, max_shift, again).numpy() for _ in range(2))
    np.testing.assert_array_equal(as_float64(augmented), authors_translation(as_float64(images), -down, -right))
    assert augmented.dtype == dtype


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_cutout_equals_the_authors_code(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images, side = randn(60, *shape).to(dtype), int(shape[1] * 0.5 + 0.5)
    augmented, again = cutout(images, seeded()), seeded()
    highest = shape[1] + (1 - side % 2) - 1  # randint(0, x.size(2) + (1 - cutout_size[0] % 2)), the end left out
    top, left = (random_integers(images, 0, highest, again).numpy() for _ in range(2))
    np.testing.assert_array_equal(as_float64(augmented), authors_cutout(as_float64(images), top, left, side))
    assert augmented.dtype == dtype


# ---------------------------------------------------------------- distributions


def test_brightness_saturation_and_contrast_are_uniform_and_independent() -> None:
    images = randn(3000, 3, 4, 4, dtype=torch.float64)
    augmented = as_float64(colour(images, seeded(1)))
    x = as_float64(images)
    light, made_light = x.mean(1), augmented.mean(1)
    b = augmented.mean((1, 2, 3)) - x.mean((1, 2, 3))
    c = made_light.std((1, 2)) / light.std((1, 2))
    s = (
        np.sqrt(((augmented - made_light[:, None]) ** 2).sum((1, 2, 3)) / ((x - light[:, None]) ** 2).sum((1, 2, 3)))
        / c
    )
    for draws, low, high in ((b, -0.5, 0.5), (s, 0.0, 2.0), (c, 0.5, 1.5)):
        assert kstest((draws - low) / (high - low), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef((b, s, c)) - np.eye(3)).max() < 5 / math.sqrt(3000)


@pytest.mark.parametrize(("size", "max_shift"), [(8, 1), (16, 2), (32, 4), (5, 1), (3, 0), (12, 2), (11, 1)])
def test_translation_is_uniform_and_pads_with_grey(size: int, max_shift: int) -> None:
    """Shifts are up to an eighth of the side, rounded to the nearest pixel with halves up: 1.5 to 2, 1.375 to 1."""
    n = 2000
    images = torch.zeros(n, 1, size, size)
    images[:, :, size // 2, size // 2] = 1
    positions = translation(images, seeded(2)).flatten(1).argmax(1)
    down, right = positions // size - size // 2, positions % size - size // 2
    for shifts in (down, right):
        counts = np.bincount(shifts.numpy() + max_shift, minlength=2 * max_shift + 1)
        assert len(counts) == 2 * max_shift + 1
        assert max_shift == 0 or chisquare(counts).pvalue > 1e-3
    if max_shift:
        assert abs(float(np.corrcoef(down.numpy(), right.numpy())[0, 1])) < 5 / math.sqrt(n)
    ones = translation(torch.ones(n, 1, size, size), seeded(2)).sum((1, 2, 3))
    assert torch.equal(ones, ((size - down.abs()) * (size - right.abs())).float())  # padded with grey


@pytest.mark.parametrize(("size", "side"), [(8, 4), (16, 8), (5, 3), (7, 4), (6, 3)])
def test_the_centre_of_the_cutout_is_uniform(size: int, side: int) -> None:
    n = 4000
    erased = cutout(torch.ones(n, 2, size, size), seeded(3)) == 0
    assert torch.equal(erased[:, 0], erased[:, 1])
    rows, columns = erased[:, 0].any(2), erased[:, 0].any(1)
    assert torch.equal(erased[:, 0], rows[:, :, None] & columns[:, None, :])
    choices = size + 1 - side % 2
    for lines in (rows, columns):
        # the erased pixels of a line determine the centre
        counts: dict[tuple[int, ...], int] = {}
        for line in lines.tolist():
            key = tuple(k for k, is_erased in enumerate(line) if is_erased)
            counts[key] = counts.get(key, 0) + 1
        spans = [tuple(k for k in range(m - side // 2, m - side // 2 + side) if 0 <= k < size) for m in range(choices)]
        assert set(counts) == set(spans)
        assert chisquare([counts[span] for span in spans]).pvalue > 1e-3
    starts = [lines.float().argmax(1).numpy() for lines in (rows, columns)]
    assert abs(float(np.corrcoef(*starts)[0, 1])) < 5 / math.sqrt(n)


def test_real_and_fake_have_one_distribution_and_independent_draws() -> None:
    images = randn(2000, 3, 4, 4, dtype=torch.float64)
    for policy in ALL:
        trick = augment(policy)
        real, fake = (trick.transform_input(images, origin, context()) for origin in ("real", "fake"))
        assert not torch.allclose(real, fake, atol=1e-2)
        assert torch.equal(real, trick.transform_input(images, "real", context()))
        if policy == "colour":
            shifts = [as_float64((augmented - images).mean((1, 2, 3))) for augmented in (real, fake)]
            assert all(kstest(shift + 0.5, "uniform").pvalue > 1e-3 for shift in shifts)
            assert abs(float(np.corrcoef(*shifts)[0, 1])) < 5 / math.sqrt(2000)
        others = [context(1), context(side=Side.G), context(turn=1), context(seed=1)]
        for at in others:
            assert not torch.allclose(real, trick.transform_input(images, "real", at), atol=1e-2)


# ---------------------------------------------------------------- policies


@pytest.mark.parametrize("policy", [(), ("cutout",), ("cutout", "colour"), ("translation", "colour"), ALL, ALL[::-1]])
def test_transformations_are_applied_in_the_order_of_the_policy(policy: tuple[Policy, ...]) -> None:
    images, at = randn(8, 3, 8, 8), context(2)
    expected = images
    for change in policy:
        expected = TRANSFORMS[change](expected, at.generator(f"diff/real/{change}"))
    augmented = augment(*policy).transform_input(images, "real", at)
    assert torch.equal(augmented, expected)
    assert torch.equal(augmented, images) is (not policy)
    if len(policy) > 1:
        assert not torch.equal(augmented, augment(*policy[::-1]).transform_input(images, "real", at))


def test_draws_do_not_depend_on_the_rest_of_the_policy() -> None:
    images, at = torch.ones(8, 3, 8, 8), context()
    alone, last = (
        augment(*policy).transform_input(images, "real", at) for policy in (("cutout",), ("translation", "cutout"))
    )
    assert torch.equal(alone == 0, (last == 0) & (alone == 0))


def test_all_transformations_exist() -> None:
    assert list(TRANSFORMS.items()) == [("colour", colour), ("translation", translation), ("cutout", cutout)]
    assert DiffAugmentConfig().policy == ALL
    assert DiffAugment.sides == frozenset(Side)


def test_points_are_rejected_with_a_cure() -> None:
    (one,) = findings_of(recipe("points", DIFF), "points").refusals
    assert one.field == "tricks.0"
    assert "points" in one.message
    assert "instance_noise" in one.cure
    assert findings_of(recipe("pictures", DIFF), "pictures").refusals == []


# ---------------------------------------------------------------- stacked images, alpha


STACKS = [(3, 3), (1, 2), (2, 1), (1, 3), (4, 4), (1, 1)]


@pytest.mark.parametrize("parts", STACKS, ids=str)
@pytest.mark.parametrize("kind", ["diff_augment", "adaptive_augment"])
def test_the_colours_of_each_domain_are_changed_on_their_own(kind: str, parts: tuple[int, int]) -> None:
    """Each image gets what it would get alone, with the same draws, so that no domain shows in the other."""
    entry: Any = DiffAugmentConfig if kind == "diff_augment" else AdaptiveAugmentConfig
    settings = {"policy": ("colour",)} | ({"speed": 0.0, "start": 1.0} if kind == "adaptive_augment" else {})
    images, at = randn(20, sum(parts), 4, 4), context()

    def augmented(samples: Tensor, stack: tuple[int, ...] = ()) -> Tensor:
        spec = DataSpec(tuple(samples.shape[1:]), parts=stack)
        return entry(**settings).build("it", TrickContext({}, spec)).transform_input(samples, "real", at)

    stacked = augmented(images, parts).split(parts, 1)
    alone = [augmented(part) for part in images.split(parts, 1)]
    assert all(torch.equal(one, other) for one, other in zip(stacked, alone, strict=True))
    assert not any(torch.equal(one, given) for one, given in zip(alone, images.split(parts, 1), strict=True))


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("kind", ["diff_augment", "adaptive_augment"])
def test_alpha_keeps_its_values(kind: str, channels: int) -> None:
    entry: Any = DiffAugmentConfig if kind == "diff_augment" else AdaptiveAugmentConfig
    settings = {"policy": ("colour",)} | ({"speed": 0.0, "start": 1.0} if kind == "adaptive_augment" else {})
    images, spec = randn(20, channels, 4, 4), DataSpec((channels, 4, 4))
    kept, changed = (
        entry(**settings).build("it", TrickContext({}, spec, alpha=alpha)).transform_input(images, "real", context())
        for alpha in (True, False)
    )
    assert torch.equal(kept[:, -1], images[:, -1])
    assert not torch.equal(kept[:, :-1], images[:, :-1])
    assert not torch.equal(changed[:, -1], images[:, -1]), "two digits in two channels have no alpha"


@pytest.mark.parametrize(
    ("data", "parts", "alpha"),
    [("digits", (), True), ("stacked_digits", (), False), ("digit_pairs", (1, 1), True)],
)
def test_a_game_knows_its_domains_and_whether_there_is_alpha(data: str, parts: tuple[int, ...], alpha: bool) -> None:
    tricks = [DIFF, {"kind": "adaptive_augment"}]
    checked, spec = recipe("pictures", *tricks, data={"kind": data}), DataSpec((2, 8, 8), parts=parts)
    game = build_game(checked, spec, ComputeSettings(torch.device("cpu"), "fp32"), RandomStreams(0))
    diff, adaptive = (game.tricks[trick["kind"]] for trick in tricks)
    for given in (diff.transforms["colour"].keywords, vars(adaptive)):
        assert (given["parts"], given["alpha"]) == (parts, alpha)


# ---------------------------------------------------------------- gradients and games


@pytest.mark.parametrize("policy", [*((policy,) for policy in ALL), ALL])
def test_is_twice_differentiable(policy: tuple[Policy, ...]) -> None:
    trick = augment(*policy)
    images = randn(2, 3, 4, 4, dtype=torch.float64).requires_grad_()

    def squared_output(images: Tensor) -> Tensor:
        return trick.transform_input(images, "fake", MoveContext(0, 1, 2, RandomStreams(0))).square()

    assert torch.autograd.gradcheck(squared_output, images)
    assert torch.autograd.gradgradcheck(squared_output, images)


@pytest.mark.parametrize("penalty", ["r1", "r2", "wgan_gp", "dragan"])
def test_penalties_differentiate_at_the_untransformed_image(penalty: str) -> None:
    smooth = {"network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "none"}}}
    run = session("pictures", DIFF | {"policy": ["cutout"]}, {"kind": penalty}, **smooth).play(2)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
    move = run.of(Side.D)[0].move
    if move.differentiated:
        gradient = move.input_gradient(move.differentiated[0])
        assert gradient.shape == (8, 1, 8, 8)
        erased = (
            cutout(torch.ones(8, 1, 8, 8), context().generator(f"diff_augment/{move.differentiated[0]}/cutout")) == 0
        )
        assert erased.any()
        assert (gradient[erased] == 0).all()  # erased pixels have no gradient


def test_ds_network_gets_the_augmented_images() -> None:
    run = session("pictures", DIFF).play(2)
    trick = run.game.tricks["diff_augment"]
    assert isinstance(trick, DiffAugment)
    expected = []
    for move in run.moves:
        origins = [("real", move.real)] if move.real is not None else []
        expected += [
            trick.transform_input(origin, name, move.context) for name, origin in [*origins, ("fake", move.fake)]
        ]
    assert torch.equal(torch.cat(run.seen), torch.cat(expected))
    assert [move.context.side for move in run.moves] == [Side.D, Side.G] * 2


def test_runs_in_bfloat16() -> None:
    run = Session(recipe("pictures", DIFF), source("pictures"), precision="bf16").play(2)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
