"""Minibatch discrimination and its standard deviation, against loops in plain Python, alone and in games."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import Session, misfits, recipe, session, source, suited, unequal
from poise.core.move import MoveData
from poise.core.types import DataSpec, DiscriminatorOutput, Side
from poise.engine.game import discriminate_jointly, discriminate_separately
from poise.networks.base import call_network, mixes_samples
from poise.tricks.base import TrickContext
from poise.tricks.batch_discrimination import (
    DiscriminationKernels,
    MinibatchDiscrimination,
    MinibatchDiscriminationConfig,
    WithBatchStatistic,
    batch_similarity,
)
from poise.tricks.batch_stddev import MinibatchStddevConfig, WithGroupStddev, group_stddev
from poise.tricks.gradient_penalties import R1
from poise.tricks.unit_gradient_penalties import WGANGPConfig
from tricks.small import Bent, as_float64, cloud, faced

KERNELS: dict[str, Any] = {"kind": "minibatch_discrimination", "kernels": 3, "dims": 2}
STDDEV: dict[str, Any] = {"kind": "minibatch_stddev", "group": 4}
BOTH = pytest.mark.parametrize("trick", [KERNELS, STDDEV], ids=["discrimination", "stddev"])
STAGE = TrickContext({}, DataSpec((2,)))
SMOOTH: dict[str, Any] = {
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "none"}}
}


def comparing(run: Session) -> WithBatchStatistic:
    net = run.game.d.net
    assert isinstance(net, WithBatchStatistic)
    return net


def awake(run: Session) -> Session:
    """With a head that already says something."""
    if not isinstance(run.game.d.net, WithBatchStatistic):
        return run
    with torch.no_grad():
        head = comparing(run).head.weight
        head.copy_(cloud(*head.shape, seed=9))
    return run


# ---------------------------------------------------------------- formulas


def test_closeness_is_three_loops() -> None:
    rows = cloud(7, 4, 3, dtype=torch.float64)
    rows[5] = rows[2]
    told, numbers = batch_similarity(rows), as_float64(rows)
    for i in range(7):
        for b in range(4):
            expected = 0.0
            for j in range(7):
                if j != i:
                    expected += math.exp(-sum(abs(numbers[i, b, c] - numbers[j, b, c]) for c in range(3)))
            assert float(told[i, b]) == pytest.approx(expected, rel=1e-12)
    assert batch_similarity(torch.zeros(6, 2, 3)).tolist() == [[5.0, 5.0]] * 6
    assert batch_similarity(1000.0 * torch.arange(4.0).view(4, 1, 1)).abs().max() == 0
    assert batch_similarity(cloud(1, 2, 3)).tolist() == [[0.0, 0.0]]


def test_gradients() -> None:
    rows = cloud(5, 3, 2, dtype=torch.float64).requires_grad_()
    features = cloud(6, 4, seed=1, dtype=torch.float64).requires_grad_()
    weight = cloud(4, 6, seed=2, dtype=torch.float64).requires_grad_()

    def kernels(features: Tensor, weight: Tensor) -> Tensor:
        return batch_similarity((features @ weight).view(-1, 3, 2))

    assert torch.autograd.gradcheck(batch_similarity, rows)
    assert torch.autograd.gradgradcheck(batch_similarity, rows)
    assert torch.autograd.gradcheck(kernels, (features, weight))
    for group in (2, 3, 4):
        assert torch.autograd.gradcheck(lambda f, group=group: group_stddev(f, group), features)
        assert torch.autograd.gradgradcheck(lambda f, group=group: group_stddev(f, group), features)


def test_identical_samples_have_finite_gradients() -> None:
    features = torch.ones(8, 3, requires_grad=True)
    spread = group_stddev(features, 4)
    assert spread.tolist() == pytest.approx([1e-4] * 8, rel=1e-5)
    for statistic in (WithGroupStddev(nn.Linear(4, 1), 4), DiscriminationKernels(3, 2, 2)):
        (slope,) = torch.autograd.grad(statistic(features).sum(), features, create_graph=True)
        assert torch.isfinite(slope).all()
        slope.square().sum().backward()
        assert features.grad is not None
        assert torch.isfinite(features.grad).all()
        assert all(torch.isfinite(w.grad).all() for w in statistic.parameters() if w.grad is not None)


def test_kernels_see_features_through_their_tensor() -> None:
    layer, features = DiscriminationKernels(4, 3, 2).double(), cloud(5, 4, dtype=torch.float64)
    tensor = as_float64(layer.weight).reshape(4, 3, 2)
    rows = np.einsum("na,abc->nbc", as_float64(features), tensor)
    told = layer(features)
    assert told.shape == (5, 3)
    np.testing.assert_allclose(as_float64(told), as_float64(batch_similarity(torch.from_numpy(rows))), rtol=1e-10)
    torch.manual_seed(0)
    wide = DiscriminationKernels(400, 50, 5).weight.detach()
    assert float(wide.std()) == pytest.approx(1 / 20, rel=5 / math.sqrt(2 * wide.numel()))
    assert abs(float(wide.mean())) < 5 / 20 / math.sqrt(wide.numel())


# ---------------------------------------------------------------- in front of the score


def test_the_score_is_the_inner_ds_and_what_the_head_makes_of_the_statistic() -> None:
    d, x = Bent(2), cloud(8, 2)
    d.width = 5
    for statistic, count in ((DiscriminationKernels(5, 3, 2), 3),):
        net = WithBatchStatistic(d, statistic, count)
        assert net.head.weight.shape == (1, count)
        assert net.head.bias is None
        assert torch.equal(net(x).score, d(x).score)
        with torch.no_grad():
            net.head.weight.copy_(torch.arange(1.0, count + 1)[None])
        said = net(x)
        expected = d(x).score + (statistic(d(x).features) * torch.arange(1.0, count + 1)).sum(1)
        assert torch.allclose(said.score, expected, atol=1e-6)
        assert said.score.shape == (8,)
        assert torch.equal(said.features, d(x).features)


@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_d_starts_as_it_would_without_and_learns(world: str) -> None:
    plain, run = session(world), session(world, KERNELS)
    net = comparing(run)
    assert unequal(dict(plain.game.d.net.state_dict()), dict(net.net.state_dict())) == []
    assert unequal(dict(plain.game.g.net.state_dict()), dict(run.game.g.net.state_dict())) == []
    assert net.head.weight.tolist() == [[0.0] * 3]
    assert mixes_samples(net)
    first, alone = run.play(1).of(Side.D)[0].move, plain.play(1).of(Side.D)[0].move
    for origin in ("real", "fake"):
        assert torch.equal(first.score(origin), alone.score(origin))
    assert net.head.weight.abs().min() > 0
    run.play(3)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
    assert net.width == plain.game.d.net.width


@pytest.mark.parametrize(
    "entry", [MinibatchDiscriminationConfig(kernels=0), MinibatchStddevConfig(group=1)], ids=["kernels", "group"]
)
def test_nothing_to_compare_leaves_d_itself(entry: MinibatchDiscriminationConfig | MinibatchStddevConfig) -> None:
    net = nn.Identity()
    assert entry.build("t", STAGE).transform_network(Side.D, net) is net


def test_the_settings_are_the_papers() -> None:
    net = Bent(2)
    net.width = 5
    made = MinibatchDiscriminationConfig().build("t", STAGE).transform_network(Side.D, net)
    assert isinstance(made, WithBatchStatistic)
    assert isinstance(made.statistic, DiscriminationKernels)
    assert (made.statistic.kernels, made.statistic.dims, made.head.in_features) == (50, 5, 50)
    assert made.statistic.weight.shape == (5, 250)
    assert MinibatchDiscrimination.sides == {Side.D}


# ---------------------------------------------------------------- in games


@BOTH
def test_piles_are_judged_apart_and_never_mix(trick: dict[str, Any]) -> None:
    alone = session("pictures", **SMOOTH)
    assert alone.game.discriminate is discriminate_jointly
    run = awake(session("pictures", trick, **SMOOTH))
    assert run.game.discriminate is discriminate_separately
    real = cloud(8, 1, 8, 8)

    def scores(fake: Tensor) -> tuple[Tensor, Tensor]:
        move = faced(run.game.d.net, real, fake, judge=run.game.discriminate)
        return move.score("real"), move.score("fake")

    first, second = scores(cloud(8, 1, 8, 8, seed=1)), scores(cloud(8, 1, 8, 8, seed=2))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    other = cloud(8, 1, 8, 8, seed=1)
    other[7] += 1
    assert (scores(other)[1][:7] != first[1][:7]).any()  # but within a pile they do


def test_a_g_of_one_picture_is_found_out() -> None:
    """With weights that only the statistic tells apart: the same pictures, many times or once each."""
    net = comparing(awake(session("pictures", KERNELS, **SMOOTH)))
    many = cloud(8, 1, 8, 8)
    one = many[:1].expand(8, -1, -1, -1)
    with torch.no_grad():
        told = net(many).score[0] - net.net(many).score[0], net(one).score[0] - net.net(one).score[0]
    assert abs(float(told[0] - told[1])) > 1e-3


LABELS: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    ({"g": {"kind": "concat"}, "d": {"kind": "projection"}}, []),
    ({"g": {"kind": "concat"}, "d": {"kind": "channels"}}, []),
    ({"g": {"kind": "concat"}}, [{"kind": "auxiliary_classifier"}]),
    ({"g": {"kind": "class_norm"}, "d": {"kind": "projection"}}, [{"kind": "auxiliary_classifier"}]),
]


@BOTH
@pytest.mark.parametrize(("conditioning", "others"), LABELS)
def test_labels_go_through(trick: dict[str, Any], conditioning: dict[str, Any], others: list[dict[str, Any]]) -> None:
    told = recipe("labelled", trick, *others, conditioning=conditioning, **SMOOTH)
    assert misfits(told, "labelled").refusals == []
    run = awake(Session(told, source("labelled"))).play(2)
    net = run.game.d.net
    assert all(torch.isfinite(t).all() for t in run.saved().values())
    move = run.of(Side.D)[-1].move
    assert (move.outputs["real"].classes is not None) is bool(others)
    x, labels = cloud(8, 1, 8, 8), torch.arange(8) % 4
    with torch.no_grad():
        first, second = (call_network(net, x, kinds).score for kinds in (labels, labels.flip(0)))
    assert torch.equal(first, second) is ("d" not in conditioning)


@BOTH
@pytest.mark.parametrize("world", ["points", "pictures"])
@pytest.mark.parametrize("objective", ["energy", "began", "wasserstein"])
def test_an_autoencoder_is_refused_with_a_cure(trick: dict[str, Any], world: str, objective: str) -> None:
    tables = suited(world, "energy") | {"objective": {"kind": objective}}
    (one,) = [
        f for f in misfits(recipe(world, {"kind": "lecam"}, trick, **tables), world).refusals if "adds" in f.message
    ]
    assert one.field == "tricks.1"
    assert trick["kind"] in one.message
    assert "packing" in one.cure
    assert misfits(recipe(world, trick), world).refusals == []


@BOTH
@pytest.mark.parametrize("penalty", [{"kind": "r1"}, {"kind": "r2"}, {"kind": "wgan_gp"}, {"kind": "dragan"}])
def test_penalties_go_through(trick: dict[str, Any], penalty: dict[str, Any]) -> None:
    run = awake(session("pictures", trick, penalty, **SMOOTH)).play(3)
    assert all(torch.isfinite(t).all() for t in run.saved().values())


@pytest.mark.parametrize("charge", ["r1", "wgan_gp"])
def test_a_penaltys_gradient_is_that_of_differences(charge: str) -> None:
    inner = Bent(3).double()
    inner.width = 5
    torch.manual_seed(2)
    net = WithBatchStatistic(inner, DiscriminationKernels(5, 3, 2), 3).double()
    with torch.no_grad():
        net.head.weight.copy_(cloud(*net.head.weight.shape, seed=4))
    term = R1("p", 1.0) if charge == "r1" else WGANGPConfig().build("p", STAGE)
    origins = [cloud(8, 3, seed=s, dtype=torch.float64) for s in (5, 6)]

    def cost() -> Tensor:
        return term.loss(faced(net, origins[0].clone(), origins[1].clone(), *sorted(term.needs_input_gradient)))

    watched = [net.head.weight, inner.first, *net.statistic.parameters()]
    for weight, slope in zip(watched, torch.autograd.grad(cost(), watched), strict=True):
        assert torch.isfinite(slope).all()
        way, h = cloud(*weight.shape, seed=7, dtype=torch.float64), 1e-6
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * h * way
            found.append(float(cost().detach()))
            with torch.no_grad():
                weight -= sign * h * way
        assert float((slope * way).sum()) == pytest.approx((found[0] - found[1]) / (2 * h), rel=1e-5, abs=1e-8)
        assert slope.abs().max() > 1e-6


@BOTH
def test_is_resumed(trick: dict[str, Any]) -> None:
    whole, half = session("pictures", trick).play(4), session("pictures", trick).play(2)
    assert unequal(whole.saved(), half.resumed().play(2).saved()) == []


def test_both_at_once() -> None:
    run = session("pictures", KERNELS, STDDEV).play(2)
    outer = comparing(run)
    assert isinstance(outer.statistic, DiscriminationKernels)
    assert any(isinstance(module, WithGroupStddev) for module in outer.modules())


def test_other_tricks_see_the_features_behind_it() -> None:
    run = session("pictures", STDDEV, {"kind": "pulling_away"}, {"kind": "feature_matching"}).play(2)
    move: MoveData = run.of(Side.G)[-1].move
    assert move.extra_output("fake", "features").shape == (8, run.game.d.net.width)


class Halved(nn.Module):
    """A D whose features are in half precision, as under autocast."""

    width = 16

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(x.bfloat16().sum(1), x.bfloat16())


def test_half_precision_ends_before_the_statistic() -> None:
    """Samples that nearly coincide, which is what this is for, differ by less than bfloat16 tells in a sum of 64."""
    torch.manual_seed(0)
    statistic = DiscriminationKernels(16, 50, 5)
    net = WithBatchStatistic(Halved(), statistic, 50)
    heard_of: list[Tensor] = []
    statistic.register_forward_hook(lambda *told: heard_of.append(told[2].detach()))
    x = (cloud(64, 16) * 0.05).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        net(x)
    assert heard_of[0].dtype == torch.float32
    assert torch.allclose(heard_of[0], statistic(x).detach(), rtol=1e-4)
