"""Labels for both players: what each shell does with them, and a conditional run from labelled data to a save."""

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


def test_concat_puts_the_embedding_beside_z() -> None:
    entry = ConcatConfig(dim=4)
    assert entry.latent_dim(3) == 7
    net: Any = entry.wrap(nn.Identity(), CLASSES)
    z = torch.randn(5, 3)
    found = net(z, LABELS)
    assert found.shape == (5, 7)
    assert torch.equal(found[:, :3], z)
    for i, label in enumerate(LABELS):
        assert torch.equal(found[i, 3:], net.embedding.weight[label])
    assert net.embedding.weight.shape == (CLASSES, 4)
    scaled: Any = entry.wrap(nn.Identity(), CLASSES, 0.25)
    assert torch.allclose(scaled(z, LABELS)[:, 3:], 0.25 * scaled.embedding(LABELS))


@pytest.mark.parametrize("length", [1.0, "sqrt_dim", 0.1])
def test_the_label_drowns_no_z_whatever_the_scale_of_z(length: float | str) -> None:
    """The embedding stands beside z at z's own scale: samples of one class differ as much as with Gaussian latents."""

    def within(latent: dict[str, Any]) -> float:
        """The spread of a class against the spread of all samples, of a fresh G."""
        run = session("labelled", latent={"dim": 64} | latent, conditioning={"g": {"kind": "concat", "dim": 16}})
        z = run.recipe.latent.sample(64, torch.Generator().manual_seed(0))
        with torch.no_grad():
            made = run.game.g.net(z, torch.arange(64) % 4)
        own = torch.stack([made[k::4].std(0).mean() for k in range(4)]).mean()
        return float(own / made.std(0).mean())

    assert within({"kind": "sphere", "length": length}) == pytest.approx(within({"kind": "gaussian"}), rel=0.05)


def told_by_norm(entry: Any, shape: tuple[int, ...] = SHAPE) -> tuple[Any, Any]:
    """A G, and a copy of it that takes labels."""
    plain = entry.build(3, shape)
    return plain, ClassNormConfig().wrap(copy.deepcopy(plain), CLASSES)


NORMED = [DCGANGeneratorConfig(width=4), MLPGeneratorConfig(width=6, norm="batch")]


@pytest.mark.parametrize("entry", NORMED)
def test_class_norm_replaces_every_batch_norm_by_one_that_starts_as_it(entry: Any) -> None:
    """DCGAN scatters its scales at first; a class's own start as 1."""
    plain, net = told_by_norm(entry)
    norms = [m for m in plain.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            nn.init.ones_(norm.weight)
    ours = [m for m in net.modules() if isinstance(m, ClassBatchNorm)]
    assert len(ours) == len(norms) > 1
    for a, b in zip(ours, norms, strict=True):
        assert type(a.norm) is type(b)
        assert (a.norm.affine, a.norm.eps, a.norm.momentum) == (False, b.eps, b.momentum)
        assert a.scale.weight.shape == a.shift.weight.shape == (CLASSES, b.num_features)
    z = torch.randn(5, 3)
    for _ in range(2):  # in evaluation by the statistics of the first round
        assert torch.allclose(net(z, LABELS), plain(z), atol=1e-6)
        net.eval()
        plain.eval()


@pytest.mark.parametrize("entry", NORMED)
def test_class_norm_scales_and_shifts_by_the_samples_own_label(entry: Any) -> None:
    _, net = told_by_norm(entry)
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


def test_labels_are_not_kept_after_the_pass() -> None:
    _, net = told_by_norm(NORMED[0])
    norms = [m for m in net.modules() if isinstance(m, ClassBatchNorm)]
    seen: list[bool] = []
    norms[0].register_forward_pre_hook(lambda m, x: seen.append(m.labels is LABELS))
    net(torch.randn(5, 3), LABELS)
    assert seen == [True]
    assert all(m.labels is None for m in norms)
    with pytest.raises(RuntimeError):
        net(torch.randn(5, 4), LABELS)
    assert all(m.labels is None for m in norms), "nor after a failure"
    with pytest.raises(AssertionError, match="without labels"):
        net.net(torch.randn(5, 3))


def test_class_norm_can_be_copied_and_copies_are_apart() -> None:
    """An average of G is a copy."""
    _, net = told_by_norm(NORMED[0])
    other = copy.deepcopy(net)
    z = torch.randn(5, 3)
    assert torch.equal(net(z, LABELS), other(z, LABELS))
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(2)
    assert not torch.equal(net(z, LABELS), other(z, LABELS))
    assert isinstance(other, ClassNorm)


# ---------------------------------------------------------------- D


class Sees(nn.Module):
    """Says what it was shown."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def test_channels_are_the_embedding_at_every_place() -> None:
    entry = ChannelsConfig(dim=4)
    assert entry.input_shape((3, 8, 8)) == (7, 8, 8)
    net: Any = entry.wrap(Sees(), CLASSES)
    x = torch.randn(5, 3, 8, 8)
    shown = net(x, LABELS)
    assert shown.shape == (5, 7, 8, 8)
    assert torch.equal(shown[:, :3], x)
    for i, label in enumerate(LABELS):
        for k in range(4):
            assert torch.equal(shown[i, 3 + k], net.embedding.weight[label, k].expand(8, 8))
    assert net(x.bfloat16(), LABELS).dtype == torch.bfloat16


def test_channels_of_points_are_coordinates() -> None:
    entry = ChannelsConfig(dim=4)
    assert entry.input_shape((2,)) == (6,)
    net: Any = entry.wrap(Sees(), CLASSES)
    x = torch.randn(5, 2)
    assert torch.equal(net(x, LABELS), torch.cat((x, net.embedding.weight[LABELS]), 1))


def test_channels_say_what_the_network_says() -> None:
    entry = ChannelsConfig(dim=4)
    for family, shape in ((DCGANDiscriminatorConfig, SHAPE), (MLPDiscriminatorConfig, (2,))):
        inner = family(width=4).build(entry.input_shape(shape))
        net: Any = entry.wrap(inner, CLASSES)
        said = net(torch.randn(5, *shape), LABELS)
        assert said.score.shape == (5,)
        assert net.width == said.features.shape[1]


@pytest.mark.parametrize("family", [DCGANDiscriminatorConfig, MLPDiscriminatorConfig])
def test_projection_adds_how_well_the_label_fits(family: Any) -> None:
    inner = family(width=4, norm="none").build(SHAPE)
    net: Any = ProjectionConfig().wrap(inner, CLASSES)
    x = torch.randn(5, *SHAPE)
    said, alone = net(x, LABELS), inner(x)
    assert torch.equal(said.features, alone.features)
    v = net.embedding.weight.detach().numpy()
    for i, label in enumerate(LABELS.tolist()):
        more = float(v[label] @ alone.features[i].detach().numpy())
        assert float(said.score[i].detach()) == pytest.approx(float(alone.score[i].detach()) + more, abs=1e-5)
    assert v.shape == (CLASSES, net.width)


def test_projection_starts_at_the_size_of_a_score() -> None:
    class Wide(nn.Module):
        width = 400

    net: Any = ProjectionConfig().wrap(Wide(), 100)
    assert float(net.embedding.weight.detach().std()) == pytest.approx(1 / 20, rel=0.02)


@pytest.mark.parametrize("shell", [None, ProjectionConfig(), ChannelsConfig(dim=2)])
def test_classifier_reads_the_features(shell: Any) -> None:
    """Beside a D that knows nothing of labels, or one that does."""
    shape = SHAPE if shell is None else shell.input_shape(SHAPE)
    inner: Any = DCGANDiscriminatorConfig(width=4, norm="none").build(shape)
    inner = inner if shell is None else shell.wrap(inner, CLASSES)
    net = WithClassifier(inner, CLASSES)
    x = torch.randn(5, *SHAPE)
    assert net.takes_labels is (shell is not None)
    said, alone = call_network(net, x, LABELS), call_network(inner, x, LABELS)
    assert torch.equal(said.score, alone.score)
    assert torch.equal(said.features, alone.features)
    assert torch.equal(said.classes, alone.features @ net.head.weight.T + net.head.bias)
    assert said.classes.shape == (5, CLASSES)
    assert alone.classes is None


def test_only_who_listens_is_told() -> None:
    class Deaf(nn.Module):
        def forward(self, *given: object) -> int:
            return len(given)

    class Listens(Deaf):
        takes_labels = True

    x = torch.zeros(1)
    assert call_network(Deaf(), x, LABELS) == call_network(Deaf(), x, None) == 1
    assert call_network(Listens(), x, LABELS) == 2


# ---------------------------------------------------------------- what does not fit


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
def test_misfits_of_g(entry: Any, norm: str, cure: str | None) -> None:
    told = entry.incompatibility(norm)
    assert (told is None) == (cure is None)
    assert cure is None or cure in told[1]


@pytest.mark.parametrize(
    ("entry", "norm", "says", "cure"),
    [
        (ChannelsConfig(), "virtual", "score", "layer"),
        (ChannelsConfig(), "none", "energy", "auxiliary_classifier"),
        (ProjectionConfig(), "none", "energy", "auxiliary_classifier"),
        (ChannelsConfig(), "batch", "score", None),
        (ProjectionConfig(), "virtual", "score", None),
    ],
)
def test_misfits_of_d(entry: Any, norm: str, says: str, cure: str | None) -> None:
    told = entry.incompatibility(norm, says)
    assert (told is None) == (cure is None)
    assert cure is None or cure in told[1]


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
def test_what_fits(
    conditioning: dict[str, Any], tricks: list[dict[str, Any]], classes: int, refused: list[str], warned: list[str]
) -> None:
    told = recipe("pictures", *tricks, conditioning=conditioning)
    findings = check_compatibility(told, SHAPE, classes)
    assert [finding.field for finding in findings.refusals] == refused
    assert [finding.field for finding in findings.warnings if finding.field.startswith("conditioning")] == warned
    assert all(finding.cure for finding in findings.refusals + findings.warnings)


# ---------------------------------------------------------------- a run


def labelled(count: int = 40) -> ImageDataset:
    """Random pictures of three kinds; each picture's first pixel is its number, and its label that number mod 3."""
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
def test_a_conditional_run_trains_and_resumes_bit_for_bit(name: str) -> None:
    whole = Session(conditional(name), labelled())
    before = whole.saved()
    whole.play(3)
    after = whole.saved()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    told = [n for n in before if n.startswith("game/") and ("embedding" in n or "scale" in n or "head.weight" in n)]
    assert told
    assert all(not torch.equal(before[n], after[n]) for n in told)
    half = Session(conditional(name), labelled()).play(1)
    assert unequal(half.resumed().play(2).saved(), after) == []


@pytest.mark.parametrize("judging", ["apart", "together"])
@pytest.mark.parametrize("name", RUNS)
def test_fakes_are_asked_for_by_the_labels_of_the_reals(name: str, judging: str) -> None:
    run = Session(conditional(name, judging=judging, tempo={"kind": "ratio", "d": 2, "g": 1}), labelled())
    given: dict[Side, list[Tensor]] = {side: [] for side in Side}
    for side, player in run.game.players.items():
        if getattr(player.net, "takes_labels", False):
            player.net.register_forward_pre_hook(lambda m, x, side=side: given[side].append(x[1]))
    run.play(2)
    for played_move in run.of(Side.D):
        numbers = ((played_move.move.real[:, 0, 0, 0] + 1) * 127.5).round().long()
        assert torch.equal(played_move.move.labels, numbers % CLASSES)
    asked = [played_move.move.labels for played_move in run.moves]
    assert len(given[Side.G]) == len(asked) == 6
    assert all(torch.equal(a, b) for a, b in zip(given[Side.G], asked, strict=True))
    if not given[Side.D]:
        assert name == "classifier"
        return
    shown = []
    for played_move in run.moves:
        y = played_move.move.labels
        twice = [torch.cat((y, y))] if judging == "together" else [y, y]
        shown += twice if played_move.context.side is Side.D else [y]
    assert len(shown) == len(given[Side.D])
    assert all(torch.equal(a, b) for a, b in zip(given[Side.D], shown, strict=True))


def test_g_is_asked_for_the_labels_of_ds_move_and_no_reals_are_drawn() -> None:
    run = Session(conditional("projection"), labelled())
    ready: list[int] = []
    make = RealBatches._ready
    with patch.object(RealBatches, "_ready", lambda self, images: ready.append(len(images)) or make(self, images)):
        run.play(2)
    assert len(ready) == 2, "one for each move of D"
    d, g = run.of(Side.D), run.of(Side.G)
    assert all(played_move.real is None for played_move in g)
    for theirs, ours in zip(d, g, strict=True):
        assert torch.equal(theirs.move.labels, ours.move.labels)


def test_labels_come_as_often_as_in_the_data() -> None:
    source = labelled(40)
    run = Session(conditional("projection"), source).play(5)
    asked = torch.cat([played_move.move.labels for played_move in run.of(Side.G)])
    assert torch.equal(asked.bincount(), torch.from_numpy(source.labels).bincount())  # type: ignore[arg-type]


def test_a_run_without_conditioning_draws_no_labels() -> None:
    run = Session(recipe("pictures"), labelled()).play(1)
    assert all(played_move.move.labels is None for played_move in run.moves)


def test_terms_ask_d_about_other_samples_with_the_same_labels() -> None:
    game = Session(conditional("projection"), labelled())
    kept: list[MoveData] = []
    judge = step.discriminate

    def face(game: Game, move: MoveData) -> None:
        judge(game, move)
        kept.append(move)

    with patch.object(step, "discriminate", face):
        game.play(1)
    move = kept[0]
    assert move.discriminate_fn is not None
    assert move.real is not None
    net = game.game.d.net.eval()
    said: DiscriminatorOutput = move.discriminate_fn(move.real, move.labels)
    assert torch.equal(said.score, call_network(net, move.real, move.labels).score)


def test_data_without_labels_is_an_error_of_the_feed() -> None:
    source = ImageDataset(np.zeros((8, 8, 8, 1), np.uint8))
    batches = RealBatches(source, torch.device("cpu"), 1)
    run = Session(recipe("pictures"), source)
    now: MoveContext = run.context()
    with pytest.raises(ValueError, match="no labels"):
        batches.load(now, labels=True)
    assert batches.load(now, real=False) == (None, None)
