"""Adaptive augmentation: the law of every change, read off what it does to pictures, and how p is steered."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest
from torch import Tensor

from contracts.tiny import Session, context, misfits, recipe, session, source, unequal
from poise.core.move import MoveData
from poise.core.types import DataSpec, DiscriminatorOutput, Side
from poise.errors import RecipeError
from poise.tricks import adaptive_augment
from poise.tricks.adaptive_augment import AdaptiveAugment, AdaptiveAugmentConfig, Policy, matrix, rotation
from poise.tricks.augment_ops import resample_images
from poise.tricks.base import TrickContext
from tricks.small import as_float64, cloud, game_of

ADA: dict[str, Any] = {"kind": "adaptive_augment"}
BLIT, GEOMETRY, COLOUR = (("blit",), ("geometry",), ("colour",))
EVERYTHING: tuple[Policy, ...] = ("blit", "geometry", "colour")
N, S = 3000, 16
Numbers = NDArray[np.float64]


def trick(decision_threshold: float | None = 0.0, **told: Any) -> AdaptiveAugment:
    context = TrickContext({}, DataSpec((3, 8, 8)), decision_threshold=decision_threshold)
    return AdaptiveAugmentConfig(**told).build("ada", context)


def seen(images: Tensor, p: float, *policy: Policy, origin: Any = "real", **at: Any) -> Tensor:
    """What D sees at a p that stands still."""
    return trick(start=p, speed=0.0, policy=policy).transform_input(images, origin, context(**at))


def about(found: float, expected: float, n: int = N) -> bool:
    """A share within five standard errors."""
    return abs(found - expected) < 5 * math.sqrt(max(expected * (1 - expected), 1e-6) / n)


def read(monkeypatch: pytest.MonkeyPatch, p: float, *policy: Policy) -> tuple[Numbers, Numbers]:
    """For each of N pictures the matrix and the shift (x, y) by which its places are read, B x 2 x 2 and B x 2."""
    caught: list[Tensor] = []

    def catch(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
        caught.extend((x, y))
        return images

    with monkeypatch.context() as patch:
        patch.setattr(adaptive_augment, "resample_images", catch)
        seen(torch.zeros(N, 1, S, S), p, *policy)
    x, y = (as_float64(place) for place in caught)
    assert x.shape == (N, S, S)
    right, down = (np.stack((place[:, 0, -1] - place[:, 0, 0], place[:, -1, 0] - place[:, 0, 0])) for place in (x, y))
    back = np.stack((right.T, down.T), 1) / (S - 1)
    middle = np.stack((x.mean((1, 2)), y.mean((1, 2))), 1)
    # affine throughout
    axis = np.arange(S) - (S - 1) / 2
    py, px = np.meshgrid(axis, axis, indexing="ij")
    again = np.einsum("bij,jhw->bihw", back, np.stack((px, py))) + middle[:, :, None, None]
    np.testing.assert_allclose(again, np.stack((x, y), 1), atol=1e-4)
    return back, middle - (S - 1) / 2


# ---------------------------------------------------------------- none and all


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("policy", [BLIT, GEOMETRY, COLOUR, EVERYTHING])
def test_at_p_0_nothing_changes(channels: int, policy: tuple[Policy, ...]) -> None:
    images = cloud(64, channels, 8, 8)
    moving = trick(start=0.0, policy=policy)  # p may still rise, so the changes are worked out
    assert torch.equal(moving.transform_input(images, "real", context()), images)
    still = trick(start=0.0, speed=0.0, policy=policy)
    assert still.transform_input(images, "real", context()) is images


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", [GEOMETRY, COLOUR, EVERYTHING])
def test_at_p_1_every_picture_changes(channels: int, policy: tuple[Policy, ...]) -> None:
    images = cloud(500, channels, 8, 8)
    made = seen(images, 1.0, *policy)
    assert ((made - images).abs().amax((1, 2, 3)) > 1e-4).all()


def test_without_a_policy_nothing_changes() -> None:
    images = cloud(8, 3, 8, 8)
    assert torch.equal(seen(images, 1.0), images)


# ---------------------------------------------------------------- blit


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_blit_mirrors_half_turns_quarters_and_moves(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    back, shift = read(monkeypatch, p, "blit")
    assert set(np.unique(back)) == {-1.0, 0.0, 1.0}
    mirrored = np.linalg.det(back) < 0
    assert about(mirrored.mean(), p / 2)
    # back = turn @ diag(mirror, 1), so the second column is the turn's
    turns = np.stack([(back[:, 0, 1] == -s) & (back[:, 1, 1] == c) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))])
    assert (turns.sum(0) == 1).all()
    for k, share in enumerate((1 - 3 * p / 4, p / 4, p / 4, p / 4)):
        assert about(turns[k].mean(), share)
        assert about(turns[k][mirrored].mean(), share, int(mirrored.sum()))
    # whole numbers up to an eighth of 16: U[-2, 2] rounded, so the ends have half a share
    assert (shift == shift.round()).all()
    for steps in shift.T:
        shares = np.array([p / 8, p / 4, 1 - 3 * p / 4, p / 4, p / 8])
        assert chisquare(np.bincount(steps.astype(int) + 2, minlength=5), shares * N).pvalue > 1e-3
    both = ((shift != 0).all(1)).mean()
    assert about(both, p * 9 / 16)  # one coin for both ways


def test_mirrors_and_quarter_turns_are_permutations_of_pixels() -> None:
    """Each of the eight comes as often, and every picture is one of them, moved over its own mirror images."""
    n = 1500
    images = cloud(n, 2, S, S)
    made = seen(images, 1.0, "blit").numpy()
    eight: list[Callable[[Any], Any]] = [
        lambda x, k=k, flip=flip: np.rot90(x[..., ::-1] if flip else x, k, (-2, -1))
        for flip in (0, 1)
        for k in range(4)
    ]
    counts, exact = np.zeros(8, int), 0
    wide = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="symmetric")
    for source_picture, picture in zip(wide, made, strict=True):
        found = [
            (k, d, r)
            for d in range(5)
            for r in range(5)
            for k, way in enumerate(eight)
            if np.array_equal(way(source_picture[:, d : d + S, r : r + S]), picture)
        ]
        assert len(found) == 1
        ((k, d, r),) = found
        counts[k] += 1
        exact += (d, r) == (2, 2)
    assert chisquare(counts).pvalue > 1e-3
    assert about(exact / n, 1 / 16, n)


# ---------------------------------------------------------------- geometry


def test_at_p_1_geometry_has_the_papers_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    back, shift = read(monkeypatch, 1.0, "geometry")
    sizes = np.linalg.svd(back, compute_uv=False)
    scale, stretch = np.log2(sizes.prod(1)) / 2, np.log2(sizes[:, 0] / sizes[:, 1]) / 2
    assert np.linalg.det(back).min() > 0
    assert kstest(scale / 0.2, "norm").pvalue > 1e-3  # lognormal: its log in octaves is N(0, 0.2^2)
    assert kstest(stretch / 0.2, "halfnorm").pvalue > 1e-3
    assert abs(np.corrcoef(scale, stretch)[0, 1]) < 5 / math.sqrt(N)
    for steps in shift.T:
        assert kstest(steps / (0.125 * S), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(shift.T)[0, 1]) < 5 / math.sqrt(N)
    # back = scale R(a) diag(t, 1/t) R(b): a is half the sum and b half the difference of what the parts turn by
    together = np.arctan2(back[:, 1, 0] - back[:, 0, 1], back[:, 0, 0] + back[:, 1, 1])
    apart = np.arctan2(back[:, 1, 0] + back[:, 0, 1], back[:, 0, 0] - back[:, 1, 1])
    for angle in (together, apart):
        assert kstest(angle / (2 * math.pi) + 0.5, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_geometry_changes_each_thing_with_probability_p(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    back, shift = read(monkeypatch, p, "geometry")
    sizes = np.linalg.svd(back, compute_uv=False)
    scaled = np.abs(np.log2(sizes.prod(1))) > 1e-5
    stretched = np.log2(sizes[:, 0] / sizes[:, 1]) > 1e-5
    drifted = np.abs(shift).max(1) > 1e-4
    for changed in (scaled, stretched, drifted):
        assert about(changed.mean(), p)
    assert about((scaled & stretched).mean(), p * p)
    plain = back[~stretched] / np.sqrt(sizes[~stretched].prod(1))[:, None, None]
    angle = np.arctan2(plain[:, 1, 0], plain[:, 0, 0])
    at_all = np.abs(angle) > 1e-4
    assert about(at_all.mean(), p, len(plain))  # 1 - sqrt(1 - p) twice is p that at least one happens
    # a turn before alone leaves the stretch along an axis of the new picture, B B' diagonal; so does none
    told = back[stretched]
    gram, outer = (np.einsum(f"{how}->bjk", told, told) for how in ("bij,bik", "bji,bki"))
    before, after = (np.abs(m[:, 0, 1]) > 1e-5 for m in (outer, gram))
    once = 1 - math.sqrt(1 - p)
    assert about(before.mean(), once, len(told))
    assert about(after.mean(), once, len(told))
    assert about((before & after).mean(), once**2, len(told))


def test_blit_and_geometry_are_one_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    back, shift = read(monkeypatch, 1.0, "blit", "geometry")
    assert about((np.linalg.det(back) < 0).mean(), 0.5)
    spread = shift.std(0)
    expected = math.sqrt(1.5 + (0.125 * S) ** 2)  # of -2 to 2 with shares 1, 2, 2, 2, 1 of 8
    assert np.abs(spread - expected).max() < 5 * expected / math.sqrt(2 * N)


def test_a_turn_and_its_reverse_give_back_the_middle() -> None:
    size = 32
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    smooth = torch.exp(-((x - 2) ** 2 + (y + 3) ** 2) / 60)[None, None].expand(5, 1, -1, -1)
    angle = torch.tensor([0.3, -1.0, 2.0, math.pi / 2, 3.0])

    def turn(images: Tensor, angle: Tensor) -> Tensor:
        places = rotation(angle) @ torch.stack((x, y)).flatten(1) + (size - 1) / 2
        return resample_images(images, *places.view(-1, 2, size, size).unbind(1))

    there = turn(smooth, angle)
    again = turn(there, -angle)
    middle = slice(size // 4, -size // 4)
    assert torch.allclose(again[..., middle, middle], smooth[..., middle, middle], atol=0.02)
    assert (there - smooth)[..., middle, middle].abs().amax((1, 2, 3)).min() > 0.1
    assert torch.allclose(rotation(angle) @ rotation(-angle), torch.eye(2).expand(5, 2, 2), atol=1e-6)
    assert rotation(torch.tensor([math.pi / 2])).flatten().tolist() == pytest.approx([0, -1, 1, 0], abs=1e-6)
    assert matrix(1.0, 2.0, angle, 4.0, angle)[1].tolist() == [[1.0, 2.0], [-1.0, 4.0]]


# ---------------------------------------------------------------- colour


def maps(p: float, n: int = N) -> tuple[Numbers, Numbers]:
    """The matrix (3 x 3) and the offset (3) by which each picture's colours are changed."""
    images = cloud(n, 3, 3, 3)
    made = as_float64(seen(images, p, "colour")).reshape(n, 3, 9).transpose(0, 2, 1)
    given = as_float64(images).reshape(n, 3, 9).transpose(0, 2, 1)
    told = np.concatenate((given, np.ones((n, 9, 1))), 2)
    found = np.linalg.pinv(told) @ made
    np.testing.assert_allclose(told @ found, made, atol=1e-4 * max(1.0, float(np.abs(made).max())))
    return found[:, :3].transpose(0, 2, 1), found[:, 3]


def parts(a: Numbers, b: Numbers) -> dict[str, Numbers]:
    """Brightness, contrast, sign, hue and saturation of colour maps."""
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


def theirs(bright: float, contrast: float, negative: bool, hue: float, saturation: float) -> Numbers:
    """Appendix B of the paper: 4 x 4 matrices on homogeneous colours, in the order in which they act."""
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


def test_colours_are_changed_by_the_papers_matrices() -> None:
    a, b = maps(1.0, 300)
    found = parts(a, b)
    for i in range(300):
        told = theirs(*(float(found[name][i]) for name in ("bright", "contrast", "negative", "hue", "saturation")))
        size = np.abs(told).max()
        np.testing.assert_allclose(a[i], told[:3, :3], atol=1e-4 * size)
        np.testing.assert_allclose(b[i], told[:3, 3], atol=1e-4 * size)


def test_at_p_1_colours_have_the_papers_laws() -> None:
    found = parts(*maps(1.0))
    assert kstest(found["bright"] / 0.2, "norm").pvalue > 1e-3
    assert kstest(found["contrast"] / 0.5, "norm").pvalue > 1e-3
    assert kstest(found["saturation"], "norm").pvalue > 1e-3
    assert kstest(found["hue"] / (2 * math.pi) + 0.5, "uniform").pvalue > 1e-3
    assert about(found["negative"].mean(), 0.5)
    apart = np.corrcoef([found[name] for name in sorted(found)]) - np.eye(5)
    assert np.abs(apart).max() < 5 / math.sqrt(N)
    size = np.log(np.abs(found["bright"]))  # brightness comes first: its size owes nothing to the contrast
    assert abs(np.corrcoef(size, found["contrast"])[0, 1]) < 5 / math.sqrt(N)


def test_each_colour_changes_with_probability_p() -> None:
    p, found = 0.3, parts(*maps(0.3))
    assert about(found["negative"].mean(), p / 2)
    for name in ("bright", "contrast", "hue", "saturation"):
        assert about((np.abs(found[name]) > 1e-4).mean(), p), name
    assert about(((np.abs(found["hue"]) > 1e-4) & (np.abs(found["saturation"]) > 1e-4)).mean(), p * p)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_pictures_get_brightness_contrast_and_sign(channels: int) -> None:
    images = cloud(N, channels, 2, 4)
    made = as_float64(seen(images, 1.0, "colour")).reshape(N, -1)
    given = as_float64(images).reshape(N, -1)
    centred = given - given.mean(1, keepdims=True)
    slope = (centred * made).sum(1) / (centred**2).sum(1)
    offset = made.mean(1) - slope * given.mean(1)
    np.testing.assert_allclose(given * slope[:, None] + offset[:, None], made, atol=1e-4)
    assert about((slope < 0).mean(), 0.5)
    assert kstest(np.log2(np.abs(slope)) / 0.5, "norm").pvalue > 1e-3
    assert kstest(offset / slope / 0.2, "norm").pvalue > 1e-3
    sizes = np.log(np.abs(offset / slope)), np.log(np.abs(slope))
    assert abs(np.corrcoef(*sizes)[0, 1]) < 5 / math.sqrt(N)


# ---------------------------------------------------------------- dice, types, gradients


def test_piles_and_moves_draw_anew_by_one_law() -> None:
    images = cloud(8, 3, 8, 8)
    first = seen(images, 1.0, *EVERYTHING)
    assert torch.equal(first, seen(images, 1.0, *EVERYTHING))
    others = [
        seen(images, 1.0, *EVERYTHING, **at)
        for at in ({"origin": "fake"}, {"at": 1}, {"side": Side.G}, {"turn": 1}, {"seed": 1})
    ]
    assert not any(torch.allclose(first, other, atol=1e-2) for other in others)
    many = torch.ones(N, 1, 8, 8)
    dark = [
        (seen(many, 0.6, "colour", origin=origin).mean((1, 2, 3)) < 0).float().mean() for origin in ("real", "fake")
    ]
    assert all(about(float(share), 0.3) for share in dark)


@pytest.mark.parametrize("policy", [BLIT, GEOMETRY, COLOUR, EVERYTHING])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_differentiable_twice(policy: tuple[Policy, ...], channels: int) -> None:
    def through(images: Tensor) -> Tensor:
        return seen(images, 0.8, *policy).square()

    images = cloud(3, channels, 3, 3, dtype=torch.float64).requires_grad_()
    assert through(images).dtype == torch.float64
    assert torch.autograd.gradcheck(through, images)
    assert torch.autograd.gradgradcheck(through, images)


@pytest.mark.parametrize("policy", [BLIT, GEOMETRY])
def test_places_are_in_full_precision_under_autocast(policy: tuple[Policy, ...]) -> None:
    """The view stands inside the run's autocast, which does matrix products in bfloat16: half a pixel of 64."""
    ramp = torch.linspace(-1, 1, 64).expand(32, 3, 64, 64).contiguous()
    full = seen(ramp, 1.0, *policy)
    with torch.autocast("cpu", torch.bfloat16):
        half = seen(ramp, 1.0, *policy)
    assert torch.allclose(full, half, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("others", [[], [{"kind": "r1"}], [{"kind": "wgan_gp"}], [{"kind": "packing"}]])
def test_in_a_game(precision: Any, others: list[dict[str, Any]]) -> None:
    network = {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "none"}}
    told = recipe("pictures", ADA | {"start": 0.5}, *others, network=network)
    run = Session(told, source("pictures"), precision=precision).play(3)
    assert all(torch.isfinite(t).all() for t in run.saved().values())


def test_ds_network_is_given_what_the_trick_makes() -> None:
    run = session("pictures", ADA | {"start": 0.7, "speed": 0.0}).play(2)
    view = run.game.tricks["adaptive_augment"]
    assert isinstance(view, AdaptiveAugment)
    shown = []
    for told in run.moves:
        if told.context.side is Side.D:
            shown.append(view.transform_input(told.move.samples("real").detach(), "real", told.context))
        shown.append(view.transform_input(told.fake, "fake", told.context))
    assert torch.equal(torch.cat(run.seen), torch.cat(shown))
    assert len(shown) == 6


# ---------------------------------------------------------------- p


def after(ada: AdaptiveAugment, scores: Tensor, side: Side = Side.D, batch: int = 8) -> MoveData:
    """A step's only move, whose reals had these scores; p's last change was as many steps ago as there were moves."""
    game = game_of()
    at = context(side=side)
    at = type(at)(int(ada.moves), at.steps, batch, at.streams, side)
    move = MoveData(at, torch.zeros(1), torch.zeros(1), torch.zeros(1))
    move.outputs = {"real": DiscriminatorOutput(scores), "fake": DiscriminatorOutput(-scores)}
    ada.after_update(game.players[side], move)
    return move


UP, DOWN = torch.ones(8), -torch.ones(8)


@pytest.mark.parametrize(("batch", "every", "speed"), [(8, 4, 1000.0), (64, 1, 500_000.0), (16, 3, 320.0)])
def test_p_goes_up_and_down_by_batch_times_every_over_speed(batch: int, every: int, speed: float) -> None:
    ada, step = trick(every=every, speed=speed, start=0.5), batch * every / speed
    expected = 0.5
    for round_, scores in enumerate((UP, UP, DOWN, UP, DOWN, DOWN, DOWN)):
        for k in range(every):
            before = float(ada.p)
            move = after(ada, scores, batch=batch)
            assert float(move.logged["ada_p"]) == before
            assert float(move.logged["r_t"]) == float(scores[0])
            if k < every - 1:
                assert float(ada.p) == before, (round_, k)
        expected = min(1.0, max(0.0, expected + float(scores[0]) * step))
        assert float(ada.p) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert float(ada.signs) == float(ada.moves) == 0


def test_p_stays_between_0_and_1() -> None:
    for scores, start, end in ((UP, 0.9, 1.0), (DOWN, 0.1, 0.0)):
        ada = trick(every=1, speed=50.0, start=start)
        for _ in range(3):
            after(ada, scores)
            assert 0 <= float(ada.p) <= 1
        assert float(ada.p) == end


@pytest.mark.parametrize(
    ("right", "target", "way"), [(7, 0.6, 1), (6, 0.6, -1), (6, 0.4, 1), (6, 0.5, 0), (2, -0.6, 1)]
)
def test_the_target_is_what_r_t_is_held_against(right: int, target: float, way: int) -> None:
    """`right` of 8 reals on the right side: r_t = (2 right - 8) / 8."""
    ada = trick(every=1, speed=80.0, start=0.5, target=target)
    scores = torch.cat((torch.full((right,), 3.0), torch.full((8 - right,), -0.01)))
    move = after(ada, scores)
    assert float(move.logged["r_t"]) == pytest.approx((2 * right - 8) / 8)
    assert float(ada.p) == pytest.approx(0.5 + way * 0.1)


def test_r_t_is_the_mean_over_the_last_moves_not_the_last_one() -> None:
    ada = trick(every=4, speed=320.0, start=0.5, target=0.4)
    for scores in (UP, UP, UP, DOWN):  # 0.5 on the whole
        after(ada, scores)
    assert float(ada.p) == pytest.approx(0.6)
    for scores in (UP, DOWN, DOWN, UP):  # 0
        after(ada, scores)
    assert float(ada.p) == pytest.approx(0.5)


def test_p_is_as_fast_whatever_the_number_of_ds_moves_in_a_step() -> None:
    told = ADA | {"every": 2, "speed": 400.0, "target": -1.0, "start": 0.0}
    one, five = (session("pictures", told, tempo={"kind": "ratio", "d": d}).play(8) for d in (1, 5))
    assert float(one.game.tricks["adaptive_augment"].p) == pytest.approx(4 * 8 * 2 / 400)
    assert float(five.game.tricks["adaptive_augment"].p) == float(one.game.tricks["adaptive_augment"].p)


def test_which_side_is_the_objectives_own() -> None:
    run = session("pictures", ADA, objective={"kind": "least_squares"})
    assert run.game.tricks["adaptive_augment"].decision_threshold == 0.5
    other = session("pictures", ADA, objective={"kind": "least_squares", "a": -1.0, "b": 1.0})
    assert other.game.tricks["adaptive_augment"].decision_threshold == 0.0
    ada = trick(0.5, every=1, speed=80.0, start=0.5)
    move = after(ada, torch.tensor([0.1, 0.4, 0.49, 0.6]))
    assert float(move.logged["r_t"]) == -0.5
    assert float(ada.p) == pytest.approx(0.4)


def test_gs_moves_and_a_p_that_stands_still_are_not_counted() -> None:
    ada = trick(every=1, speed=80.0, start=0.5)
    assert after(ada, UP, Side.G).logged == {}
    assert float(ada.p) == 0.5
    still = trick(every=1, speed=0.0, start=0.5)
    assert after(still, UP).logged == {}
    assert float(still.p) == 0.5


def test_in_a_run_p_follows_the_scores_of_the_reals() -> None:
    run = session("pictures", ADA | {"every": 2, "speed": 200.0, "target": 0.0, "start": 0.4}).play(8)
    p, step = 0.4, 8 * 2 / 200
    signs = []
    for told in run.of(Side.D):
        assert float(told.move.logged["adaptive_augment_p"]) == pytest.approx(p, abs=1e-6)
        signs.append(float(told.move.score("real").detach().sign().mean()))
        if len(signs) % 2 == 0:
            p = min(1.0, max(0.0, p + step * float(np.sign(sum(signs[-2:])))))
    assert float(run.game.tricks["adaptive_augment"].p) == pytest.approx(p, abs=1e-6)
    rows = run.metrics.reduce()
    assert rows["d/r_t"].mean == pytest.approx(np.mean(signs), abs=1e-6)
    assert not any(name.startswith("g/") and ("r_t" in name or "_p" in name) for name in rows)


def test_is_resumed() -> None:
    told = ADA | {"every": 3, "speed": 100.0, "start": 0.3}
    whole, half = session("pictures", told).play(5), session("pictures", told).play(2)
    assert set(half.game.tricks["adaptive_augment"].state_dict()) == {"p", "signs", "moves"}
    assert unequal(whole.saved(), half.resumed().play(3).saved()) == []


# ---------------------------------------------------------------- what fits


@pytest.mark.parametrize("objective", ["wasserstein", "relativistic", "relativistic_average"])
def test_an_objective_without_a_fence_is_refused_with_a_cure(objective: str) -> None:
    def found(**told: Any) -> list[Any]:
        bound = {"kind": "wgan_gp"}
        told_all = recipe("pictures", bound, ADA | told, objective={"kind": objective})
        return misfits(told_all, "pictures").refusals

    (one,) = found()
    assert one.field == "tricks.1"
    assert objective in one.message
    assert "adaptive_augment" in one.message
    assert "diff_augment" in one.cure
    assert "non_saturating" in one.cure
    assert found(speed=0.0, start=0.5) == []  # a p that stands still reads no sign


@pytest.mark.parametrize("objective", ["non_saturating", "minimax", "hinge", "least_squares"])
def test_one_with_a_fence_is_taken(objective: str) -> None:
    assert misfits(recipe("pictures", ADA, objective={"kind": objective}), "pictures").refusals == []


def test_only_square_pictures() -> None:
    assert AdaptiveAugmentConfig().incompatibility((3, 8, 8)) is None
    assert AdaptiveAugmentConfig().incompatibility((2,)) is not None


def test_pictures_that_are_not_square_are_refused() -> None:
    """It says of itself that it takes square pictures; no data here has others."""
    misfit = AdaptiveAugmentConfig().incompatibility((3, 8, 16))
    assert misfit is not None
    assert "square" in misfit[0]


def test_the_settings_are_the_papers() -> None:
    entry = AdaptiveAugmentConfig()
    assert (entry.policy, entry.target, entry.speed, entry.every, entry.start) == (EVERYTHING, 0.6, 500_000.0, 4, 0.0)


def test_p_may_be_a_dial_where_it_does_not_follow_d() -> None:
    """p is what the dial stands at, a save knows it, and beside a speed a dial is refused."""
    dial = {"kind": "steps", "values": [0.0, 0.5], "at": [2], "over": "steps"}
    trick = {"kind": "adaptive_augment", "speed": 0.0, "start": dial}
    run, without = session("pictures", trick).play(2), session("pictures").play(2)
    own = "game/tricks.adaptive_augment."
    assert unequal({n: t for n, t in run.saved().items() if not n.startswith(own)}, without.saved()) == []
    run.play(2)
    assert float(run.saved()[f"{own}p"]) == 0.5
    assert unequal(run.saved(), session("pictures", trick).play(2).resumed().play(2).saved()) == []
    with pytest.raises(RecipeError, match="not by both"):
        session("pictures", trick | {"speed": 1000.0})
