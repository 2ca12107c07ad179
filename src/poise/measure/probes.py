"""Probes: classifiers that are trained on fake samples or on D's features."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from poise.core.random_streams import derive_seed
from poise.measure.base import Measure, MeasuredValue
from poise.measure.classifier import train_classifier
from poise.measure.classifier_scores import accuracy
from poise.measure.context import EvalContext
from poise.measure.sample_set import batch_slices, extract

MAX_ITERATIONS = 300


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """The accuracy, 0 to 1, of a logistic regression trained on features N x d and tested on features M x d.

    Features are standardised by the statistics of the training features. On D's features this is the evaluation of
    unsupervised features in Radford 2015 (arXiv:1511.06434, section 5.1).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=MAX_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an approximate optimum suffices for an accuracy
        probe.fit(train.double().numpy(), train_labels.numpy())
    return float(probe.score(test.double().numpy(), test_labels.numpy()))


def _gan_train(context: EvalContext) -> MeasuredValue:
    """The accuracy on real samples of the small classifier, trained on the generated ones and their labels."""
    fake, real = context.fake, context.real
    shape = tuple(fake.normalized(slice(0, 1)).shape[1:])
    seed = derive_seed(0, "gan_train")
    net = train_classifier(fake.normalized, fake.required_labels, shape, context.num_classes, seed, context.progress)
    with torch.no_grad():
        logits = torch.cat([net(real.normalized(part))[1] for part in batch_slices(len(real))])
    return MeasuredValue(accuracy(logits, real.required_labels))


def _d_probe(context: EvalContext) -> MeasuredValue:
    """The accuracy on held-out samples of a linear classifier, trained on D's features of the training samples."""
    d, train, real = context.d_extractor, context.required_train, context.real
    assert d is not None
    on_train, on_real = (
        extract(samples.normalized, len(samples), d, progress=context.progress).features for samples in (train, real)
    )
    return MeasuredValue(linear_probe(on_train, train.required_labels, on_real, real.required_labels))


GAN_TRAIN = Measure(
    name="gan_train",
    description="accuracy on real images of a classifier trained on fakes with known labels, 0 to 1 (Shmelkov 2018)",
    better="more",
    compute=_gan_train,
    requires=frozenset({"labels", "fake labels"}),
    slow=True,
)
D_PROBE = Measure(
    name="d_probe",
    description="accuracy of a linear classifier on D's features of real images, 0 to 1 (Radford 2015); on D, not G",
    better="more",
    compute=_d_probe,
    floor="none",
    requires=frozenset({"d", "labels", "train", "held out"}),
    slow=True,
)
