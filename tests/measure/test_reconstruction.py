"""Rebuilding as a measure: principal components against scikit-learn's, and figures of coders that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as Reference
from torch import Tensor

from poise.data.source import DataSplits, ImageDataset
from poise.data.toys import RingConfig
from poise.measure.base import MISSING_REASONS
from poise.measure.catalogue import MEASURES, EvaluationResult, select_measures
from poise.measure.context import Reconstructor
from poise.measure.evaluator import Evaluator
from poise.measure.reconstruction import MAX_WIDTH, fit_pca, mean_squared_error
from poise.measure.sample_set import BATCH_SIZE, SampleSet
from poise.utils.images import to_float

NAMES = "reconstruction,pca_reconstruction,elbo,elbo_reconstruction,elbo_kl"


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    """Points whose spread differs from axis to axis, far from 0."""
    generator = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(99))).Q
    spread = torch.linspace(3, 0.2, d, dtype=torch.float64)
    return torch.randn(n, d, dtype=torch.float64, generator=generator) * spread @ turned.T + 5


# ---------------------------------------------------------------- principal components


@pytest.mark.parametrize("k", [1, 3, 10, 12])
@pytest.mark.parametrize("sizes", [(200,), (1, 150, 49), (40, 40, 40, 40, 40)])
def test_the_plane_is_scikit_learns(k: int, sizes: tuple[int, ...]) -> None:
    train, fresh = rows(200, 12), rows(77, 12, seed=1)
    plane, right = fit_pca(train.split(sizes), k), Reference(k, svd_solver="full").fit(train.numpy())
    np.testing.assert_allclose(plane.mean.numpy(), right.mean_, rtol=1e-12)
    assert plane.axes.shape == (12, k)
    np.testing.assert_allclose((plane.axes.T @ plane.axes).numpy(), np.eye(k), atol=1e-12)
    alike = np.abs((plane.axes.numpy() * right.components_.T).sum(0))
    np.testing.assert_allclose(alike, 1, atol=1e-8)
    by_reference = right.inverse_transform(right.transform(fresh.numpy()))
    np.testing.assert_allclose(plane.reconstruct(fresh).numpy(), by_reference, atol=1e-8)
    missed = float((plane.reconstruct(fresh) - fresh).square().mean())
    assert missed == pytest.approx(float(((by_reference - fresh.numpy()) ** 2).mean()), rel=1e-8, abs=1e-18)


def test_what_lies_in_the_plane_comes_back_and_the_rest_falls_onto_it() -> None:
    plane = fit_pca([rows(300, 6)], 2)
    inside = plane.mean + rows(10, 2) @ plane.axes.T
    torch.testing.assert_close(plane.reconstruct(inside), inside)
    once = plane.reconstruct(rows(20, 6, seed=3))
    torch.testing.assert_close(plane.reconstruct(once), once)


def test_fewer_rows_than_numbers_are_enough() -> None:
    train = rows(5, 30)
    plane = fit_pca([train], 20)
    assert bool(torch.isfinite(plane.axes).all())
    torch.testing.assert_close(plane.reconstruct(train), train, atol=1e-6, rtol=0)


def test_rows_in_float32_are_worked_out_in_float64() -> None:
    train = rows(400, 8).float() + 100
    plane = fit_pca(train.split(64), 3)
    assert plane.mean.dtype == plane.axes.dtype == torch.float64
    right = Reference(3, svd_solver="full").fit(train.double().numpy())
    np.testing.assert_allclose(np.abs((plane.axes.numpy() * right.components_.T).sum(0)), 1, atol=1e-6)


@pytest.mark.parametrize(("k", "wide"), [(7, 6), (3, MAX_WIDTH + 1)])
def test_what_cannot_be_worked_out_is_refused(k: int, wide: int) -> None:
    with pytest.raises(ValueError, match=f"{k} components need {k} to 4,096 values per image, found {wide:,}"):
        fit_pca([torch.zeros(2, wide)], k)


# ---------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def greys() -> DataSplits:
    """600 pictures of 4 x 4 to train on and 300 held out: more than are looked at at once."""
    images = np.random.default_rng(3).integers(0, 256, (900, 4, 4, 1)).astype(np.uint8)
    images[:, 2:] //= 4
    return DataSplits(ImageDataset(images[:600]), ImageDataset(images[600:]))


@pytest.fixture(scope="module")
def bench(greys: DataSplits) -> Evaluator:
    return Evaluator(None, greys, "pixels")


def signed(source: object) -> Tensor:
    assert isinstance(source, ImageDataset)
    return to_float(torch.from_numpy(source.images))


def measured(bench: Evaluator, coder: Reconstructor | None, names: str = NAMES) -> EvaluationResult:
    train = signed(bench.data.train)
    return bench.measure(lambda n: train[:n], select_measures(names), reconstructor=coder)


def value(result: EvaluationResult, name: str) -> float:
    return result.results[name].value.value


def same(images: Tensor) -> Tensor:
    return images


def test_a_coder_that_loses_nothing_misses_nothing(bench: Evaluator) -> None:
    result = measured(bench, Reconstructor(16, same), "reconstruction")
    assert value(result, "reconstruction") == 0
    assert result.results["reconstruction"].floor is None


def test_one_that_knows_the_mean_alone_misses_the_variance(bench: Evaluator, greys: DataSplits) -> None:
    mean, held_out = signed(greys.train).double().mean(0), signed(greys.held_out).double()
    result = measured(bench, Reconstructor(1, lambda images: mean.float().expand_as(images)), "reconstruction")
    right = float((held_out - mean).square().mean())
    assert value(result, "reconstruction") == pytest.approx(right, rel=1e-5)
    assert right == pytest.approx(float(held_out.var(0).mean()), rel=0.02)


def test_pictures_beyond_the_first_look_count_as_much(greys: DataSplits) -> None:
    """300 pictures come in two unequal parts."""
    bench = Evaluator(None, greys, "pixels")
    assert bench.n == 300 > BATCH_SIZE
    seen: list[int] = []

    def off(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images + (0.5 if len(seen) == 1 else 2.0)

    found = value(measured(bench, Reconstructor(1, off), "reconstruction"), "reconstruction")
    assert seen == [BATCH_SIZE, 50]
    assert found == pytest.approx((BATCH_SIZE * 0.25 + 50 * 4.0) / 300, rel=1e-5)


@pytest.mark.parametrize("dim", [1, 5, 16])
def test_the_plane_is_of_training_pictures_and_misses_held_out_ones(
    dim: int, bench: Evaluator, greys: DataSplits
) -> None:
    train, held_out = (signed(source).flatten(1).double().numpy() for source in (greys.train, greys.held_out))
    right = Reference(dim, svd_solver="full").fit(train)
    missed = ((right.inverse_transform(right.transform(held_out)) - held_out) ** 2).mean()
    found = value(measured(bench, Reconstructor(dim, same)), "pca_reconstruction")
    assert found == pytest.approx(float(missed), rel=1e-6, abs=1e-12)


def test_mean_squared_is_numpys(greys: DataSplits, bench: Evaluator) -> None:
    pile = SampleSet(torch.from_numpy(greys.train.images), bench.extractor)  # type: ignore[attr-defined]
    train = signed(greys.train).double().numpy()
    assert mean_squared_error(pile, lambda x: 0.3 * x) == pytest.approx(float(((0.7 * train) ** 2).mean()), rel=1e-6)
    with pytest.raises(ValueError, match="17 components"):
        fit_pca([pile.normalized().flatten(1)], 17)


def bounds(images: Tensor) -> dict[str, Tensor]:
    """Of each picture something that can be worked out again."""
    missed, apart = 20 + images.flatten(1).sum(1), images.flatten(1).square().sum(1)
    return {"reconstruction": missed, "kl": apart, "elbo": -missed - apart}


def test_the_bounds_are_means_with_their_standard_errors(bench: Evaluator, greys: DataSplits) -> None:
    result = measured(bench, Reconstructor(3, same, bounds))
    right = bounds(signed(greys.held_out).double())
    names = {"elbo": "elbo", "elbo_reconstruction": "reconstruction", "elbo_kl": "kl"}
    for name, part in names.items():
        figure = result.results[name].value
        assert figure.value == pytest.approx(float(right[part].mean()), rel=1e-5)
        assert figure.stderr == pytest.approx(float(np.std(right[part].numpy(), ddof=1)) / 300**0.5, rel=1e-5)
    assert value(result, "elbo") == pytest.approx(
        -value(result, "elbo_reconstruction") - value(result, "elbo_kl"), rel=1e-9
    )


def test_the_bound_is_worked_out_once_for_all_its_parts(bench: Evaluator) -> None:
    calls: list[int] = []

    def counted(images: Tensor) -> dict[str, Tensor]:
        calls.append(len(images))
        return bounds(images)

    measured(bench, Reconstructor(3, same, counted))
    assert calls == [BATCH_SIZE, 50]


# ---------------------------------------------------------------- where there is nothing to measure


def test_without_a_coder_or_a_likelihood_figures_are_skipped_with_a_reason(bench: Evaluator) -> None:
    rebuilding, nats = select_measures(NAMES)[:2], select_measures(NAMES)[2:]
    assert measured(bench, None).skipped == {measure.name: MISSING_REASONS["encoder"] for measure in rebuilding} | {
        measure.name: MISSING_REASONS["likelihood"] for measure in nats
    }
    assert measured(bench, Reconstructor(3, same)).skipped == {
        measure.name: MISSING_REASONS["likelihood"] for measure in nats
    }
    assert measured(bench, Reconstructor(3, same, bounds)).skipped == {}


def test_a_code_of_more_numbers_than_a_picture_has_no_plane(bench: Evaluator) -> None:
    told = measured(bench, Reconstructor(17, same))
    assert "17 components need 17 to 4,096 values per image, found 16" in told.skipped["pca_reconstruction"]
    assert value(told, "reconstruction") == 0


def test_points_without_an_end_have_no_plane_either() -> None:
    entry = RingConfig()
    bench = Evaluator(entry, entry.load(), n=50)
    result = bench.measure(lambda n: torch.zeros(n, 2), select_measures(NAMES), reconstructor=Reconstructor(1, same))
    assert result.skipped["pca_reconstruction"] == MISSING_REASONS["train"]
    assert value(result, "reconstruction") == 0


def test_a_figure_that_is_not_finite_is_not_told(bench: Evaluator) -> None:
    result = measured(bench, Reconstructor(1, lambda images: images * torch.nan), "reconstruction")
    assert "nan" in result.skipped["reconstruction"]


def test_which_way_is_better() -> None:
    better = {name: MEASURES[name].better for name in NAMES.split(",")}
    assert better == {
        "reconstruction": "less",
        "pca_reconstruction": "less",
        "elbo": "more",
        "elbo_reconstruction": "less",
        "elbo_kl": "floor",
    }
    assert all(MEASURES[name].floor == "none" for name in better)


def test_one_bench_does_not_remember_anothers_coder(bench: Evaluator) -> None:
    first = measured(bench, Reconstructor(1, same), "reconstruction")
    second = measured(bench, Reconstructor(1, lambda images: images + 1), "reconstruction")
    assert (value(first, "reconstruction"), value(second, "reconstruction")) == (0, pytest.approx(1, rel=1e-5))
