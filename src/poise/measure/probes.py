"""Probes: what can be learnt from the fakes, and what D has learnt."""

from __future__ import annotations

import warnings

from torch import Tensor

from poise.measure.base import Figure, Measure

ROUNDS = 300


def linear_probe(train: Tensor, labels: Tensor, test: Tensor, wanted: Tensor) -> float:
    """Accuracy, 0 to 1, of a logistic regression on features: trained on N x d with labels N, asked about M x d.

    Features are standardised by the training ones. On D's features this is how Radford 2015 (arXiv:1511.06434, section
    5.1) measured what D had learnt without labels.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=ROUNDS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly there is near enough for an accuracy
        probe.fit(train.double().numpy(), labels.numpy())
    return float(probe.score(test.double().numpy(), wanted.numpy()))


GAN_TRAIN = Measure(
    name="gan_train",
    about="accuracy on real pictures of a classifier trained on fakes of known labels, 0 to 1 (Shmelkov 2018)",
    better="more",
    of=lambda sitting: Figure(sitting.trained_on_fakes()),
    needs=frozenset({"labels", "asked labels"}),
    slow=True,
)
D_PROBE = Measure(
    name="d_probe",
    about="accuracy of a linear classifier on D's features of real pictures, 0 to 1 (Radford 2015); about D, not G",
    better="more",
    of=lambda sitting: Figure(sitting.probed_d()),
    floor="none",
    needs=frozenset({"d", "labels", "train", "held out"}),
    slow=True,
)
