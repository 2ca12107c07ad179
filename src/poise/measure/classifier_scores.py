"""What a classifier of real pictures makes of the fakes: is each clearly something, is there some of everything?"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue

SPLITS = 10
LEAST = -700.0
"""A log-probability whose exponential is still a number."""


def inception_score(logits: Tensor, splits: int = SPLITS) -> MeasuredValue:
    """exp E KL(p(y|x) || p(y)) for logits N x K: 1 to K (Salimans 2016, arXiv:1606.03498), by torch-fidelity.

    The mean over `splits` parts of the samples, as published, and the standard error of that mean. It is named for the
    Inception network; with another classifier it is another scale. It is no measure of variety within a class.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    splits = min(splits, len(logits))
    sure = logits.detach().cpu().double().log_softmax(1).clamp_min(LEAST)
    told = isc_features_to_metric(sure, splits)
    return MeasuredValue(told[KEY_METRIC_ISC_MEAN], told[KEY_METRIC_ISC_STD] / splits**0.5)


def confidence(logits: Tensor) -> float:
    """Mean of the highest class probability, 1 / K to 1."""
    return float(logits.double().softmax(1).amax(1).mean())


def balance(said: Tensor, wanted: Tensor, classes: int) -> float:
    """1 - total variation between two piles' shares of classes, 0 to 1; labels N and M, whole numbers.

    1 if both have the same of each; one of ten equal classes missing makes 0.9; all of one class 1 / K.
    """
    shares = [torch.bincount(pile, minlength=classes).double() / len(pile) for pile in (said, wanted)]
    return 1 - float((shares[0] - shares[1]).abs().sum()) / 2


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of right answers, 0 to 1; logits N x K, labels N."""
    return float((logits.argmax(1) == labels).double().mean())


INCEPTION_SCORE = Measure(
    name="inception_score",
    about="clear and varied classes by the named classifier, 1 to their number (Salimans 2016); blind within a class",
    better="more",
    compute=lambda context: inception_score(context.fake.logits),
    floor="real",
    requires=frozenset({"logits"}),
)
CONFIDENCE = Measure(
    name="class_confidence",
    about="mean certainty of a classifier of real pictures about the fakes, to 1; quality",
    better="more",
    compute=lambda context: MeasuredValue(confidence(context.fake.logits)),
    floor="real",
    requires=frozenset({"logits"}),
)
BALANCE = Measure(
    name="class_balance",
    about="how alike the shares of classes are, 0 to 1 (1 - total variation); variety of classes",
    better="more",
    compute=lambda context: MeasuredValue(
        balance(context.fake.logits.argmax(1), context.real.logits.argmax(1), context.fake.logits.shape[1])
    ),
    requires=frozenset({"logits"}),
)
GAN_TEST = Measure(
    name="gan_test",
    about="accuracy of a classifier of real pictures on fakes of known labels, 0 to 1 (Shmelkov 2018); quality",
    better="more",
    compute=lambda context: MeasuredValue(accuracy(context.fake.logits, context.fake.required_labels)),
    floor="real",
    requires=frozenset({"logits", "labels", "asked labels"}),
)
