"""Rows of the tricks that charge a player for something beside its score: slopes, unevenness, sameness, distance."""

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


def lengths(run: Session, images: Tensor, labels: Tensor | None) -> Tensor:
    """How steep D is at each of some samples, B."""
    images = images.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(call_network(run.game.d.net, images, labels).score.sum(), images)
    return grad.flatten(1).norm(dim=1)


def charges_for_slope(kind: str, origin: Literal["real", "fake"], play: Play) -> None:
    """The first row shows half the squared slope at that pile; after some steps D is flatter there than without."""

    def slope(run: Session, played_move: Played) -> float:
        images = getattr(played_move, origin)
        return float(lengths(run, images, played_move.move.labels).square().mean()) / 2

    first = play(True, 1)
    told, other = (first.metrics.reduce(), play(False, 1).metrics.reduce())
    assert told[f"d/{kind}"].mean == pytest.approx(slope(play(True, 0), first.of(Side.D)[0]), rel=1e-5)
    assert f"g/{kind}" not in told
    assert f"d/{kind}" not in other
    held, free = play(True, 25), play(False, 25)
    assert slope(held, held.of(Side.D)[-1]) < 0.5 * slope(free, free.of(Side.D)[-1])


def on_the_lines(played_move: Played) -> Tensor:
    """u x + (1 - u) G(z), with u from the trick's own stream."""
    assert played_move.real is not None
    u = torch.rand(BATCH, generator=played_move.context.generator("wgan_gp")).view(
        -1, *(1 for _ in played_move.fake.shape[1:])
    )
    return u * played_move.real + (1 - u) * played_move.fake


def around_the_reals(played_move: Played) -> Tensor:
    """x + std(x) / 2 eps, with eps from the trick's own stream."""
    assert played_move.real is not None
    eps = torch.empty_like(played_move.real).normal_(generator=played_move.context.generator("dragan"))
    return played_move.real + 0.5 * played_move.real.std() * eps


def wants_unit_slope(kind: str, where: Callable[[Played], Tensor], play: Play) -> None:
    """The first row shows how far from one D's slope is at those points; a D without norms comes nearer than alone."""

    def off(run: Session, played_move: Played) -> float:
        return float((lengths(run, where(played_move), played_move.move.labels) - 1).square().mean())

    first = play(True, 1)
    told, other = (first.metrics.reduce(), play(False, 1).metrics.reduce())
    assert told[f"d/{kind}"].mean == pytest.approx(off(play(True, 0), first.of(Side.D)[0]), rel=1e-4)
    assert f"g/{kind}" not in told
    assert f"d/{kind}" not in other
    network = without_norms(first)
    held, free = (play(on, 25, network=network) for on in (True, False))
    late, alone = (sum(off(run, played_move) for played_move in run.of(Side.D)[-10:]) for run in (held, free))
    assert late < alone


def holds_scores_together(play: Play) -> None:
    """Each row is worked out anew from running means that start at nothing; after some steps the piles lie nearer."""
    run = play(True, 4)
    rows, decay = run.metrics.state_dict()["d/lecam"], 0.5
    means, weight = torch.zeros(2, dtype=torch.float64), 0.0
    for told, played_move in zip(rows, run.of(Side.D), strict=True):
        real, fake = (played_move.move.score(origin).detach().double() for origin in ("real", "fake"))
        wanted = 0.0
        if weight:
            of_real, of_fake = means / weight
            wanted = float(
                (real - of_fake).clamp_min(0).square().mean() + (of_real - fake).clamp_min(0).square().mean()
            )
        assert float(told) == pytest.approx(wanted, rel=1e-4, abs=1e-12)
        means = decay * means + (1 - decay) * torch.stack((real.mean(), fake.mean()))
        weight = decay * weight + 1 - decay
    assert float(rows[0]) == 0
    assert (rows[1:] > 0).all()

    def apart(run: Session) -> float:
        last = [played_move.move for played_move in run.of(Side.D)[-5:]]
        return sum(float((e.score("real").mean() - e.score("fake").mean()).abs().detach()) for e in last)

    assert apart(play(True, 40)) < 0.5 * apart(play(False, 40))


def pulls_codes_apart(play: Play) -> None:
    """G's first row is the mean squared cosine of all pairs of codes, pair by pair; D moves as it would, once."""
    run, without = play(True, 1), play(False, 1)
    codes = run.of(Side.G)[0].move.extra_output("fake", "features").detach().double()
    cosines = [
        float(codes[i] @ codes[j] / (codes[i].norm() * codes[j].norm())) ** 2
        for i in range(BATCH)
        for j in range(BATCH)
        if i != j
    ]
    told = run.metrics.reduce()
    assert told["g/pulling_away"].mean == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)
    assert "d/pulling_away" not in told
    assert "g/pulling_away" not in without.metrics.reduce()
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))


def varied(images: Tensor, down: list[int], right: list[int], mirror: list[bool]) -> Tensor:
    """Each picture moved by so many pixels, its reflection coming in, then mirrored where it says so, one by one."""
    out, size = torch.zeros_like(images), images.shape[2]
    for k in range(len(images)):
        for y in range(size):
            for x in range(size):
                row, column = (min(abs(at), 2 * (size - 1) - at) for at in (y - down[k], x - right[k]))
                out[k, :, y, size - 1 - x if mirror[k] else x] = images[k, :, row, column]
    return out


def evens_out(play: Play) -> None:
    """The first row is E (D(x) - D(T(x)))^2 of the reals and half of the fakes'; after some steps D is more even."""
    first = play(True, 1)
    played_move, wanted = first.of(Side.D)[0], 0.0
    labels, d = played_move.move.labels, play(True, 0).game.d.net
    for origin, images, share in (("real", played_move.real, 1.0), ("fake", played_move.fake, 0.5)):
        assert images is not None
        generator = played_move.context.generator(f"consistency/{origin}")
        down, right = (torch.randint(-1, 2, (BATCH,), generator=generator).tolist() for _ in range(2))
        mirror = (torch.rand(BATCH, generator=generator) < 0.5).tolist()
        scores, others = (
            call_network(d, pictures, labels).score.detach().double()
            for pictures in (images, varied(images, down, right, mirror))
        )
        wanted += share * float((scores - others).square().mean())
    told = first.metrics.reduce()
    assert told["d/consistency"].mean == pytest.approx(wanted, rel=1e-4)
    assert "g/consistency" not in told
    assert "d/consistency" not in play(False, 1).metrics.reduce()

    @torch.no_grad()
    def uneven(run: Session) -> float:
        """Over all moves by a pixel, mirrored and not."""
        total, d = 0.0, run.game.d.net.eval()
        for played_move in run.of(Side.D)[-5:]:
            assert played_move.real is not None
            base = call_network(d, played_move.real, played_move.move.labels).score
            for down, right, mirror in product((-1, 0, 1), (-1, 0, 1), (False, True)):
                other = varied(played_move.real, [down] * BATCH, [right] * BATCH, [mirror] * BATCH)
                total += float((call_network(d, other, played_move.move.labels).score - base).square().mean())
        return total

    network = without_norms(first)
    assert uneven(play(True, 25, network=network)) < 0.5 * uneven(play(False, 25, network=network))


def matches_features(play: Play) -> None:
    """G's first row is the squared distance of the mean features, number by number; later it is less than without.

    D's first move is as it would be.
    """
    run, without = play(True, 1), play(False, 1)
    played_move, d = run.of(Side.G)[0], run.game.d.net
    assert played_move.real is not None
    real, fake = (
        call_network(d, origin, played_move.move.labels).features.detach().double()
        for origin in (played_move.real, played_move.fake)
    )
    wanted = sum((float(real[:, k].sum()) - float(fake[:, k].sum())) ** 2 for k in range(real.shape[1])) / BATCH**2
    told = run.metrics.reduce()
    assert told["g/feature_matching"].mean == pytest.approx(wanted, rel=1e-4)
    assert "d/feature_matching" not in told
    assert "g/feature_matching" not in without.metrics.reduce()
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))

    still = {**run.recipe.canonical()["optimizer"], "d": {"kind": "adam", "lr": 1e-9}}

    def gap(on: bool) -> float:
        """Under a D that hardly learns, so that with and without are seen by the same eyes."""
        total, played = 0.0, play(on, 40, optimizer=still)
        for played_move in played.of(Side.D)[-10:]:
            real, fake = (
                played_move.move.extra_output(origin, "features").detach().mean(0) for origin in ("real", "fake")
            )
            total += float((real - fake).square().sum())
        return total

    assert gap(True) < 0.7 * gap(False)


ROWS = {
    "consistency": Row(strong={"weight": 10.0, "fakes": 0.5}, zero={"weight": 0.0}, acts=evens_out),
    "dragan": Row(
        strong={"weight": 10.0, "spread": 0.5},
        zero={"weight": 0.0},
        acts=partial(wants_unit_slope, "dragan", around_the_reals),
    ),
    "feature_matching": Row(strong={"weight": 10.0}, zero={"weight": 0.0}, acts=matches_features),
    "lecam": Row(strong={"weight": 10.0, "decay": 0.5}, zero={"weight": 0.0}, acts=holds_scores_together),
    "pulling_away": Row(strong={"weight": 1.0}, zero={"weight": 0.0}, acts=pulls_codes_apart),
    "r1": Row(strong={"gamma": 10.0}, zero={"gamma": 0.0}, acts=partial(charges_for_slope, "r1", "real")),
    "r2": Row(strong={"gamma": 10.0}, zero={"gamma": 0.0}, acts=partial(charges_for_slope, "r2", "fake")),
    "wgan_gp": Row(
        strong={"weight": 10.0},
        zero={"weight": 0.0},
        acts=partial(wants_unit_slope, "wgan_gp", on_the_lines),
    ),
}
