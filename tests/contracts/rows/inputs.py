"""Rows of the tricks that change what D sees, on real and fake alike."""

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


class Sight(NamedTuple):
    """One pile of one move: as it was drawn, and as D's network was given it."""

    side: Side
    origin: Origin
    raw: Tensor
    seen: Tensor


def sights(run: Session) -> list[Sight]:
    """All that D saw; a game whose terms ask D nothing more."""
    shown, at = torch.cat(run.seen), 0
    found: list[Sight] = []
    origins: tuple[Origin, Origin] = ("real", "fake")
    for played_move in run.moves:
        for origin, raw in zip(origins, (played_move.real, played_move.fake), strict=True):
            if raw is not None:
                found.append(Sight(played_move.context.side, origin, raw, shown[at : at + len(raw)]))
                at += len(raw)
    assert at == len(shown)
    assert {(sight.side, sight.origin) for sight in found} == {(Side.D, "real"), (Side.D, "fake"), (Side.G, "fake")}
    return found


def blurs(play: Play) -> None:
    """D's network is given the piles plus noise of the right size in both players' moves, and without it the piles."""
    for sight in sights(play(True, 3)):
        # chi-square: five standard errors of a standard deviation
        noise = sight.seen - sight.raw
        assert abs(float(noise.std()) - 0.5) < 5 * 0.5 / math.sqrt(2 * noise.numel())
    assert all(torch.equal(sight.seen, sight.raw) for sight in sights(play(False, 3)))


def differ(sight: Sight) -> list[bool]:
    """Of each picture whether D saw another."""
    return (sight.seen != sight.raw).flatten(1).any(1).tolist()


def changes_all_it_sees(play: Play) -> None:
    """No pile of either player's moves is seen as it is; each change, taken alone, is what the paper's code does."""
    told = sights(play(True, 3))
    assert all(all(differ(sight)) for sight in told)
    assert not any(any(differ(sight)) for sight in sights(play(False, 3)))

    def alone(change: str, steps: int = 10) -> list[tuple[Tensor, Tensor]]:
        run = play(True, steps, tricks=[{"kind": "diff_augment", "policy": [change]}])
        return [pair for sight in sights(run) for pair in zip(sight.raw.double(), sight.seen.double(), strict=True)]

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
        assert len({round(draw, 6) for draw in draws}) > 0.9 * len(draws), "each picture has its own"

    moves = []
    for raw, seen in alone("translation"):
        fits = []
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                moved = torch.zeros(1, 10, 10, dtype=torch.float64)
                moved[:, 1 + down : 9 + down, 1 + right : 9 + right] = raw
                if torch.equal(moved[:, 1:9, 1:9], seen):
                    fits.append((down, right))
        assert len(fits) == 1, "moved by at most an eighth of the side, and grey came in"
        moves += fits
    count = len(moves)
    assert all(abs(moves.count(played_move) - count / 9) < 5 * math.sqrt(count * 8 / 81) for played_move in set(moves))
    assert len(set(moves)) == 9

    corners = set()
    for raw, seen in alone("cutout"):
        gone = (seen == 0).all(0)
        rows, columns = (torch.nonzero(gone.any(axis)).flatten().tolist() for axis in (1, 0))
        assert torch.equal(seen, raw * ~gone)
        assert gone.sum() == len(rows) * len(columns), "a rectangle"
        for lines in (rows, columns):
            assert lines == list(range(lines[0], lines[-1] + 1))
            assert len(lines) == 4 or (len(lines) in (2, 3) and {0, 7} & {*lines}), "half the side, or what is inside"
        corners.add((rows[0], columns[0], len(rows), len(columns)))
    assert len(corners) > 40, "anywhere"


def changes_as_much_as_needed(play: Play) -> None:
    """Each change has probability p, which rises where D is too sure of the reals and falls where it isn't, in 0 to 1.

    r_t is the mean sign of the reals' scores over `every` moves of D; a step of p is batch x every / speed.
    """

    def set_to(**settings: object) -> list[dict[str, object]]:
        return [{"kind": "adaptive_augment", **settings}]

    always = sights(play(True, 3, tricks=set_to(start=1.0, speed=0.0)))
    assert all(all(differ(sight)) for sight in always)
    run = play(True, 40, tricks=set_to(start=0.3, speed=0.0, policy=["colour"]))
    assert float(run.game.tricks["adaptive_augment"].p) == pytest.approx(0.3), "without a speed it stays"
    same = [not other for sight in sights(run) for other in differ(sight)]
    p = 0.7 * 0.7 * 0.85  # brightness, contrast, and a negative half of the time; one channel has no hue
    assert abs(sum(same) / len(same) - p) < 5 * math.sqrt(p * (1 - p) / len(same))

    steps, every, step = 24, 2, BATCH * 2 / 128.0
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


ROWS = {
    "adaptive_augment": Row(
        strong={"start": 0.5, "target": 0.0, "speed": 128.0, "every": 2},
        zero={"start": 0.0, "speed": 0.0},
        acts=changes_as_much_as_needed,
    ),
    "diff_augment": Row(
        strong={"policy": ["colour", "translation", "cutout"]},
        zero={"policy": []},
        acts=changes_all_it_sees,
    ),
    "instance_noise": Row(strong={"sigma": 0.5}, zero={"sigma": 0.0}, acts=blurs),
}
