"""What a frozen critic adds to G's loss, from networks and images made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from contracts.tiny import context
from poise.core.move import MoveData
from poise.core.types import DataSpec, Side
from poise.networks.critics import Critic
from poise.networks.translation import Direction, Parts
from poise.tricks.base import TrickContext
from poise.tricks.frozen_critic import FrozenCritic, FrozenCriticConfig, feature_overlap, other_class

GREYS = torch.tensor([-0.9, -0.1, 0.3, 0.8])


class Thirds(nn.Module):
    """Features (mean, 1 - mean) of an image, and logits of three classes, which are thirds of the greys."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.tensor([-2 / 3, 0.0, 2 / 3]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = images.mean((1, 2, 3))[:, None]
        return torch.cat((mean, 1 - mean), 1), -8 * (mean - self.centres).square()


def flat(greys: Tensor) -> Tensor:
    return greys[:, None, None, None].expand(-1, 1, 2, 2).clone()


def trick(direction: Direction | None = "same", parts: Parts = (), **settings: Any) -> FrozenCritic:
    critics = {"it": Critic(Thirds(), "thirds", "0")}
    spec = DataSpec((sum(parts) or 1, 2, 2), 3, parts=parts)
    return FrozenCriticConfig(**settings).build("it", TrickContext({}, spec, direction=direction, critics=critics))


def move_of(fake: Tensor, sources: Tensor, labels: Tensor | None = None, real: Tensor | None = None) -> MoveData:
    return MoveData(context(side=Side.G), sources, fake, real, labels, labels)


def probabilities(greys: Tensor) -> Tensor:
    return Thirds()(flat(greys))[1].softmax(1).detach().double()


def test_classes_are_kept_changed_or_those_of_the_label() -> None:
    after = torch.tensor([-0.8, 0.5, 0.3, -0.2])
    seen = probabilities(GREYS).argmax(1)
    assert seen.tolist() == [0, 1, 1, 2]
    p = probabilities(after)
    cases = {
        "keep": (-p[range(4), seen].log().mean(), 0.5),
        "change": (-(1 - p[range(4), seen]).log().mean(), 0.5),
        "label": (-p[:, 2].log().mean(), 0.25),
    }
    for goal, (expected, met) in cases.items():
        move = move_of(flat(after), flat(GREYS), torch.full((4,), 2))
        value = trick(goal=goal).loss(move)
        assert float(value) == pytest.approx(float(expected), rel=1e-5), goal
        assert float(move.logged["it_met"]) == pytest.approx(met), goal


def test_two_classes_change_to_the_other_one() -> None:
    """The cross-entropy with the flipped label, as in the paper."""
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    flipped = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 0]))
    assert float(other_class(logits, torch.tensor([0, 1]))) == pytest.approx(float(flipped))


def test_a_class_that_is_certain_can_still_be_changed() -> None:
    """1 - p is 0 in float32, and its logarithm and gradient are finite."""
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    loss = other_class(logits, torch.tensor([0]))
    assert float(loss.detach()) == pytest.approx(200 - math.log(2))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [pytest.approx([1.0, -0.5, -0.5])]


def test_features_are_kept_or_changed() -> None:
    after = torch.tensor([-0.8, 0.5, 0.3, -0.2])
    before, now = (torch.stack((x, 1 - x), 1).double() for x in (GREYS, after))
    cosine = (before * now).sum(1) / (before.norm(dim=1) * now.norm(dim=1))
    unit = [rows / rows.norm(dim=1, keepdim=True) for rows in (before, now)]
    move = move_of(flat(after), flat(GREYS))
    kept = trick(output="features").loss(move)
    assert float(kept) == pytest.approx(float((unit[0] - unit[1]).square().sum(1).mean()), rel=1e-4)
    changed = trick(goal="change", output="features").loss(move)
    assert float(changed) == pytest.approx(float(cosine.clamp(min=0).mean()), rel=1e-5)
    assert float(feature_overlap(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]]))) == 0, "opposite is enough"
    assert "it_met" not in move.logged


def test_features_are_matched_with_those_of_real_images() -> None:
    real = torch.tensor([0.1, 0.2, -0.3, 0.4])
    matcher = trick(None, goal="match", output="features")
    assert matcher.needs_real
    assert not trick(goal="keep").needs_real
    value = matcher.loss(move_of(flat(GREYS), torch.randn(4, 5), real=flat(real)))
    assert float(value) == pytest.approx(2 * float(GREYS.mean() - real.mean()) ** 2, rel=1e-4)


@pytest.mark.parametrize(("direction", "images"), [("a_to_b", 1), ("both_ways", 2)])
def test_only_images_that_g_generates_are_judged_beside_their_sources(direction: Direction, images: int) -> None:
    a, b, to_a, to_b = GREYS, GREYS.flip(0), torch.full((4,), 0.0), torch.full((4,), 0.7)
    fake = torch.cat((flat(a if direction == "a_to_b" else to_a), flat(to_b)), 1)
    move = move_of(fake, torch.cat((flat(a), flat(b)), 1))
    pairs = [(to_b, a), (to_a, b)][:images]
    expected = [-probabilities(now)[range(4), probabilities(before).argmax(1)].log().mean() for now, before in pairs]
    assert float(trick(direction, (1, 1)).loss(move)) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def test_the_network_is_frozen_and_no_part_of_the_state() -> None:
    term = trick()
    assert list(term.state_dict()) == list(term.parameters()) == []
    term.critic.train()
    assert not any(module.training for module in term.critic.modules())
    fake = flat(GREYS).requires_grad_()
    term.loss(move_of(fake, flat(GREYS.flip(0)))).backward()
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0, "images get a gradient"
    assert [weight.grad for weight in term.critic.parameters()] == [None]


def test_a_network_may_return_one_tensor() -> None:
    output = Critic(nn.Flatten(), "flat", "0")(flat(GREYS))
    assert torch.equal(output.features, flat(GREYS).flatten(1))
    assert output.logits is output.features


@pytest.mark.parametrize(("goal", "output"), [("label", "features"), ("match", "class")])
def test_a_goal_and_an_output_that_exclude_each_other(goal: str, output: str) -> None:
    with pytest.raises(ValidationError, match=f"the goal '{goal}' compares"):
        FrozenCriticConfig(goal=goal, output=output)  # type: ignore[arg-type]
