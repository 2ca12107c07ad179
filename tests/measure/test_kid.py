"""The kernel distance, compared with published programs, loops, and the spread over repeated draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from poise.measure.base import BLOCK_SIZE
from poise.measure.kid import kid, polynomial_kernel


def two_sets(n: int, m: int, d: int, seed: int = 0, shift: float = 0.3, scale: float = 1.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fake = torch.randn(n, d, dtype=torch.float64, generator=generator) * scale + shift
    return fake, torch.randn(m, d, dtype=torch.float64, generator=generator)


def reference_kid(x: Tensor, y: Tensor) -> float:
    """The estimator computed from full kernel matrices."""
    a, b, c = ((s @ t.T / x.shape[1] + 1) ** 3 for s, t in ((x, x), (y, y), (x, y)))
    pairs = [float(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (a, b)]
    return pairs[0] + pairs[1] - 2 * float(c.mean())


@pytest.mark.parametrize(("n", "d"), [(2, 3), (60, 1), (300, 17)])
def test_kid_matches_torch_fidelity_on_one_subset(n: int, d: int) -> None:
    fake, real = two_sets(n, n, d)
    expected = kid_features_to_metric(fake, real, kid_subsets=1, kid_subset_size=n, verbose=False)
    assert kid(fake, real).value == pytest.approx(expected[KEY_METRIC_KID_MEAN], rel=1e-6)


def test_kid_matches_clean_fid_on_one_subset() -> None:
    clean = pytest.importorskip("cleanfid.fid")
    fake, real = two_sets(150, 150, 9)
    expected = clean.kernel_distance(fake.numpy(), real.numpy(), num_subsets=1, max_subset_size=150)
    assert kid(fake, real).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 7), (9, 5)])
def test_kid_matches_a_double_loop(n: int, m: int) -> None:
    fake, real = two_sets(n, m, 3, seed=1)

    def k(a: Tensor, b: Tensor) -> float:
        return (sum(float(s) * float(t) for s, t in zip(a, b, strict=True)) / 3 + 1) ** 3

    within = [
        np.mean([k(one, other) for i, one in enumerate(features) for j, other in enumerate(features) if i != j])
        for features in (fake, real)
    ]
    between = np.mean([k(one, other) for one in fake for other in real])
    assert kid(fake, real).value == pytest.approx(within[0] + within[1] - 2 * between, rel=1e-9)


def test_polynomial_kernel() -> None:
    a, b = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [-2.0, -1.0], [0.0, 0.0]])
    assert polynomial_kernel(a, b).tolist() == [[6.5**3, -1.0, 1.0], [1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("n", "m"), [(BLOCK_SIZE, 5), (BLOCK_SIZE + 1, 700), (700, 2 * BLOCK_SIZE + 3), (2 * BLOCK_SIZE, BLOCK_SIZE - 1)]
)
def test_kid_does_not_depend_on_blocks(n: int, m: int) -> None:
    fake, real = two_sets(n, m, 2)
    assert kid(fake, real).value == pytest.approx(reference_kid(fake, real), rel=1e-9)


def test_standard_error_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for shift in (0.0, 1.0):
        fake, real = two_sets(50, 37, 4, shift=shift, scale=1.0)
        unblocked = kid(fake, real)
        with monkeypatch.context() as patch:
            patch.setattr("poise.measure.kid.BLOCK_SIZE", 8)
            assert kid(fake, real) == pytest.approx(unblocked, rel=1e-9)


def test_kid_accepts_float32_and_is_symmetric() -> None:
    fake, real = (features.float() for features in two_sets(40, 60, 5))
    forward, backward = kid(fake, real), kid(real, fake)
    assert forward == pytest.approx(backward, rel=1e-9)
    assert forward == pytest.approx(kid(fake.double(), real.double()), rel=1e-12)


DISTRIBUTIONS = {
    "equal": (6, 0.0, 1.0),
    "equal, many dimensions": (64, 0.0, 1.0),
    "nearly equal": (6, 0.2, 1.0),
    "apart": (6, 1.0, 1.0),
    "wider": (6, 0.0, 1.5),
}


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def drawn(request: pytest.FixtureRequest) -> tuple[str, Tensor]:
    """The value and the standard error of many fresh draws with sets of unequal size, draws x 2."""
    d, shift, scale = DISTRIBUTIONS[request.param]
    return request.param, torch.tensor([kid(*two_sets(90, 120, d, seed, shift, scale)) for seed in range(400)])


def test_kid_of_equal_distributions_is_0_on_average(drawn: tuple[str, Tensor]) -> None:
    name, draws = drawn
    values = draws[:, 0]
    off = float(values.mean()) / (float(values.std()) / len(values) ** 0.5)
    assert abs(off) < 3 if name.startswith("equal") else off > 10
    if name.startswith("equal"):
        assert (values < 0).any()


def test_standard_error_matches_the_spread_of_fresh_draws(drawn: tuple[str, Tensor]) -> None:
    name, draws = drawn
    within = 0.12 if "many" in name else 0.25
    assert float(draws[:, 1].mean()) == pytest.approx(float(draws[:, 0].std()), rel=within)


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_kid_of_constant_features(shift: float) -> None:
    measured = kid(torch.full((9, 4), shift), torch.zeros(7, 4))
    assert measured == pytest.approx((((shift**2) + 1) ** 3 + 1 - 2, 0), abs=1e-5)


def test_invalid_features_are_rejected() -> None:
    with pytest.raises(ValueError, match="fake features must be a matrix of at least 2 rows"):
        kid(torch.zeros(1, 3), torch.zeros(5, 3))
