"""Measures from the predictions of a classifier of real images: confidence, balance of classes, accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue, validate_matrix

MAX_SPLITS = 10
"""The published number of parts."""

MIN_PER_CLASS, ENOUGH_PER_PART = 10, 5_000
"""A part has at least ten samples per class, or as many samples as in published values."""

MIN_LOG_PROB = -700.0
"""A lower bound of log-probabilities; its exponential is above 0 in float64."""


def inception_score(logits: Tensor, splits: int | None = None) -> MeasuredValue:
    """exp E KL(p(y|x) || p(y)) for logits N x K: 1 to K (Salimans 2016, arXiv:1606.03498), by torch-fidelity.

    The value is the mean over `splits` parts of the samples, with the standard error of that mean if there are several.
    It can't exceed the number of samples in a part, and is too low if a part has few samples per class. By default,
    there are the published ten parts if each has ten samples per class, or 5,000 in all; otherwise fewer, down to one.
    The name refers to the Inception network; the values of other classifiers are not comparable. Variety within a class
    is not measured.

    Raises:
        ValueError: see `poise.measure.base.validate_matrix`.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    logits = validate_matrix(logits, "logits")
    if splits is None:
        enough = min(MIN_PER_CLASS * logits.shape[1], ENOUGH_PER_PART)
        splits = max(1, min(MAX_SPLITS, len(logits) // enough))
    splits = min(splits, len(logits))
    scores = isc_features_to_metric(logits.log_softmax(1).clamp_min(MIN_LOG_PROB), splits)
    stderr = scores[KEY_METRIC_ISC_STD] / (splits - 1) ** 0.5 if splits > 1 else None  # the deviation divides by splits
    return MeasuredValue(scores[KEY_METRIC_ISC_MEAN], stderr)


def class_confidence(logits: Tensor) -> float:
    """The mean of the highest class probability, 1 / K to 1, for logits N x K."""
    return float(logits.double().softmax(1).amax(1).mean())


def class_balance(fake_labels: Tensor, real_labels: Tensor, num_classes: int) -> float:
    """1 - total variation distance between the class frequencies of two sets, 0 to 1; int64 labels, N and M.

    1 for equal frequencies; 0.9 if one of ten equally frequent classes is missing; 1 / K if all samples are of one of K
    such classes.
    """
    shares = [
        torch.bincount(labels, minlength=num_classes).double() / len(labels) for labels in (fake_labels, real_labels)
    ]
    return 1 - float((shares[0] - shares[1]).abs().sum()) / 2


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share of correct predictions, 0 to 1; logits N x K, labels N."""
    return float((logits.argmax(1) == labels).double().mean())


INCEPTION_SCORE = Measure(
    name="inception_score",
    description="confident, varied class predictions, 1 to the number of classes (Salimans 2016); blind within a class",
    better="more",
    compute=lambda context: inception_score(context.fake.logits),
    floor="real",
    requires=frozenset({"logits"}),
)
CLASS_CONFIDENCE = Measure(
    name="class_confidence",
    description="mean confidence of a classifier trained on real images, up to 1; quality, but noise can score high",
    better="more",
    compute=lambda context: MeasuredValue(class_confidence(context.fake.logits)),
    floor="real",
    requires=frozenset({"logits"}),
)
CLASS_BALANCE = Measure(
    name="class_balance",
    description="1 - total variation distance between the class frequencies, 0 to 1; variety of classes",
    better="more",
    compute=lambda context: MeasuredValue(
        class_balance(context.fake.logits.argmax(1), context.real.logits.argmax(1), context.fake.logits.shape[1])
    ),
    requires=frozenset({"logits"}),
)
GAN_TEST = Measure(
    name="gan_test",
    description="accuracy on fakes with known labels of a classifier of real images, 0 to 1 (Shmelkov 2018); quality",
    better="more",
    compute=lambda context: MeasuredValue(accuracy(context.fake.logits, context.fake.required_labels)),
    floor="real",
    requires=frozenset({"latents", "class logits", "labels", "fake labels"}),
)
