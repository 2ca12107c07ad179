"""Packing: D scores several samples jointly, and everything that uses a score uses that of a pack."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts.tiny import BATCH, Linear, Session, context, findings_of, recipe, session, source, suited, unequal
from poise.core.types import DataSpec, Side, packed_shape
from poise.engine.game import discriminate_jointly, discriminate_separately
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.networks.norms import WithReferenceBatch
from poise.tricks.base import TrickContext
from poise.tricks.gradient_penalties import R1, R2
from poise.tricks.packing import PackedDiscriminator, Packing, PackingConfig, pack_samples
from poise.tricks.unit_gradient_penalties import DRAGANConfig, WGANGPConfig
from tricks.small import FixedBatches, N, Quadratic, discriminated, game_of, gradients, logged_means, randn

TWO: dict[str, Any] = {"kind": "packing", "samples": 2}
FOUR: dict[str, Any] = {"kind": "packing", "samples": 4}
CONTEXT = TrickContext({}, DataSpec((2,)))
ORIGINS = ("real", "fake")


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 2, 2), (2,)])
@pytest.mark.parametrize("last", [False, True])
def test_packs_are_concatenated_neighbours(m: int, shape: tuple[int, ...], last: bool) -> None:
    samples = randn(12, *shape)
    if last and len(shape) == 3:
        samples = samples.to(memory_format=torch.channels_last)
    packed = pack_samples(samples, m)
    assert packed.shape == (12 // m, *packed_shape(shape, m))
    for k in range(12 // m):
        assert torch.equal(packed[k], torch.cat([samples[k * m + i] for i in range(m)]))


def test_packs_of_one_leave_d_unchanged() -> None:
    net = nn.Identity()
    assert PackingConfig(samples=1).build("p", CONTEXT).transform_network(Side.D, net) is net
    assert PackingConfig(samples=1).pack == 1
    assert PackingConfig().pack == 2
    assert Packing.sides == {Side.D}


def test_a_packed_d_scores_packs() -> None:
    net = Packing("p", 3).transform_network(Side.D, Linear([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert isinstance(net, PackedDiscriminator)
    samples = randn(12, 2)
    expected = [
        sum(float(samples[k * 3 + i] @ torch.tensor([1.0 + 2 * i, 2 + 2 * i])) for i in range(3)) for k in range(4)
    ]
    assert net(samples).score.tolist() == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- compatibility


@pytest.mark.parametrize(("batch", "m", "cure"), [(8, 3, 6), (10, 4, 8), (3, 4, 4), (7, 2, 6), (65, 64, 64)])
def test_an_indivisible_batch_size_is_rejected(batch: int, m: int, cure: int) -> None:
    trick = {"kind": "packing", "samples": m}
    (one,) = findings_of(recipe("pictures", {"kind": "lecam"}, trick, batch=batch), "pictures").refusals
    assert one.field == "tricks.1"
    assert f"{m} samples" in one.message
    assert f"batch of {batch} " in one.message
    assert one.cure == f"set batch to {cure}"
    assert findings_of(recipe("pictures", trick, batch=cure), "pictures").refusals == []


def test_two_packings_multiply() -> None:
    three = {"kind": "packing", "samples": 3}
    result = recipe("points", TWO, three, batch=8)
    assert result.pack == 6
    assert {finding.cure for finding in findings_of(result, "points").refusals} == {"set batch to 6"}
    assert findings_of(recipe("points", TWO, three, batch=12), "points").refusals == []
    run = session("points", TWO, three, batch=12)
    x = randn(12, 2)
    inner = run.game.d.net.net.net
    assert torch.equal(run.game.d.net(x).score, inner(pack_samples(x, 6)).score)


@pytest.mark.parametrize(
    ("conditioning", "others"),
    [
        ({"g": {"kind": "concat"}, "d": {"kind": "projection"}}, []),
        ({"g": {"kind": "concat"}, "d": {"kind": "channels"}}, []),
        ({"g": {"kind": "concat"}}, [{"kind": "auxiliary_classifier"}]),
    ],
)
def test_label_conditioning_is_rejected_for_d_only(conditioning: dict[str, Any], others: list[dict[str, Any]]) -> None:
    found = findings_of(recipe("labelled", *others, TWO, conditioning=conditioning), "labelled").refusals
    (one,) = [finding for finding in found if "label" in finding.message]
    assert one.field == f"tricks.{len(others)}"
    assert "packing" in one.cure
    assert findings_of(recipe("labelled", TWO), "labelled").refusals == []
    alone = recipe("labelled", *others, TWO | {"samples": 1}, conditioning=conditioning)
    assert findings_of(alone, "labelled").refusals == []
    assert all(torch.isfinite(t).all() for t in session("labelled", TWO).play(2).saved().values())


# ---------------------------------------------------------------- networks

KINDS: list[tuple[str, dict[str, Any]]] = [
    *(("pictures", {"kind": "dcgan", "width": 2, "norm": norm}) for norm in ("none", "batch", "spectral", "virtual")),
    ("pictures", {"kind": "mlp", "width": 6, "depth": 2}),
    ("pictures", {"kind": "mlp", "width": 6, "depth": 2, "norm": "virtual"}),
    ("pictures", {"kind": "resnet", "width": 2, "norm": "none"}),
    ("pictures", {"kind": "resnet", "width": 2, "norm": "virtual"}),
    ("pictures", {"kind": "r3gan", "width": 4, "blocks": 1}),
    ("pictures", {"kind": "stylegan2", "width": 4, "widest": 8}),
    ("pictures", {"kind": "autoencoder", "width": 2, "code": 4}),
    ("points", {"kind": "mlp", "width": 6, "depth": 2}),
    ("points", {"kind": "flat_autoencoder", "width": 6, "depth": 1, "code": 2}),
]


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(("world", "d"), KINDS, ids=[f"{d['kind']}-{d.get('norm', '')}-{w}" for w, d in KINDS])
def test_d_is_built_for_packs_and_g_is_not(world: str, d: dict[str, Any], m: int) -> None:
    g = {"kind": "dcgan", "width": 2} if world == "pictures" else {"kind": "mlp", "width": 6}
    tables = suited(world, "energy") if "autoencoder" in d["kind"] else {}
    tables["network"] = {"g": g, "d": d}
    plain, run = session(world, **tables), session(world, {"kind": "packing", "samples": m}, **tables)
    assert findings_of(run.recipe, world).refusals == []
    net = run.game.d.net
    assert isinstance(net, PackedDiscriminator)
    shape = source(world).shape
    first = next(w for w in net.modules() if isinstance(w, nn.Linear | nn.Conv2d))
    inputs = first.in_channels if isinstance(first, nn.Conv2d) else first.in_features
    inputs_per_sample = shape[0] if isinstance(first, nn.Conv2d) else math.prod(shape)
    assert inputs == m * inputs_per_sample
    assert unequal(dict(plain.game.g.net.state_dict()), dict(run.game.g.net.state_dict())) == []
    run.play(2)
    for origin in ORIGINS:
        assert run.of(Side.D)[0].move.score(origin).shape == (BATCH // m,)
    assert run.of(Side.G)[0].move.score("fake").shape == (BATCH // m,)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
    if d.get("norm") == "virtual":
        assert isinstance(net.net, WithReferenceBatch)
        calibration = source(world).spec().calibration_samples
        assert calibration is not None
        expected = pack_samples(torch.cat([calibration] * 8)[: 64 * m], m)
        assert torch.equal(net.net.reference, expected)
        assert net.net.reference.shape == (64, m, 8, 8)


# ---------------------------------------------------------------- scores and losses


def packed_linear(*weight: float) -> PackedDiscriminator:
    return PackedDiscriminator(Linear(list(weight)), 2)


@pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
def test_penalties_use_the_gradient_of_packs(judge: Any) -> None:
    """D(x1, x2) = <w, (x1, x2)>: its input gradient is w, with norm 3."""
    weight, norm = (2.0, -1.0, 0.0, 2.0), 3.0
    for term, expected in (
        (R1("p", 1.0), norm**2 / 2),
        (R2("p", 1.0), norm**2 / 2),
        (WGANGPConfig(weight=1.0).build("p", CONTEXT), (norm - 1) ** 2),
        (DRAGANConfig(weight=1.0).build("p", CONTEXT), (norm - 1) ** 2),
    ):
        game, metrics = game_of(term, d=packed_linear(*weight), judge=judge), StepMetrics()
        make_move(game, FixedBatches(randn(N, 2)), context(), metrics)
        assert logged_means(metrics)["d/p"] == pytest.approx(expected, rel=1e-6)


def test_gradients_that_differ_between_packs() -> None:
    """D(x) = x'Ax / 2 over packs of two: 1/2 E |Ax|^2 and E (|Ax| - 1)^2 over packs."""
    a = randn(4, 4, dtype=torch.float64)
    d, x = PackedDiscriminator(Quadratic(a + a.T), 2), randn(N, 2, seed=1, dtype=torch.float64)
    gradient = pack_samples(x, 2) @ (a + a.T)
    move = discriminated(d, x.clone(), x.clone(), "real")
    assert torch.allclose(move.input_gradient("real"), gradient, atol=1e-12)
    assert float(R1("r1", 1.0).loss(move).detach()) == pytest.approx(
        float(gradient.square().sum(1).mean() / 2), rel=1e-9
    )
    move = discriminated(d, x.clone(), x.clone())
    result = WGANGPConfig().build("p", CONTEXT).loss(move)  # real = fake, so x^ = x
    assert float(result.detach()) == pytest.approx(float((gradient.norm(dim=1) - 1).square().mean()), rel=1e-6)


@pytest.mark.parametrize("world", ["points", "pictures"])
@pytest.mark.parametrize("kind", ["r1", "r2", "wgan_gp", "dragan", "consistency", "lecam", "pulling_away"])
def test_loss_terms_work_with_packs(world: str, kind: str) -> None:
    if kind == "consistency" and world == "points":
        world = "labelled"
    run = session(world, FOUR, {"kind": kind}).play(3)
    assert all(torch.isfinite(t).all() for t in run.saved().values())


@pytest.mark.parametrize("m", [1, 2, 4])
def test_separate_and_joint_batches_have_equal_scores(m: int) -> None:
    d = PackedDiscriminator(Quadratic(randn(2 * m, 2 * m)), m)
    real, fake = randn(N, 2), randn(N, 2, seed=1) * 3
    for judge in (discriminate_separately, discriminate_jointly):
        move = discriminated(d, real, fake, judge=judge)
        for origin, samples in (("real", real), ("fake", fake)):
            result = move.score(origin)
            assert result.shape == (N // m,)
            assert torch.allclose(result, d.net(pack_samples(samples, m)).score, atol=1e-5)


def test_packing_alone_does_not_couple_packs() -> None:
    smooth = {"network": {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "none"}}}
    assert session("pictures", TWO, **smooth).game.discriminate is discriminate_jointly
    assert session("pictures", TWO).game.discriminate is discriminate_separately


@pytest.mark.parametrize("objective", ["relativistic", "relativistic_average"])
def test_relativistic_compares_packs(objective: str) -> None:
    run = session("points", TWO, objective={"kind": objective}).play(2)
    move = run.of(Side.G)[0].move
    real, fake = move.score("real"), move.score("fake")
    assert real.shape == fake.shape == (BATCH // 2,)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
    if objective == "relativistic":
        result = run.of(Side.G)[0].move.logged["adversarial"]
        assert float(result) == pytest.approx(float(softplus(real - fake).mean().detach()), rel=1e-5)


def test_gs_gradient_is_that_of_every_sample_of_a_pack() -> None:
    """G only shifts: its gradient is E of -sigmoid(-D) times the sum of D's weights over the samples of a pack."""
    game = game_of(d=packed_linear(2.0, -1.0, 0.5, 3.0))
    move = make_move(game, FixedBatches(randn(N, 2)), context(side=Side.G), StepMetrics())
    share = torch.sigmoid(-move.score("fake").detach())
    expected = -(share.mean() * torch.tensor([2.5, 2.0]))
    (result,) = gradients(game.g.net)
    assert result.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize("tricks", [(TWO,), (FOUR, {"kind": "r1"}, {"kind": "minibatch_stddev", "group": 2})])
def test_is_resumed(tricks: tuple[dict[str, Any], ...]) -> None:
    whole, half = session("pictures", *tricks).play(4), session("pictures", *tricks).play(2)
    assert unequal(whole.saved(), half.resumed().play(2).saved()) == []


def test_batch_discrimination_compares_packs() -> None:
    kernels = (
        session("pictures", TWO, {"kind": "minibatch_discrimination"}, {"kind": "pulling_away"}).play(1).game.d.net
    )
    assert kernels.width == kernels.net.width == kernels.net.net.width
    for order in ((TWO, {"kind": "minibatch_stddev"}), ({"kind": "minibatch_stddev"}, TWO)):
        run = session("pictures", *order)
        inputs: list[Tensor] = []
        net = run.game.d.net
        (statistic,) = [m for m in net.modules() if type(m).__name__ == "WithGroupStddev"]
        statistic.register_forward_pre_hook(lambda _, result, inputs=inputs: inputs.append(result[0]))
        run.play(1)
        assert {len(result) for result in inputs} == {BATCH // 2}


def test_runs_in_bfloat16() -> None:
    run = Session(recipe("pictures", TWO, {"kind": "r1"}), source("pictures"), precision="bf16").play(2)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
