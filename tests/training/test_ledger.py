"""The ledger: what it makes of readings, scores and norms, in one transfer, and over a save in mid-interval."""

from __future__ import annotations

import gc
import json
import math
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.rows import Row, Stat, as_json, encode
from poise.training.ledger import Ledger, statistics


def noted(*values: float, ledger: Ledger | None = None) -> Ledger:
    ledger = ledger or Ledger()
    for value in values:
        ledger.note("d/adversarial", torch.tensor(value))
    return ledger


def test_a_row_has_mean_spread_least_and_greatest() -> None:
    stats = noted(1.0, 2.0, 6.0).stats()
    assert stats == {"d/adversarial": Stat(3.0, pytest.approx(math.sqrt(14 / 3)), 1.0, 6.0)}


def test_an_interval_ends_with_its_row() -> None:
    ledger = noted(1.0)
    ledger.stats()
    assert ledger.stats() == {}
    assert noted(5.0, ledger=ledger).stats()["d/adversarial"].mean == 5.0


def steps(ledger: Ledger, first: int, last: int) -> Ledger:
    """What a run says in steps `first` to `last`: two readings, one of them lazy, two lengths, the scores."""
    for at in range(first, last):
        generator = torch.Generator().manual_seed(at)
        real, fake, *grads = (torch.randn(n, generator=generator) for n in (31, 31, 5, 7))
        ledger.note("d/adversarial", real.mean())
        if at % 4 == 0:
            ledger.note("d/r1", fake.square().mean())
        ledger.scores(real, fake)
        ledger.norm("d/grad_norm", grads)
    return ledger


@pytest.mark.parametrize("saves", [[1], [63, 64, 65], [100, 101, 149], list(range(1, 150))])
def test_an_interval_with_saves_in_it_is_an_interval_without_to_the_bit(saves: list[int]) -> None:
    """150 steps, so long that readings are condensed on the way; each save is taken up by a fresh ledger."""
    whole = steps(Ledger(), 0, 150)
    ledger, done = Ledger(), 0
    for at in [*saves, 150]:
        state = {name: tensor.clone() for name, tensor in steps(ledger, done, at).state().items()}
        ledger, done = Ledger(), at
        ledger.restore(state)
    assert ledger.state().keys() == whole.state().keys()
    assert all(torch.equal(series, ledger.state()[name]) for name, series in whole.state().items())
    assert {name: len(series) for name, series in whole.state().items()}["d/r1"] == 38
    assert whole.stats() == ledger.stats()


def test_names_are_sorted_and_kept_apart() -> None:
    ledger = Ledger()
    for name, value in (("g/x", 3.0), ("d/x", 1.0), ("g/x", 5.0)):
        ledger.note(name, torch.tensor(value))
    stats = ledger.stats()
    assert list(stats) == ["d/x", "g/x"]
    assert (stats["d/x"].mean, stats["g/x"].mean) == (1.0, 4.0)


def test_readings_of_some_steps_only_are_their_own_mean() -> None:
    """A term that is due in every fourth step has fewer readings than the rest."""
    ledger = noted(1.0, 1.0, 1.0, 1.0)
    ledger.note("d/r1", torch.tensor(8.0))
    assert ledger.stats()["d/r1"].mean == 8.0


def test_norm_is_the_length_of_all_tensors_together() -> None:
    ledger = Ledger()
    generator = torch.Generator().manual_seed(0)
    steps = [[torch.randn(shape, generator=generator) for shape in ((3, 4), (5,), (2, 2, 2))] for _ in range(4)]
    for tensors in steps:
        ledger.norm("d/grad_norm", tensors)
    lengths = [np.linalg.norm(np.concatenate([t.double().numpy().ravel() for t in ts])) for ts in steps]
    stat = ledger.stats()["d/grad_norm"]
    assert stat.mean == pytest.approx(np.mean(lengths), rel=1e-6)
    assert stat.std == pytest.approx(np.std(lengths), rel=1e-4)
    assert (stat.min, stat.max) == (pytest.approx(min(lengths), rel=1e-6), pytest.approx(max(lengths), rel=1e-6))


def test_norm_where_steps_have_different_numbers_of_gradients() -> None:
    """A head that only a lazy term uses has a gradient in some steps and none in the others."""
    ledger = Ledger()
    ledger.norm("d/grad_norm", [torch.tensor([3.0]), torch.tensor([4.0])])
    ledger.norm("d/grad_norm", [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([2.0]), torch.tensor([4.0])])
    assert ledger.stats()["d/grad_norm"] == Stat(5.0, 0.0, 5.0, 5.0)


def test_scores_become_means_and_accuracies() -> None:
    """Right is above 0 for a real and below for a fake; 0 itself is neither."""
    ledger = Ledger()
    ledger.scores(torch.tensor([1.0, 2.0, -4.0, 0.0]), torch.tensor([-1.0, 0.0, -2.0, -5.0]))
    ledger.scores(torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, -1.0]))
    means = {name: stat.mean for name, stat in ledger.stats().items()}
    assert means == {
        "d/real_score": pytest.approx((-0.25 + 1) / 2),
        "d/fake_score": pytest.approx((-2 + 0.5) / 2),
        "d/real_accuracy": pytest.approx((0.5 + 1) / 2),
        "d/fake_accuracy": pytest.approx((0.75 + 0.25) / 2),
        "d/accuracy": pytest.approx((0.625 + 0.625) / 2),
    }


def test_what_is_kept_holds_no_graph_and_does_not_change_later() -> None:
    ledger = Ledger()
    score = torch.tensor([1.0, 3.0], requires_grad=True)
    ledger.note("x", (score * 2).sum())
    ledger.scores(score * 1, score * -1)
    gradient = torch.tensor([3.0, 4.0])
    ledger.norm("norm", [gradient])
    gradient.zero_()
    assert not any(tensor.requires_grad for tensor in ledger.state().values())
    assert ledger.stats()["norm"].mean == pytest.approx(5.0)


def test_a_graph_is_let_go_at_once() -> None:
    """Not only when the row is due: until then a whole interval's activations would be kept."""

    class Freed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.kept = tokens[0]
            return x * 1

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad

    class Token:
        pass

    tokens = [Token()]
    alive = weakref.ref(tokens[0])
    ledger, score = Ledger(), Freed.apply(torch.ones(2, requires_grad=True))
    ledger.note("x", score.sum())
    ledger.scores(score, score)
    ledger.norm("n", [score.detach()])
    del score
    tokens.clear()
    gc.collect()
    assert alive() is None
    assert ledger.stats()["x"].mean == 2.0


def test_a_row_is_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = noted(1.0, 2.0)
    ledger.norm("d/grad_norm", [torch.ones(3)])
    ledger.scores(torch.ones(4), torch.ones(4))
    calls: list[int] = []
    cpu = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: calls.append(self.numel()) or cpu(self))
    for name in ("item", "tolist", "__float__", "__bool__"):
        monkeypatch.setattr(Tensor, name, lambda self, *_: pytest.fail("a transfer of its own"))
    stats = ledger.stats()
    assert calls == [2 + 1 + 5]
    assert len(stats) == 7


@pytest.mark.parametrize(
    ("values", "mean"), [((1.0, math.nan), math.nan), ((1.0, math.inf), math.inf), ((-math.inf, 2.0), -math.inf)]
)
def test_what_is_not_finite_is_told_as_it_is(values: tuple[float, ...], mean: float) -> None:
    stat = noted(*values).stats()["d/adversarial"]
    assert stat.mean == mean or (math.isnan(mean) and math.isnan(stat.mean))
    assert math.isnan(stat.std)


def test_statistics_are_of_the_interval_itself() -> None:
    series = np.random.default_rng(0).normal(size=50)
    assert statistics(series) == Stat(
        *(pytest.approx(x) for x in (series.mean(), series.std(), series.min(), series.max()))
    )


def test_a_save_in_mid_interval_loses_nothing() -> None:
    whole, first = noted(1.0, 2.0, 6.0), noted(1.0)
    first.norm("n", [torch.ones(4)])
    whole.norm("n", [torch.ones(4)])
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    assert {name: tensor.tolist() for name, tensor in state.items()} == {"d/adversarial": [1.0], "n": [2.0]}
    assert first.stats()["n"].mean == 2.0, "taking the state empties nothing"
    second = Ledger()
    second.restore(state)
    assert noted(2.0, 6.0, ledger=second).stats() == whole.stats()


def test_restoring_lets_go_of_what_was_there() -> None:
    ledger = noted(100.0)
    ledger.note("g/adversarial", torch.tensor(100.0))
    ledger.state()
    ledger.restore({"d/adversarial": torch.tensor([1.0], dtype=torch.float64)})
    assert ledger.stats() == {"d/adversarial": Stat(1.0, 0.0, 1.0, 1.0)}
    assert Ledger().state() == {}


def test_json_names_what_json_has_no_number_for() -> None:
    assert [encode(x) for x in (1.5, math.nan, math.inf, -math.inf)] == [1.5, "nan", "inf", "-inf"]
    row = Row(3, 24, 0.5, {"d/x": Stat(math.nan, math.nan, -math.inf, 2.0)})
    told = json.loads(json.dumps(as_json(row), allow_nan=False))
    assert told == {
        "step": 3,
        "images": 24,
        "seconds": 0.5,
        "stats": {"d/x": {"mean": "nan", "std": "nan", "min": "-inf", "max": 2.0}},
    }
