"""The duality gap of games whose equilibrium is known."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from poise.measure.duality_gap import duality_gap


class Point(nn.Module):
    """A player that is a vector."""

    def __init__(self, *at: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at))


def quadratic(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
    """V = |g|^2 / 2 + g.d - |d|^2 / 2: convex for G, concave for D, (0, 0) is the equilibrium; gap |g|^2 + |d|^2."""
    return g.at.square().sum() / 2 + (g.at * d.at).sum() - d.at.square().sum() / 2


def bilinear(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
    return (g.at * d.at).sum()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_about_0_at_the_equilibrium() -> None:
    at = Point(0.0, 0.0), Point(0.0, 0.0)
    assert duality_gap(*at, quadratic, rng()) == pytest.approx(0, abs=1e-4)
    assert duality_gap(*at, bilinear, rng()) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("g", "d"), [((1.0, 0.0), (0.0, 0.0)), ((0.0, 0.0), (0.0, -1.0)), ((0.5, -2.0), (1.0, 3.0))])
def test_away_from_it_both_gains_add_up(g: tuple[float, ...], d: tuple[float, ...]) -> None:
    """The best replies are D' = G and G' = -D, worth |G|^2 and -|D|^2."""
    expected = sum(x * x for x in (*g, *d))
    assert duality_gap(Point(*g), Point(*d), quadratic, rng(), 2000, 1e-2) == pytest.approx(expected, rel=1e-3)
    assert duality_gap(Point(*g), Point(*d), quadratic, rng()) > 0.05 * expected > 0


def test_of_a_bilinear_game_it_grows_with_the_steps_of_both() -> None:
    """Adam at a constant gradient goes `rate` at a step: k steps are worth k rate (|g|_1 + |d|_1)."""
    told = [
        duality_gap(Point(2.0), Point(-1.0), bilinear, rng(), steps, 1e-2, perturbation=0.0) for steps in (0, 10, 50)
    ]
    assert told == pytest.approx([0, 0.3, 1.5], rel=1e-3, abs=1e-9)


def test_the_steps_are_adams_with_less_momentum_than_usual() -> None:
    """On V = |g|^2 / 2 + g.d - |d|^2 / 2 the gradients are d - g for D to climb down, and g + d for G."""
    g, d, found = 1.0, -2.0, []
    for start, slope in ((d, lambda x: x - g), (g, lambda x: x + d)):
        x, mean, square = start, 0.0, 0.0
        for step in range(1, 16):
            mean, square = 0.5 * mean + 0.5 * slope(x), 0.999 * square + 0.001 * slope(x) ** 2
            x -= 0.3 * (mean / (1 - 0.5**step)) / (square / (1 - 0.999**step)) ** 0.5
        found.append(x)
    expected = (g * g / 2 + g * found[0] - found[0] ** 2 / 2) - (found[1] ** 2 / 2 + found[1] * d - d * d / 2)
    told = duality_gap(Point(g), Point(d), quadratic, rng(), steps=15, lr=0.3, perturbation=0.0)
    assert told == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("g", "d", "expected"), [(2.0, 0.0, 0.2), (0.0, -1.0, 0.1)])
def test_a_hundred_steps_of_a_thousandth_are_the_default(g: float, d: float, expected: float) -> None:
    assert duality_gap(Point(g), Point(d), bilinear, rng(), perturbation=0.0) == pytest.approx(expected, rel=1e-3)


def test_without_steps_all_there_is_is_the_nudge() -> None:
    """Both copies are moved, by draws of their own in the order D, G."""
    g, d, nudge = Point(1.0), Point(3.0), 0.1
    by_d, by_g = (nudge * torch.randn(1, generator=generator) for generator in [rng(4)] * 2)
    expected = 1.0 * (3 + float(by_d)) - (1 + float(by_g)) * 3.0
    assert duality_gap(g, d, bilinear, rng(4), steps=0, perturbation=nudge) == pytest.approx(expected, abs=1e-6)
    assert by_d != by_g


def test_the_nudge_leaves_a_saddle_where_gradients_vanish() -> None:
    """V = -g^2: G stands on the top of a hill, and only a nudge makes it roll down."""

    def hill(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
        return -g.at.square().sum() + 0 * d.at.sum()

    assert duality_gap(Point(0.0), Point(0.0), hill, rng(), perturbation=0.0) == 0
    assert duality_gap(Point(0.0), Point(0.0), hill, rng()) > 1e-3


def test_one_seed_tells_one_value() -> None:
    g, d = Point(1.0, 2.0), Point(-1.0, 0.5)
    first = duality_gap(g, d, quadratic, rng(1))
    assert duality_gap(g, d, quadratic, rng(1)) == first
    assert duality_gap(g, d, quadratic, rng(2)) != first


def test_steps_and_judgement_are_on_batches_of_their_own() -> None:
    seen: list[tuple[int, bool]] = []

    def watched(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
        seen.append((batch, torch.is_grad_enabled()))
        return bilinear(g, d, batch)

    duality_gap(Point(1.0), Point(1.0), watched, rng(), steps=4)
    once = [(k, True) for k in range(4)] + [(-1 - k, False) for k in range(10)]
    assert seen == once * 2


def test_the_judgement_is_the_mean_of_its_batches() -> None:
    def of_batch(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
        return (d.at - g.at).sum() * (batch if batch < 0 else 1)

    told = duality_gap(Point(0.0), Point(0.0), of_batch, rng(), steps=10, lr=1e-2, perturbation=0.0)
    assert told == pytest.approx(-5.5 * 0.2, rel=1e-3)


class Net(nn.Module):
    """A player with layers, one weight of which never learns, and running averages if it is asked for them."""

    def __init__(self, *sizes: int, averages: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sum(sizes))
            norm = nn.BatchNorm1d(8) if averages else nn.Identity()
            self.layers = nn.Sequential(nn.Linear(sizes[0], 8), norm, nn.LeakyReLU(0.2), nn.Linear(8, sizes[1]))
        self.layers[0].bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def gan(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
    z = torch.randn(16, 3, generator=rng(batch + 100))
    x = torch.randn(16, 2, generator=rng(batch + 200)) + 3
    return nn.functional.logsigmoid(d(x)).mean() + nn.functional.logsigmoid(-d(g(z))).mean()


@pytest.mark.parametrize("learning", [True, False])
def test_the_players_stay_untouched(learning: bool) -> None:
    g, d = (Net(*sizes, averages=True).train(learning) for sizes in ((3, 2), (2, 1)))
    before = [deepcopy(net.state_dict()) for net in (g, d)]
    duality_gap(g, d, gan, rng(), steps=5)
    for net, state in zip((g, d), before, strict=True):
        assert all(torch.equal(now, state[name]) for name, now in net.state_dict().items())
        assert all(weight.grad is None for weight in net.parameters())
        assert net.training is learning
        assert [name for name, weight in net.named_parameters() if not weight.requires_grad] == ["layers.0.bias"]


def test_players_that_were_frozen_can_still_be_improved_on() -> None:
    g, d = Net(3, 2).requires_grad_(False), Net(2, 1).requires_grad_(False)
    assert duality_gap(g, d, gan, rng(), lr=1e-2) > 0.3


def test_more_steps_find_more_to_gain() -> None:
    told = [duality_gap(Net(3, 2), Net(2, 1), gan, rng(), steps, lr=1e-2) for steps in (0, 20, 100)]
    assert told == sorted(told)
    assert told[0] == pytest.approx(0, abs=0.01)
    assert told[2] > 0.5
