"""Labels in the proportions of the training data and in the order of the classes, and labels by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poise.errors import RecipeError
from poise.runs.labels import check_label, check_labels, class_number, labels_by_class, proportional_labels


@pytest.mark.parametrize(
    "counts", [(90, 8, 2), (1, 1), (7,), (0, 5, 0), (3, 0, 0), (0, 0, 3), (1, 10**6), tuple(range(1, 101)), (1,) * 10]
)
@pytest.mark.parametrize("seed", [0, 1, 17])
def test_labels_are_proportional_to_the_class_counts(counts: tuple[int, ...], seed: int) -> None:
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    whole = proportional_labels(5000, counts, seed)
    assert whole.dtype == torch.int64
    for n in (1, 10, 64, 1000, 5000):
        labels = proportional_labels(n, counts, seed)
        assert torch.equal(labels, whole[:n])
        found = labels.bincount(minlength=len(counts))
        assert len(found) == len(counts)
        assert float((found - n * shares).abs().max()) < 2.5
        assert not found[shares == 0].any(), "a class without a picture is never asked for"


def test_labels_depend_on_the_seed_and_need_an_image() -> None:
    assert not torch.equal(proportional_labels(50, (5, 3, 2), 0), proportional_labels(50, (5, 3, 2), 1))
    for none in ((), (0, 0)):
        with pytest.raises(ValueError, match="at least one class with a sample"):
            proportional_labels(3, none, 0)


@pytest.mark.parametrize(("n", "classes"), [(64, 10), (15, 10), (100, 10), (7, 10), (1, 3), (10, 1)])
def test_labels_by_class_are_balanced(n: int, classes: int) -> None:
    """They are sorted, and the counts of two classes differ by at most 1; few samples are of the first classes."""
    labels = labels_by_class(n, classes)
    counts = labels.bincount()
    assert labels.tolist() == sorted(labels.tolist())
    assert len(counts) == min(n, classes)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("labels", [[2, 0, 1], torch.tensor([2, 0, 1]), torch.tensor([2, 0, 1], dtype=torch.uint8)])
def test_labels_of_samples_are_checked(labels: torch.Tensor | list[int]) -> None:
    assert check_labels(labels, 3, 3).tolist() == [2, 0, 1]
    assert check_labels(labels, 3, 3).dtype == torch.int64
    with pytest.raises(RecipeError, match=r"labels: must be from 0 to 1, found 2"):
        check_labels(labels, 3, 2)
    for n in (0, 2, 5):
        with pytest.raises(RecipeError, match=rf"labels: must be {n} integers, found u?int\d+, 3"):
            check_labels(labels, n, 3)
    assert check_labels([], 0, 3).tolist() == []


@pytest.mark.parametrize("labels", [["a", "b"], [0.5, 1.0], [True, False], torch.zeros(2), torch.zeros(2, 1).long()])
def test_other_labels_are_refused(labels: list[int]) -> None:
    with pytest.raises(RecipeError, match=r"labels: must be (2 )?integers"):
        check_labels(labels, 2, 3)


@pytest.mark.parametrize("label", [1, "dog", "1", np.int64(1), torch.tensor(1)])
def test_a_label_is_the_name_or_the_number_of_a_class(label: int | str) -> None:
    assert check_label(label, ["cat", "dog"]) == 1


@pytest.mark.parametrize("label", [2, -1, 0.5, True, [0], torch.tensor([0, 1])])
def test_other_labels_of_a_class_are_refused(label: Any) -> None:
    with pytest.raises(RecipeError, match=r"^label: must be the name of a class, or its number from 0 to 1, found "):
        check_label(label, ["cat", "dog"])


def test_an_unknown_name_of_a_class_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"^label: no such class, found 'dgo'; did you mean 'dog'"):
        check_label("dgo", ["cat", "dog"])


@pytest.mark.parametrize(("word", "label"), [("cat", 0), ("dog", 1), ("0", 0), ("1", 1), ("a\tb", 2)])
def test_a_class_has_a_name_and_a_number(word: str, label: int) -> None:
    assert class_number(word, ["cat", "dog", r"'a\tb'"], "--label") == label


@pytest.mark.parametrize(
    ("word", "classes", "part"),
    [
        ("cot", ["cat", "dog"], "did you mean 'cat'?"),
        ("2", ["cat", "dog"], "no such class"),
        ("-1", ["cat", "dog"], "no such class"),
        ("0", ["1", "2"], "a number here is a class's name"),
        ("cat", [], "the data has no classes"),
    ],
)
def test_an_unknown_class_is_refused(word: str, classes: list[str], part: str) -> None:
    with pytest.raises(RecipeError) as raised:
        class_number(word, classes, "--label")
    assert all(text in str(raised.value) for text in ("--label", "no such class", f"'{word}'", part))
