"""Latent distributions compared to their moments and to scipy."""

from __future__ import annotations

import math
import re

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import chi, chisquare, kstest, truncnorm
from torch import Tensor

from contracts.tiny import recipe
from poise.core.config import find_components
from poise.errors import RecipeError
from poise.interpolation import slerp
from poise.latents import (
    LARGEST_BELOW_1,
    CodeLayout,
    Codes,
    Gaussian,
    Latent,
    SourceLatent,
    Sphere,
    Truncated,
    Uniform,
    gaussian,
    gaussian_norm_range,
    sphere,
    truncated,
    uniform,
)
from poise.truncation import truncate_gaussian


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard_errors(values: Tensor, expected: float) -> float:
    """The distance of the mean of `values` from `expected`, in standard errors."""
    values = values.double().flatten()
    return abs(float(values.mean() - expected)) / (float(values.std()) / math.sqrt(len(values)))


def is_uncorrelated(z: Tensor) -> bool:
    """Whether the coordinates are uncorrelated."""
    off = torch.corrcoef(z.T) - torch.eye(z.shape[1])
    return bool(off.abs().max() < 5 / math.sqrt(len(z)))


def test_gaussian() -> None:
    z = gaussian(20_000, 4, seeded())
    for power, context in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert standard_errors(z**power, context) < 5
    assert kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert is_uncorrelated(z)


def test_uniform() -> None:
    z = uniform(20_000, 4, seeded())
    assert z.min() >= -1
    assert z.max() <= 1
    for power, context in ((1, 0), (2, 1 / 3), (4, 1 / 5)):
        assert standard_errors(z**power, context) < 5
    assert kstest(z.flatten().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3
    assert is_uncorrelated(z)


@pytest.mark.parametrize("dim", [1, 2, 3, 100])
def test_sphere_is_uniform(dim: int) -> None:
    z = sphere(20_000, dim, seeded())
    assert torch.allclose(z.norm(dim=1), torch.ones(len(z)), atol=1e-6)
    assert standard_errors(z, 0) < 5
    if dim > 1:
        assert standard_errors(z[:, 0] ** 2, 1 / dim) < 5
    if dim == 3:  # Archimedes: a coordinate of the sphere is uniform
        assert kstest(z[:, 1].numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3
    if dim == 2:
        angle = torch.atan2(z[:, 1], z[:, 0])
        assert kstest(angle.numpy(), "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 1e-3


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
def test_truncated_is_scipys_truncnorm(threshold: float) -> None:
    z = truncated(20_000, 4, seeded(), threshold)
    assert torch.isfinite(z).all()
    assert z.abs().max() <= threshold
    expected = truncnorm(-threshold, threshold)
    assert kstest(z.flatten().numpy(), expected.cdf).pvalue > 1e-3
    assert standard_errors(z**2, expected.var()) < 5
    assert is_uncorrelated(z)


def test_a_wide_truncation_is_nearly_gaussian() -> None:
    """No number is at the bound itself, where float32 has nothing between the distribution function and 1."""
    assert truncated(4000, 1000, seeded(1), 100.0).abs().max() < 7
    assert LARGEST_BELOW_1 < 1 == torch.tensor(1 - 2.0**-26, dtype=torch.float32)
    assert float(torch.tensor(LARGEST_BELOW_1, dtype=torch.float32)) == LARGEST_BELOW_1


def test_configs_sample_their_distribution() -> None:
    for config, sample in (
        (Gaussian(dim=5), gaussian),
        (Sphere(dim=5), sphere),
        (Uniform(dim=5), uniform),
        (Truncated(dim=5), truncated),
    ):
        assert torch.equal(config.sample(7, seeded(3)), sample(7, 5, seeded(3)))
    large, like_normal = Sphere(dim=9, length=2.5), Sphere(dim=9, length="sqrt_dim")
    assert torch.equal(large.sample(7, seeded(3)), sphere(7, 9, seeded(3)) * 2.5)
    assert torch.allclose(like_normal.sample(7, seeded(3)).norm(dim=1), torch.full((7,), 3.0))
    assert torch.allclose(large.project(torch.randn(4, 9)).norm(dim=1), torch.full((4,), 2.5))
    narrow = Truncated(dim=5, threshold=0.2)
    assert torch.equal(narrow.sample(50, seeded(3)), truncated(50, 5, seeded(3), 0.2))


@pytest.mark.parametrize(
    "latent",
    [
        *(Gaussian(dim=6), Sphere(dim=6), Sphere(dim=6, length="sqrt_dim"), Sphere(dim=6, length=0.3), Uniform(dim=6)),
        *(Truncated(dim=6), Truncated(dim=6, threshold=0.1)),
    ],
    ids=str,
)
def test_std_is_that_of_the_samples(latent: Latent) -> None:
    assert float(latent.sample(40_000, seeded()).std()) == pytest.approx(latent.std, rel=0.01)


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "sphere", "length": 0.0},
        {"kind": "sphere", "length": "long"},
        {"kind": "gaussian", "dim": 0},
        {"kind": "truncated", "threshold": 0.0},
        {"kind": "gaussian", "threshold": 1.0},
    ],
)
def test_invalid_configs_are_rejected(table: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="latent"):
        recipe("points", latent=table)


# ---------------------------------------------------------------- interpolation


def test_norms_of_a_gaussian() -> None:
    for dim in (1, 3, 100):
        assert gaussian_norm_range(dim) == pytest.approx(tuple(chi.ppf([0.001, 0.999], dim)), rel=1e-6)


@pytest.mark.parametrize(
    "latent",
    [
        Gaussian(dim=1),
        Gaussian(dim=50),
        Sphere(dim=7),
        Sphere(dim=7, length="sqrt_dim"),
        Uniform(),
        Truncated(threshold=1),
    ],
    ids=str,
)
def test_typical_latents(latent: Latent) -> None:
    """Samples are kept, and anything else is moved to where samples lie; and no further."""
    z = latent.sample(4000, seeded())
    kept = (latent.project_to_typical(z) - z).abs().amax(1) < 1e-5
    assert kept.float().mean() > 0.99
    for scale in (0.01, 1.0, 30.0):
        moved = latent.project_to_typical(scale * torch.randn(500, latent.dim, generator=seeded(1)))
        torch.testing.assert_close(latent.project_to_typical(moved), moved)
        assert moved.abs().max() <= z.abs().max() * 1.2
    assert float((z.norm(dim=1) > latent.max_norm * 1.0001).float().mean()) < 0.004
    assert latent.project_to_typical(torch.full((1, latent.dim), 1e3)).norm() == pytest.approx(latent.max_norm)
    zero = latent.project_to_typical(torch.zeros(1, latent.dim, requires_grad=True))
    assert torch.isfinite(zero).all()


def drawn_from(images: Tensor) -> Latent:
    return SourceLatent().bind(lambda n, generator: images[torch.randint(len(images), (n,), generator=generator)])


def test_a_source_is_a_random_sample_of_the_data() -> None:
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 2, 3, 3)
    latent = drawn_from(images)
    drawn = latent.sample(600, torch.Generator().manual_seed(1))
    assert drawn.shape == (600, 2, 3, 3)
    counts = drawn[:, 0, 0, 0].long().bincount(minlength=6)
    assert counts.min() > 60, "each of the six is expected a hundred times"
    assert torch.equal(drawn, latent.sample(600, torch.Generator().manual_seed(1)))


def test_a_source_without_data_is_refused_and_is_no_space() -> None:
    latent = SourceLatent()
    assert latent.model_dump() == {"kind": "source"}
    with pytest.raises(RecipeError, match="starts from samples of the data"):
        latent.sample(2, torch.Generator())
    assert Gaussian().bind(lambda n, generator: torch.zeros(n)) == Gaussian()
    with pytest.raises(RecipeError, match="samples of the data"):
        latent.truncate(torch.ones(2, 3), 0.5)
    assert not SourceLatent.is_space
    assert latent == SourceLatent()


# ---------------------------------------------------------------- codes


def test_every_kind_says_how_it_is_drawn() -> None:
    kinds = find_components(Latent, "poise.latents")
    assert kinds.keys() >= {"gaussian", "sphere", "uniform", "truncated", "codes", "source"}
    sentences = {kind: str(getattr(config(), "in_words")) for kind, config in kinds.items()}  # noqa: B009
    assert all(sentences.values())
    assert len(set(sentences.values())) == len(kinds)
    assert not any("poise" in sentence for sentence in sentences.values())
    assert "norm 4" in Sphere(dim=16, length="sqrt_dim").in_words
    assert "+-1.5" in Truncated(threshold=1.5).in_words


@pytest.mark.parametrize(
    ("dim", "categories", "continuous"),
    [(74, (10,), 2), (24, (2,) * 12, 0), (9, (2, 2, 3), 1), (7, (), 7), (4, (4,), 0), (6, (5,), 1)],
)
def test_codes_say_which_columns_are_what(dim: int, categories: tuple[int, ...], continuous: int) -> None:
    """The clauses cover all columns in order, and are true of samples."""
    latent = Codes(dim=dim, categories=categories, continuous=continuous)
    samples, start = latent.sample(2000, seeded()), 0
    for clause in latent.in_words.split("; "):
        match = re.fullmatch(r"columns? (\d+)(?: to (\d+))? (?:is|are) (.*)", clause)
        assert match is not None
        first, last = int(match[1]), int(match[2] or match[1])
        assert first == start
        start, columns = last + 1, samples[:, first : last + 1]
        if "one-hot" in match[3]:
            several = re.match(r"(\d+) one-hot vectors of (\d+) columns each", match[3])
            count, size = (1, last + 1 - first) if several is None else map(int, several.groups())
            parts = columns.unflatten(1, (count, size))
            assert (parts.max(2).values == 1).all()
            assert (parts.sum(2) == 1).all()
        elif "uniform" in match[3]:
            assert 0.9 < columns.abs().max() <= 1
        else:
            assert match[3] == "from N(0, 1)"
            assert columns.max() > 2
    assert start == dim


def test_codes_are_categories_then_numbers_then_noise() -> None:
    latent = Codes(dim=12, categories=(3, 4), continuous=2)
    assert latent.code_layout == CodeLayout((3, 4), 2)
    z = latent.sample(20_000, seeded())
    first, second, numbers = latent.code_layout.split(z[:, :9])
    for one_hot in (first, second):
        assert torch.equal(one_hot.sort(1).values[:, -1], torch.ones(len(z)))
        assert torch.equal(one_hot.sum(1), torch.ones(len(z)))
        assert chisquare(one_hot.sum(0).numpy()).pvalue > 1e-3, "categories are equally frequent"
    counts = first.T @ second
    assert chisquare(counts.flatten().numpy()).pvalue > 1e-3, "codes are independent"
    assert kstest(numbers.flatten().numpy() / 2 + 0.5, "uniform").pvalue > 1e-3
    assert kstest(z[:, 9:].flatten().numpy(), "norm").pvalue > 1e-3
    assert is_uncorrelated(z[:, 7:])


def test_the_default_codes_are_those_of_the_paper() -> None:
    latent = Codes()
    assert (latent.dim, latent.code_layout, latent.num_noise) == (74, ((10,), 2), 62)
    assert latent.max_norm == pytest.approx(math.sqrt(1 + 2 + gaussian_norm_range(62)[1] ** 2))
    assert Codes(dim=3, categories=(3,), continuous=0).max_norm == 1
    assert Gaussian(dim=5).code_layout == ((), 5), "of other latents, all coordinates are numbers"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dim": 11}, "the codes alone have 12 coordinates"),
        ({"categories": [], "continuous": 0}, "there are no codes"),
        ({"categories": [1]}, "greater than or equal to 2"),
    ],
)
def test_codes_that_do_not_fit(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Codes(**settings)  # type: ignore[arg-type]


def test_truncation_and_projection_keep_codes_on_their_support() -> None:
    latent = Codes(dim=8, categories=(3,), continuous=1)
    z = latent.sample(50, seeded())
    cut = latent.truncate(z, 0.3)
    assert torch.equal(cut[:, :4], z[:, :4])
    assert torch.equal(cut[:, 4:], truncate_gaussian(z[:, 4:], 0.3))
    anywhere = (3 * torch.randn(50, 8, generator=seeded(1))).requires_grad_()
    held = latent.project_to_typical(anywhere)
    assert torch.equal(held[:, :3].detach(), torch.eye(3)[anywhere[:, :3].argmax(1)])
    assert float(held[:, 3].detach().abs().max()) <= 1
    low, high = gaussian_norm_range(4)
    norms = held[:, 4:].detach().norm(dim=1)
    assert low - 1e-5 <= float(norms.min()) <= float(norms.max()) <= high + 1e-5
    (pull,) = torch.autograd.grad((held[:, :3] * torch.tensor([1.0, 2.0, 3.0])).sum(), anywhere)
    assert torch.equal(pull[:, :3], torch.tensor([[1.0, 2.0, 3.0]]).expand(50, 3)), "the gradient passes through"
    assert torch.allclose(latent.project_to_typical(z), z, atol=1e-5)


@pytest.mark.parametrize("latent", [Uniform(dim=100), Truncated(dim=100, threshold=1), Sphere(dim=100)], ids=str)
def test_interpolations_are_mapped_to_the_support(latent: Latent) -> None:
    """Spherical interpolation leaves a cube; what is inside already is kept."""
    z = latent.sample(64, seeded())
    middle = slerp(z[::2], z[1::2], 0.5)
    held = latent.to_support(middle)
    inside = middle.abs() <= z.abs().max()
    assert held.abs().max() <= max(1.0, float(z.abs().max()))
    assert inside.all() == isinstance(latent, Sphere)
    torch.testing.assert_close(latent.to_support(z), z)
    torch.testing.assert_close(held[inside], middle[inside])
