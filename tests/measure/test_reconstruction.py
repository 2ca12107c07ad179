"""Reconstruction: principal components compared with scikit-learn, and reconstructors with known errors."""

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
    """Points with a different variance along each of some rotated axes, far from 0."""
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(99))).Q
    spread = torch.linspace(3, 0.2, d, dtype=torch.float64)
    return torch.randn(n, d, dtype=torch.float64, generator=generator) * spread @ rotation.T + 5


# ---------------------------------------------------------------- principal components


@pytest.mark.parametrize("k", [1, 3, 10, 12])
@pytest.mark.parametrize("sizes", [(200,), (1, 150, 49), (40, 40, 40, 40, 40)])
def test_pca_matches_scikit_learn(k: int, sizes: tuple[int, ...]) -> None:
    train, fresh = rows(200, 12), rows(77, 12, seed=1)
    pca, reference = fit_pca(train.split(sizes), k), Reference(k, svd_solver="full").fit(train.numpy())
    np.testing.assert_allclose(pca.mean.numpy(), reference.mean_, rtol=1e-12)
    assert pca.axes.shape == (12, k)
    np.testing.assert_allclose((pca.axes.T @ pca.axes).numpy(), np.eye(k), atol=1e-12)
    cosines = np.abs((pca.axes.numpy() * reference.components_.T).sum(0))
    np.testing.assert_allclose(cosines, 1, atol=1e-8)
    expected = reference.inverse_transform(reference.transform(fresh.numpy()))
    np.testing.assert_allclose(pca.reconstruct(fresh).numpy(), expected, atol=1e-8)
    error = float((pca.reconstruct(fresh) - fresh).square().mean())
    assert error == pytest.approx(float(((expected - fresh.numpy()) ** 2).mean()), rel=1e-8, abs=1e-18)


def test_reconstruction_is_a_projection() -> None:
    pca = fit_pca([rows(300, 6)], 2)
    inside = pca.mean + rows(10, 2) @ pca.axes.T
    torch.testing.assert_close(pca.reconstruct(inside), inside)
    once = pca.reconstruct(rows(20, 6, seed=3))
    torch.testing.assert_close(pca.reconstruct(once), once)


def test_fewer_rows_than_dimensions() -> None:
    train = rows(5, 30)
    pca = fit_pca([train], 20)
    assert bool(torch.isfinite(pca.axes).all())
    torch.testing.assert_close(pca.reconstruct(train), train, atol=1e-6, rtol=0)


def test_pca_is_computed_in_float64() -> None:
    train = rows(400, 8).float() + 100
    pca = fit_pca(train.split(64), 3)
    assert pca.mean.dtype == pca.axes.dtype == torch.float64
    reference = Reference(3, svd_solver="full").fit(train.double().numpy())
    np.testing.assert_allclose(np.abs((pca.axes.numpy() * reference.components_.T).sum(0)), 1, atol=1e-6)


@pytest.mark.parametrize(("k", "wide"), [(7, 6), (3, MAX_WIDTH + 1)])
def test_invalid_dimensions_are_rejected(k: int, wide: int) -> None:
    with pytest.raises(ValueError, match=f"{k} components need {k} to 4,096 values per image, found {wide:,}"):
        fit_pca([torch.zeros(2, wide)], k)


# ---------------------------------------------------------------- measures


@pytest.fixture(scope="module")
def random_images() -> DataSplits:
    """600 training and 300 held-out images of 4 x 4, more than one batch."""
    images = np.random.default_rng(3).integers(0, 256, (900, 4, 4, 1)).astype(np.uint8)
    images[:, 2:] //= 4
    return DataSplits(ImageDataset(images[:600]), ImageDataset(images[600:]))


@pytest.fixture(scope="module")
def evaluator(random_images: DataSplits) -> Evaluator:
    return Evaluator(None, random_images, "pixels")


def normalized_images(source: object) -> Tensor:
    assert isinstance(source, ImageDataset)
    return to_float(torch.from_numpy(source.images))


def measured(evaluator: Evaluator, reconstructor: Reconstructor | None, names: str = NAMES) -> EvaluationResult:
    train = normalized_images(evaluator.data.train)
    return evaluator.measure(lambda n: train[:n], select_measures(names), reconstructor=reconstructor)


def value(result: EvaluationResult, name: str) -> float:
    return result.results[name].value.value


def identity(images: Tensor) -> Tensor:
    return images


def test_perfect_reconstruction_has_error_0(evaluator: Evaluator) -> None:
    result = measured(evaluator, Reconstructor(16, identity), "reconstruction")
    assert value(result, "reconstruction") == 0
    assert result.results["reconstruction"].floor is None


def test_constant_reconstruction_has_the_variance_as_error(evaluator: Evaluator, random_images: DataSplits) -> None:
    mean, held_out = (
        normalized_images(random_images.train).double().mean(0),
        normalized_images(random_images.held_out).double(),
    )
    result = measured(evaluator, Reconstructor(1, lambda images: mean.float().expand_as(images)), "reconstruction")
    expected = float((held_out - mean).square().mean())
    assert value(result, "reconstruction") == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(float(held_out.var(0).mean()), rel=0.02)


def test_all_batches_are_weighted_by_their_size(random_images: DataSplits) -> None:
    """300 images are split into two unequal batches."""
    evaluator = Evaluator(None, random_images, "pixels")
    assert evaluator.n == 300 > BATCH_SIZE
    sizes: list[int] = []

    def shifted(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return images + (0.5 if len(sizes) == 1 else 2.0)

    error = value(measured(evaluator, Reconstructor(1, shifted), "reconstruction"), "reconstruction")
    assert sizes == [BATCH_SIZE, 50]
    assert error == pytest.approx((BATCH_SIZE * 0.25 + 50 * 4.0) / 300, rel=1e-5)


@pytest.mark.parametrize("dim", [1, 5, 16])
def test_pca_is_fitted_on_training_and_evaluated_on_held_out_images(
    dim: int, evaluator: Evaluator, random_images: DataSplits
) -> None:
    train, held_out = (
        normalized_images(source).flatten(1).double().numpy()
        for source in (random_images.train, random_images.held_out)
    )
    reference = Reference(dim, svd_solver="full").fit(train)
    expected = ((reference.inverse_transform(reference.transform(held_out)) - held_out) ** 2).mean()
    error = value(measured(evaluator, Reconstructor(dim, identity)), "pca_reconstruction")
    assert error == pytest.approx(float(expected), rel=1e-6, abs=1e-12)


def test_mean_squared_error_matches_numpy(random_images: DataSplits, evaluator: Evaluator) -> None:
    samples = SampleSet(torch.from_numpy(random_images.train.images), evaluator.extractor)  # type: ignore[attr-defined]
    train = normalized_images(random_images.train).double().numpy()
    assert mean_squared_error(samples, lambda x: 0.3 * x) == pytest.approx(float(((0.7 * train) ** 2).mean()), rel=1e-6)
    with pytest.raises(ValueError, match="17 components"):
        fit_pca([samples.normalized().flatten(1)], 17)


def elbo_terms(images: Tensor) -> dict[str, Tensor]:
    """Known functions of each image in place of the terms of a bound."""
    nll, kl = 20 + images.flatten(1).sum(1), images.flatten(1).square().sum(1)
    return {"reconstruction": nll, "kl": kl, "elbo": -nll - kl}


def test_elbo_terms_are_means_with_standard_errors(evaluator: Evaluator, random_images: DataSplits) -> None:
    result = measured(evaluator, Reconstructor(3, identity, elbo_terms))
    expected = elbo_terms(normalized_images(random_images.held_out).double())
    names = {"elbo": "elbo", "elbo_reconstruction": "reconstruction", "elbo_kl": "kl"}
    for name, part in names.items():
        measured_value = result.results[name].value
        assert measured_value.value == pytest.approx(float(expected[part].mean()), rel=1e-5)
        assert measured_value.stderr == pytest.approx(
            float(np.std(expected[part].numpy(), ddof=1)) / 300**0.5, rel=1e-5
        )
    assert value(result, "elbo") == pytest.approx(
        -value(result, "elbo_reconstruction") - value(result, "elbo_kl"), rel=1e-9
    )


def test_elbo_terms_are_computed_once(evaluator: Evaluator) -> None:
    calls: list[int] = []

    def counting_terms(images: Tensor) -> dict[str, Tensor]:
        calls.append(len(images))
        return elbo_terms(images)

    measured(evaluator, Reconstructor(3, identity, counting_terms))
    assert calls == [BATCH_SIZE, 50]


# ---------------------------------------------------------------- skipped measures


def test_missing_encoder_or_likelihood_is_a_reason_for_skipping(evaluator: Evaluator) -> None:
    reconstruction, nats = select_measures(NAMES)[:2], select_measures(NAMES)[2:]
    assert measured(evaluator, None).skipped == {
        measure.name: MISSING_REASONS["encoder"] for measure in reconstruction
    } | {measure.name: MISSING_REASONS["likelihood"] for measure in nats}
    assert measured(evaluator, Reconstructor(3, identity)).skipped == {
        measure.name: MISSING_REASONS["likelihood"] for measure in nats
    }
    assert measured(evaluator, Reconstructor(3, identity, elbo_terms)).skipped == {}


def test_code_with_more_dimensions_than_the_image(evaluator: Evaluator) -> None:
    result = measured(evaluator, Reconstructor(17, identity))
    assert "17 components need 17 to 4,096 values per image, found 16" in result.skipped["pca_reconstruction"]
    assert value(result, "reconstruction") == 0


def test_pca_requires_a_fixed_training_set() -> None:
    config = RingConfig()
    evaluator = Evaluator(config, config.load(), n=50)
    result = evaluator.measure(
        lambda n: torch.zeros(n, 2), select_measures(NAMES), reconstructor=Reconstructor(1, identity)
    )
    assert result.skipped["pca_reconstruction"] == MISSING_REASONS["train"]
    assert value(result, "reconstruction") == 0


def test_non_finite_error_is_skipped(evaluator: Evaluator) -> None:
    result = measured(evaluator, Reconstructor(1, lambda images: images * torch.nan), "reconstruction")
    assert "nan" in result.skipped["reconstruction"]


def test_directions() -> None:
    better = {name: MEASURES[name].better for name in NAMES.split(",")}
    assert better == {
        "reconstruction": "less",
        "pca_reconstruction": "less",
        "elbo": "more",
        "elbo_reconstruction": "less",
        "elbo_kl": "floor",
    }
    assert all(MEASURES[name].floor == "none" for name in better)


def test_reconstructor_is_not_kept_between_evaluations(evaluator: Evaluator) -> None:
    first = measured(evaluator, Reconstructor(1, identity), "reconstruction")
    second = measured(evaluator, Reconstructor(1, lambda images: images + 1), "reconstruction")
    assert (value(first, "reconstruction"), value(second, "reconstruction")) == (0, pytest.approx(1, rel=1e-5))
