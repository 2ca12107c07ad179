"""Labels for samples: in the proportions of the training data, in the order of the classes, by the name of a class."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from poise.core.config import did_you_mean
from poise.core.random_streams import derive_seed
from poise.data.listing import display_name
from poise.errors import RecipeError
from poise.utils.printing import count_noun

GOLDEN_RATIO = (5**0.5 - 1) / 2
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
MAX_LISTED = 20
"""The number of classes that the message about an unknown one lists."""


def check_number(n: int) -> None:
    """Raise a RecipeError if a number of samples is negative."""
    if n < 0:
        raise RecipeError("the number of samples can't be negative", where="n", found=str(n))


def proportional_labels(n: int, counts: Sequence[int], seed: int) -> Tensor:
    """n labels, int64, in proportion to `counts`, the number of training samples of each class.

    Label i is the class in which u_i = frac(u_0 + i (sqrt(5) - 1) / 2) falls when [0, 1) is divided among the classes
    in proportion to their counts; u_0 depends on the seed. So label i depends on (seed, i) alone, and among any n
    consecutive labels the number of each class differs from n times its proportion by a sample or two (Weyl 1916; the
    golden ratio distributes such a sequence most evenly). A class without training samples never occurs.

    Raises:
        ValueError: all counts are 0.
    """
    edges = torch.tensor(counts, dtype=torch.float64).cumsum(0)
    if not len(edges) or edges[-1] <= 0:
        raise ValueError("labels need at least one class with a sample")
    first = derive_seed(seed, "sample/labels") / 2**64
    u = (first + torch.arange(n, dtype=torch.float64) * GOLDEN_RATIO) % 1.0
    return torch.searchsorted(edges, u * edges[-1], right=True).clamp_max(_last_class(counts))


def _last_class(counts: Sequence[int]) -> int:
    """The last class with a sample, for a product that is rounded up to the total."""
    return max(label for label, count in enumerate(counts) if count)


def labels_by_class(n: int, classes: int) -> Tensor:
    """n labels in ascending order, with equal counts up to 1; the first n classes if n is smaller than `classes`."""
    return torch.arange(n) * min(n, classes) // max(n, 1)


def check_labels(labels: Tensor | list[int], n: int, num_classes: int) -> Tensor:
    """The labels of n samples, int64.

    Raises:
        RecipeError: they are not n integers from 0 to `num_classes` - 1.
    """
    try:
        labels = labels if isinstance(labels, Tensor) else torch.tensor(labels, dtype=None if labels else torch.int64)
    except (TypeError, ValueError):
        cure = "give the same class to all samples by its name with label, or look names up with Run.label"
        raise RecipeError("must be integers", where="labels", found=str(labels)[:60], cure=cure) from None
    found = f"{str(labels.dtype).removeprefix('torch.')}, {' x '.join(map(str, labels.shape)) or 'a scalar'}"
    if labels.dtype not in INTEGERS or labels.shape != (n,):
        raise RecipeError(f"must be {count_noun(n, 'integer')}", where="labels", found=found)
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        what = f"must be from 0 to {num_classes - 1}"
        raise RecipeError(what, where="labels", found=str(int(outside[0])))
    return labels.long()


def check_label(label: int | str, classes: Sequence[str]) -> int:
    """The label of a class that is given by its name or its number.

    Raises:
        RecipeError: there is no such class.
    """
    if isinstance(label, str):
        return class_number(label, classes, "label")
    try:
        number = -1 if isinstance(label, bool) else operator.index(label)
    except TypeError:
        number = -1
    if not 0 <= number < len(classes):
        what = f"must be the name of a class, or its number from 0 to {len(classes) - 1}"
        raise RecipeError(what, where="label", found=repr(label)[:60])
    return number


def class_number(word: str, classes: Sequence[str], where: str) -> int:
    """The label of the class named `word`, or `word` itself as a label if no class has a number for a name.

    Args:
        word: what the user wrote.
        classes: the names of the classes by label.
        where: the option that it is from, for the message.

    Raises:
        RecipeError: there is no such class; suggests the nearest name.
    """
    for name in (word, display_name(word)):  # names with unprintable characters are stored as they are displayed
        if name in classes:
            return classes.index(name)
    numeric_names = any(_is_number(name) for name in classes)
    if not numeric_names and word.isascii() and word.isdecimal() and int(word) < len(classes):
        return int(word)
    cure = did_you_mean(word, list(classes)) if classes else "the data has no classes"
    if "did you mean" not in cure and len(classes) > MAX_LISTED:
        cure = f"there are {len(classes):,}: {', '.join(classes[:MAX_LISTED])}, ... (all are in run.json)"
    cure += "; a number here is a class's name" if numeric_names and _is_number(word) else ""
    raise RecipeError("no such class", where=where, found=f"'{word}'", cure=cure)


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", word) is not None
