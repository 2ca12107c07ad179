"""Encoders: the codes of samples, free codes by index, learning rates, and the flow of gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import (
    BATCH,
    CPU,
    Session,
    findings_of,
    recipe,
    session,
    source,
    with_encoder,
    without_discriminator,
)
from poise.core.random_streams import RandomStreams
from poise.core.types import EncoderOutput, MoveContext, Side
from poise.engine.batches import RealBatches
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.networks.base import EncoderModule, call_encoder, mixes_samples
from poise.networks.encoders import DCGANEncoderConfig, FreeCodesConfig, MLPEncoderConfig
from poise.utils.images import to_float

FREE: dict[str, Any] = {"kind": "free_codes"}


def reconstruction_session(encoder: dict[str, Any], world: str = "pictures", **changes: Any) -> Session:
    """A session without a discriminator, with this encoder."""
    tables: dict[str, Any] = without_discriminator(world) | {"objective": {"kind": "reconstruction"}} | changes
    return session(world, **(tables | {"network": {"g": tables["network"]["g"], "e": encoder}}))


def random_tensor(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("depth", [1, 2])
def test_batch_norm_is_declared_at_any_depth(depth: int) -> None:
    """Unlike D's, the first layer of an encoder has a norm."""
    config = MLPEncoderConfig(width=4, depth=depth, norm="batch")
    assert config.uses_batch_statistics
    assert mixes_samples(config.build((2,), 3, 10))


# ---------------------------------------------------------------- outputs


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
def test_networks_return_a_vector_per_sample(entry: Any, shape: tuple[int, ...]) -> None:
    net = entry.build(shape, 6, 40)
    output = net(random_tensor(5, *shape))
    assert output.shape == (5, 6)
    assert bool((output != 0).any())
    assert not torch.equal(output[0], output[1])
    output.sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())


def test_codes_are_unbounded() -> None:
    """Images with large values have codes with large values: the last layer is linear."""
    for entry, shape in ((MLPEncoderConfig(width=8), (1, 8, 8)), (DCGANEncoderConfig(width=2, norm="none"), (1, 8, 8))):
        assert float(entry.build(shape, 6, 0)(1e4 * random_tensor(5, *shape)).detach().abs().max()) > 10


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_code_depends_on_the_batch_with_batch_norm_only(norm: Any) -> None:
    net = DCGANEncoderConfig(width=2, norm=norm).build((1, 8, 8), 4, 0)
    assert mixes_samples(net) is (norm == "batch")
    x = random_tensor(4, 1, 8, 8)
    assert torch.allclose(net(x)[:2], net(x[:2]), atol=1e-6) is (norm == "none")


class Identity(nn.Module):
    """Returns its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_an_encoder_returns_a_code_or_a_gaussian() -> None:
    output = random_tensor(3, 6)
    point = EncoderModule(Identity(), has_variance=False)(output)
    assert isinstance(point, EncoderOutput)
    assert torch.equal(point.mean, output)
    assert point.log_var is None
    mean, log_var = EncoderModule(Identity(), has_variance=True)(output)
    assert torch.equal(mean, output[:, :3])
    assert torch.equal(log_var, output[:, 3:])


@pytest.mark.parametrize("objective", ["reconstruction", "elbo"])
@pytest.mark.parametrize("world", ["points", "pictures"])
def test_codes_have_the_dimension_of_the_latents(world: str, objective: str) -> None:
    run = session(world, **without_discriminator(world), objective={"kind": objective}).play(1)
    mean, log_var = run.moves[0].move.reconstruction.codes
    assert mean.shape == (BATCH, run.recipe.latent.dim)
    assert (log_var is not None) is (objective == "elbo")
    if log_var is not None:
        assert log_var.shape == mean.shape
    assert torch.isfinite(run.moves[0].move.reconstruction.images).all()


# ---------------------------------------------------------------- free codes


def test_free_codes_are_initialised_from_a_normal_distribution() -> None:
    for std in (1.0, 0.1):
        table = FreeCodesConfig(std=std).build((1, 8, 8), 50, 400)
        assert isinstance(table, nn.Embedding)
        assert table.weight.shape == (400, 50)
        assert float(table.weight.detach().std()) == pytest.approx(std, rel=0.03)
        assert float(table.weight.detach().mean()) == pytest.approx(0, abs=0.05 * std)


def test_free_codes_are_looked_up_by_index_and_networks_do_not_request_indices() -> None:
    table = EncoderModule(FreeCodesConfig().build((1, 8, 8), 3, 10), has_variance=False)
    at = torch.tensor([7, 0, 7])
    images = random_tensor(3, 1, 8, 8)
    assert torch.equal(call_encoder(table, images, lambda: at).mean, table.net.weight[at])

    def never() -> Tensor:
        raise AssertionError("a network does not need indices")

    net = EncoderModule(MLPEncoderConfig(width=4).build((1, 8, 8), 3, 10), has_variance=False)
    assert torch.equal(call_encoder(net, images, never).mean, net.net(images))


def test_a_step_changes_only_the_codes_of_its_own_images() -> None:
    run = reconstruction_session(FREE)
    weight = run.game.g.encoder.net.weight
    assert weight.shape == (40, 3)
    before, at = weight.detach().clone(), run.context()
    indices = run.batches.indices(at.for_move(Side.G, 0))
    run.play(1)
    changed = (weight.detach() != before).any(1)
    assert sorted(set(indices.tolist())) == changed.nonzero().flatten().tolist()
    assert len(set(indices.tolist())) == BATCH
    assert torch.equal(run.moves[0].move.reconstruction.codes.mean, before[indices])
    assert torch.equal(run.moves[0].latents, before[indices])


def test_a_code_belongs_to_one_image() -> None:
    """Over three epochs, a free code and its image have the same index."""
    run = reconstruction_session(FREE).play(15)
    for record in run.moves:
        indices = run.batches.indices(record.context)
        assert torch.equal(record.real, to_float(source("pictures").gather(indices).images))
    seen = torch.cat([run.batches.indices(record.context) for record in run.moves])
    assert seen.bincount(minlength=40).tolist() == [3] * 40


@pytest.mark.parametrize("max_d_moves", [1, 3])
@pytest.mark.parametrize("side", list(Side))
def test_indices_are_those_of_the_images_of_the_batch(max_d_moves: int, side: Side) -> None:
    batches = RealBatches(source("labelled"), CPU, max_d_moves)
    for step in range(12):
        for turn in range(4):
            at = MoveContext(step, 12, 7, RandomStreams(3), side, turn)
            real, labels = batches.load(at, labels=True)
            indices = batches.indices(at)
            assert indices.dtype == torch.int64
            batch = source("labelled").gather(indices)
            assert torch.equal(real, to_float(batch.images))
            assert torch.equal(labels, batch.labels)


def test_an_endless_source_has_no_indices() -> None:
    with pytest.raises(ValueError, match="no indices"):
        RealBatches(source("points"), CPU, 1).indices(MoveContext(0, 1, 4, RandomStreams(0)))


def test_codes_are_projected_onto_the_sphere() -> None:
    run = reconstruction_session(FREE, latent={"kind": "sphere", "dim": 3}).play(2)
    reconstruction = run.moves[-1].move.reconstruction
    torch.testing.assert_close(reconstruction.latents.norm(dim=1), torch.ones(BATCH))
    torch.testing.assert_close(reconstruction.latents, nn.functional.normalize(reconstruction.codes.mean, dim=1))


# ---------------------------------------------------------------- learning rates


def first_step(encoder: dict[str, Any], **changes: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The changes of G's weights and of its encoder's weights in the first step."""
    run = reconstruction_session(encoder, **changes)
    nets = (run.game.g.net, run.game.g.encoder)
    before = [[weight.detach().clone() for weight in net.parameters()] for net in nets]
    run.play(1)
    after = [[weight.detach() for weight in net.parameters()] for net in nets]
    moved = [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)]
    return moved[0], moved[1]


SGD: dict[str, Any] = {"g": {"kind": "sgd", "lr": 0.1}}


@pytest.mark.parametrize("encoder", [{"kind": "dcgan", "width": 2}, {"kind": "mlp", "width": 4}, FREE])
def test_pace_scales_the_learning_rate_of_the_encoder_only(encoder: dict[str, Any]) -> None:
    slow, fast = (first_step(encoder | {"pace": pace}, optimizer=SGD) for pace in (1.0, 10.0))
    assert all(torch.equal(a, b) for a, b in zip(slow[0], fast[0], strict=True))
    assert sum(float(weight.norm()) for weight in slow[1]) > 1e-6
    for a, b in zip(slow[1], fast[1], strict=True):
        torch.testing.assert_close(b, 10 * a, rtol=1e-3, atol=2e-6)


def test_pace_and_the_learning_rate_scale_multiply() -> None:
    run = reconstruction_session(
        FREE | {"pace": 5.0}, optimizer={"g": {"kind": "sgd", "lr": {"start": 0.2, "end": 0.0}}}
    )
    run.game.g.lr_scale = 0.5
    for at in range(3):
        run.play(1)
        rate = 0.2 * (1 - at / 12) * 0.5
        assert [group["lr"] for group in run.game.g.optimizer.param_groups] == pytest.approx([rate, 5 * rate])


def test_free_codes_have_a_higher_learning_rate_and_networks_that_of_g() -> None:
    for encoder, pace in ((FREE, 10.0), ({"kind": "mlp"}, 1.0), ({"kind": "dcgan"}, 1.0)):
        run = reconstruction_session(encoder).play(1)
        assert [group["lr"] for group in run.game.g.optimizer.param_groups] == pytest.approx([1e-2, pace * 1e-2])


def test_a_skipped_first_step_leaves_the_momentum_at_zero() -> None:
    """Also for the encoder's weights."""
    run = reconstruction_session(
        {"kind": "mlp", "width": 4}, optimizer={"g": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}}
    )
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


# ---------------------------------------------------------------- gradients


def test_the_encoder_belongs_to_g_and_does_not_change_the_other_initial_weights() -> None:
    """The initial weights of G and D are the same with and without an encoder."""
    compute, data_spec = ComputeSettings(CPU, "fp32"), source("pictures").spec()
    trick = {"kind": "feature_reconstruction"}
    with_e = recipe("pictures", trick, **with_encoder("pictures"))
    games = [build_game(table, data_spec, compute, RandomStreams(0)) for table in (with_e, recipe("pictures"))]
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


@pytest.mark.parametrize("tricks", [(), ({"kind": "r1"},)])
def test_reconstructions_have_no_gradient_in_ds_move(tricks: tuple[dict[str, Any], ...]) -> None:
    """Not even if a penalty needs input gradients at the real samples."""
    run = session("pictures", {"kind": "judged_reconstruction"}, *tricks, **with_encoder("pictures")).play(2)
    assert all(not record.move.reconstruction.images.requires_grad for record in run.of(Side.D))
    assert all(not record.move.reconstruction.latents.requires_grad for record in run.of(Side.D))
    assert all(record.move.reconstruction.images.requires_grad for record in run.of(Side.G))
    assert all(record.move.reconstruction.latents.requires_grad for record in run.of(Side.G))


@pytest.mark.parametrize("side", list(Side))
def test_samples_from_other_latents_have_a_gradient_in_gs_move_only(side: Side) -> None:
    run = session("pictures", **with_encoder("pictures"))
    at = run.context().for_move(side, 0)
    with run.game.in_move(at):
        assert run.game.generate_fn(at, None)(random_tensor(4, 3).requires_grad_()).requires_grad is (side is Side.G)


def test_real_samples_are_encoded_only_if_needed_and_only_once() -> None:
    run = session("pictures", **with_encoder("pictures"))
    calls: list[int] = []
    run.game.g.encoder.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    run.play(2)
    assert calls == []
    tricks = [{"kind": "feature_reconstruction"}, {"kind": "posterior_kl"}]
    run = session("pictures", *tricks, **with_encoder("pictures"))
    run.game.g.encoder.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    run.play(2)
    assert calls == [BATCH, BATCH]


@pytest.mark.parametrize("kind", ["dcgan", "mlp"])
def test_an_image_encoder_is_refused_for_points(kind: str) -> None:
    encoder = {"network": {**with_encoder("points")["network"], "e": {"kind": kind}}}
    fields = [
        finding.field
        for finding in findings_of(recipe("points", {"kind": "feature_reconstruction"}, **encoder), "points").refusals
    ]
    assert fields == (["network.e"] if kind == "dcgan" else [])


def test_a_resumed_session_is_bit_identical() -> None:
    for encoder in (FREE, {"kind": "dcgan", "width": 2}):
        interrupted, uninterrupted = reconstruction_session(encoder).play(4), reconstruction_session(encoder).play(8)
        resumed = interrupted.resumed().play(4)
        saved, expected = resumed.saved(), uninterrupted.saved()
        assert saved.keys() == expected.keys()
        assert all(torch.equal(saved[name], expected[name]) for name in expected)
