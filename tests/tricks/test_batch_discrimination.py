"""Minibatch discrimination and standard deviation, compared with loops in plain Python, alone and in games."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import Session, findings_of, recipe, session, source, suited, unequal
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
from tricks.small import TanhDiscriminator, as_float64, discriminated, randn

KERNELS: dict[str, Any] = {"kind": "minibatch_discrimination", "kernels": 3, "dims": 2}
STDDEV: dict[str, Any] = {"kind": "minibatch_stddev", "group": 4}
BOTH = pytest.mark.parametrize("trick", [KERNELS, STDDEV], ids=["discrimination", "stddev"])
CONTEXT = TrickContext({}, DataSpec((2,)))
SMOOTH: dict[str, Any] = {
    "network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "none"}}
}


def wrapped_d(run: Session) -> WithBatchStatistic:
    net = run.game.d.net
    assert isinstance(net, WithBatchStatistic)
    return net


def with_random_head(run: Session) -> Session:
    """Give the head random weights, so that the statistic affects the score."""
    if not isinstance(run.game.d.net, WithBatchStatistic):
        return run
    with torch.no_grad():
        head = wrapped_d(run).head.weight
        head.copy_(randn(*head.shape, seed=9))
    return run


# ---------------------------------------------------------------- formulas


def test_batch_similarity_equals_three_loops() -> None:
    rows = randn(7, 4, 3, dtype=torch.float64)
    rows[5] = rows[2]
    similarity, numbers = batch_similarity(rows), as_float64(rows)
    for i in range(7):
        for b in range(4):
            expected = 0.0
            for j in range(7):
                if j != i:
                    expected += math.exp(-sum(abs(numbers[i, b, c] - numbers[j, b, c]) for c in range(3)))
            assert float(similarity[i, b]) == pytest.approx(expected, rel=1e-12)
    assert batch_similarity(torch.zeros(6, 2, 3)).tolist() == [[5.0, 5.0]] * 6
    assert batch_similarity(1000.0 * torch.arange(4.0).view(4, 1, 1)).abs().max() == 0
    assert batch_similarity(randn(1, 2, 3)).tolist() == [[0.0, 0.0]]


def test_gradients() -> None:
    rows = randn(5, 3, 2, dtype=torch.float64).requires_grad_()
    features = randn(6, 4, seed=1, dtype=torch.float64).requires_grad_()
    weight = randn(4, 6, seed=2, dtype=torch.float64).requires_grad_()

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
    stddev = group_stddev(features, 4)
    assert stddev.tolist() == pytest.approx([1e-4] * 8, rel=1e-5)
    for statistic in (WithGroupStddev(nn.Linear(4, 1), 4), DiscriminationKernels(3, 2, 2)):
        (gradient,) = torch.autograd.grad(statistic(features).sum(), features, create_graph=True)
        assert torch.isfinite(gradient).all()
        gradient.square().sum().backward()
        assert features.grad is not None
        assert torch.isfinite(features.grad).all()
        assert all(torch.isfinite(w.grad).all() for w in statistic.parameters() if w.grad is not None)


def test_kernels_map_features_by_their_tensor() -> None:
    layer, features = DiscriminationKernels(4, 3, 2).double(), randn(5, 4, dtype=torch.float64)
    tensor = as_float64(layer.weight).reshape(4, 3, 2)
    rows = np.einsum("na,abc->nbc", as_float64(features), tensor)
    statistic = layer(features)
    assert statistic.shape == (5, 3)
    np.testing.assert_allclose(as_float64(statistic), as_float64(batch_similarity(torch.from_numpy(rows))), rtol=1e-10)
    torch.manual_seed(0)
    wide = DiscriminationKernels(400, 50, 5).weight.detach()
    assert float(wide.std()) == pytest.approx(1 / 20, rel=5 / math.sqrt(2 * wide.numel()))
    assert abs(float(wide.mean())) < 5 / 20 / math.sqrt(wide.numel())


# ---------------------------------------------------------------- the score


def test_the_head_of_the_statistic_is_added_to_the_score() -> None:
    d, x = TanhDiscriminator(2), randn(8, 2)
    d.width = 5
    for statistic, count in ((DiscriminationKernels(5, 3, 2), 3),):
        net = WithBatchStatistic(d, statistic, count)
        assert net.head.weight.shape == (1, count)
        assert net.head.bias is None
        assert torch.equal(net(x).score, d(x).score)
        with torch.no_grad():
            net.head.weight.copy_(torch.arange(1.0, count + 1)[None])
        output = net(x)
        expected = d(x).score + (statistic(d(x).features) * torch.arange(1.0, count + 1)).sum(1)
        assert torch.allclose(output.score, expected, atol=1e-6)
        assert output.score.shape == (8,)
        assert torch.equal(output.features, d(x).features)


@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_d_starts_as_without_the_trick_and_learns(world: str) -> None:
    plain, run = session(world), session(world, KERNELS)
    net = wrapped_d(run)
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
    "config", [MinibatchDiscriminationConfig(kernels=0), MinibatchStddevConfig(group=1)], ids=["kernels", "group"]
)
def test_without_kernels_or_groups_d_is_unchanged(
    config: MinibatchDiscriminationConfig | MinibatchStddevConfig,
) -> None:
    net = nn.Identity()
    assert config.build("t", CONTEXT).transform_network(Side.D, net) is net


def test_defaults_are_the_papers() -> None:
    net = TanhDiscriminator(2)
    net.width = 5
    wrapped = MinibatchDiscriminationConfig().build("t", CONTEXT).transform_network(Side.D, net)
    assert isinstance(wrapped, WithBatchStatistic)
    assert isinstance(wrapped.statistic, DiscriminationKernels)
    assert (wrapped.statistic.kernels, wrapped.statistic.dims, wrapped.head.in_features) == (50, 5, 50)
    assert wrapped.statistic.weight.shape == (5, 250)
    assert MinibatchDiscrimination.sides == {Side.D}


# ---------------------------------------------------------------- in games


@BOTH
def test_real_and_fake_batches_are_compared_separately(trick: dict[str, Any]) -> None:
    alone = session("pictures", **SMOOTH)
    assert alone.game.discriminate is discriminate_jointly
    run = with_random_head(session("pictures", trick, **SMOOTH))
    assert run.game.discriminate is discriminate_separately
    real = randn(8, 1, 8, 8)

    def scores(fake: Tensor) -> tuple[Tensor, Tensor]:
        move = discriminated(run.game.d.net, real, fake, judge=run.game.discriminate)
        return move.score("real"), move.score("fake")

    first, second = scores(randn(8, 1, 8, 8, seed=1)), scores(randn(8, 1, 8, 8, seed=2))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])
    other = randn(8, 1, 8, 8, seed=1)
    other[7] += 1
    assert (scores(other)[1][:7] != first[1][:7]).any()  # but samples of one batch affect each other


def test_a_collapsed_g_gets_a_different_score() -> None:
    """The networks differ in the statistic only: the same images many times, or different ones."""
    net = wrapped_d(with_random_head(session("pictures", KERNELS, **SMOOTH)))
    different = randn(8, 1, 8, 8)
    same = different[:1].expand(8, -1, -1, -1)
    with torch.no_grad():
        contributions = (
            net(different).score[0] - net.net(different).score[0],
            net(same).score[0] - net.net(same).score[0],
        )
    assert abs(float(contributions[0] - contributions[1])) > 1e-3


LABELS: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    ({"g": {"kind": "concat"}, "d": {"kind": "projection"}}, []),
    ({"g": {"kind": "concat"}, "d": {"kind": "channels"}}, []),
    ({"g": {"kind": "concat"}}, [{"kind": "auxiliary_classifier"}]),
    ({"g": {"kind": "class_norm"}, "d": {"kind": "projection"}}, [{"kind": "auxiliary_classifier"}]),
]


@BOTH
@pytest.mark.parametrize(("conditioning", "others"), LABELS)
def test_labels_are_passed_on(
    trick: dict[str, Any], conditioning: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    checked = recipe("labelled", trick, *others, conditioning=conditioning, **SMOOTH)
    assert findings_of(checked, "labelled").refusals == []
    run = with_random_head(Session(checked, source("labelled"))).play(2)
    net = run.game.d.net
    assert all(torch.isfinite(t).all() for t in run.saved().values())
    move = run.of(Side.D)[-1].move
    assert (move.outputs["real"].classes is not None) is bool(others)
    x, labels = randn(8, 1, 8, 8), torch.arange(8) % 4
    with torch.no_grad():
        first, second = (call_network(net, x, classes).score for classes in (labels, labels.flip(0)))
    assert torch.equal(first, second) is ("d" not in conditioning)


@BOTH
@pytest.mark.parametrize("world", ["points", "pictures"])
@pytest.mark.parametrize("objective", ["energy", "began", "wasserstein"])
def test_an_autoencoder_is_rejected_with_a_cure(trick: dict[str, Any], world: str, objective: str) -> None:
    tables = suited(world, "energy") | {"objective": {"kind": objective}}
    (one,) = [
        f for f in findings_of(recipe(world, {"kind": "lecam"}, trick, **tables), world).refusals if "adds" in f.message
    ]
    assert one.field == "tricks.1"
    assert trick["kind"] in one.message
    assert "packing" in one.cure
    assert findings_of(recipe(world, trick), world).refusals == []


@BOTH
@pytest.mark.parametrize("penalty", [{"kind": "r1"}, {"kind": "r2"}, {"kind": "wgan_gp"}, {"kind": "dragan"}])
def test_penalties_are_finite(trick: dict[str, Any], penalty: dict[str, Any]) -> None:
    run = with_random_head(session("pictures", trick, penalty, **SMOOTH)).play(3)
    assert all(torch.isfinite(t).all() for t in run.saved().values())


@pytest.mark.parametrize("penalty", ["r1", "wgan_gp"])
def test_a_penaltys_gradient_equals_finite_differences(penalty: str) -> None:
    inner = TanhDiscriminator(3).double()
    inner.width = 5
    torch.manual_seed(2)
    net = WithBatchStatistic(inner, DiscriminationKernels(5, 3, 2), 3).double()
    with torch.no_grad():
        net.head.weight.copy_(randn(*net.head.weight.shape, seed=4))
    term = R1("p", 1.0) if penalty == "r1" else WGANGPConfig().build("p", CONTEXT)
    origins = [randn(8, 3, seed=s, dtype=torch.float64) for s in (5, 6)]

    def loss() -> Tensor:
        return term.loss(discriminated(net, origins[0].clone(), origins[1].clone(), *sorted(term.needs_input_gradient)))

    parameters = [net.head.weight, inner.first, *net.statistic.parameters()]
    for weight, gradient in zip(parameters, torch.autograd.grad(loss(), parameters), strict=True):
        assert torch.isfinite(gradient).all()
        direction, h = randn(*weight.shape, seed=7, dtype=torch.float64), 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * h * direction
            values.append(float(loss().detach()))
            with torch.no_grad():
                weight -= sign * h * direction
        assert float((gradient * direction).sum()) == pytest.approx(
            (values[0] - values[1]) / (2 * h), rel=1e-5, abs=1e-8
        )
        assert gradient.abs().max() > 1e-6


@BOTH
def test_is_resumed(trick: dict[str, Any]) -> None:
    whole, half = session("pictures", trick).play(4), session("pictures", trick).play(2)
    assert unequal(whole.saved(), half.resumed().play(2).saved()) == []


def test_both_at_once() -> None:
    run = session("pictures", KERNELS, STDDEV).play(2)
    outer = wrapped_d(run)
    assert isinstance(outer.statistic, DiscriminationKernels)
    assert any(isinstance(module, WithGroupStddev) for module in outer.modules())


def test_other_tricks_get_the_features() -> None:
    run = session("pictures", STDDEV, {"kind": "pulling_away"}, {"kind": "feature_matching"}).play(2)
    move: MoveData = run.of(Side.G)[-1].move
    assert move.extra_output("fake", "features").shape == (8, run.game.d.net.width)


class HalfPrecisionFeatures(nn.Module):
    """A D whose features are in half precision, as under autocast."""

    width = 16

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(x.bfloat16().sum(1), x.bfloat16())


def test_the_statistic_is_computed_in_float32() -> None:
    """Samples that nearly coincide differ by less than the rounding error of bfloat16 in a sum of 64."""
    torch.manual_seed(0)
    statistic = DiscriminationKernels(16, 50, 5)
    net = WithBatchStatistic(HalfPrecisionFeatures(), statistic, 50)
    outputs: list[Tensor] = []
    statistic.register_forward_hook(lambda *args: outputs.append(args[2].detach()))
    x = (randn(64, 16) * 0.05).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        net(x)
    assert outputs[0].dtype == torch.float32
    assert torch.allclose(outputs[0], statistic(x).detach(), rtol=1e-4)
