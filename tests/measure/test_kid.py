"""The kernel distance against published programs, loops, and the spread of its own repetitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from poise.measure.base import BLOCK_SIZE
from poise.measure.kid import kid, polynomial_kernel


def piles(n: int, m: int, d: int, seed: int = 0, shift: float = 0.3, scale: float = 1.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fake = torch.randn(n, d, dtype=torch.float64, generator=generator) * scale + shift
    return fake, torch.randn(m, d, dtype=torch.float64, generator=generator)


def whole(x: Tensor, y: Tensor) -> float:
    """The estimator on whole matrices."""
    a, b, c = ((s @ t.T / x.shape[1] + 1) ** 3 for s, t in ((x, x), (y, y), (x, y)))
    pairs = [float(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (a, b)]
    return pairs[0] + pairs[1] - 2 * float(c.mean())


@pytest.mark.parametrize(("n", "d"), [(2, 3), (60, 1), (300, 17)])
def test_it_is_torch_fidelitys_of_one_subset_that_is_all(n: int, d: int) -> None:
    fake, real = piles(n, n, d)
    theirs = kid_features_to_metric(fake, real, kid_subsets=1, kid_subset_size=n, verbose=False)
    assert kid(fake, real).value == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-6)


def test_it_is_clean_fids_of_one_subset_that_is_all() -> None:
    clean = pytest.importorskip("cleanfid.fid")
    fake, real = piles(150, 150, 9)
    theirs = clean.kernel_distance(fake.numpy(), real.numpy(), num_subsets=1, max_subset_size=150)
    assert kid(fake, real).value == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 7), (9, 5)])
def test_it_is_that_of_a_double_loop(n: int, m: int) -> None:
    fake, real = piles(n, m, 3, seed=1)

    def k(a: Tensor, b: Tensor) -> float:
        return (sum(float(s) * float(t) for s, t in zip(a, b, strict=True)) / 3 + 1) ** 3

    within = [
        np.mean([k(one, other) for i, one in enumerate(pile) for j, other in enumerate(pile) if i != j])
        for pile in (fake, real)
    ]
    across = np.mean([k(one, other) for one in fake for other in real])
    assert kid(fake, real).value == pytest.approx(within[0] + within[1] - 2 * across, rel=1e-9)


def test_the_kernel_is_the_cubic_one() -> None:
    a, b = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [-2.0, -1.0], [0.0, 0.0]])
    assert polynomial_kernel(a, b).tolist() == [[6.5**3, -1.0, 1.0], [1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("n", "m"), [(BLOCK_SIZE, 5), (BLOCK_SIZE + 1, 700), (700, 2 * BLOCK_SIZE + 3), (2 * BLOCK_SIZE, BLOCK_SIZE - 1)]
)
def test_blocks_do_not_show(n: int, m: int) -> None:
    fake, real = piles(n, m, 2)
    assert kid(fake, real).value == pytest.approx(whole(fake, real), rel=1e-9)


def test_blocks_do_not_show_in_the_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for shift in (0.0, 1.0):
        fake, real = piles(50, 37, 4, shift=shift, scale=1.0)
        at_once = kid(fake, real)
        with monkeypatch.context() as patch:
            patch.setattr("poise.measure.kid.BLOCK", 8)
            assert kid(fake, real) == pytest.approx(at_once, rel=1e-9)


def test_it_takes_float32_and_is_symmetric() -> None:
    fake, real = (pile.float() for pile in piles(40, 60, 5))
    there, back = kid(fake, real), kid(real, fake)
    assert there == pytest.approx(back, rel=1e-9)
    assert there == pytest.approx(kid(fake.double(), real.double()), rel=1e-12)


LAWS = {
    "equal": (6, 0.0, 1.0),
    "equal, of many numbers": (64, 0.0, 1.0),
    "nearly equal": (6, 0.2, 1.0),
    "apart": (6, 1.0, 1.0),
    "wider": (6, 0.0, 1.5),
}


@pytest.fixture(scope="module", params=LAWS)
def drawn(request: pytest.FixtureRequest) -> tuple[str, Tensor]:
    """The value and the standard error of each of many fresh draws, draws x 2; of unequally many samples."""
    d, shift, scale = LAWS[request.param]
    return request.param, torch.tensor([kid(*piles(90, 120, d, seed, shift, scale)) for seed in range(400)])


def test_for_equal_laws_it_is_0_on_average(drawn: tuple[str, Tensor]) -> None:
    name, told = drawn
    values = told[:, 0]
    off = float(values.mean()) / (float(values.std()) / len(values) ** 0.5)
    assert abs(off) < 3 if name.startswith("equal") else off > 10
    if name.startswith("equal"):
        assert (values < 0).any()


def test_the_standard_error_is_the_spread_of_fresh_draws(drawn: tuple[str, Tensor]) -> None:
    name, told = drawn
    within = 0.12 if "many" in name else 0.25
    assert float(told[:, 1].mean()) == pytest.approx(float(told[:, 0].std()), rel=within)


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_two_piles_of_one_picture_each(shift: float) -> None:
    told = kid(torch.full((9, 4), shift), torch.zeros(7, 4))
    assert told == pytest.approx((((shift**2) + 1) ** 3 + 1 - 2, 0), abs=1e-5)


def test_what_is_no_pile_is_refused() -> None:
    with pytest.raises(ValueError, match="fake features must be a matrix of at least 2 rows"):
        kid(torch.zeros(1, 3), torch.zeros(5, 3))
