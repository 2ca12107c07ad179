"""Rows of the loss terms: gradient penalties, LeCam, pulling-away, consistency, feature matching, path length."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Literal

import pytest
import torch
from torch import Tensor

from contracts.rows.base import Play, Row, weights, without_norms
from contracts.tiny import BATCH, Played, Session, unequal
from poise.core.types import Side
from poise.networks.base import call_network


def gradient_norms(run: Session, images: Tensor, labels: Tensor | None) -> Tensor:
    """The norm of D's input gradient at each sample, B."""
    images = images.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(call_network(run.game.d.net, images, labels).score.sum(), images)
    return grad.flatten(1).norm(dim=1)


def check_zero_centred(kind: str, origin: Literal["real", "fake"], play: Play) -> None:
    """Half the squared gradient norm is logged; after some steps it is smaller than without the trick."""

    def penalty(run: Session, played_move: Played) -> float:
        images = getattr(played_move, origin)
        return float(gradient_norms(run, images, played_move.move.labels).square().mean()) / 2

    first = play(True, 1)
    logged, other = (first.metrics.reduce(), play(False, 1).metrics.reduce())
    assert logged[f"d/{kind}"].mean == pytest.approx(penalty(play(True, 0), first.of(Side.D)[0]), rel=1e-5)
    assert f"g/{kind}" not in logged
    assert f"d/{kind}" not in other
    penalised, plain = play(True, 25), play(False, 25)
    assert penalty(penalised, penalised.of(Side.D)[-1]) < 0.5 * penalty(plain, plain.of(Side.D)[-1])


def interpolated(played_move: Played) -> Tensor:
    """u x + (1 - u) G(z), with u from the trick's stream."""
    assert played_move.real is not None
    u = torch.rand(BATCH, generator=played_move.context.generator("wgan_gp")).view(
        -1, *(1 for _ in played_move.fake.shape[1:])
    )
    return u * played_move.real + (1 - u) * played_move.fake


def perturbed(played_move: Played) -> Tensor:
    """x + std(x) / 2 eps, with eps from the trick's stream."""
    assert played_move.real is not None
    eps = torch.empty_like(played_move.real).normal_(generator=played_move.context.generator("dragan"))
    return played_move.real + 0.5 * played_move.real.std() * eps


def check_unit_gradient(kind: str, points: Callable[[Played], Tensor], play: Play) -> None:
    """The penalty at the given points is logged; D's gradient norms come closer to 1 than without the trick."""

    def penalty(run: Session, played_move: Played) -> float:
        return float((gradient_norms(run, points(played_move), played_move.move.labels) - 1).square().mean())

    first = play(True, 1)
    logged, other = (first.metrics.reduce(), play(False, 1).metrics.reduce())
    assert logged[f"d/{kind}"].mean == pytest.approx(penalty(play(True, 0), first.of(Side.D)[0]), rel=1e-4)
    assert f"g/{kind}" not in logged
    assert f"d/{kind}" not in other
    network = without_norms(first)
    penalised, plain = (play(on, 25, network=network) for on in (True, False))
    late, alone = (sum(penalty(run, played_move) for played_move in run.of(Side.D)[-10:]) for run in (penalised, plain))
    assert late < alone


def check_lecam(play: Play) -> None:
    """Each logged value is recomputed from running means; after some steps the scores are closer than without."""
    run = play(True, 4)
    history, decay = run.metrics.state_dict()["d/lecam"], 0.5
    means, weight = torch.zeros(2, dtype=torch.float64), 0.0
    for logged, played_move in zip(history, run.of(Side.D), strict=True):
        real, fake = (played_move.move.score(origin).detach().double() for origin in ("real", "fake"))
        expected = 0.0
        if weight:
            mean_real, mean_fake = means / weight
            expected = float(
                (real - mean_fake).clamp_min(0).square().mean() + (mean_real - fake).clamp_min(0).square().mean()
            )
        assert float(logged) == pytest.approx(expected, rel=1e-4, abs=1e-12)
        means = decay * means + (1 - decay) * torch.stack((real.mean(), fake.mean()))
        weight = decay * weight + 1 - decay
    assert float(history[0]) == 0
    assert (history[1:] > 0).all()

    def distance(run: Session) -> float:
        last = [played_move.move for played_move in run.of(Side.D)[-5:]]
        return sum(float((move.score("real").mean() - move.score("fake").mean()).abs().detach()) for move in last)

    assert distance(play(True, 40)) < 0.5 * distance(play(False, 40))


def check_pulling_away(play: Play) -> None:
    """G's logged value is the mean squared cosine of all pairs of codes; D's first move is unchanged."""
    run, without = play(True, 1), play(False, 1)
    codes = run.of(Side.G)[0].move.extra_output("fake", "features").detach().double()
    cosines = [
        float(codes[i] @ codes[j] / (codes[i].norm() * codes[j].norm())) ** 2
        for i in range(BATCH)
        for j in range(BATCH)
        if i != j
    ]
    logged = run.metrics.reduce()
    assert logged["g/pulling_away"].mean == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)
    assert "d/pulling_away" not in logged
    assert "g/pulling_away" not in without.metrics.reduce()
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))


def shift_and_flip(images: Tensor, down: list[int], right: list[int], mirror: list[bool]) -> Tensor:
    """Each image shifted and padded by reflection, then flipped if `mirror` is true, by the index of each pixel."""
    out, size = torch.zeros_like(images), images.shape[2]
    at = torch.arange(size)

    def reflected(index: Tensor) -> Tensor:
        return torch.minimum(index.abs(), 2 * (size - 1) - index)

    for k in range(len(images)):
        rows, columns = reflected(at - down[k]), reflected((at.flip(0) if mirror[k] else at) - right[k])
        out[k] = images[k][:, rows][:, :, columns]
    return out


def check_consistency(play: Play) -> None:
    """The logged value is E (D(x) - D(T(x)))^2, plus half of that of fakes; after some steps D is more consistent."""
    first = play(True, 1)
    played_move, expected = first.of(Side.D)[0], 0.0
    labels, d = played_move.move.labels, play(True, 0).game.d.net
    for origin, images, weight in (("real", played_move.real, 1.0), ("fake", played_move.fake, 0.5)):
        assert images is not None
        generator = played_move.context.generator(f"consistency/{origin}")
        down, right = (torch.randint(-1, 2, (BATCH,), generator=generator).tolist() for _ in range(2))
        mirror = (torch.rand(BATCH, generator=generator) < 0.5).tolist()
        scores, others = (
            call_network(d, batch, labels).score.detach().double()
            for batch in (images, shift_and_flip(images, down, right, mirror))
        )
        expected += weight * float((scores - others).square().mean())
    logged = first.metrics.reduce()
    assert logged["d/consistency"].mean == pytest.approx(expected, rel=1e-4)
    assert "g/consistency" not in logged
    assert "d/consistency" not in play(False, 1).metrics.reduce()

    @torch.no_grad()
    def inconsistency(run: Session) -> float:
        """The loss over all shifts by one pixel, flipped and not."""
        total, d = 0.0, run.game.d.net.eval()
        for played_move in run.of(Side.D)[-5:]:
            assert played_move.real is not None
            base = call_network(d, played_move.real, played_move.move.labels).score
            for down, right, mirror in product((-1, 0, 1), (-1, 0, 1), (False, True)):
                other = shift_and_flip(played_move.real, [down] * BATCH, [right] * BATCH, [mirror] * BATCH)
                total += float((call_network(d, other, played_move.move.labels).score - base).square().mean())
        return total

    network = without_norms(first)
    assert inconsistency(play(True, 25, network=network)) < 0.5 * inconsistency(play(False, 25, network=network))


def check_feature_matching(play: Play) -> None:
    """G's logged value is the squared distance of the mean features; later it is smaller than without the trick.

    D's first move is unchanged.
    """
    run, without = play(True, 1), play(False, 1)
    played_move, d = run.of(Side.G)[0], run.game.d.net
    assert played_move.real is not None
    real, fake = (
        call_network(d, origin, played_move.move.labels).features.detach().double()
        for origin in (played_move.real, played_move.fake)
    )
    expected = sum((float(real[:, k].sum()) - float(fake[:, k].sum())) ** 2 for k in range(real.shape[1])) / BATCH**2
    logged = run.metrics.reduce()
    assert logged["g/feature_matching"].mean == pytest.approx(expected, rel=1e-4)
    assert "d/feature_matching" not in logged
    assert "g/feature_matching" not in without.metrics.reduce()
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))

    optimizer = {**run.recipe.canonical()["optimizer"], "d": {"kind": "adam", "lr": 1e-9}}

    def distance(on: bool) -> float:
        """The distance under a D that hardly learns, so that both runs are compared by the same features."""
        total, played = 0.0, play(on, 40, optimizer=optimizer)
        for played_move in played.of(Side.D)[-10:]:
            real, fake = (
                played_move.move.extra_output(origin, "features").detach().mean(0) for origin in ("real", "fake")
            )
            total += float((real - fake).square().sum())
        return total

    assert distance(True) < 0.7 * distance(False)


def check_path_length(play: Play) -> None:
    """The term of the first step is recomputed from z, y and the empty running mean; the mean follows in each step.

    That mean is still near 0 after some steps, so the lengths are much smaller than without the trick.
    """

    def lengths(run: Session, played_move: Played, noise: Tensor) -> Tensor:
        z = played_move.move.latents[: len(noise)].detach().clone().requires_grad_()
        labels = None if played_move.move.labels is None else played_move.move.labels[: len(noise)]
        weighted = call_network(run.game.g.net, z, labels) * noise / noise[0, :1].numel() ** 0.5
        (gradient,) = torch.autograd.grad(weighted.sum(), z)
        return gradient.norm(dim=1)

    first, without = play(True, 1), play(False, 1)
    played_move = first.of(Side.G)[0]
    noise = torch.empty_like(played_move.fake[: BATCH // 2]).normal_(
        generator=played_move.context.generator("path_length")
    )
    expected = lengths(play(True, 0), played_move, noise)
    logged = first.metrics.reduce()
    assert logged["g/path_length"].mean == pytest.approx(
        float((expected - expected.mean() / 100).square().mean()), rel=0.05
    )
    assert "d/path_length" not in logged
    assert "g/path_length" not in without.metrics.reduce()
    assert unequal(weights(first, Side.D), weights(without, Side.D)) == []
    mean = first.game.tricks["path_length"].mean_length
    assert float(mean) == pytest.approx(float(expected.mean()) / 100, rel=0.05)

    def late(on: bool) -> float:
        run = play(on, 40)
        return float(lengths(run, run.of(Side.G)[-1], noise).detach().mean())

    assert late(True) < 0.7 * late(False)


ROWS = {
    "consistency": Row(strong={"weight": 10.0, "fakes": 0.5}, zero={"weight": 0.0}, check=check_consistency),
    "dragan": Row(
        strong={"weight": 10.0, "spread": 0.5},
        zero={"weight": 0.0},
        check=partial(check_unit_gradient, "dragan", perturbed),
    ),
    "feature_matching": Row(strong={"weight": 10.0}, zero={"weight": 0.0}, check=check_feature_matching),
    "lecam": Row(strong={"weight": 10.0, "decay": 0.5}, zero={"weight": 0.0}, check=check_lecam),
    "path_length": Row(strong={"weight": 10.0, "every": 1}, zero={"weight": 0.0}, check=check_path_length),
    "pulling_away": Row(strong={"weight": 1.0}, zero={"weight": 0.0}, check=check_pulling_away),
    "r1": Row(strong={"gamma": 10.0}, zero={"gamma": 0.0}, check=partial(check_zero_centred, "r1", "real")),
    "r2": Row(strong={"gamma": 10.0}, zero={"gamma": 0.0}, check=partial(check_zero_centred, "r2", "fake")),
    "wgan_gp": Row(
        strong={"weight": 10.0},
        zero={"weight": 0.0},
        check=partial(check_unit_gradient, "wgan_gp", interpolated),
    ),
}
