"""Step metrics: statistics of values, scores and norms, with a single transfer, also across checkpoints."""

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

from poise.core.metrics_log import Row, Stat, encode_number, row_to_json
from poise.engine.step_metrics import StepMetrics, statistics


def noted(*values: float, metrics: StepMetrics | None = None) -> StepMetrics:
    metrics = metrics or StepMetrics()
    for value in values:
        metrics.add("d/adversarial", torch.tensor(value))
    return metrics


def test_statistics_of_an_interval() -> None:
    stats = noted(1.0, 2.0, 6.0).reduce()
    assert stats == {"d/adversarial": Stat(3.0, pytest.approx(math.sqrt(14 / 3)), 1.0, 6.0)}


def test_reduce_starts_a_new_interval() -> None:
    metrics = noted(1.0)
    metrics.reduce()
    assert metrics.reduce() == {}
    assert noted(5.0, metrics=metrics).reduce()["d/adversarial"].mean == 5.0


def test_a_value_that_changes_later_is_logged_as_it_was() -> None:
    metrics, count = StepMetrics(), torch.zeros(())
    for _ in range(3):
        count += 1
        metrics.add("d/count", count)
    assert metrics.reduce()["d/count"] == Stat(2.0, pytest.approx(math.sqrt(2 / 3)), 1.0, 3.0)


def steps(metrics: StepMetrics, first: int, last: int) -> StepMetrics:
    """Metrics of steps `first` to `last`: two values, one of them lazy, two norms and the scores."""
    for at in range(first, last):
        generator = torch.Generator().manual_seed(at)
        real, fake, *grads = (torch.randn(n, generator=generator) for n in (31, 31, 5, 7))
        metrics.add("d/adversarial", real.mean())
        if at % 4 == 0:
            metrics.add("d/r1", fake.square().mean())
        metrics.add_scores(real, fake)
        metrics.add_norms("d/grad_norm", grads)
    return metrics


@pytest.mark.parametrize("saves", [[1], [63, 64, 65], [100, 101, 149], list(range(1, 150))])
def test_checkpoints_do_not_change_an_interval(saves: list[int]) -> None:
    """150 steps, so that values are condensed in between; a new `StepMetrics` loads each checkpoint."""
    whole = steps(StepMetrics(), 0, 150)
    metrics, done = StepMetrics(), 0
    for at in [*saves, 150]:
        state = {name: tensor.clone() for name, tensor in steps(metrics, done, at).state_dict().items()}
        metrics, done = StepMetrics(), at
        metrics.load_state_dict(state)
    assert metrics.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(series, metrics.state_dict()[name]) for name, series in whole.state_dict().items())
    assert {name: len(series) for name, series in whole.state_dict().items()}["d/r1"] == 38
    assert whole.reduce() == metrics.reduce()


def test_names_are_sorted() -> None:
    metrics = StepMetrics()
    for name, value in (("g/x", 3.0), ("d/x", 1.0), ("g/x", 5.0)):
        metrics.add(name, torch.tensor(value))
    stats = metrics.reduce()
    assert list(stats) == ["d/x", "g/x"]
    assert (stats["d/x"].mean, stats["g/x"].mean) == (1.0, 4.0)


def test_values_of_some_steps_have_their_own_mean() -> None:
    """A term that is computed in every fourth step has fewer values than the others."""
    metrics = noted(1.0, 1.0, 1.0, 1.0)
    metrics.add("d/r1", torch.tensor(8.0))
    assert metrics.reduce()["d/r1"].mean == 8.0


def test_norm_of_all_tensors_together() -> None:
    metrics = StepMetrics()
    generator = torch.Generator().manual_seed(0)
    steps = [[torch.randn(shape, generator=generator) for shape in ((3, 4), (5,), (2, 2, 2))] for _ in range(4)]
    for tensors in steps:
        metrics.add_norms("d/grad_norm", tensors)
    lengths = [np.linalg.norm(np.concatenate([t.double().numpy().ravel() for t in ts])) for ts in steps]
    stat = metrics.reduce()["d/grad_norm"]
    assert stat.mean == pytest.approx(np.mean(lengths), rel=1e-6)
    assert stat.std == pytest.approx(np.std(lengths), rel=1e-4)
    assert (stat.min, stat.max) == (pytest.approx(min(lengths), rel=1e-6), pytest.approx(max(lengths), rel=1e-6))


def test_norm_with_varying_numbers_of_gradients() -> None:
    """A head that only a lazy term uses has a gradient in some steps only."""
    metrics = StepMetrics()
    metrics.add_norms("d/grad_norm", [torch.tensor([3.0]), torch.tensor([4.0])])
    metrics.add_norms(
        "d/grad_norm", [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([2.0]), torch.tensor([4.0])]
    )
    assert metrics.reduce()["d/grad_norm"] == Stat(5.0, 0.0, 5.0, 5.0)


def test_scores_become_means_and_accuracies() -> None:
    """A real sample is classified correctly above 0, a fake one below 0; at 0 neither is."""
    metrics = StepMetrics()
    metrics.add_scores(torch.tensor([1.0, 2.0, -4.0, 0.0]), torch.tensor([-1.0, 0.0, -2.0, -5.0]))
    metrics.add_scores(torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, -1.0]))
    means = {name: stat.mean for name, stat in metrics.reduce().items()}
    assert means == {
        "d/real_score": pytest.approx((-0.25 + 1) / 2),
        "d/fake_score": pytest.approx((-2 + 0.5) / 2),
        "d/real_accuracy": pytest.approx((0.5 + 1) / 2),
        "d/fake_accuracy": pytest.approx((0.75 + 0.25) / 2),
        "d/accuracy": pytest.approx((0.625 + 0.625) / 2),
    }


def test_values_are_detached_and_independent_of_later_changes() -> None:
    metrics = StepMetrics()
    score = torch.tensor([1.0, 3.0], requires_grad=True)
    metrics.add("x", (score * 2).sum())
    metrics.add_scores(score * 1, score * -1)
    gradient = torch.tensor([3.0, 4.0])
    metrics.add_norms("norm", [gradient])
    gradient.zero_()
    assert not any(tensor.requires_grad for tensor in metrics.state_dict().values())
    assert metrics.reduce()["norm"].mean == pytest.approx(5.0)


def test_a_graph_is_freed_at_once() -> None:
    """Otherwise the activations of a whole interval would stay in memory until the row is logged."""

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
    metrics, score = StepMetrics(), Freed.apply(torch.ones(2, requires_grad=True))
    metrics.add("x", score.sum())
    metrics.add_scores(score, score)
    metrics.add_norms("n", [score.detach()])
    del score
    tokens.clear()
    gc.collect()
    assert alive() is None
    assert metrics.reduce()["x"].mean == 2.0


def test_a_row_is_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = noted(1.0, 2.0)
    metrics.add_norms("d/grad_norm", [torch.ones(3)])
    metrics.add_scores(torch.ones(4), torch.ones(4))
    calls: list[int] = []
    cpu = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: calls.append(self.numel()) or cpu(self))
    for name in ("item", "tolist", "__float__", "__bool__"):
        monkeypatch.setattr(Tensor, name, lambda self, *_: pytest.fail("a transfer of its own"))
    stats = metrics.reduce()
    assert calls == [2 + 1 + 5]
    assert len(stats) == 7


@pytest.mark.parametrize(
    ("values", "mean"), [((1.0, math.nan), math.nan), ((1.0, math.inf), math.inf), ((-math.inf, 2.0), -math.inf)]
)
def test_non_finite_values_stay_visible(values: tuple[float, ...], mean: float) -> None:
    stat = noted(*values).reduce()["d/adversarial"]
    assert stat.mean == mean or (math.isnan(mean) and math.isnan(stat.mean))
    assert math.isnan(stat.std)


def test_the_standard_deviation_is_divided_by_n() -> None:
    series = np.random.default_rng(0).normal(size=50)
    assert statistics(series) == Stat(
        *(pytest.approx(x) for x in (series.mean(), series.std(), series.min(), series.max()))
    )


def test_state_dict_in_the_middle_of_an_interval() -> None:
    whole, first = noted(1.0, 2.0, 6.0), noted(1.0)
    first.add_norms("n", [torch.ones(4)])
    whole.add_norms("n", [torch.ones(4)])
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    assert {name: tensor.tolist() for name, tensor in state.items()} == {"d/adversarial": [1.0], "n": [2.0]}
    assert first.reduce()["n"].mean == 2.0, "taking the state empties nothing"
    second = StepMetrics()
    second.load_state_dict(state)
    assert noted(2.0, 6.0, metrics=second).reduce() == whole.reduce()


def test_load_state_dict_replaces_pending_values() -> None:
    metrics = noted(100.0)
    metrics.add("g/adversarial", torch.tensor(100.0))
    metrics.state_dict()
    metrics.load_state_dict({"d/adversarial": torch.tensor([1.0], dtype=torch.float64)})
    assert metrics.reduce() == {"d/adversarial": Stat(1.0, 0.0, 1.0, 1.0)}
    assert StepMetrics().state_dict() == {}


def test_json_writes_non_finite_numbers_as_strings() -> None:
    assert [encode_number(x) for x in (1.5, math.nan, math.inf, -math.inf)] == [1.5, "nan", "inf", "-inf"]
    row = Row(3, 24, 0.5, {"d/x": Stat(math.nan, math.nan, -math.inf, 2.0)})
    result = json.loads(json.dumps(row_to_json(row), allow_nan=False))
    assert result == {
        "step": 3,
        "images": 24,
        "seconds": 0.5,
        "stats": {"d/x": {"mean": "nan", "std": "nan", "min": "-inf", "max": 2.0}},
    }
