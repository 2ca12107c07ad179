"""Dropout on D's input: the share that is dropped, the mean that is kept, and other draws for each batch."""

from __future__ import annotations

import math

import torch

from contracts.tiny import context
from poise.core.types import Side
from poise.tricks.input_dropout import InputDropout, InputDropoutConfig, drop_entries

ONES = torch.ones(500, 40)


def test_entries_are_zero_or_divided_by_the_probability_of_staying() -> None:
    seen = drop_entries(ONES, 0.2, torch.Generator().manual_seed(0))
    assert set(seen.unique().tolist()) == {0.0, torch.tensor(1 / 0.8).item()}
    assert abs(float((seen == 0).float().mean()) - 0.2) < 5 * math.sqrt(0.2 * 0.8 / ONES.numel())
    rows = (seen == 0).float().mean(1)
    assert rows.std() < 2 * math.sqrt(0.2 * 0.8 / 40), "single entries are dropped, not whole samples"


def test_at_0_the_same_tensor_is_returned_and_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert drop_entries(ONES, 0.0, generator) is ONES
    assert torch.equal(generator.get_state(), before)


def test_gradients_pass_through_the_entries_that_stay() -> None:
    samples = ONES.clone().requires_grad_()
    seen = drop_entries(samples, 0.5, torch.Generator().manual_seed(0))
    seen.sum().backward()
    assert torch.equal(samples.grad, seen.detach())


def test_each_batch_of_each_move_has_its_own_draws_and_only_d_is_disturbed() -> None:
    trick = InputDropoutConfig().build("drop", {})
    assert isinstance(trick, InputDropout)
    assert trick.sides == {Side.D}
    views = [trick.transform_input(ONES, origin, context(step)) for step in range(2) for origin in ("real", "fake")]
    assert all(not torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])
    assert torch.equal(views[0], trick.transform_input(ONES, "real", context(0)))
