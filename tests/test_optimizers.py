"""Adam by hand in float64, the two-timescale rates, and how a player takes a step."""

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


def player(lr: object, dtype: torch.dtype = torch.float64, **settings: object) -> Player:
    net = nn.Linear(3, 2, bias=False, dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(torch.linspace(-1, 1, 6).view(2, 3))
    entry = AdamConfig(lr=lr, **settings)
    return Player(Side.D, net, entry.build(net.parameters()), entry.group_options)


@pytest.mark.parametrize("betas", [(0.5, 0.999), (0.0, 0.9), (0.9, 0.99)])
@pytest.mark.parametrize("lr", [1e-2, Linear(start=1e-2, end=0.0), Cosine(start=1e-2, end=1e-3)])
def test_ten_steps_of_adam_by_hand(betas: tuple[float, float], lr: object) -> None:
    """Kingma & Ba 2015, algorithm 1, with the rate read from the dial before each step."""
    ours = player(lr, betas=betas, eps=1e-6)
    theta = ours.net.weight.detach().numpy().copy()
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    random = np.random.default_rng(0)
    for t in range(10):
        grad = random.normal(size=theta.shape)
        ours.net.weight.grad = torch.from_numpy(grad.copy())
        ours.apply_gradients(context(t, steps=10))
        share = t / 10
        if isinstance(lr, Linear):
            rate = 1e-2 * (1 - share)
        elif isinstance(lr, Cosine):
            rate = 1e-2 + (1e-3 - 1e-2) * (1 - np.cos(np.pi * share)) / 2
        else:
            rate = 1e-2
        m = betas[0] * m + (1 - betas[0]) * grad
        v = betas[1] * v + (1 - betas[1]) * grad**2
        theta -= rate * (m / (1 - betas[0] ** (t + 1))) / (np.sqrt(v / (1 - betas[1] ** (t + 1))) + 1e-6)
        np.testing.assert_allclose(ours.net.weight.detach().numpy(), theta, rtol=0, atol=1e-12)


def test_adam_is_fused_and_as_radford_has_it() -> None:
    ours = player(AdamConfig().lr)
    assert isinstance(ours.optimizer, torch.optim.Adam)
    ours.net.weight.grad = torch.ones_like(ours.net.weight)
    ours.apply_gradients(context())
    told = ours.optimizer.param_groups[0]
    assert told["fused"] is True
    assert (told["betas"], told["eps"], told["weight_decay"]) == ((0.5, 0.999), 1e-8, 0)
    assert AdamConfig().lr == 2e-4


def test_each_player_has_its_own_rate() -> None:
    """T10: two timescales. The dial of one never sets the other's."""
    told = recipe(
        "points",
        optimizer={
            "g": {"kind": "adam", "lr": 1e-4},
            "d": {"kind": "adam", "lr": {"kind": "linear", "start": 4e-4, "end": 0.0}},
        },
        steps=4,
    )
    run = Session(told, source("points"))
    rates = []
    for _ in range(4):
        run.play(1)
        rates.append([run.game.players[side].optimizer.param_groups[0]["lr"] for side in (Side.D, Side.G)])
    assert rates == [[pytest.approx(r), 1e-4] for r in (4e-4, 3e-4, 2e-4, 1e-4)]


def test_every_weight_is_optimised_by_its_own_player_alone() -> None:
    game = Session(recipe("pictures"), source("pictures")).game
    for side, ours in game.players.items():
        listed = [w for group in ours.optimizer.param_groups for w in group["params"]]
        assert {id(w) for w in listed} == {id(w) for w in ours.net.parameters()} == {id(w) for w in ours.weights}
        assert all(w.device == CPU for w in listed)
        assert ours.side is side


def test_still_wants_no_gradient_and_always_wants_it_again() -> None:
    ours = player(1e-3)
    with ours.no_weight_grad():
        assert not any(w.requires_grad for w in ours.weights)
    assert all(w.requires_grad for w in ours.weights)
    with pytest.raises(ZeroDivisionError), ours.no_weight_grad():
        raise ZeroDivisionError
    assert all(w.requires_grad for w in ours.weights)


def test_still_leaves_a_frozen_weight_frozen() -> None:
    ours = player(1e-3)
    ours.net.weight.requires_grad_(False)
    with ours.no_weight_grad():
        pass
    assert not ours.net.weight.requires_grad


@pytest.mark.parametrize(
    "wrong", [{"lr": -1e-3}, {"betas": [0.5, 1.0]}, {"betas": [0.5]}, {"eps": 0.0}, {"momentum": 0.9}]
)
def test_what_adam_cannot_take_is_refused_with_its_path(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=rf"optimizer\.g\.{next(iter(wrong))}"):
        recipe("points", optimizer={"g": {"kind": "adam", **wrong}, "d": {"kind": "adam"}})


@pytest.mark.parametrize(
    ("entry", "theirs"),
    [
        (AdamConfig(betas=(0.5, 0.99)), partial(torch.optim.Adam, betas=(0.5, 0.99), eps=1e-8, fused=True)),
        (AdamWConfig(weight_decay=0.1), partial(torch.optim.AdamW, betas=(0.5, 0.999), weight_decay=0.1, fused=True)),
        (SGDConfig(momentum=0.9), partial(torch.optim.SGD, momentum=0.9, fused=True)),
        (RMSPropConfig(momentum=0.5), partial(torch.optim.RMSprop, alpha=0.99, momentum=0.5, foreach=True)),
    ],
)
def test_five_steps_are_those_of_pytorchs_own_class(entry: OptimizerConfig, theirs: Any) -> None:
    """To the bit, with hooks called and no graph recorded, though its wrappers are passed by."""
    nets = [nn.Linear(5, 4) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ours, other = entry.build(list(nets[0].parameters())), theirs(nets[1].parameters(), lr=1e-2)
    called: list[object] = []
    ours.register_step_pre_hook(lambda *given: called.append(given))
    settings = entry.model_copy(update={"lr": 1e-2}).group_options(context())
    for step in range(5):
        inputs = torch.randn(3, 5, generator=torch.Generator().manual_seed(step))
        for net in nets:
            net.zero_grad()
            net(inputs).square().sum().backward()
        for group in ours.param_groups:
            group.update(settings)
        ours.step()
        other.step()
    assert len(called) == 5
    for one, two in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, two)
        assert one.requires_grad
        assert one.grad_fn is None


def test_the_optimiser_of_a_player_is_built_once_and_when_it_is_asked_for() -> None:
    built: list[object] = []

    def build(groups: Any) -> torch.optim.Optimizer:
        built.append(groups)
        return AdamConfig().build(groups)

    net, encoder = nn.Linear(2, 2), nn.Linear(2, 1)
    player = Player(Side.G, net, build, AdamConfig().group_options, encoder, encoder_lr_scale=3.0)
    assert built == []
    assert player.optimizer is player.optimizer
    assert len(built) == 1
    first, second = player.optimizer.param_groups
    assert [id(w) for w in first["params"]] == [id(w) for w in net.parameters()]
    assert [id(w) for w in second["params"]] == [id(w) for w in encoder.parameters()]
    assert second["lr_scale"] == 3.0
