"""BEGAN: the controller compared with an implementation in Python floats, and its use in a game."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np
import pytest
import torch

from contracts.tiny import context
from objectives.scores import GRID
from poise.core.move import MoveData
from poise.core.random_streams import RandomStreams
from poise.core.types import DiscriminatorOutput, MoveContext, Side
from poise.data.toys import RingConfig
from poise.engine import step
from poise.engine.batches import RealBatches
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.game import Game
from poise.engine.step_metrics import StepMetrics
from poise.objectives.began import Began, BeganModule, convergence, next_k
from poise.recipe.decode import decode
from poise.runs.state_tensors import collect_tensors, load_tensors

CPU = torch.device("cpu")


def make_move(side: Side, real: list[float], fake: list[float], turn: int = 0) -> MoveData:
    """A move in which D's reconstruction errors are `real` and `fake`; G's move has fake samples only."""
    move = MoveData(context(side=side, turn=turn), torch.zeros(len(fake), 2), torch.zeros(len(fake), 2))
    move.outputs = {"fake": DiscriminatorOutput(-torch.tensor(fake))}
    if side is Side.D:
        move.outputs["real"] = DiscriminatorOutput(-torch.tensor(real))
    return move


def make_module(k: float = 0.0, gamma: float = 0.5, lambda_k: float = 1e-3) -> BeganModule:
    module = Began(k=k, gamma=gamma, lambda_k=lambda_k).build()
    assert isinstance(module, BeganModule)
    return module


def get_k(module: BeganModule) -> float:
    k = module.k
    assert isinstance(k, torch.Tensor)
    return float(k)


class Step(NamedTuple):
    """The values after one step."""

    k: float
    convergence: float


def reference_steps(k: float, gamma: float, gain: float, errors: list[tuple[list[float], list[float]]]) -> list[Step]:
    """Equations 3 and 4 of the paper's section 3.3 and the measure of 3.4, step by step."""
    steps = []
    for real, fake in errors:
        mean_real, mean_fake = sum(real) / len(real), sum(fake) / len(fake)
        gap = gamma * mean_real - mean_fake
        k = min(1.0, max(0.0, k + gain * gap))
        steps.append(Step(k, mean_real + abs(gap)))
    return steps


@pytest.mark.parametrize(
    ("k", "gamma", "gain", "scale"),
    [(0.0, 0.5, 1e-3, 1.0), (0.3, 0.7, 0.05, 1.0), (0.9, 1.0, 0.5, 1.0), (0.1, 0.3, 1.0, 1.0), (0.5, 0.5, 1e-3, 1e3)],
)
def test_fifty_steps_match_the_reference(k: float, gamma: float, gain: float, scale: float) -> None:
    rng = random.Random(0)
    errors = [
        ([scale * rng.uniform(0.5, 3) for _ in range(6)], [scale * rng.uniform(0, 2) for _ in range(6)])
        for _ in range(50)
    ]
    module = make_module(k=k, gamma=gamma, lambda_k=gain)
    for (real, fake), expected in zip(errors, reference_steps(k, gamma, gain, errors), strict=True):
        d = make_move(Side.D, real, [9.0] * 6)  # the fake samples of D's move do not affect k
        before = get_k(module)
        module.after_update(d)
        assert d.logged == {}
        assert get_k(module) == before
        g = make_move(Side.G, [], fake)
        module.after_update(g)
        assert set(g.logged) == {"k", "convergence"}
        assert float(g.logged["k"]) == get_k(module) == pytest.approx(expected.k, abs=2e-5)
        assert float(g.logged["convergence"]) == pytest.approx(expected.convergence, rel=1e-5)


def test_k_is_updated_once_per_step_at_any_number_of_moves_of_g() -> None:
    once, often = make_module(k=0.3, lambda_k=0.05), make_module(k=0.3, lambda_k=0.05)
    for module, moves in ((once, 1), (often, 4)):
        module.after_update(make_move(Side.D, [2.0, 3.0], [1.0]))
        for turn in range(moves):
            g = make_move(Side.G, [], [0.25 + turn, 0.75], turn)
            module.after_update(g)
            assert float(g.logged["k"]) == get_k(module)
            assert float(g.logged["convergence"]) == pytest.approx(2.5 + abs(1.25 - (1 + turn) / 2))
    assert get_k(often) == get_k(once) == pytest.approx(0.3 + 0.05 * (1.25 - 0.5))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", list(Side))
def test_k_stays_finite_if_an_error_is_not(side: Side, bad: float) -> None:
    """The update is skipped then, and k must still balance both players afterwards."""
    module, other = make_module(k=0.3, lambda_k=0.05), make_module(k=0.3, lambda_k=0.05)
    for one in (module, other):
        one.after_update(make_move(Side.D, [2.0], [1.0]))
    module.after_update(make_move(side, [bad], [bad if side is Side.G else 1.0]))
    for one in (module, other):
        one.after_update(make_move(Side.G, [], [0.5]))
    assert get_k(module) == get_k(other) == pytest.approx(0.3 + 0.05 * (1.0 - 0.5))


def test_the_reference_reaches_both_clamps() -> None:
    """Otherwise the comparison would not test the clamp."""
    rng = random.Random(0)
    errors = [([rng.uniform(0.5, 3)], [rng.uniform(0, 2)]) for _ in range(50)]
    ks = [step.k for step in reference_steps(0.1, 0.5, 1.0, errors)]
    assert min(ks) == 0.0
    assert max(ks) == 1.0
    assert 0.0 < sorted(ks)[25] < 1.0


@pytest.mark.parametrize("k", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5])
def test_next_k_and_convergence_on_a_grid(k: float, gamma: float) -> None:
    for real in (0.0, 0.1, 2.0, 1e4):
        for fake in (0.0, 0.05, 3.0, 1e4):
            tensors = (torch.tensor(v, dtype=torch.float64) for v in (k, real, fake))
            start, x, gz = tensors
            expected = np.clip(k + 1e-2 * (gamma * real - fake), 0, 1)
            assert float(next_k(start, x, gz, gamma, 1e-2)) == pytest.approx(expected, abs=1e-14)
            assert float(convergence(x, gz, gamma)) == pytest.approx(real + abs(gamma * real - fake), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [0.0, 0.3, 1.0])
def test_losses_match_the_paper_at_the_current_k(k: float, dtype: torch.dtype) -> None:
    errors = np.abs(GRID)
    real, fake = -torch.from_numpy(errors).to(dtype), -torch.from_numpy(errors[::-1].copy()).to(dtype)
    module = make_module(k=k)
    loss_real, loss_fake = module.d_losses(real, fake, None, context())
    (loss_g,) = module.g_losses(fake, None, context(side=Side.G))
    np.testing.assert_allclose(loss_real.numpy(), errors, rtol=1e-6)
    np.testing.assert_allclose(loss_fake.numpy(), -k * errors[::-1], rtol=1e-6)
    np.testing.assert_allclose(loss_g.numpy(), errors[::-1], rtol=1e-6)


def test_gradients() -> None:
    error = torch.linspace(0.1, 9.0, 12, dtype=torch.float64, requires_grad=True)
    module = make_module(k=0.3).double()
    assert torch.autograd.gradcheck(lambda e: module.d_losses(-e, -e.flip(0), None, context()), (error,))
    assert torch.autograd.gradcheck(lambda e: module.g_losses(-e, None, context()), (error,))
    d = torch.autograd.grad(module.d_losses(-error, -error.detach(), None, context())[0].sum(), error)[0]
    assert d.tolist() == [1.0] * 12


def test_k_and_the_real_error_are_resumed() -> None:
    """A new module with the old state dict continues identically, between D's and G's move and after both."""
    moves = [make_move(Side.D, [2.0, 3.0], [1.0]), make_move(Side.G, [], [0.25, 0.75]), make_move(Side.G, [], [0.5])]
    for stop in (1, 2):
        old, fresh = (make_module(k=0.1, lambda_k=0.05) for _ in range(2))
        for move in moves[:stop]:
            old.after_update(move)
        assert set(old.state_dict()) == {"k", "real"}
        fresh.load_state_dict(old.state_dict())
        for move in moves[stop:]:
            old.after_update(move)
            fresh.after_update(move)
        assert get_k(fresh) == get_k(old) != pytest.approx(0.1)


# ---------------------------------------------------------------- in a game

GAME = {
    "steps": 20,
    "batch": 8,
    "data": {"kind": "ring"},
    "latent": {"kind": "uniform", "dim": 3},
    "network": {
        "g": {"kind": "mlp", "width": 6, "depth": 1},
        "d": {"kind": "flat_autoencoder", "width": 6, "depth": 1, "code": 2, "measure": "absolute"},
    },
    "objective": {"kind": "began", "gamma": 0.5, "lambda_k": 0.05, "k": 0.2},
    "optimizer": {side: {"kind": "adam", "lr": 1e-2} for side in ("d", "g")},
    "tempo": {"kind": "ratio"},
}


def make_game() -> tuple[Game, RealBatches]:
    source = RingConfig().load().train
    game = build_game(decode(GAME), source.spec(), ComputeSettings(CPU, "fp32"), RandomStreams(0))
    return game, RealBatches(source, CPU, 1)


def test_in_a_game_k_follows_the_errors_and_is_resumed() -> None:
    (game, batches), metrics = make_game(), StepMetrics(None)
    k, ks = 0.2, []
    for at in range(16):
        if at == 8:
            saved = {name: tensor.clone() for name, tensor in collect_tensors(game, metrics).items()}
            (game, batches), metrics = make_game(), StepMetrics(None)
            load_tensors(game, metrics, saved)
        step_context = MoveContext(at, 20, 8, RandomStreams(0))
        d = step.make_move(game, batches, step_context.for_move(Side.D, 0), metrics)
        g = step.make_move(game, batches, step_context.for_move(Side.G, 0), metrics)
        with torch.no_grad():
            real, fake, fresh = (float(-x.mean()) for x in (d.score("real"), d.score("fake"), g.score("fake")))
        assert float(d.logged["adversarial"]) == pytest.approx((real - k * fake) / 2, rel=1e-4)
        k = min(1.0, max(0.0, k + 0.05 * (0.5 * real - fresh)))
        logged = metrics.reduce()
        assert logged["g/k"].mean == pytest.approx(k, abs=1e-5)
        assert logged["g/convergence"].mean == pytest.approx(real + abs(0.5 * real - fresh), rel=1e-5)
        ks.append(k)
    assert len(set(ks)) == 16
