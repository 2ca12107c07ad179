"""A discriminator that scores patches: every trick and objective trains with it, and one patch is the ordinary case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from contracts.test_tricks import TRICKS, strong
from contracts.tiny import bits, changed_by_resuming, findings_of, recipe, session, source
from poise.core.config import find_components
from poise.core.hooks import apply_sample_selections
from poise.core.random_streams import RandomStreams
from poise.core.types import DiscriminatorOutput, MoveContext, Side, Targets, for_patches, per_sample
from poise.networks.dcgan import DCGANDiscriminator
from poise.objectives.base import Objective
from poise.objectives.pointwise import NonSaturating
from poise.tricks.base import TrickContext
from poise.tricks.noisy_labels import NoisyLabelsConfig
from poise.tricks.soft_labels import SoftLabelsConfig

OBJECTIVES = [
    kind
    for kind, part in find_components(Objective, "poise.objectives").items()
    if "score" in part.output_kinds and kind != "python"  # type: ignore[attr-defined]
]
NEEDS_CODES = {kind for kind in TRICKS if TRICKS[kind](**strong(kind) | {"kind": kind}).needs_codes}
TRICK_CONTEXT = TrickContext({}, source("pictures").spec(), 0.0, NonSaturating())


def networks(world: str) -> dict[str, Any]:
    """G as ever, and a D that scores the four patches of an image of 8 x 8."""
    known = recipe(world).canonical()["network"]
    return known | {"d": {"kind": "patch", "width": 2, "layers": 1, "norm": "none"}}


@pytest.mark.parametrize("kind", sorted(TRICKS.keys() - NEEDS_CODES))
@pytest.mark.parametrize("world", ["pictures", "labelled"])
def test_a_trick_trains_and_resumes(kind: str, world: str) -> None:
    changes = {"network": networks(world)}
    if refusals := findings_of(recipe(world, strong(kind), **changes), world).refusals:
        pytest.skip(refusals[0].message)
    run = session(world, strong(kind), **changes)
    assert run.game.d is not None
    assert not changed_by_resuming(run, 3)
    scores = run.moves[-1].move.outputs["fake"].score
    assert scores.shape[1:] == (4,)
    assert scores.isfinite().all()


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_an_objective_trains_and_resumes(kind: str) -> None:
    run = session("pictures", objective={"kind": kind}, network=networks("pictures"))
    assert not changed_by_resuming(run, 3)
    losses = run.metrics.reduce()
    assert all(torch.tensor(losses[name].mean).isfinite() for name in ("d/adversarial", "g/adversarial"))


def with_one_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the scores of a DCGAN D B x 1."""
    forward = DCGANDiscriminator.forward

    def forward_as_patches(self: DCGANDiscriminator, images: Tensor) -> DiscriminatorOutput:
        output = forward(self, images)
        return output._replace(score=output.score.unsqueeze(1))

    monkeypatch.setattr(DCGANDiscriminator, "forward", forward_as_patches)


@pytest.mark.parametrize(
    ("trick", "objective"),
    [
        *((kind, "non_saturating") for kind in sorted(TRICKS.keys() - NEEDS_CODES)),
        *((None, kind) for kind in OBJECTIVES),
    ],
)
def test_one_patch_is_an_ordinary_discriminator(
    trick: str | None, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, for the weights, the state of the tricks and the rows."""
    tricks = [strong(trick)] if trick else []
    conditioning = {"conditioning": {"g": {"kind": "concat"}, "d": {"kind": "projection"}}}
    settings = {"objective": {"kind": objective}} | conditioning
    if findings_of(recipe("labelled", *tricks, **settings), "labelled").refusals:
        settings = {"objective": {"kind": objective}}
    world = "labelled"
    if refusals := findings_of(recipe(world, *tricks, **settings), world).refusals:
        pytest.skip(refusals[0].message)
    ordinary = session(world, *tricks, **settings).play(3)
    with_one_patch(monkeypatch)
    patched = session(world, *tricks, **settings).play(3)
    assert patched.moves[-1].move.outputs["fake"].score.dim() == 2
    before, after = ordinary.saved(), patched.saved()
    assert before.keys() == after.keys()
    different = [name for name in before if not torch.equal(bits(before[name]), bits(after[name]))]
    assert not different
    assert ordinary.metrics.reduce() == patched.metrics.reduce()


def test_values_of_samples_meet_those_of_patches() -> None:
    """With as many patches as samples, a wrong broadcast would not raise an error."""
    scores = torch.arange(9.0).reshape(3, 3)
    assert per_sample(scores).tolist() == [1.0, 4.0, 7.0]
    assert per_sample(scores[:, 0]) is not scores
    assert (scores + for_patches(torch.tensor([0.0, 10.0, 20.0]), scores)).tolist() == [
        [0.0, 1.0, 2.0],
        [13.0, 14.0, 15.0],
        [26.0, 27.0, 28.0],
    ]
    assert for_patches(torch.ones(3), torch.ones(3)).shape == (3,)


def test_targets_are_those_of_samples() -> None:
    targets = Targets(torch.ones(50, 4), torch.zeros(50, 4))
    context = MoveContext(0, 1, 50, RandomStreams(0))
    for config in (SoftLabelsConfig(), NoisyLabelsConfig(probability=0.5)):
        for values in config.build("its_name", TRICK_CONTEXT).transform_targets(targets, context):
            assert values.shape == (50, 4)
            assert (values == values[:, :1]).all()
            assert len(values[:, 0].unique()) > 1


def test_samples_are_selected_by_the_mean_of_their_patches() -> None:
    run = session("pictures", {"kind": "top_k", "fraction": 0.5}, network=networks("pictures")).play(1)
    (move,) = (played.move for played in run.of(Side.G))
    losses = (torch.rand(8, 4),)
    (selected,) = apply_sample_selections(run.game.active_tricks(Side.G).sample_selections, losses, move)
    best = move.score("fake").mean(1).topk(4).indices
    assert torch.equal(selected, losses[0].mean(1)[best])


def test_the_input_gradient_is_that_of_the_mean() -> None:
    run = session("pictures", {"kind": "r1"}, network=networks("pictures")).play(1)
    (move,) = (played.move for played in run.of(Side.D))
    images = move.samples("real").detach().requires_grad_()
    at_the_start = session("pictures", {"kind": "r1"}, network=networks("pictures")).game.d
    assert at_the_start is not None
    score = at_the_start.net(images).score
    (expected,) = torch.autograd.grad(score.mean(1).sum(), images)
    torch.testing.assert_close(move.input_gradient("real"), expected, rtol=1e-5, atol=1e-7)
