"""Optimisers: Adam compared with numpy in float64, learning rates of both players, and updates of a player."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from contracts.tiny import CPU, Session, context, recipe, source
from poise.core.player import Player
from poise.core.schedules import Cosine, Linear
from poise.core.types import Side
from poise.errors import RecipeError
from poise.optimizers import AdamConfig, AdamWConfig, OptimizerConfig, RMSPropConfig, SGDConfig


def make_player(lr: object, dtype: torch.dtype = torch.float64, **settings: object) -> Player:
    net = nn.Linear(3, 2, bias=False, dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(torch.linspace(-1, 1, 6).view(2, 3))
    config = AdamConfig(lr=lr, **settings)
    return Player(Side.D, net, config.build(net.parameters()), config.group_options)


@pytest.mark.parametrize("betas", [(0.5, 0.999), (0.0, 0.9), (0.9, 0.99)])
@pytest.mark.parametrize("lr", [1e-2, Linear(start=1e-2, end=0.0), Cosine(start=1e-2, end=1e-3)])
def test_ten_steps_of_adam_match_numpy(betas: tuple[float, float], lr: object) -> None:
    """Kingma & Ba 2015, algorithm 1, with the learning rate of the schedule in each step."""
    player = make_player(lr, betas=betas, eps=1e-6)
    theta = player.net.weight.detach().numpy().copy()
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    random = np.random.default_rng(0)
    for t in range(10):
        grad = random.normal(size=theta.shape)
        player.net.weight.grad = torch.from_numpy(grad.copy())
        player.apply_gradients(context(t, steps=10))
        progress = t / 10
        if isinstance(lr, Linear):
            rate = 1e-2 * (1 - progress)
        elif isinstance(lr, Cosine):
            rate = 1e-2 + (1e-3 - 1e-2) * (1 - np.cos(np.pi * progress)) / 2
        else:
            rate = 1e-2
        m = betas[0] * m + (1 - betas[0]) * grad
        v = betas[1] * v + (1 - betas[1]) * grad**2
        theta -= rate * (m / (1 - betas[0] ** (t + 1))) / (np.sqrt(v / (1 - betas[1] ** (t + 1))) + 1e-6)
        np.testing.assert_allclose(player.net.weight.detach().numpy(), theta, rtol=0, atol=1e-12)


def test_adam_is_fused_and_has_the_betas_of_dcgan() -> None:
    player = make_player(AdamConfig().lr)
    assert isinstance(player.optimizer, torch.optim.Adam)
    player.net.weight.grad = torch.ones_like(player.net.weight)
    player.apply_gradients(context())
    options = player.optimizer.param_groups[0]
    assert options["fused"] is True
    assert (options["betas"], options["eps"], options["weight_decay"]) == ((0.5, 0.999), 1e-8, 0)
    assert AdamConfig().lr == 2e-4


def test_each_player_has_its_own_learning_rate() -> None:
    """T10: two timescales; the schedule of one player does not affect the other."""
    table = recipe(
        "points",
        optimizer={
            "g": {"kind": "adam", "lr": 1e-4},
            "d": {"kind": "adam", "lr": {"kind": "linear", "start": 4e-4, "end": 0.0}},
        },
        steps=4,
    )
    run = Session(table, source("points"))
    rates = []
    for _ in range(4):
        run.play(1)
        rates.append([run.game.players[side].optimizer.param_groups[0]["lr"] for side in (Side.D, Side.G)])
    assert rates == [[pytest.approx(r), 1e-4] for r in (4e-4, 3e-4, 2e-4, 1e-4)]


def test_every_weight_belongs_to_the_optimiser_of_its_own_player() -> None:
    game = Session(recipe("pictures"), source("pictures")).game
    for side, player in game.players.items():
        listed = [w for group in player.optimizer.param_groups for w in group["params"]]
        assert {id(w) for w in listed} == {id(w) for w in player.net.parameters()} == {id(w) for w in player.weights}
        assert all(w.device == CPU for w in listed)
        assert player.side is side


def test_no_weight_grad_disables_gradients_and_restores_them() -> None:
    player = make_player(1e-3)
    with player.no_weight_grad():
        assert not any(w.requires_grad for w in player.weights)
    assert all(w.requires_grad for w in player.weights)
    with pytest.raises(ZeroDivisionError), player.no_weight_grad():
        raise ZeroDivisionError
    assert all(w.requires_grad for w in player.weights)


def test_no_weight_grad_keeps_frozen_weights_frozen() -> None:
    player = make_player(1e-3)
    player.net.weight.requires_grad_(False)
    with player.no_weight_grad():
        pass
    assert not player.net.weight.requires_grad


@pytest.mark.parametrize(
    "wrong", [{"lr": -1e-3}, {"betas": [0.5, 1.0]}, {"betas": [0.5]}, {"eps": 0.0}, {"momentum": 0.9}]
)
def test_invalid_options_of_adam_are_refused_with_their_path(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=rf"optimizer\.g\.{next(iter(wrong))}"):
        recipe("points", optimizer={"g": {"kind": "adam", **wrong}, "d": {"kind": "adam"}})


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        (AdamConfig(betas=(0.5, 0.99)), partial(torch.optim.Adam, betas=(0.5, 0.99), eps=1e-8, fused=True)),
        (AdamWConfig(weight_decay=0.1), partial(torch.optim.AdamW, betas=(0.5, 0.999), weight_decay=0.1, fused=True)),
        (SGDConfig(momentum=0.9), partial(torch.optim.SGD, momentum=0.9, fused=True)),
        (RMSPropConfig(momentum=0.5), partial(torch.optim.RMSprop, alpha=0.99, momentum=0.5, foreach=True)),
    ],
)
def test_five_steps_are_bit_identical_to_pytorchs_class(config: OptimizerConfig, reference: Any) -> None:
    """Hooks are called and no graph is recorded, although PyTorch's wrappers are bypassed."""
    nets = [nn.Linear(5, 4) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    actual, expected = config.build(list(nets[0].parameters())), reference(nets[1].parameters(), lr=1e-2)
    called: list[object] = []
    actual.register_step_pre_hook(lambda *args: called.append(args))
    settings = config.model_copy(update={"lr": 1e-2}).group_options(context())
    for step in range(5):
        inputs = torch.randn(3, 5, generator=torch.Generator().manual_seed(step))
        for net in nets:
            net.zero_grad()
            net(inputs).square().sum().backward()
        for group in actual.param_groups:
            group.update(settings)
        actual.step()
        expected.step()
    assert len(called) == 5
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(a, b)
        assert a.requires_grad
        assert a.grad_fn is None


def test_the_optimiser_of_a_player_is_built_once_on_first_use() -> None:
    calls: list[object] = []

    def build(groups: Any) -> torch.optim.Optimizer:
        calls.append(groups)
        return AdamConfig().build(groups)

    net, encoder = nn.Linear(2, 2), nn.Linear(2, 1)
    player = Player(Side.G, net, build, AdamConfig().group_options, encoder, encoder_lr_scale=3.0)
    assert calls == []
    assert player.optimizer is player.optimizer
    assert len(calls) == 1
    first, second = player.optimizer.param_groups
    assert [id(w) for w in first["params"]] == [id(w) for w in net.parameters()]
    assert [id(w) for w in second["params"]] == [id(w) for w in encoder.parameters()]
    assert second["lr_scale"] == 3.0
