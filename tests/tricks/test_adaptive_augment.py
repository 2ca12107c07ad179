"""Adaptive augmentation: the distribution of every transformation, as recovered from images, and the control of p."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest
from torch import Tensor

from contracts.tiny import Session, context, findings_of, recipe, session, source, unequal
from poise.core.move import MoveData
from poise.core.types import DataSpec, DiscriminatorOutput, Side
from poise.errors import RecipeError
from poise.tricks import adaptive_augment
from poise.tricks.adaptive_augment import AdaptiveAugment, AdaptiveAugmentConfig, Policy, matrix, rotation
from poise.tricks.augment_ops import resample_images
from poise.tricks.base import TrickContext
from tricks.small import as_float64, game_of, randn

ADA: dict[str, Any] = {"kind": "adaptive_augment"}
BLIT, GEOMETRY, COLOUR = (("blit",), ("geometry",), ("colour",))
EVERYTHING: tuple[Policy, ...] = ("blit", "geometry", "colour")
N, S = 3000, 16
Numbers = NDArray[np.float64]


def trick(decision_threshold: float | None = 0.0, **settings: Any) -> AdaptiveAugment:
    context = TrickContext({}, DataSpec((3, 8, 8)), decision_threshold=decision_threshold)
    return AdaptiveAugmentConfig(**settings).build("ada", context)


def augment(images: Tensor, p: float, *policy: Policy, origin: Any = "real", **at: Any) -> Tensor:
    """Augmented images at a fixed p."""
    return trick(start=p, speed=0.0, policy=policy).transform_input(images, origin, context(**at))


def within_errors(found: float, expected: float, n: int = N) -> bool:
    """Whether a fraction is within five standard errors."""
    return abs(found - expected) < 5 * math.sqrt(max(expected * (1 - expected), 1e-6) / n)


def recovered_geometry(
    monkeypatch: pytest.MonkeyPatch, p: float, *policy: Policy, height: int = S, width: int = S
) -> tuple[Numbers, Numbers]:
    """The matrix and the shift (x, y) of each of N images, B x 2 x 2 and B x 2, from the resampling coordinates."""
    coordinates: list[Tensor] = []

    def record(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
        coordinates.extend((x, y))
        return images

    with monkeypatch.context() as patch:
        patch.setattr(adaptive_augment, "resample_images", record)
        augment(torch.zeros(N, 1, height, width), p, *policy)
    x, y = (as_float64(coordinate) for coordinate in coordinates)
    assert x.shape == (N, height, width)
    right, down = (
        np.stack((coordinate[:, 0, -1] - coordinate[:, 0, 0], coordinate[:, -1, 0] - coordinate[:, 0, 0]))
        for coordinate in (x, y)
    )
    matrices = np.stack((right.T, down.T), 1) / (width - 1, height - 1)
    centre = np.stack((x.mean((1, 2)), y.mean((1, 2))), 1)
    # affine throughout
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    py, px = np.meshgrid(np.arange(height) - middle[1], np.arange(width) - middle[0], indexing="ij")
    affine = np.einsum("bij,jhw->bihw", matrices, np.stack((px, py))) + centre[:, :, None, None]
    np.testing.assert_allclose(affine, np.stack((x, y), 1), atol=1e-4)
    return matrices, centre - middle


# ---------------------------------------------------------------- p of 0 and 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("policy", [BLIT, GEOMETRY, COLOUR, EVERYTHING])
def test_p_0_changes_nothing(channels: int, policy: tuple[Policy, ...]) -> None:
    images = randn(64, channels, 8, 8)
    moving = trick(start=0.0, policy=policy)  # p may still rise, so the transformations are computed
    assert torch.equal(moving.transform_input(images, "real", context()), images)
    still = trick(start=0.0, speed=0.0, policy=policy)
    assert still.transform_input(images, "real", context()) is images


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", [GEOMETRY, COLOUR, EVERYTHING])
def test_p_1_changes_every_image(channels: int, policy: tuple[Policy, ...]) -> None:
    images = randn(500, channels, 8, 8)
    made = augment(images, 1.0, *policy)
    assert ((made - images).abs().amax((1, 2, 3)) > 1e-4).all()


def test_an_empty_policy_changes_nothing() -> None:
    images = randn(8, 3, 8, 8)
    assert torch.equal(augment(images, 1.0), images)


# ---------------------------------------------------------------- blit


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_blit_flips_rotates_and_shifts(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    back, shift = recovered_geometry(monkeypatch, p, "blit")
    assert set(np.unique(back)) == {-1.0, 0.0, 1.0}
    mirrored = np.linalg.det(back) < 0
    assert within_errors(mirrored.mean(), p / 2)
    # back = rotation @ diag(flip, 1), so the second column is that of the rotation
    turns = np.stack([(back[:, 0, 1] == -s) & (back[:, 1, 1] == c) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))])
    assert (turns.sum(0) == 1).all()
    for k, share in enumerate((1 - 3 * p / 4, p / 4, p / 4, p / 4)):
        assert within_errors(turns[k].mean(), share)
        assert within_errors(turns[k][mirrored].mean(), share, int(mirrored.sum()))
    # integers up to an eighth of 16: U[-2, 2] rounded, so both ends have half the probability
    assert (shift == shift.round()).all()
    for steps in shift.T:
        shares = np.array([p / 8, p / 4, 1 - 3 * p / 4, p / 4, p / 8])
        assert chisquare(np.bincount(steps.astype(int) + 2, minlength=5), shares * N).pvalue > 1e-3
    both = ((shift != 0).all(1)).mean()
    assert within_errors(both, p * 9 / 16)  # one draw for both directions


def test_flips_and_quarter_rotations_permute_pixels() -> None:
    """The eight permutations are equally frequent, and every image is one of them, shifted over its own reflection."""
    n = 1500
    images = randn(n, 2, S, S)
    made = augment(images, 1.0, "blit").numpy()
    eight: list[Callable[[Any], Any]] = [
        lambda x, k=k, flip=flip: np.rot90(x[..., ::-1] if flip else x, k, (-2, -1))
        for flip in (0, 1)
        for k in range(4)
    ]
    wide = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="symmetric")
    found = np.zeros((n, 8, 5, 5), bool)
    for k, way in enumerate(eight):
        for d, r in product(range(5), repeat=2):
            found[:, k, d, r] = (way(wide[:, :, d : d + S, r : r + S]) == made).all((1, 2, 3))
    assert (found.sum((1, 2, 3)) == 1).all()
    counts, exact = found.sum((0, 2, 3)), found[:, :, 2, 2].sum()
    assert chisquare(counts).pvalue > 1e-3
    assert within_errors(exact / n, 1 / 16, n)


# ---------------------------------------------------------------- geometry


def test_geometry_at_p_1_has_the_papers_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    back, shift = recovered_geometry(monkeypatch, 1.0, "geometry")
    sizes = np.linalg.svd(back, compute_uv=False)
    scale, stretch = np.log2(sizes.prod(1)) / 2, np.log2(sizes[:, 0] / sizes[:, 1]) / 2
    assert np.linalg.det(back).min() > 0
    assert kstest(scale / 0.2, "norm").pvalue > 1e-3  # lognormal: its log in octaves is N(0, 0.2^2)
    assert kstest(stretch / 0.2, "halfnorm").pvalue > 1e-3
    assert abs(np.corrcoef(scale, stretch)[0, 1]) < 5 / math.sqrt(N)
    for steps in shift.T:
        assert kstest(steps / (0.125 * S), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(shift.T)[0, 1]) < 5 / math.sqrt(N)
    # back = scale R(a) diag(t, 1/t) R(b): `together` is the angle a + b, `apart` is a - b
    together = np.arctan2(back[:, 1, 0] - back[:, 0, 1], back[:, 0, 0] + back[:, 1, 1])
    apart = np.arctan2(back[:, 1, 0] + back[:, 0, 1], back[:, 0, 0] - back[:, 1, 1])
    for angle in (together, apart):
        assert kstest(angle / (2 * math.pi) + 0.5, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_each_geometric_transformation_has_probability_p(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    back, shift = recovered_geometry(monkeypatch, p, "geometry")
    sizes = np.linalg.svd(back, compute_uv=False)
    scaled = np.abs(np.log2(sizes.prod(1))) > 1e-5
    stretched = np.log2(sizes[:, 0] / sizes[:, 1]) > 1e-5
    drifted = np.abs(shift).max(1) > 1e-4
    for changed in (scaled, stretched, drifted):
        assert within_errors(changed.mean(), p)
    assert within_errors((scaled & stretched).mean(), p * p)
    plain = back[~stretched] / np.sqrt(sizes[~stretched].prod(1))[:, None, None]
    angle = np.arctan2(plain[:, 1, 0], plain[:, 0, 0])
    at_all = np.abs(angle) > 1e-4
    assert within_errors(
        at_all.mean(), p, len(plain)
    )  # with 1 - sqrt(1 - p) twice, at least one is applied with probability p
    # without a rotation before the stretch, M M' is diagonal; without one after it, M' M is
    settings = back[stretched]
    gram, outer = (np.einsum(f"{how}->bjk", settings, settings) for how in ("bij,bik", "bji,bki"))
    before, update_after_move = (np.abs(m[:, 0, 1]) > 1e-5 for m in (outer, gram))
    once = 1 - math.sqrt(1 - p)
    assert within_errors(before.mean(), once, len(settings))
    assert within_errors(update_after_move.mean(), once, len(settings))
    assert within_errors((before & update_after_move).mean(), once**2, len(settings))


def test_blit_and_geometry_are_one_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    back, shift = recovered_geometry(monkeypatch, 1.0, "blit", "geometry")
    assert within_errors((np.linalg.det(back) < 0).mean(), 0.5)
    spread = shift.std(0)
    expected = math.sqrt(1.5 + (0.125 * S) ** 2)  # -2 to 2 with probabilities 1, 2, 2, 2, 1 of 8
    assert np.abs(spread - expected).max() < 5 * expected / math.sqrt(2 * N)


def test_a_rotation_and_its_inverse_restore_the_centre() -> None:
    size = 32
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    smooth = torch.exp(-((x - 2) ** 2 + (y + 3) ** 2) / 60)[None, None].expand(5, 1, -1, -1)
    angle = torch.tensor([0.3, -1.0, 2.0, math.pi / 2, 3.0])

    def rotate(images: Tensor, angle: Tensor) -> Tensor:
        coordinates = rotation(angle) @ torch.stack((x, y)).flatten(1) + (size - 1) / 2
        return resample_images(images, *coordinates.view(-1, 2, size, size).unbind(1))

    rotated = rotate(smooth, angle)
    restored = rotate(rotated, -angle)
    centre = slice(size // 4, -size // 4)
    assert torch.allclose(restored[..., centre, centre], smooth[..., centre, centre], atol=0.02)
    assert (rotated - smooth)[..., centre, centre].abs().amax((1, 2, 3)).min() > 0.1
    assert torch.allclose(rotation(angle) @ rotation(-angle), torch.eye(2).expand(5, 2, 2), atol=1e-6)
    assert rotation(torch.tensor([math.pi / 2])).flatten().tolist() == pytest.approx([0, -1, 1, 0], abs=1e-6)
    assert matrix(1.0, 2.0, angle, 4.0, angle)[1].tolist() == [[1.0, 2.0], [-1.0, 4.0]]


# ---------------------------------------------------------------- colour


def recovered_colour(p: float, n: int = N) -> tuple[Numbers, Numbers]:
    """The matrix (3 x 3) and the offset (3) of each image's colour transformation, by least squares."""
    images = randn(n, 3, 3, 3)
    augmented = as_float64(augment(images, p, "colour")).reshape(n, 3, 9).transpose(0, 2, 1)
    original = as_float64(images).reshape(n, 3, 9).transpose(0, 2, 1)
    homogeneous = np.concatenate((original, np.ones((n, 9, 1))), 2)
    solution = np.linalg.pinv(homogeneous) @ augmented
    np.testing.assert_allclose(homogeneous @ solution, augmented, atol=1e-4 * max(1.0, float(np.abs(augmented).max())))
    return solution[:, :3].transpose(0, 2, 1), solution[:, 3]


def colour_parameters(a: Numbers, b: Numbers) -> dict[str, Numbers]:
    """Brightness, contrast, sign, hue and saturation of colour matrices."""
    grey = a.sum(2).mean(1)  # A (1, 1, 1)' = contrast x sign x (1, 1, 1)'
    across = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / np.sqrt([[2.0], [6.0]])  # right-handed with (1, 1, 1)
    inner = across @ a @ across.T
    hue = np.arctan2(inner[:, 1, 0], inner[:, 0, 0])
    strength = np.hypot(inner[:, 1, 0], inner[:, 0, 0])
    return {
        "bright": b.mean(1) / grey,
        "contrast": np.log2(np.abs(grey)),
        "negative": grey < 0,
        "hue": hue,
        "saturation": np.log2(strength / np.abs(grey)),
    }


def papers_matrix(bright: float, contrast: float, negative: bool, hue: float, saturation: float) -> Numbers:
    """Appendix B of the paper: 4 x 4 matrices on homogeneous colours, in the order in which they are applied."""
    v = np.array([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)
    one, luma = np.eye(4), np.outer(v, v)
    c = one.copy()
    c[:3, 3] = bright
    c = np.diag([2**contrast] * 3 + [1.0]) @ c
    c = (one - 2 * luma * negative) @ c
    cross = np.zeros((4, 4))
    cross[:3, :3] = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    axis = luma[:3, :3]
    turn = one.copy()
    turn[:3, :3] = axis + math.cos(hue) * (np.eye(3) - axis) + math.sin(hue) * cross[:3, :3]
    c = turn @ c
    whitened = luma + np.diag([0.0, 0.0, 0.0, 1.0])
    return (whitened + (one - whitened) * 2**saturation) @ c


def test_colours_are_transformed_by_the_papers_matrices() -> None:
    a, b = recovered_colour(1.0, 300)
    found = colour_parameters(a, b)
    for i in range(300):
        expected = papers_matrix(
            *(float(found[name][i]) for name in ("bright", "contrast", "negative", "hue", "saturation"))
        )
        size = np.abs(expected).max()
        np.testing.assert_allclose(a[i], expected[:3, :3], atol=1e-4 * size)
        np.testing.assert_allclose(b[i], expected[:3, 3], atol=1e-4 * size)


def test_colour_at_p_1_has_the_papers_distributions() -> None:
    found = colour_parameters(*recovered_colour(1.0))
    assert kstest(found["bright"] / 0.2, "norm").pvalue > 1e-3
    assert kstest(found["contrast"] / 0.5, "norm").pvalue > 1e-3
    assert kstest(found["saturation"], "norm").pvalue > 1e-3
    assert kstest(found["hue"] / (2 * math.pi) + 0.5, "uniform").pvalue > 1e-3
    assert within_errors(found["negative"].mean(), 0.5)
    apart = np.corrcoef([found[name] for name in sorted(found)]) - np.eye(5)
    assert np.abs(apart).max() < 5 / math.sqrt(N)
    size = np.log(np.abs(found["bright"]))  # brightness comes first, so its size does not depend on the contrast
    assert abs(np.corrcoef(size, found["contrast"])[0, 1]) < 5 / math.sqrt(N)


def test_each_colour_transformation_has_probability_p() -> None:
    p, found = 0.3, colour_parameters(*recovered_colour(0.3))
    assert within_errors(found["negative"].mean(), p / 2)
    for name in ("bright", "contrast", "hue", "saturation"):
        assert within_errors((np.abs(found[name]) > 1e-4).mean(), p), name
    assert within_errors(((np.abs(found["hue"]) > 1e-4) & (np.abs(found["saturation"]) > 1e-4)).mean(), p * p)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_images_without_three_colours_get_brightness_contrast_and_inversion(channels: int) -> None:
    images, colours = randn(N, channels, 2, 4), 1 if channels == 2 else channels  # the second of two is alpha
    made = as_float64(augment(images, 1.0, "colour")[:, :colours]).reshape(N, -1)
    given = as_float64(images[:, :colours]).reshape(N, -1)
    centred = given - given.mean(1, keepdims=True)
    factor = (centred * made).sum(1) / (centred**2).sum(1)
    offset = made.mean(1) - factor * given.mean(1)
    np.testing.assert_allclose(given * factor[:, None] + offset[:, None], made, atol=1e-4)
    assert within_errors((factor < 0).mean(), 0.5)
    assert kstest(np.log2(np.abs(factor)) / 0.5, "norm").pvalue > 1e-3
    assert kstest(offset / factor / 0.2, "norm").pvalue > 1e-3
    sizes = np.log(np.abs(offset / factor)), np.log(np.abs(factor))
    assert abs(np.corrcoef(*sizes)[0, 1]) < 5 / math.sqrt(N)


# ---------------------------------------------------------------- random streams, types, gradients


def test_batches_and_moves_have_independent_draws_of_one_distribution() -> None:
    images = randn(8, 3, 8, 8)
    first = augment(images, 1.0, *EVERYTHING)
    assert torch.equal(first, augment(images, 1.0, *EVERYTHING))
    others = [
        augment(images, 1.0, *EVERYTHING, **at)
        for at in ({"origin": "fake"}, {"at": 1}, {"side": Side.G}, {"turn": 1}, {"seed": 1})
    ]
    assert not any(torch.allclose(first, other, atol=1e-2) for other in others)
    many = torch.ones(N, 1, 8, 8)
    dark = [
        (augment(many, 0.6, "colour", origin=origin).mean((1, 2, 3)) < 0).float().mean() for origin in ("real", "fake")
    ]
    assert all(within_errors(float(share), 0.3) for share in dark)


@pytest.mark.parametrize("policy", [BLIT, GEOMETRY, COLOUR, EVERYTHING])
@pytest.mark.parametrize("channels", [1, 3])
def test_is_twice_differentiable(policy: tuple[Policy, ...], channels: int) -> None:
    def through(images: Tensor) -> Tensor:
        return augment(images, 0.8, *policy).square()

    images = randn(3, channels, 3, 3, dtype=torch.float64).requires_grad_()
    assert through(images).dtype == torch.float64
    assert torch.autograd.gradcheck(through, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(through, images, fast_mode=True)


@pytest.mark.parametrize("policy", [BLIT, GEOMETRY])
def test_coordinates_are_float32_under_autocast(policy: tuple[Policy, ...]) -> None:
    """Input transforms run under the run's autocast, in which matrix products are bfloat16: half a pixel of 64."""
    ramp = torch.linspace(-1, 1, 64).expand(32, 3, 64, 64).contiguous()
    full = augment(ramp, 1.0, *policy)
    with torch.autocast("cpu", torch.bfloat16):
        half = augment(ramp, 1.0, *policy)
    assert torch.allclose(full, half, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("others", [[], [{"kind": "r1"}], [{"kind": "wgan_gp"}], [{"kind": "packing"}]])
def test_in_a_game(precision: Any, others: list[dict[str, Any]]) -> None:
    network = {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "none"}}
    settings = recipe("pictures", ADA | {"start": 0.5}, *others, network=network)
    run = Session(settings, source("pictures"), precision=precision).play(3)
    assert all(torch.isfinite(t).all() for t in run.saved().values())


def test_ds_network_gets_the_augmented_images() -> None:
    run = session("pictures", ADA | {"start": 0.7, "speed": 0.0}).play(2)
    trick = run.game.tricks["adaptive_augment"]
    assert isinstance(trick, AdaptiveAugment)
    expected = []
    for played in run.moves:
        if played.context.side is Side.D:
            expected.append(trick.transform_input(played.move.samples("real").detach(), "real", played.context))
        expected.append(trick.transform_input(played.fake, "fake", played.context))
    assert torch.equal(torch.cat(run.seen), torch.cat(expected))
    assert len(expected) == 6


# ---------------------------------------------------------------- p


def update_after_move(ada: AdaptiveAugment, scores: Tensor, side: Side = Side.D, batch: int = 8) -> MoveData:
    """Update p after a step's only move with these scores of real samples."""
    game = game_of()
    at = context(side=side)
    at = type(at)(int(ada.moves), at.steps, batch, at.streams, side)
    move = MoveData(at, torch.zeros(1), torch.zeros(1), torch.zeros(1))
    move.outputs = {"real": DiscriminatorOutput(scores), "fake": DiscriminatorOutput(-scores)}
    ada.after_update(game.players[side], move)
    return move


UP, DOWN = torch.ones(8), -torch.ones(8)


@pytest.mark.parametrize(("batch", "every", "speed"), [(8, 4, 1000.0), (64, 1, 500_000.0), (16, 3, 320.0)])
def test_p_changes_by_batch_times_every_over_speed(batch: int, every: int, speed: float) -> None:
    ada, step = trick(every=every, speed=speed, start=0.5), batch * every / speed
    expected = 0.5
    for round_, scores in enumerate((UP, UP, DOWN, UP, DOWN, DOWN, DOWN)):
        for k in range(every):
            before = float(ada.p)
            move = update_after_move(ada, scores, batch=batch)
            assert float(move.logged["ada_p"]) == before
            assert float(move.logged["r_t"]) == float(scores[0])
            if k < every - 1:
                assert float(ada.p) == before, (round_, k)
        expected = min(1.0, max(0.0, expected + float(scores[0]) * step))
        assert float(ada.p) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert float(ada.signs) == float(ada.moves) == 0


def test_p_is_clamped_to_0_and_1() -> None:
    for scores, start, end in ((UP, 0.9, 1.0), (DOWN, 0.1, 0.0)):
        ada = trick(every=1, speed=50.0, start=start)
        for _ in range(3):
            update_after_move(ada, scores)
            assert 0 <= float(ada.p) <= 1
        assert float(ada.p) == end


@pytest.mark.parametrize(
    ("right", "target", "way"), [(7, 0.6, 1), (6, 0.6, -1), (6, 0.4, 1), (6, 0.5, 0), (2, -0.6, 1)]
)
def test_p_rises_while_r_t_exceeds_the_target(right: int, target: float, way: int) -> None:
    """`right` of 8 real samples have a score above the threshold: r_t = (2 right - 8) / 8."""
    ada = trick(every=1, speed=80.0, start=0.5, target=target)
    scores = torch.cat((torch.full((right,), 3.0), torch.full((8 - right,), -0.01)))
    move = update_after_move(ada, scores)
    assert float(move.logged["r_t"]) == pytest.approx((2 * right - 8) / 8)
    assert float(ada.p) == pytest.approx(0.5 + way * 0.1)


def test_r_t_is_the_mean_over_the_last_moves() -> None:
    ada = trick(every=4, speed=320.0, start=0.5, target=0.4)
    for scores in (UP, UP, UP, DOWN):  # the mean is 0.5
        update_after_move(ada, scores)
    assert float(ada.p) == pytest.approx(0.6)
    for scores in (UP, DOWN, DOWN, UP):  # 0
        update_after_move(ada, scores)
    assert float(ada.p) == pytest.approx(0.5)


def test_speed_of_p_does_not_depend_on_ds_moves_per_step() -> None:
    settings = ADA | {"every": 2, "speed": 400.0, "target": -1.0, "start": 0.0}
    one, five = (session("pictures", settings, tempo={"kind": "ratio", "d": d}).play(8) for d in (1, 5))
    assert float(one.game.tricks["adaptive_augment"].p) == pytest.approx(4 * 8 * 2 / 400)
    assert float(five.game.tricks["adaptive_augment"].p) == float(one.game.tricks["adaptive_augment"].p)


def test_the_decision_threshold_is_that_of_the_objective() -> None:
    run = session("pictures", ADA, objective={"kind": "least_squares"})
    assert run.game.tricks["adaptive_augment"].decision_threshold == 0.5
    other = session("pictures", ADA, objective={"kind": "least_squares", "a": -1.0, "b": 1.0})
    assert other.game.tricks["adaptive_augment"].decision_threshold == 0.0
    ada = trick(0.5, every=1, speed=80.0, start=0.5)
    move = update_after_move(ada, torch.tensor([0.1, 0.4, 0.49, 0.6]))
    assert float(move.logged["r_t"]) == -0.5
    assert float(ada.p) == pytest.approx(0.4)


def test_gs_moves_and_a_fixed_p_log_nothing() -> None:
    ada = trick(every=1, speed=80.0, start=0.5)
    assert update_after_move(ada, UP, Side.G).logged == {}
    assert float(ada.p) == 0.5
    still = trick(every=1, speed=0.0, start=0.5)
    assert update_after_move(still, UP).logged == {}
    assert float(still.p) == 0.5


def test_in_a_run_p_follows_the_scores_of_real_samples() -> None:
    run = session("pictures", ADA | {"every": 2, "speed": 200.0, "target": 0.0, "start": 0.4}).play(8)
    p, step = 0.4, 8 * 2 / 200
    signs = []
    for played in run.of(Side.D):
        assert float(played.move.logged["adaptive_augment_p"]) == pytest.approx(p, abs=1e-6)
        signs.append(float(played.move.score("real").detach().sign().mean()))
        if len(signs) % 2 == 0:
            p = min(1.0, max(0.0, p + step * float(np.sign(sum(signs[-2:])))))
    assert float(run.game.tricks["adaptive_augment"].p) == pytest.approx(p, abs=1e-6)
    rows = run.metrics.reduce()
    assert rows["d/r_t"].mean == pytest.approx(np.mean(signs), abs=1e-6)
    assert not any(name.startswith("g/") and ("r_t" in name or "_p" in name) for name in rows)


def test_is_resumed() -> None:
    settings = ADA | {"every": 3, "speed": 100.0, "start": 0.3}
    whole, half = session("pictures", settings).play(5), session("pictures", settings).play(2)
    assert set(half.game.tricks["adaptive_augment"].state_dict()) == {"p", "signs", "moves"}
    assert unequal(whole.saved(), half.resumed().play(3).saved()) == []


# ---------------------------------------------------------------- compatibility


@pytest.mark.parametrize("objective", ["wasserstein", "relativistic", "relativistic_average"])
def test_an_objective_without_a_threshold_is_rejected_with_a_cure(objective: str) -> None:
    def refusals(**settings: Any) -> list[Any]:
        bound = {"kind": "wgan_gp"}
        checked = recipe("pictures", bound, ADA | settings, objective={"kind": objective})
        return findings_of(checked, "pictures").refusals

    (finding,) = refusals()
    assert finding.field == "tricks.1"
    assert objective in finding.message
    assert "adaptive_augment" in finding.message
    assert "diff_augment" in finding.cure
    assert "non_saturating" in finding.cure
    assert refusals(speed=0.0, start=0.5) == []  # a fixed p does not use the sign


@pytest.mark.parametrize("objective", ["non_saturating", "minimax", "hinge", "least_squares"])
def test_an_objective_with_a_threshold_is_accepted(objective: str) -> None:
    assert findings_of(recipe("pictures", ADA, objective={"kind": objective}), "pictures").refusals == []


def test_points_are_rejected() -> None:
    assert AdaptiveAugmentConfig().incompatibility((3, 8, 8)) is None
    assert AdaptiveAugmentConfig().incompatibility((2,)) is not None


@pytest.mark.parametrize(("height", "width"), [(16, 24), (32, 8)])
def test_images_that_are_not_square(monkeypatch: pytest.MonkeyPatch, height: int, width: int) -> None:
    """Quarter turns are about the centre, and shifts are fractions of each side."""
    assert AdaptiveAugmentConfig().incompatibility((3, height, width)) is None
    quarters, shift = recovered_geometry(monkeypatch, 1.0, "blit", height=height, width=width)
    np.testing.assert_allclose(np.abs(quarters).sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(shift, shift.round(), atol=1e-5)
    limits = np.array([width, height]) / 8
    assert (np.abs(shift).max(0) == limits).all()
    _, shift = recovered_geometry(monkeypatch, 1.0, "geometry", height=height, width=width)
    np.testing.assert_allclose(shift.std(0) / limits, 1, atol=0.1)


def test_defaults_are_the_papers() -> None:
    entry = AdaptiveAugmentConfig()
    assert (entry.policy, entry.target, entry.speed, entry.every, entry.start) == (EVERYTHING, 0.6, 500_000.0, 4, 0.0)


def test_a_fixed_p_may_follow_a_schedule() -> None:
    """p is the value of the schedule and saved in checkpoints; a schedule together with a speed is rejected."""
    schedule = {"kind": "steps", "values": [0.0, 0.5], "at": [2], "over": "steps"}
    trick = {"kind": "adaptive_augment", "speed": 0.0, "start": schedule}
    run, without = session("pictures", trick).play(2), session("pictures").play(2)
    own = "game/tricks.adaptive_augment."
    assert unequal({n: t for n, t in run.saved().items() if not n.startswith(own)}, without.saved()) == []
    run.play(2)
    assert float(run.saved()[f"{own}p"]) == 0.5
    assert unequal(run.saved(), session("pictures", trick).play(2).resumed().play(2).saved()) == []
    with pytest.raises(RecipeError, match="not by both"):
        session("pictures", trick | {"speed": 1000.0})
