"""Rows of the tricks that transform D's input, for real and generated samples alike."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from contracts.rows.base import Play, Row
from contracts.tiny import BATCH, Session
from poise.core.types import Origin, Side


class ViewedBatch(NamedTuple):
    """One batch of one move: before input transforms, and as D's network got it."""

    side: Side
    origin: Origin
    raw: Tensor
    seen: Tensor


def viewed_batches(run: Session) -> list[ViewedBatch]:
    """All batches that D got, in a game whose loss terms do not run D again."""
    seen, start = torch.cat(run.seen), 0
    batches: list[ViewedBatch] = []
    origins: tuple[Origin, Origin] = ("real", "fake")
    for played_move in run.moves:
        for origin, raw in zip(origins, (played_move.real, played_move.fake), strict=True):
            if raw is not None:
                batches.append(ViewedBatch(played_move.context.side, origin, raw, seen[start : start + len(raw)]))
                start += len(raw)
    assert start == len(seen)
    assert {(batch.side, batch.origin) for batch in batches} == {(Side.D, "real"), (Side.D, "fake"), (Side.G, "fake")}
    return batches


def check_instance_noise(play: Play) -> None:
    """D's network gets samples plus noise of the right size in both players' moves, and plain samples without."""
    for batch in viewed_batches(play(True, 3)):
        # chi-square: five standard errors of a standard deviation
        noise = batch.seen - batch.raw
        assert abs(float(noise.std()) - 0.5) < 5 * 0.5 / math.sqrt(2 * noise.numel())
    assert all(torch.equal(batch.seen, batch.raw) for batch in viewed_batches(play(False, 3)))


def is_changed(batch: ViewedBatch) -> list[bool]:
    """For each image, whether D got a different one."""
    return (batch.seen != batch.raw).flatten(1).any(1).tolist()


def check_diff_augment(play: Play) -> None:
    """Every batch of both players' moves is augmented; each transformation alone is that of the paper's code."""
    batches = viewed_batches(play(True, 3))
    assert all(all(is_changed(batch)) for batch in batches)
    assert not any(any(is_changed(batch)) for batch in viewed_batches(play(False, 3)))

    def alone(change: str, steps: int = 10) -> list[tuple[Tensor, Tensor]]:
        run = play(True, steps, tricks=[{"kind": "diff_augment", "policy": [change]}])
        return [
            pair for batch in viewed_batches(run) for pair in zip(batch.raw.double(), batch.seen.double(), strict=True)
        ]

    shifts, stretches = [], []
    for raw, seen in alone("colour"):  # of one channel, which has no saturation
        shifts.append(float(seen.mean() - raw.mean()))
        off, was = seen - seen.mean(), raw - raw.mean()
        stretches.append(float((off * was).sum() / was.square().sum()))
        assert torch.allclose(off, stretches[-1] * was, atol=1e-5)
    for draws, low, high in ((shifts, -0.5, 0.5), (stretches, 0.5, 1.5)):
        assert low - 1e-3 < min(draws) < low + 0.1
        assert high - 0.1 < max(draws) < high + 1e-3
        assert abs(sum(draws) / len(draws) - (low + high) / 2) < 5 * math.sqrt(1 / 12 / len(draws))
        assert len({round(draw, 6) for draw in draws}) > 0.9 * len(draws), "each image has its own"

    moves = []
    for raw, seen in alone("translation"):
        fits = []
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                moved = torch.zeros(1, 10, 10, dtype=torch.float64)
                moved[:, 1 + down : 9 + down, 1 + right : 9 + right] = raw
                if torch.equal(moved[:, 1:9, 1:9], seen):
                    fits.append((down, right))
        assert len(fits) == 1, "shifted by at most an eighth of the side, padded with grey"
        moves += fits
    count = len(moves)
    assert all(abs(moves.count(played_move) - count / 9) < 5 * math.sqrt(count * 8 / 81) for played_move in set(moves))
    assert len(set(moves)) == 9

    corners = set()
    for raw, seen in alone("cutout"):
        erased = (seen == 0).all(0)
        rows, columns = (torch.nonzero(erased.any(axis)).flatten().tolist() for axis in (1, 0))
        assert torch.equal(seen, raw * ~erased)
        assert erased.sum() == len(rows) * len(columns), "a rectangle"
        for lines in (rows, columns):
            assert lines == list(range(lines[0], lines[-1] + 1))
            assert len(lines) == 4 or (len(lines) in (2, 3) and {0, 7} & {*lines}), (
                "half the side, or the part inside the image"
            )
        corners.add((rows[0], columns[0], len(rows), len(columns)))
    assert len(corners) > 40, "random positions"


def check_adaptive_augment(play: Play) -> None:
    """Each transformation has probability p in [0, 1], which rises while r_t is above the target and falls below it.

    r_t is the mean sign of the scores of real samples over `every` moves of D; p changes by batch x every / speed.
    """

    def set_to(**settings: object) -> list[dict[str, object]]:
        return [{"kind": "adaptive_augment", **settings}]

    always = viewed_batches(play(True, 3, tricks=set_to(start=1.0, speed=0.0)))
    assert all(all(is_changed(batch)) for batch in always)
    run = play(True, 24, tricks=set_to(start=0.3, speed=0.0, policy=["colour"]))
    assert float(run.game.tricks["adaptive_augment"].p) == pytest.approx(0.3), "without a speed it is constant"
    same = [not other for batch in viewed_batches(run) for other in is_changed(batch)]
    p = 0.7 * 0.7 * 0.85  # brightness, contrast, and a negative half of the time; one channel has no hue
    assert abs(sum(same) / len(same) - p) < 5 * math.sqrt(p * (1 - p) / len(same))

    steps, every, step = 16, 2, BATCH * 2 / 128.0
    paths = {}
    for start, target in ((0.5, 0.0), (0.25, -1.0), (0.5, 1.0), (0.5, 0.4)):
        run = play(True, steps, tricks=set_to(start=start, target=target, speed=128.0, every=every))
        rows, path, p, signs = run.metrics.state_dict(), [], start, list[float]()
        for played_move in run.of(Side.D):
            path.append(p)
            signs.append(float(played_move.move.score("real").detach().sign().mean()))
            if len(signs) % every == 0:
                r_t = sum(signs[-every:]) / every
                p = min(1.0, max(0.0, p + step * ((r_t > target) - (r_t < target))))
        assert rows["d/r_t"].tolist() == pytest.approx(signs)
        assert rows["d/adaptive_augment_p"].tolist() == pytest.approx(path)
        assert float(run.game.tricks["adaptive_augment"].p) == pytest.approx(p)
        assert not any("adaptive_augment" in name or "r_t" in name for name in rows if name.startswith("g/"))
        paths[start, target] = [*path, p]
    rising, falling = paths[0.25, -1.0], paths[0.5, 1.0]
    assert max(rising) > 0.25
    assert min(rising) == 0.25
    assert min(falling) < 0.5
    assert max(falling) == 0.5
    for path in paths.values():
        moved = {round(abs(after - before), 9) for before, after in pairwise(path)}
        assert moved <= {0.0, 0.125}
    fallen = play(True, 12, tricks=set_to(start=0.2, target=1.0, speed=64.0, every=1))
    assert min(fallen.metrics.state_dict()["d/adaptive_augment_p"].tolist()) >= 0


def check_input_dropout(play: Play) -> None:
    """In D's moves a quarter of the entries is 0 and the others are 4/3 as large; in G's moves all are unchanged."""
    dropped: list[Tensor] = []
    for batch in viewed_batches(play(True, 5)):
        if batch.side is Side.G:
            assert torch.equal(batch.seen, batch.raw)
            continue
        kept = batch.seen != 0
        assert torch.allclose(batch.seen[kept], batch.raw[kept] / 0.75)
        dropped.append(~kept & (batch.raw != 0))
    share, n = float(torch.cat(dropped).double().mean()), torch.cat(dropped).numel()
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / n)
    assert not torch.equal(dropped[0], dropped[1]), "real and fake samples lose other entries"


ROWS = {
    "adaptive_augment": Row(
        strong={"start": 0.5, "target": 0.0, "speed": 128.0, "every": 2},
        zero={"start": 0.0, "speed": 0.0},
        check=check_adaptive_augment,
    ),
    "diff_augment": Row(
        strong={"policy": ["colour", "translation", "cutout"]},
        zero={"policy": []},
        check=check_diff_augment,
    ),
    "input_dropout": Row(strong={"p": 0.25}, zero={"p": 0.0}, check=check_input_dropout),
    "instance_noise": Row(strong={"sigma": 0.5}, zero={"sigma": 0.0}, check=check_instance_noise),
}
