"""InfoGAN's loss, from predictions made by hand, and its place in a game: packs, pools, and what it teaches G."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from contracts.tiny import BATCH, Session, context, recipe, session, source
from poise.core.move import MoveData
from poise.core.ranks import Ranks
from poise.core.types import DiscriminatorOutput, Side
from poise.latents import CodeLayout
from poise.networks.base import WithCodes
from poise.recipe.checks.compatibility import check_compatibility
from poise.tricks.infogan import InfoGAN, code_accuracy, code_loss

LAYOUT = CodeLayout((2, 3), 2)
CODES = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 0.5, -1.0], [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.25]])
PREDICTED = torch.tensor([[2.0, 0.0, 0.0, 1.0, 0.0, 0.5, -0.5], [3.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.25]])
LATENT = {"kind": "codes", "dim": 8, "categories": [3], "continuous": 2}


def cross_entropy(logits: list[float], index: int) -> float:
    return math.log(sum(map(math.exp, logits))) - logits[index]


def test_the_loss_is_the_sum_over_all_codes() -> None:
    expected = [
        cross_entropy([2, 0], 0) + cross_entropy([0, 1, 0], 2) + 0.5**2 / (2 * 0.25),
        cross_entropy([3, 0], 1) + cross_entropy([2, 0, 0], 0) + 1 / (2 * 0.25),
    ]
    assert code_loss(PREDICTED, CODES, LAYOUT, 0.5).tolist() == pytest.approx(expected)
    assert code_accuracy(PREDICTED, CODES, LAYOUT).tolist() == [0.5, 0.5]
    numbers = CodeLayout((), 2)
    assert code_loss(PREDICTED[:, 5:], CODES[:, 5:], numbers, 1.0).tolist() == pytest.approx([0.125, 0.5])


def move_of(generated: Tensor, fake: Tensor, predicted: Tensor) -> MoveData:
    move = MoveData(context(side=Side.D), torch.cat((CODES, torch.randn(2, 3)), 1), generated)
    move.fake = fake
    move.outputs["fake"] = DiscriminatorOutput(torch.zeros(len(predicted)), codes=predicted)
    return move


def test_samples_from_a_pool_do_not_count() -> None:
    images, term = torch.rand(2, 1, 2, 2), InfoGAN("infogan", 1.0, LAYOUT, 0.5)
    losses = code_loss(PREDICTED, CODES, LAYOUT, 0.5)
    all_new = term.loss(move_of(images, images.clone(), PREDICTED))
    assert float(all_new) == pytest.approx(float(losses.mean()))
    replaced = torch.cat((images[:1], torch.rand(1, 1, 2, 2)))
    move = move_of(images, replaced, PREDICTED)
    assert float(term.loss(move)) == pytest.approx(float(losses[0]))
    assert float(move.logged["code_accuracy"]) == 0.5
    none_new = term.loss(move_of(images, torch.rand(2, 1, 2, 2), PREDICTED))
    assert float(none_new) == 0


def test_several_ranks_weigh_new_samples_as_one_rank_does() -> None:
    """The samples from a pool are the last ones of the whole batch, so the last rank may have no new ones."""
    images, term = torch.rand(2, 1, 2, 2), InfoGAN("infogan", 1.0, LAYOUT, 0.5)
    replaced = torch.cat((images[:1], torch.rand(1, 1, 2, 2)))
    whole = term.loss(move_of(images, replaced, PREDICTED))

    class OneOfTwo(Ranks):
        """One of two ranks; one of both has a new sample."""

        size = 2

        def mean(self, value: Tensor) -> Tensor:
            return torch.tensor(0.5)

    losses = []
    for one in (slice(0, 1), slice(1, 2)):
        move = move_of(images[one], replaced[one], PREDICTED[one])
        move.context, move.latents = replace(move.context, ranks=OneOfTwo()), move.latents[one]
        losses.append(term.loss(move))
    assert float(sum(losses)) / 2 == pytest.approx(float(whole))


def test_a_pack_predicts_the_codes_of_its_samples() -> None:
    images, term = torch.rand(2, 1, 2, 2), InfoGAN("infogan", 1.0, LAYOUT, 0.5)
    packed = term.loss(move_of(images, images, PREDICTED.reshape(1, -1)))
    assert float(packed) == pytest.approx(float(code_loss(PREDICTED, CODES, LAYOUT, 0.5).mean()))
    run = session("pictures", {"kind": "infogan"}, {"kind": "packing", "samples": 4}, latent=LATENT).play(1)
    assert run.of(Side.G)[0].move.extra_output("fake", "codes").shape == (BATCH // 4, 4 * 5)


def test_the_head_is_trained_with_d_and_spectrally_normalised_like_it() -> None:
    network = {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "spectral"}}
    run = session("pictures", {"kind": "infogan"}, latent=LATENT, network=network)
    net = run.game.d.net
    assert isinstance(net, WithCodes)
    assert [is_parametrized(layer) for layer in net.code_head] == [True, False, True]
    before = [weight.clone() for weight in net.code_head.parameters()]
    run.play(1)
    assert run.of(Side.D)[0].move.extra_output("fake", "codes").shape == (BATCH, 5)
    assert not any(map(torch.equal, before, net.code_head.parameters()))


def test_g_learns_to_show_its_codes() -> None:
    """D recognises the category of most samples after some steps, and without the term of hardly more than a third."""

    def recognised(weight: float) -> float:
        config = recipe("pictures", {"kind": "infogan", "weight": weight}, latent=LATENT, batch=16)
        run = Session(config, source("pictures")).play(60)
        run.metrics.reduce()
        return run.play(15).metrics.reduce()["g/code_accuracy"].mean

    assert recognised(1.0) > 0.75
    assert recognised(1e-6) < 0.6


def test_codes_that_nothing_shows_are_warned_about() -> None:
    found = check_compatibility(recipe("pictures", latent=LATENT), (1, 8, 8), 0, ())
    assert [warning.message for warning in found.warnings if warning.field == "latent"] == [
        "no loss ties the codes in z to the images, so they will have no meaning"
    ]
    shown = check_compatibility(recipe("pictures", {"kind": "infogan"}, latent=LATENT), (1, 8, 8), 0, ())
    assert [warning for warning in shown.warnings if warning.field == "latent"] == []


def test_what_is_refused() -> None:
    translating = check_compatibility(recipe("translated", {"kind": "infogan"}), (2, 8, 8), 0, (1, 1))
    assert "G starts from samples of the data" in translating.refusals[0].message
    g = {"kind": "stylegan2", "width": 2, "style_mixing": 0.5}
    mixing = recipe("pictures", {"kind": "infogan"}, network={"g": g, "d": {"kind": "dcgan", "width": 2}})
    assert "network.g.style_mixing" in [finding.field for finding in check_compatibility(mixing).refusals]
