"""Encoders: what they make of samples, free codes by their places, and whose gradient goes where."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import BATCH, CPU, Session, for_one, misfits, recipe, session, source, with_encoder
from poise.core.random_streams import RandomStreams
from poise.core.types import EncoderOutput, MoveContext, Side
from poise.engine.batches import RealBatches
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.networks.base import EncoderModule, call_encoder, mixes_samples
from poise.networks.encoders import DCGANEncoderConfig, FreeCodesConfig, MLPEncoderConfig
from poise.utils.images import to_float

FREE: dict[str, Any] = {"kind": "free_codes"}


def alone(encoder: dict[str, Any], world: str = "pictures", **changes: Any) -> Session:
    """A game for one with this encoder."""
    tables: dict[str, Any] = for_one(world) | {"objective": {"kind": "reconstruction"}} | changes
    return session(world, **(tables | {"network": {"g": tables["network"]["g"], "e": encoder}}))


def numbers(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- what they say


@pytest.mark.parametrize(
    ("entry", "shape"),
    [
        (MLPEncoderConfig(width=8), (2,)),
        (MLPEncoderConfig(width=8), (1, 8, 8)),
        (DCGANEncoderConfig(width=2), (1, 8, 8)),
        (DCGANEncoderConfig(width=2, norm="none"), (3, 32, 32)),
        (DCGANEncoderConfig(width=2, down="average"), (1, 16, 16)),
    ],
)
def test_networks_make_so_many_numbers_of_a_sample(entry: Any, shape: tuple[int, ...]) -> None:
    net = entry.build(shape, 6, 40)
    said = net(numbers(5, *shape))
    assert said.shape == (5, 6)
    assert bool((said != 0).any())
    assert not torch.equal(said[0], said[1])
    said.sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())


def test_an_encoder_has_no_bounds_on_a_code() -> None:
    """Codes of pictures far from 0 lie far from 0: nothing squashes the last layer."""
    for entry, shape in ((MLPEncoderConfig(width=8), (1, 8, 8)), (DCGANEncoderConfig(width=2, norm="none"), (1, 8, 8))):
        assert float(entry.build(shape, 6, 0)(1e4 * numbers(5, *shape)).detach().abs().max()) > 10


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_whether_a_code_depends_on_the_batch(norm: Any) -> None:
    net = DCGANEncoderConfig(width=2, norm=norm).build((1, 8, 8), 4, 0)
    assert mixes_samples(net) is (norm == "batch")
    x = numbers(4, 1, 8, 8)
    assert torch.allclose(net(x)[:2], net(x[:2]), atol=1e-6) is (norm == "none")


class Said(nn.Module):
    """Says what it was given."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_code_is_a_point_or_a_region() -> None:
    said = numbers(3, 6)
    point = EncoderModule(Said(), has_variance=False)(said)
    assert isinstance(point, EncoderOutput)
    assert torch.equal(point.mean, said)
    assert point.log_var is None
    mean, log_var = EncoderModule(Said(), has_variance=True)(said)
    assert torch.equal(mean, said[:, :3])
    assert torch.equal(log_var, said[:, 3:])


@pytest.mark.parametrize("objective", ["reconstruction", "elbo"])
@pytest.mark.parametrize("world", ["points", "pictures"])
def test_a_game_gives_a_code_as_many_numbers_as_a_latent(world: str, objective: str) -> None:
    run = session(world, **for_one(world), objective={"kind": objective}).play(1)
    mean, log_var = run.moves[0].move.reconstruction.codes
    assert mean.shape == (BATCH, run.recipe.latent.dim)
    assert (log_var is not None) is (objective == "elbo")
    if log_var is not None:
        assert log_var.shape == mean.shape
    assert torch.isfinite(run.moves[0].move.reconstruction.images).all()


# ---------------------------------------------------------------- free codes


def test_free_codes_begin_as_normal_numbers() -> None:
    for std in (1.0, 0.1):
        table = FreeCodesConfig(std=std).build((1, 8, 8), 50, 400)
        assert isinstance(table, nn.Embedding)
        assert table.weight.shape == (400, 50)
        assert float(table.weight.detach().std()) == pytest.approx(std, rel=0.03)
        assert float(table.weight.detach().mean()) == pytest.approx(0, abs=0.05 * std)


def test_they_are_looked_up_by_place_and_networks_are_not_told_any() -> None:
    table = EncoderModule(FreeCodesConfig().build((1, 8, 8), 3, 10), has_variance=False)
    at = torch.tensor([7, 0, 7])
    images = numbers(3, 1, 8, 8)
    assert torch.equal(call_encoder(table, images, lambda: at).mean, table.net.weight[at])

    def never() -> Tensor:
        raise AssertionError("nobody asked for places")

    net = EncoderModule(MLPEncoderConfig(width=4).build((1, 8, 8), 3, 10), has_variance=False)
    assert torch.equal(call_encoder(net, images, never).mean, net.net(images))


def test_a_step_changes_the_codes_of_its_own_pictures_and_no_others() -> None:
    run = alone(FREE)
    weight = run.game.g.encoder.net.weight
    assert weight.shape == (40, 3)
    before, at = weight.detach().clone(), run.context()
    places = run.batches.indices(at.for_move(Side.G, 0))
    run.play(1)
    changed = (weight.detach() != before).any(1)
    assert sorted(set(places.tolist())) == changed.nonzero().flatten().tolist()
    assert len(set(places.tolist())) == BATCH
    assert torch.equal(run.moves[0].move.reconstruction.codes.mean, before[places])
    assert torch.equal(run.moves[0].latents, before[places])


def test_a_code_stays_with_its_picture() -> None:
    """Over three epochs a free code and its picture meet at the same place."""
    run = alone(FREE).play(15)
    for played_move in run.moves:
        places = run.batches.indices(played_move.context)
        assert torch.equal(played_move.real, to_float(source("pictures").gather(places).images))
    seen = torch.cat([run.batches.indices(played_move.context) for played_move in run.moves])
    assert seen.bincount(minlength=40).tolist() == [3] * 40


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("side", list(Side))
def test_places_are_those_of_the_pictures_that_were_drawn(most: int, side: Side) -> None:
    batches = RealBatches(source("labelled"), CPU, most)
    for step in range(12):
        for turn in range(4):
            at = MoveContext(step, 12, 7, RandomStreams(3), side, turn)
            real, labels = batches.load(at, labels=True)
            places = batches.indices(at)
            assert places.dtype == torch.int64
            batch = source("labelled").gather(places)
            assert torch.equal(real, to_float(batch.images))
            assert torch.equal(labels, batch.labels)


def test_what_has_no_end_has_no_places() -> None:
    with pytest.raises(ValueError, match="no places"):
        RealBatches(source("points"), CPU, 1).indices(MoveContext(0, 1, 4, RandomStreams(0)))


def test_on_the_sphere_codes_are_brought_there() -> None:
    run = alone(FREE, latent={"kind": "sphere", "dim": 3}).play(2)
    rebuilt = run.moves[-1].move.reconstruction
    torch.testing.assert_close(rebuilt.latents.norm(dim=1), torch.ones(BATCH))
    torch.testing.assert_close(rebuilt.latents, nn.functional.normalize(rebuilt.codes.mean, dim=1))


# ---------------------------------------------------------------- rates


def first_step(encoder: dict[str, Any], **changes: Any) -> tuple[list[Tensor], list[Tensor]]:
    """How far the first step moves G's weights, and its encoder's."""
    run = alone(encoder, **changes)
    nets = (run.game.g.net, run.game.g.encoder)
    before = [[weight.detach().clone() for weight in net.parameters()] for net in nets]
    run.play(1)
    after = [[weight.detach() for weight in net.parameters()] for net in nets]
    moved = [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)]
    return moved[0], moved[1]


SGD: dict[str, Any] = {"g": {"kind": "sgd", "lr": 0.1}}


@pytest.mark.parametrize("encoder", [{"kind": "dcgan", "width": 2}, {"kind": "mlp", "width": 4}, FREE])
def test_pace_is_a_factor_of_the_encoders_rate_alone(encoder: dict[str, Any]) -> None:
    slow, fast = (first_step(encoder | {"pace": pace}, optimizer=SGD) for pace in (1.0, 10.0))
    assert all(torch.equal(a, b) for a, b in zip(slow[0], fast[0], strict=True))
    assert sum(float(weight.norm()) for weight in slow[1]) > 1e-6
    for a, b in zip(slow[1], fast[1], strict=True):
        torch.testing.assert_close(b, 10 * a, rtol=1e-3, atol=2e-6)


def test_pace_and_a_setback_multiply() -> None:
    run = alone(FREE | {"pace": 5.0}, optimizer={"g": {"kind": "sgd", "lr": {"start": 0.2, "end": 0.0}}})
    run.game.g.lr_scale = 0.5
    for at in range(3):
        run.play(1)
        rate = 0.2 * (1 - at / 12) * 0.5
        assert [group["lr"] for group in run.game.g.optimizer.param_groups] == pytest.approx([rate, 5 * rate])


def test_free_codes_have_a_rate_of_their_own_and_networks_gs() -> None:
    for encoder, pace in ((FREE, 10.0), ({"kind": "mlp"}, 1.0), ({"kind": "dcgan"}, 1.0)):
        run = alone(encoder).play(1)
        assert [group["lr"] for group in run.game.g.optimizer.param_groups] == pytest.approx([1e-2, pace * 1e-2])


def test_a_first_step_that_is_not_made_leaves_momentum_at_nothing() -> None:
    """Of the encoder's weights too."""
    run = alone({"kind": "mlp", "width": 4}, optimizer={"g": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}})
    player = run.game.g
    before = [weight.detach().clone() for weight in player.weights]
    for weight in player.weights:
        weight.grad = torch.full_like(weight, torch.nan)
    player.set_found_inf(torch.tensor([torch.nan]))
    player.apply_gradients(run.context().for_move(Side.G, 0))
    assert all(torch.equal(a, b) for a, b in zip(before, player.weights, strict=True))
    assert len(player.optimizer.state) == len(player.weights)
    for weight in player.weights:
        assert not player.optimizer.state[weight]["momentum_buffer"].any()


# ---------------------------------------------------------------- whose gradient goes where


def test_the_encoder_is_gs_and_its_start_is_its_own() -> None:
    """Another encoder leaves G's and D's first weights as they were, and no encoder does too."""
    compute, data_spec = ComputeSettings(CPU, "fp32"), source("pictures").spec()
    trick = {"kind": "feature_reconstruction"}
    with_it = recipe("pictures", trick, **with_encoder("pictures"))
    games = [build_game(told, data_spec, compute, RandomStreams(0)) for told in (with_it, recipe("pictures"))]
    for side in Side:
        pairs = zip(*(game.players[side].net.parameters() for game in games), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    player = games[0].g
    names = [name for name, _ in player.named_weights()]
    assert len(set(names)) == len(names) == len(player.weights)
    assert any(name.startswith("encoder.") for name in names)
    assert {id(weight) for group in player.optimizer.param_groups for weight in group["params"]} == {
        id(weight) for weight in player.weights
    }
    assert games[1].g.encoder is None


@pytest.mark.parametrize("others", [(), ({"kind": "r1"},)])
def test_in_ds_move_what_is_rebuilt_carries_no_gradient(others: tuple[dict[str, Any], ...]) -> None:
    """Not even where a penalty wants the slope at the reals."""
    run = session("pictures", {"kind": "judged_reconstruction"}, *others, **with_encoder("pictures")).play(2)
    assert all(not played_move.move.reconstruction.images.requires_grad for played_move in run.of(Side.D))
    assert all(not played_move.move.reconstruction.latents.requires_grad for played_move in run.of(Side.D))
    assert all(played_move.move.reconstruction.images.requires_grad for played_move in run.of(Side.G))
    assert all(played_move.move.reconstruction.latents.requires_grad for played_move in run.of(Side.G))


@pytest.mark.parametrize("side", list(Side))
def test_what_g_makes_of_other_latents_has_a_gradient_in_its_own_move_only(side: Side) -> None:
    run = session("pictures", **with_encoder("pictures"))
    at = run.context().for_move(side, 0)
    with run.game.in_move(at):
        assert run.game.generate_fn(at, None)(numbers(4, 3).requires_grad_()).requires_grad is (side is Side.G)


def test_without_a_reader_nobody_encodes_and_with_two_it_is_done_once() -> None:
    run = session("pictures", **with_encoder("pictures"))
    calls: list[int] = []
    run.game.g.encoder.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    run.play(2)
    assert calls == []
    tricks = [{"kind": "feature_reconstruction"}, {"kind": "posterior_kl"}]
    run = session("pictures", *tricks, **with_encoder("pictures"))
    run.game.g.encoder.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    run.play(2)
    assert calls == [BATCH, BATCH]


@pytest.mark.parametrize("kind", ["dcgan", "mlp"])
def test_pictures_that_do_not_fit_are_refused(kind: str) -> None:
    encoder = {"network": {**with_encoder("points")["network"], "e": {"kind": kind}}}
    fields = [
        finding.field
        for finding in misfits(recipe("points", {"kind": "feature_reconstruction"}, **encoder), "points").refusals
    ]
    assert fields == (["network.e"] if kind == "dcgan" else [])


def test_a_resumed_session_goes_on_to_the_bit() -> None:
    for encoder in (FREE, {"kind": "dcgan", "width": 2}):
        half, whole = alone(encoder).play(4), alone(encoder).play(8)
        resumed = half.resumed().play(4)
        saved, right = resumed.saved(), whole.saved()
        assert saved.keys() == right.keys()
        assert all(torch.equal(saved[name], right[name]) for name in right)
