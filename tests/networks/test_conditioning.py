"""Conditional networks: what each module does with labels, and conditional training from labelled data."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import Session, recipe, session, unequal
from poise.core.move import MoveData
from poise.core.types import DiscriminatorOutput, MoveContext, Side
from poise.data.source import ImageDataset
from poise.engine import batches as batches_module
from poise.engine import step
from poise.engine.batches import RealBatches
from poise.engine.game import Game
from poise.networks.base import WithClassifier, call_network
from poise.networks.conditioning import (
    ChannelsConfig,
    ClassBatchNorm,
    ClassNorm,
    ClassNormConfig,
    ConcatConfig,
    ProjectionConfig,
)
from poise.networks.dcgan import DCGANDiscriminatorConfig, DCGANGeneratorConfig
from poise.networks.mlp import MLPDiscriminatorConfig, MLPGeneratorConfig
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.model import Recipe

SHAPE = (1, 8, 8)
CLASSES = 3
LABELS = torch.tensor([0, 2, 1, 1, 0])


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


# ---------------------------------------------------------------- G


def test_concat_appends_the_embedding_to_z() -> None:
    entry = ConcatConfig(dim=4)
    assert entry.latent_dim(3) == 7
    net: Any = entry.wrap(nn.Identity(), CLASSES)
    z = torch.randn(5, 3)
    output = net(z, LABELS)
    assert output.shape == (5, 7)
    assert torch.equal(output[:, :3], z)
    for i, label in enumerate(LABELS):
        assert torch.equal(output[i, 3:], net.embedding.weight[label])
    assert net.embedding.weight.shape == (CLASSES, 4)
    scaled: Any = entry.wrap(nn.Identity(), CLASSES, 0.25)
    assert torch.allclose(scaled(z, LABELS)[:, 3:], 0.25 * scaled.embedding(LABELS))


@pytest.mark.parametrize("length", [1.0, "sqrt_dim", 0.1])
def test_the_embedding_has_the_scale_of_z(length: float | str) -> None:
    """Samples of one class differ as much as with Gaussian latents."""

    def variation_within_classes(latent: dict[str, Any]) -> float:
        """The standard deviation within a class divided by that of all samples, for an untrained G."""
        run = session("labelled", latent={"dim": 64} | latent, conditioning={"g": {"kind": "concat", "dim": 16}})
        z = run.recipe.latent.sample(64, torch.Generator().manual_seed(0))
        with torch.no_grad():
            samples = run.game.g.net(z, torch.arange(64) % 4)
        own = torch.stack([samples[k::4].std(0).mean() for k in range(4)]).mean()
        return float(own / samples.std(0).mean())

    assert variation_within_classes({"kind": "sphere", "length": length}) == pytest.approx(
        variation_within_classes({"kind": "gaussian"}), rel=0.05
    )


def with_class_norm(entry: Any, shape: tuple[int, ...] = SHAPE) -> tuple[Any, Any]:
    """A generator, and a copy of it with class-conditional norms."""
    plain = entry.build(3, shape)
    return plain, ClassNormConfig().wrap(copy.deepcopy(plain), CLASSES)


NORMED = [DCGANGeneratorConfig(width=4), MLPGeneratorConfig(width=6, norm="batch")]


@pytest.mark.parametrize("entry", NORMED)
def test_class_norm_replaces_every_batch_norm_and_starts_equal_to_it(entry: Any) -> None:
    """DCGAN initialises its scales randomly, class norms with 1."""
    plain, net = with_class_norm(entry)
    norms = [m for m in plain.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            nn.init.ones_(norm.weight)
    class_norms = [m for m in net.modules() if isinstance(m, ClassBatchNorm)]
    assert len(class_norms) == len(norms) > 1
    for a, b in zip(class_norms, norms, strict=True):
        assert type(a.norm) is type(b)
        assert (a.norm.affine, a.norm.eps, a.norm.momentum) == (False, b.eps, b.momentum)
        assert a.scale.weight.shape == a.shift.weight.shape == (CLASSES, b.num_features)
    z = torch.randn(5, 3)
    for _ in range(2):  # in evaluation mode with the statistics of the first pass
        assert torch.allclose(net(z, LABELS), plain(z), atol=1e-6)
        net.eval()
        plain.eval()


@pytest.mark.parametrize("entry", NORMED)
def test_class_norm_uses_the_scale_and_shift_of_each_label(entry: Any) -> None:
    _, net = with_class_norm(entry)
    last = [m for m in net.modules() if isinstance(m, ClassBatchNorm)][-1]
    z = torch.randn(5, 3)
    net.eval()
    before = net(z, LABELS)
    with torch.no_grad():
        last.scale.weight[2] = 3.0
        last.shift.weight[2] = -0.5
    after = net(z, LABELS)
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False, True, False, False, False]
    x = torch.randn(5, last.norm.num_features, *([2, 2] if isinstance(last.norm, nn.BatchNorm2d) else []))
    last.labels = LABELS
    normed = last.norm(x)
    assert torch.allclose(last(x)[1], 3 * normed[1] - 0.5)
    assert torch.equal(last(x)[0], normed[0])


def test_labels_are_cleared_after_the_forward_pass() -> None:
    _, net = with_class_norm(NORMED[0])
    norms = [m for m in net.modules() if isinstance(m, ClassBatchNorm)]
    seen: list[bool] = []
    norms[0].register_forward_pre_hook(lambda m, x: seen.append(m.labels is LABELS))
    net(torch.randn(5, 3), LABELS)
    assert seen == [True]
    assert all(m.labels is None for m in norms)
    with pytest.raises(RuntimeError):
        net(torch.randn(5, 4), LABELS)
    assert all(m.labels is None for m in norms), "also after an error"
    with pytest.raises(AssertionError, match="without labels"):
        net.net(torch.randn(5, 3))


def test_copies_of_a_class_norm_are_independent() -> None:
    """Averaged weights are a copy of G."""
    _, net = with_class_norm(NORMED[0])
    other = copy.deepcopy(net)
    z = torch.randn(5, 3)
    assert torch.equal(net(z, LABELS), other(z, LABELS))
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(2)
    assert not torch.equal(net(z, LABELS), other(z, LABELS))
    assert isinstance(other, ClassNorm)


# ---------------------------------------------------------------- D


class Identity(nn.Module):
    """Returns its input."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def test_channels_repeat_the_embedding_at_every_pixel() -> None:
    entry = ChannelsConfig(dim=4)
    assert entry.input_shape((3, 8, 8)) == (7, 8, 8)
    net: Any = entry.wrap(Identity(), CLASSES)
    x = torch.randn(5, 3, 8, 8)
    output = net(x, LABELS)
    assert output.shape == (5, 7, 8, 8)
    assert torch.equal(output[:, :3], x)
    for i, label in enumerate(LABELS):
        for k in range(4):
            assert torch.equal(output[i, 3 + k], net.embedding.weight[label, k].expand(8, 8))
    assert net(x.bfloat16(), LABELS).dtype == torch.bfloat16


def test_channels_of_points_are_coordinates() -> None:
    entry = ChannelsConfig(dim=4)
    assert entry.input_shape((2,)) == (6,)
    net: Any = entry.wrap(Identity(), CLASSES)
    x = torch.randn(5, 2)
    assert torch.equal(net(x, LABELS), torch.cat((x, net.embedding.weight[LABELS]), 1))


def test_channels_return_the_output_of_the_network() -> None:
    entry = ChannelsConfig(dim=4)
    for family, shape in ((DCGANDiscriminatorConfig, SHAPE), (MLPDiscriminatorConfig, (2,))):
        inner = family(width=4).build(entry.input_shape(shape))
        net: Any = entry.wrap(inner, CLASSES)
        output = net(torch.randn(5, *shape), LABELS)
        assert output.score.shape == (5,)
        assert net.width == output.features.shape[1]


@pytest.mark.parametrize("family", [DCGANDiscriminatorConfig, MLPDiscriminatorConfig])
def test_projection_adds_the_product_of_embedding_and_features(family: Any) -> None:
    inner = family(width=4, norm="none").build(SHAPE)
    net: Any = ProjectionConfig().wrap(inner, CLASSES)
    x = torch.randn(5, *SHAPE)
    output, unconditional = net(x, LABELS), inner(x)
    assert torch.equal(output.features, unconditional.features)
    v = net.embedding.weight.detach().numpy()
    for i, label in enumerate(LABELS.tolist()):
        product = float(v[label] @ unconditional.features[i].detach().numpy())
        assert float(output.score[i].detach()) == pytest.approx(
            float(unconditional.score[i].detach()) + product, abs=1e-5
        )
    assert v.shape == (CLASSES, net.width)


def test_projection_is_initialised_at_the_scale_of_the_score() -> None:
    class Wide(nn.Module):
        width = 400

    net: Any = ProjectionConfig().wrap(Wide(), 100)
    assert float(net.embedding.weight.detach().std()) == pytest.approx(1 / 20, rel=0.02)


@pytest.mark.parametrize("conditioning", [None, ProjectionConfig(), ChannelsConfig(dim=2)])
def test_the_classifier_uses_the_features(conditioning: Any) -> None:
    """With an unconditional and with a conditional D."""
    shape = SHAPE if conditioning is None else conditioning.input_shape(SHAPE)
    inner: Any = DCGANDiscriminatorConfig(width=4, norm="none").build(shape)
    inner = inner if conditioning is None else conditioning.wrap(inner, CLASSES)
    net = WithClassifier(inner, CLASSES)
    x = torch.randn(5, *SHAPE)
    assert net.takes_labels is (conditioning is not None)
    output, inner_output = call_network(net, x, LABELS), call_network(inner, x, LABELS)
    assert torch.equal(output.score, inner_output.score)
    assert torch.equal(output.features, inner_output.features)
    assert torch.equal(output.classes, inner_output.features @ net.head.weight.T + net.head.bias)
    assert output.classes.shape == (5, CLASSES)
    assert inner_output.classes is None


def test_only_modules_that_take_labels_are_given_them() -> None:
    class Unconditional(nn.Module):
        def forward(self, *args: object) -> int:
            return len(args)

    class Conditional(Unconditional):
        takes_labels = True

    x = torch.zeros(1)
    assert call_network(Unconditional(), x, LABELS) == call_network(Unconditional(), x, None) == 1
    assert call_network(Conditional(), x, LABELS) == 2


# ---------------------------------------------------------------- compatibility


@pytest.mark.parametrize(
    ("entry", "norm", "cure"),
    [
        (ConcatConfig(), "virtual", "layer"),
        (ClassNormConfig(), "none", "batch"),
        (ClassNormConfig(), "virtual", "batch"),
        (ClassNormConfig(), "group", "batch"),
        (ConcatConfig(), "batch", None),
        (ConcatConfig(), "none", None),
        (ClassNormConfig(), "batch", None),
        (ClassNormConfig(), "spectral_batch", None),
    ],
)
def test_incompatible_norms_of_g(entry: Any, norm: str, cure: str | None) -> None:
    misfit = entry.incompatibility(norm)
    assert (misfit is None) == (cure is None)
    assert cure is None or cure in misfit[1]


@pytest.mark.parametrize(
    ("entry", "norm", "output_kind", "cure"),
    [
        (ChannelsConfig(), "virtual", "score", "layer"),
        (ChannelsConfig(), "none", "energy", "auxiliary_classifier"),
        (ProjectionConfig(), "none", "energy", "auxiliary_classifier"),
        (ChannelsConfig(), "batch", "score", None),
        (ProjectionConfig(), "virtual", "score", None),
    ],
)
def test_incompatible_norms_and_outputs_of_d(entry: Any, norm: str, output_kind: str, cure: str | None) -> None:
    misfit = entry.incompatibility(norm, output_kind)
    assert (misfit is None) == (cure is None)
    assert cure is None or cure in misfit[1]


CONCAT, PROJECTION = {"kind": "concat", "dim": 2}, {"kind": "projection"}
CLASSIFIER = {"kind": "auxiliary_classifier"}


@pytest.mark.parametrize(
    ("conditioning", "tricks", "classes", "refused", "warned"),
    [
        ({"g": CONCAT, "d": PROJECTION}, [], 3, [], []),
        ({"g": CONCAT}, [CLASSIFIER], 3, [], []),
        ({"g": CONCAT, "d": PROJECTION}, [], 0, ["conditioning"], []),
        ({"g": CONCAT, "d": PROJECTION}, [], 1, ["conditioning"], []),
        ({"d": PROJECTION}, [], 3, ["conditioning.g"], []),
        ({}, [CLASSIFIER], 3, ["conditioning.g"], []),
        ({"g": CONCAT}, [], 3, [], ["conditioning.d"]),
        ({"g": {"kind": "class_norm"}, "d": PROJECTION}, [], 3, [], []),
    ],
)
def test_compatibility_with_labels(
    conditioning: dict[str, Any], tricks: list[dict[str, Any]], classes: int, refused: list[str], warned: list[str]
) -> None:
    table = recipe("pictures", *tricks, conditioning=conditioning)
    findings = check_compatibility(table, SHAPE, classes)
    assert [finding.field for finding in findings.refusals] == refused
    assert [finding.field for finding in findings.warnings if finding.field.startswith("conditioning")] == warned
    assert all(finding.cure for finding in findings.refusals + findings.warnings)


# ---------------------------------------------------------------- training


def labelled(count: int = 40) -> ImageDataset:
    """Random images of three classes; the first pixel of each image is its index, and its label the index mod 3."""
    random = np.random.Generator(np.random.Philox(7))
    images = random.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return ImageDataset(images, np.arange(count) % CLASSES, ("a", "b", "c"))


RUNS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "projection": ({"g": CONCAT, "d": PROJECTION}, []),
    "channels": ({"g": {"kind": "class_norm"}, "d": {"kind": "channels", "dim": 2}}, []),
    "classifier": ({"g": CONCAT}, [CLASSIFIER]),
    "all": ({"g": {"kind": "class_norm"}, "d": PROJECTION}, [CLASSIFIER, {"kind": "averaged_weights"}]),
}


def conditional(name: str, **changes: Any) -> Recipe:
    conditioning, tricks = RUNS[name]
    return recipe("pictures", *tricks, conditioning=conditioning, **changes)


@pytest.mark.parametrize("name", RUNS)
def test_a_conditional_run_trains_and_resumes_bit_identically(name: str) -> None:
    uninterrupted = Session(conditional(name), labelled())
    before = uninterrupted.saved()
    uninterrupted.play(3)
    after = uninterrupted.saved()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    conditional_weights = [
        n for n in before if n.startswith("game/") and ("embedding" in n or "scale" in n or "head.weight" in n)
    ]
    assert conditional_weights
    assert all(not torch.equal(before[n], after[n]) for n in conditional_weights)
    interrupted = Session(conditional(name), labelled()).play(1)
    assert unequal(interrupted.resumed().play(2).saved(), after) == []


@pytest.mark.parametrize("judging", ["apart", "together"])
@pytest.mark.parametrize("name", RUNS)
def test_both_networks_get_the_labels_of_the_real_samples(name: str, judging: str) -> None:
    run = Session(conditional(name, judging=judging, tempo={"kind": "ratio", "d": 2, "g": 1}), labelled())
    received: dict[Side, list[Tensor]] = {side: [] for side in Side}
    for side, player in run.game.players.items():
        if getattr(player.net, "takes_labels", False):
            player.net.register_forward_pre_hook(lambda m, x, side=side: received[side].append(x[1]))
    run.play(2)
    for record in run.of(Side.D):
        indices = ((record.move.real[:, 0, 0, 0] + 1) * 127.5).round().long()
        assert torch.equal(record.move.labels, indices % CLASSES)
    expected = [record.move.labels for record in run.moves]
    assert len(received[Side.G]) == len(expected) == 6
    assert all(torch.equal(a, b) for a, b in zip(received[Side.G], expected, strict=True))
    if not received[Side.D]:
        assert name == "classifier"
        return
    expected_d = []
    for record in run.moves:
        y = record.move.labels
        both = [torch.cat((y, y))] if judging == "together" else [y, y]
        expected_d += both if record.context.side is Side.D else [y]
    assert len(expected_d) == len(received[Side.D])
    assert all(torch.equal(a, b) for a, b in zip(received[Side.D], expected_d, strict=True))


def test_gs_move_uses_the_labels_of_ds_move_and_loads_no_real_images() -> None:
    run = Session(conditional("projection"), labelled())
    loaded: list[int] = []
    to_device = batches_module.to_device
    with patch.object(
        batches_module, "to_device", lambda images, device: loaded.append(len(images)) or to_device(images, device)
    ):
        run.play(2)
    assert len(loaded) == 2, "one batch for each move of D"
    d, g = run.of(Side.D), run.of(Side.G)
    assert all(record.real is None for record in g)
    for of_d, of_g in zip(d, g, strict=True):
        assert torch.equal(of_d.move.labels, of_g.move.labels)


def test_labels_have_the_frequencies_of_the_data() -> None:
    source = labelled(40)
    run = Session(conditional("projection"), source).play(5)
    expected = torch.cat([record.move.labels for record in run.of(Side.G)])
    assert torch.equal(expected.bincount(), torch.from_numpy(source.labels).bincount())  # type: ignore[arg-type]


def test_a_run_without_conditioning_loads_no_labels() -> None:
    run = Session(recipe("pictures"), labelled()).play(1)
    assert all(record.move.labels is None for record in run.moves)


def test_discriminate_fn_uses_the_labels() -> None:
    game = Session(conditional("projection"), labelled())
    moves: list[MoveData] = []
    discriminate = step.discriminate

    def recording(game: Game, move: MoveData) -> None:
        discriminate(game, move)
        moves.append(move)

    with patch.object(step, "discriminate", recording):
        game.play(1)
    move = moves[0]
    assert move.discriminate_fn is not None
    assert move.real is not None
    net = game.game.d.net.eval()
    output: DiscriminatorOutput = move.discriminate_fn(move.real, move.labels)
    assert torch.equal(output.score, call_network(net, move.real, move.labels).score)


def test_loading_labels_of_unlabelled_data_is_an_error() -> None:
    source = ImageDataset(np.zeros((8, 8, 8, 1), np.uint8))
    batches = RealBatches(source, torch.device("cpu"), 1)
    run = Session(recipe("pictures"), source)
    context: MoveContext = run.context()
    with pytest.raises(ValueError, match="no labels"):
        batches.load(context, labels=True)
    assert batches.load(context, real=False) == (None, None)
