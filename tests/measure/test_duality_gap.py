"""The duality gap of games with a known equilibrium."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from poise.engine.compute import ComputeSettings
from poise.measure.duality_gap import duality_gap
from poise.recipe import shipped
from poise.recipe.decode import decode
from poise.runs.evaluate import duality_gap_of
from poise.training.state import TrainState


class Point(nn.Module):
    """A player that is a vector."""

    def __init__(self, *at: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at))


def quadratic(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
    """V = |g|^2 / 2 + g.d - |d|^2 / 2, convex for G, concave for D; equilibrium (0, 0), gap |g|^2 + |d|^2."""
    return g.at.square().sum() / 2 + (g.at * d.at).sum() - d.at.square().sum() / 2


def bilinear(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
    return (g.at * d.at).sum()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gap_is_about_0_at_the_equilibrium() -> None:
    at = Point(0.0, 0.0), Point(0.0, 0.0)
    assert duality_gap(*at, quadratic, rng()) == pytest.approx(0, abs=1e-4)
    assert duality_gap(*at, bilinear, rng()) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("g", "d"), [((1.0, 0.0), (0.0, 0.0)), ((0.0, 0.0), (0.0, -1.0)), ((0.5, -2.0), (1.0, 3.0))])
def test_gap_is_the_sum_of_both_gains(g: tuple[float, ...], d: tuple[float, ...]) -> None:
    """The best responses are D' = G and G' = -D, with gains |G|^2 and |D|^2."""
    expected = sum(x * x for x in (*g, *d))
    assert duality_gap(Point(*g), Point(*d), quadratic, rng(), 500, 3e-2) == pytest.approx(expected, rel=1e-3)
    assert duality_gap(Point(*g), Point(*d), quadratic, rng()) > 0.05 * expected > 0


def test_progress_of_the_gap_rises_from_0_to_1() -> None:
    reports: list[tuple[str, float]] = []
    duality_gap(Point(1.0), Point(1.0), quadratic, rng(), 4, progress=lambda *report: reports.append(report))
    assert reports == [("duality_gap", k / 8) for k in range(8)]


def test_gap_of_a_bilinear_game_grows_with_the_steps() -> None:
    """With a constant gradient, a step of Adam moves by `lr`, so k steps gain k lr (|g|_1 + |d|_1)."""
    gaps = [
        duality_gap(Point(2.0), Point(-1.0), bilinear, rng(), steps, 1e-2, perturbation=0.0) for steps in (0, 10, 50)
    ]
    assert gaps == pytest.approx([0, 0.3, 1.5], rel=1e-3, abs=1e-9)


def test_optimizer_is_adam_with_beta_1_of_a_half() -> None:
    """For V = |g|^2 / 2 + g.d - |d|^2 / 2 the gradients to descend are d - g for D and g + d for G."""
    g, d, found = 1.0, -2.0, []
    for start, gradient in ((d, lambda x: x - g), (g, lambda x: x + d)):
        x, mean, square = start, 0.0, 0.0
        for step in range(1, 16):
            mean, square = 0.5 * mean + 0.5 * gradient(x), 0.999 * square + 0.001 * gradient(x) ** 2
            x -= 0.3 * (mean / (1 - 0.5**step)) / (square / (1 - 0.999**step)) ** 0.5
        found.append(x)
    expected = (g * g / 2 + g * found[0] - found[0] ** 2 / 2) - (found[1] ** 2 / 2 + found[1] * d - d * d / 2)
    gap = duality_gap(Point(g), Point(d), quadratic, rng(), steps=15, lr=0.3, perturbation=0.0)
    assert gap == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("g", "d", "expected"), [(2.0, 0.0, 0.2), (0.0, -1.0, 0.1)])
def test_default_steps_and_learning_rate(g: float, d: float, expected: float) -> None:
    assert duality_gap(Point(g), Point(d), bilinear, rng(), perturbation=0.0) == pytest.approx(expected, rel=1e-3)


def test_perturbation_without_steps() -> None:
    """Both copies are perturbed with separate draws, first D, then G."""
    g, d, perturbation = Point(1.0), Point(3.0), 0.1
    by_d, by_g = (perturbation * torch.randn(1, generator=generator) for generator in [rng(4)] * 2)
    expected = 1.0 * (3 + float(by_d)) - (1 + float(by_g)) * 3.0
    assert duality_gap(g, d, bilinear, rng(4), steps=0, perturbation=perturbation) == pytest.approx(expected, abs=1e-6)
    assert by_d != by_g


def test_perturbation_escapes_a_saddle_point() -> None:
    """V = -g^2 has a vanishing gradient at 0, where only a perturbation makes G move."""

    def hill(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
        return -g.at.square().sum() + 0 * d.at.sum()

    assert duality_gap(Point(0.0), Point(0.0), hill, rng(), perturbation=0.0) == 0
    assert duality_gap(Point(0.0), Point(0.0), hill, rng()) > 1e-3


def test_gap_is_deterministic_in_the_seed() -> None:
    g, d = Point(1.0, 2.0), Point(-1.0, 0.5)
    first = duality_gap(g, d, quadratic, rng(1))
    assert duality_gap(g, d, quadratic, rng(1)) == first
    assert duality_gap(g, d, quadratic, rng(2)) != first


def test_training_and_evaluation_use_different_batches() -> None:
    seen: list[tuple[int, bool]] = []

    def recording_value(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
        seen.append((batch, torch.is_grad_enabled()))
        return bilinear(g, d, batch)

    duality_gap(Point(1.0), Point(1.0), recording_value, rng(), steps=4)
    once = [(k, True) for k in range(4)] + [(-1 - k, False) for k in range(10)]
    assert seen == once * 2


def test_evaluation_is_a_mean_over_batches() -> None:
    def of_batch(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
        return (d.at - g.at).sum() * (batch if batch < 0 else 1)

    gap = duality_gap(Point(0.0), Point(0.0), of_batch, rng(), steps=10, lr=1e-2, perturbation=0.0)
    assert gap == pytest.approx(-5.5 * 0.2, rel=1e-3)


class Net(nn.Module):
    """A player with a frozen bias and optional batch norm."""

    def __init__(self, *sizes: int, batch_norm: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sum(sizes))
            norm = nn.BatchNorm1d(8) if batch_norm else nn.Identity()
            self.layers = nn.Sequential(nn.Linear(sizes[0], 8), norm, nn.LeakyReLU(0.2), nn.Linear(8, sizes[1]))
        self.layers[0].bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def gan(g: nn.Module, d: nn.Module, batch: int) -> Tensor:
    z = torch.randn(16, 3, generator=rng(batch + 100))
    x = torch.randn(16, 2, generator=rng(batch + 200)) + 3
    return nn.functional.logsigmoid(d(x)).mean() + nn.functional.logsigmoid(-d(g(z))).mean()


@pytest.mark.parametrize("learning", [True, False])
def test_players_are_not_modified(learning: bool) -> None:
    g, d = (Net(*sizes, batch_norm=True).train(learning) for sizes in ((3, 2), (2, 1)))
    before = [deepcopy(net.state_dict()) for net in (g, d)]
    duality_gap(g, d, gan, rng(), steps=5)
    for net, state in zip((g, d), before, strict=True):
        assert all(torch.equal(now, state[name]) for name, now in net.state_dict().items())
        assert all(weight.grad is None for weight in net.parameters())
        assert net.training is learning
        assert [name for name, weight in net.named_parameters() if not weight.requires_grad] == ["layers.0.bias"]


def test_frozen_players_are_trained() -> None:
    g, d = Net(3, 2).requires_grad_(False), Net(2, 1).requires_grad_(False)
    assert duality_gap(g, d, gan, rng(), lr=1e-2) > 0.3


def test_more_steps_give_a_larger_gap() -> None:
    gaps = [duality_gap(Net(3, 2), Net(2, 1), gan, rng(), steps, lr=1e-2) for steps in (0, 20, 100)]
    assert gaps == sorted(gaps)
    assert gaps[0] == pytest.approx(0, abs=0.01)
    assert gaps[2] > 0.5


@pytest.mark.parametrize(
    ("network", "objective", "bounded"),
    [
        ("mlp", "wasserstein", False),
        ("spectral", "wasserstein", True),
        ("autoencoder", "began", False),
        ("autoencoder", "energy", True),
    ],
)
def test_the_duality_gap_requires_a_bound(
    network: str, objective: str, bounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = {"kind": "flat_autoencoder", "code": 2} if network == "autoencoder" else {"kind": "mlp"}
    d |= {"width": 8, "norm": "spectral" if network == "spectral" else "none"}
    table = shipped.load_table("ring") | {"objective": {"kind": objective}, "tricks": []}
    recipe = decode(table | {"network": {"g": {"kind": "mlp", "width": 8}, "d": d}})
    data = recipe.data.load(None)
    state = TrainState(recipe, ComputeSettings(torch.device("cpu"), "fp32"), data)
    monkeypatch.setattr("poise.runs.evaluate.duality_gap", partial(duality_gap, steps=2))
    gap = duality_gap_of(recipe, data.train, state.game, state.game.d.net, 0)
    if bounded:
        assert math.isfinite(gap())
    else:
        with pytest.raises(ValueError, match=f"D's gain under '{objective}' has no bound"):
            gap()
