"""Historical averaging: its gradient compared with autograd, its mean with the arithmetic one, and cycling games."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import by_hand, context, recipe
from poise.core.hooks import PostUpdate
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.schedules import Linear
from poise.core.types import DataSpec, DiscriminatorOutput, Side
from poise.engine.step import alternate, make_move
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.objectives.wasserstein import Wasserstein
from poise.tempo import Ratio
from poise.tricks.base import TrickContext
from poise.tricks.historical_averaging import HistoricalAveraging, HistoricalAveragingConfig, add_pull_
from tricks.small import FixedBatches, N, TanhDiscriminator, game_of, gradients, logged_means, randn


def random_tensors(*shapes: Sequence[int], seed: int = 0) -> list[Tensor]:
    return [randn(1, *shape, seed=seed + k, dtype=torch.float64)[0] for k, shape in enumerate(shapes)]


def leaves(tensors: list[Tensor]) -> list[Tensor]:
    """New leaf tensors with the same values."""
    return [tensor.clone().requires_grad_() for tensor in tensors]


SHAPES = ((3, 4), (5,), (), (2, 1, 3))


@pytest.mark.parametrize("weight", [0.1, 1.0, 7.5])
def test_the_pull_is_the_gradient_of_the_papers_loss(weight: float) -> None:
    """Of base + weight ||theta - mean||^2, by autograd, in float64 to 1e-12."""
    start, means = random_tensors(*SHAPES), random_tensors(*SHAPES, seed=10)
    parameters, reference = leaves(start), leaves(start)
    means_before = [mean.clone() for mean in means]

    def base(weights: list[Tensor]) -> Tensor:
        return torch.stack([(w**3).sum().sin() for w in weights]).sum()

    distance = torch.stack([(w - m).square().sum() for w, m in zip(reference, means, strict=True)]).sum()
    (base(reference) + weight * distance).backward()
    base(parameters).backward()
    returned = add_pull_(parameters, means, weight)
    for parameter, expected, old in zip(parameters, reference, start, strict=True):
        assert torch.allclose(parameter.grad, expected.grad, rtol=0, atol=1e-12)
        assert torch.equal(parameter.detach(), old), "the weights are not changed"
    assert returned.shape == ()
    assert not returned.requires_grad
    assert float(returned) == pytest.approx(float(distance.detach()), rel=1e-12)
    assert all(torch.equal(mean, old) for mean, old in zip(means, means_before, strict=True))


def test_weights_without_a_gradient_are_skipped() -> None:
    weights, means = leaves(random_tensors((3,), (4,), (2,))), random_tensors((3,), (4,), (2,), seed=5)
    for k in (0, 2):
        weights[k].grad = torch.full_like(weights[k], 0.25)
    returned = add_pull_(weights, means, 0.5)
    assert weights[1].grad is None
    differences = [(weights[k] - means[k]).detach() for k in (0, 2)]
    for k, difference in zip((0, 2), differences, strict=True):
        assert torch.allclose(weights[k].grad, 0.25 + difference, rtol=0, atol=1e-12)
    assert float(returned) == pytest.approx(
        sum(float(difference.square().sum()) for difference in differences), rel=1e-12
    )


def test_without_any_gradient_the_distance_is_0() -> None:
    """All weights are skipped."""
    weights = leaves(random_tensors((3,), (4,)))
    assert float(add_pull_(weights, random_tensors((3,), (4,), seed=5), 0.5)) == 0.0
    assert all(weight.grad is None for weight in weights)


def test_at_the_mean_there_is_no_pull() -> None:
    weights = leaves(random_tensors(*SHAPES))
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    assert float(add_pull_(weights, [weight.detach().clone() for weight in weights], 3.0)) == 0.0
    assert all(torch.equal(weight.grad, torch.ones_like(weight)) for weight in weights)


# ---------------------------------------------------------------- the mean


class TwoWeights(nn.Module):
    """Two weights and a buffer, which is not averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(randn(3, 2, seed=1, dtype=torch.float64))
        self.second = nn.Parameter(randn(4, seed=2, dtype=torch.float64))
        self.register_buffer("seen", torch.ones(5, dtype=torch.float64))


def player(side: Side, net: nn.Module) -> Player:
    return Player(side, net, torch.optim.SGD(net.parameters(), lr=1.0), lambda _: {"lr": 0.0})


def move_after(at: int, side: Side = Side.D, turn: int = 0) -> MoveData:
    nothing = torch.zeros(1, 2)
    return MoveData(context(at, side=side, turn=turn, steps=1000), nothing, nothing)


def means_of(trick: HistoricalAveraging, side: Side) -> list[Tensor]:
    return list(trick.means[side.value].buffers())


def test_after_a_thousand_steps_it_is_the_mean_of_all_steps_and_the_start() -> None:
    """For both players separately, to 1e-12 in float64. The mean is checked where it is used: before a step."""
    nets: dict[Side, nn.Module] = {Side.G: TwoWeights(), Side.D: TwoWeights()}
    trick = HistoricalAveraging("h", nets, 0.5)
    players = {side: player(side, net) for side, net in nets.items()}
    paths: dict[Side, list[list[Tensor]]] = {side: [] for side in nets}
    for at in range(1001):
        for side, net in nets.items():
            paths[side].append([w.detach().clone() for w in net.parameters()])
            for w in net.parameters():
                w.grad = torch.zeros_like(w)
            trick.transform_gradients(players[side], move_after(at, side))
            with torch.no_grad():
                for k, w in enumerate(net.parameters()):
                    w += randn(*w.shape, seed=7 * at + k + 3 * (side is Side.G), dtype=torch.float64) / 10
            if isinstance(trick, PostUpdate):
                trick.after_update(players[side], move_after(at, side))
            if at not in (0, 1, 2, 10, 1000):
                continue
            for k, w in enumerate(net.parameters()):
                expected = torch.stack([thetas[k] for thetas in paths[side]]).mean(0)
                assert torch.allclose(w.grad, paths[side][-1][k] - expected, rtol=0, atol=1e-12)


def test_the_state_is_a_copy_of_the_initial_weights() -> None:
    net = TwoWeights()
    trick = HistoricalAveraging("h", {Side.D: net}, 1.0)
    for mean, w in zip(means_of(trick, Side.D), net.parameters(), strict=True):
        assert torch.equal(mean, w.detach())
        assert mean.data_ptr() != w.data_ptr()
        assert not mean.requires_grad
    assert set(trick.state_dict()) == {"means.d.0", "means.d.1"}


def logged_distance(tempo: Ratio, steps: int, weight: float) -> tuple[float, list[list[list[Tensor]]]]:
    """D's logged distance from its mean after some steps, and its weights after each move, by step.

    The first step stands for the initial weights. While the mean is computed, the trick's weight is `weight`.
    """
    d = TanhDiscriminator()
    trick = HistoricalAveraging("h", {Side.D: d, Side.G: nn.Linear(1, 1)}, weight)
    game = by_hand(trick, d=d, tempo=tempo, lr=0.3)
    path = [[[w.detach().double() for w in d.parameters()]]]
    for at in range(steps):
        path.append([])
        for turn in range(tempo.max_moves.d):
            make_move(game, FixedBatches(randn(N, 2, seed=at)), context(at, turn=turn), StepMetrics())
            path[-1].append([w.detach().double() for w in d.parameters()])
    trick.weight = 1.0
    return float(make_move(game, FixedBatches(randn(N, 2)), context(steps), StepMetrics()).logged["h"]), path


def squared_distance(path: list[list[list[Tensor]]], thetas: list[list[Tensor]]) -> float:
    """The squared distance of the newest weights from the mean of some weights."""
    means = [torch.stack(weights).mean(0) for weights in zip(*thetas, strict=True)]
    return sum(float((w - m).square().sum()) for w, m in zip(path[-1][-1], means, strict=True))


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_the_mean_includes_the_weights_after_each_step(weight: float) -> None:
    """After the optimiser's update, not before; the mean is updated at weight 0 too, in case a schedule raises it."""
    distance, path = logged_distance(Ratio(1, 1), 12, weight)
    assert distance == pytest.approx(squared_distance(path, [turns[-1] for turns in path]), rel=1e-4)


def test_a_step_with_several_moves_counts_once() -> None:
    """Like the initial weights, each step counts once."""
    distance, path = logged_distance(Ratio(3, 1), 12, 0.0)
    candidates = (squared_distance(path, [turns[k] for turns in path]) for k in (0, -1))
    assert any(distance == pytest.approx(candidate, rel=1e-4) for candidate in candidates)
    assert distance != pytest.approx(squared_distance(path, [theta for turns in path for theta in turns]), rel=1e-2)


def test_theta_i_are_the_weights_after_the_last_move_of_a_step() -> None:
    """As the module's docstring states: "theta_i are its weights after step i"."""
    distance, path = logged_distance(Ratio(3, 1), 12, 0.0)
    assert distance == pytest.approx(squared_distance(path, [turns[-1] for turns in path]), rel=1e-4)


# ---------------------------------------------------------------- in a game


def test_the_distance_is_logged_and_the_weight_scales_the_pull() -> None:
    def play_with_weight(weight: float) -> tuple[list[Tensor], dict[str, float], list[Tensor]]:
        d = TanhDiscriminator()
        trick = HistoricalAveraging("h", {Side.D: d, Side.G: nn.Linear(1, 1)}, weight)
        game = game_of(trick, d=d)
        with torch.no_grad():
            for w in d.parameters():
                w += 0.3
        metrics = StepMetrics()
        make_move(game, FixedBatches(randn(N, 2)), context(), metrics)
        return gradients(d), logged_means(metrics), [w.detach().clone() for w in d.parameters()]

    (none, silent, _), (one, row, weights), (three, _, _) = (play_with_weight(weight) for weight in (0.0, 1.0, 3.0))
    assert "d/h" not in silent
    assert row["d/h"] == pytest.approx(0.09 * sum(w.numel() for w in weights), rel=1e-4)
    for w0, w1, w3 in zip(none, one, three, strict=True):
        assert torch.allclose(w1 - w0, torch.full_like(w0, 0.6), atol=1e-5)
        assert torch.allclose(w3 - w0, torch.full_like(w0, 1.8), atol=1e-5)


def test_each_player_has_its_own_mean() -> None:
    game = by_hand()
    trick = HistoricalAveraging("h", {Side.G: game.g.net, Side.D: game.d.net}, 1.0)
    game = by_hand(trick, d=game.d.net, g=game.g.net)
    with torch.no_grad():
        game.g.net.by += 2.0
    metrics = StepMetrics()
    alternate(game, FixedBatches(torch.zeros(N, 2)), context(), metrics)
    row = logged_means(metrics)
    assert row["g/h"] == pytest.approx(8.0, rel=1e-5)
    assert row["d/h"] == 0.0


def test_the_weight_may_follow_a_schedule() -> None:
    d = TwoWeights()
    trick = HistoricalAveraging("h", {Side.D: d}, Linear(start=2.0, end=0.0))
    with torch.no_grad():
        for w in d.parameters():
            w += 1.0
    for at, pull in ((0, 4.0), (500, 2.0), (1000, 0.0)):
        move = move_after(at, turn=1)
        for w in d.parameters():
            w.grad = torch.zeros_like(w)
        trick.transform_gradients(player(Side.D, d), move)
        assert all(torch.allclose(w.grad, torch.full_like(w, pull), atol=1e-12) for w in d.parameters())
        assert ("h" in move.logged) == (pull > 0)


def test_the_config_builds_the_trick() -> None:
    nets: dict[Side, nn.Module] = {Side.D: TwoWeights(), Side.G: TwoWeights()}
    trick = HistoricalAveragingConfig(weight=0.25).build("h", TrickContext(nets, DataSpec((2,))))
    assert (trick.name, trick.weight) == ("h", 0.25)
    assert set(trick.means) == {"d", "g"}
    assert HistoricalAveraging.sides == set(Side)
    with pytest.raises(RecipeError, match="weight"):
        recipe("points", {"kind": "historical_averaging", "weight": -0.1})


# ---------------------------------------------------------------- games that circle


def f(x: Tensor) -> Tensor:
    """The paper's function: x below 0, else x^2."""
    return torch.where(x < 0, x, x.square())


class PointGenerator(nn.Module):
    """G(z) = x, or f(x) - 1 in the paper's game, for every z."""

    def __init__(self, x: float, nonlinear: bool) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor([x]))
        self.nonlinear = nonlinear

    def forward(self, latents: Tensor) -> Tensor:
        return (f(self.at) - 1 if self.nonlinear else self.at).expand(len(latents), 1)


class LinearCritic(nn.Module):
    """D(s) = -(y - centre) s. With real samples at 0, D maximises and G minimises (y - centre) G."""

    def __init__(self, y: float, centre: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor([y]))
        self.centre = centre

    def forward(self, samples: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(-(self.at - self.centre) * samples[:, 0])


def distances_to_equilibrium(
    weight: float, *, nonlinear: bool, start: tuple[float, float], lr: float = 0.1, moves: int = 600
) -> list[float]:
    """The distance of both players from the equilibrium, at the start and after each step of two moves."""
    centre = 1.0 if nonlinear else 0.0
    d, g = LinearCritic(start[1], centre), PointGenerator(start[0], nonlinear)
    trick = HistoricalAveraging("h", {Side.D: d, Side.G: g}, weight)
    game = by_hand(trick, d=d, g=g, objective=Wasserstein(), lr=lr)
    batches, metrics = FixedBatches(torch.zeros(2, 1)), StepMetrics()

    def radius() -> float:
        with torch.no_grad():
            return float(((d.at - centre).square() + (g.at - centre).square()).sqrt())

    path = [radius()]
    for at in range(moves // 2):
        alternate(game, batches, context(at, steps=moves // 2), metrics)
        path.append(radius())
    return path


def test_a_circle_becomes_an_inward_spiral() -> None:
    """min_x max_y xy, with alternating steps, 600 moves: five circles without the trick.

    Salimans et al. 2016, section 3.3, claim that historical averaging "was able to find equilibria of low-dimensional,
    continuous non-convex games", on which "gradient descent fails by going into extended orbits that do not approach
    the equilibrium point". Alternating gradient steps preserve area (they are symplectic), so without the trick the
    players circle for ever.
    """
    plain = distances_to_equilibrium(0.0, nonlinear=False, start=(1.0, 0.0))
    assert all(0.5 < radius < 2 for radius in plain)
    averaged = distances_to_equilibrium(0.3, nonlinear=False, start=(1.0, 0.0))
    assert averaged[-1] < 0.1
    quarters = [max(averaged[at : at + 75]) for at in range(1, 300, 75)]
    assert quarters == sorted(quarters, reverse=True)
    assert quarters[-1] < quarters[0] / 8
    assert all(radius < 0.2 for radius in averaged[150:])


@pytest.mark.parametrize("start", [(1.6, 0.4), (-0.5, 1.0)])
def test_the_game_of_the_paper_reaches_its_equilibrium(start: tuple[float, float]) -> None:
    """min_x max_y (f(x) - 1)(y - 1), f(x) = x below 0 and x^2 above: the equilibrium is at (1, 1)."""
    plain = distances_to_equilibrium(0.0, nonlinear=True, start=start)
    assert all(0.5 * plain[0] < radius < 2.5 * plain[0] for radius in plain)
    averaged = distances_to_equilibrium(0.3, nonlinear=True, start=start)
    assert averaged[-1] < 0.05 * averaged[0]
    assert all(radius < 0.2 * averaged[0] for radius in averaged[150:])


def test_the_game_equals_its_recursion() -> None:
    """Every step of the spiral in plain numbers: D first, then G against the updated D."""
    lr, weight, x, y = 0.1, 0.3, 1.0, 0.5
    xs, ys, expected = [x], [y], [(x * x + y * y) ** 0.5]
    for _ in range(100):
        y = y - lr * (-x + 2 * weight * (y - sum(ys) / len(ys)))
        x = x - lr * (y + 2 * weight * (x - sum(xs) / len(xs)))
        xs.append(x)
        ys.append(y)
        expected.append((x * x + y * y) ** 0.5)
    assert distances_to_equilibrium(weight, nonlinear=False, start=(1.0, 0.5), moves=200) == pytest.approx(
        expected, abs=1e-5
    )
