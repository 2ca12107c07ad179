"""The distance between images, against its definition."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from poise.measure.features import ExtractorOutput
from poise.measure.image_distance import ImageDistance, average_pyramid


class Halves:
    """The mean of each half of an image, times 1000."""

    name, key, classifies, has_data_classes = "halves", "halves", False, False

    def __call__(self, samples: Tensor) -> ExtractorOutput:
        return ExtractorOutput(1000 * torch.stack([half.mean((1, 2, 3)) for half in samples.chunk(2, 3)], 1))


def images(n: int, size: int = 8, channels: int = 1) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(n)) * 2 - 1


def test_pyramid() -> None:
    image = images(2, 16, 3)
    levels = average_pyramid(image)
    assert [level.shape[2:] for level in levels] == [(16, 16), (8, 8), (4, 4)]
    torch.testing.assert_close(levels[2][1, 2, 0, 3], image[1, 2, :4, 12:].mean())
    assert [level.shape[2:] for level in average_pyramid(images(1)[..., :6])] == [(8, 6)]
    assert [level.shape[2:] for level in average_pyramid(torch.zeros(1, 1, 24, 16))] == [(24, 16), (12, 8), (6, 4)]


@pytest.mark.parametrize("extractor", [None, Halves()], ids=["pixels", "features"])
def test_two_real_images_have_distance_1_on_average(extractor: Halves | None) -> None:
    real = images(30)
    distance = ImageDistance(real, extractor)
    pairs = [float(distance.to(real[a])(real[b : b + 1])) for a, b in combinations(range(30), 2)]
    assert sum(pairs) / len(pairs) == pytest.approx(1, rel=1e-4)
    assert distance.to(real[3])(real[2:5])[1] == 0


def test_distance_is_the_mean_over_pixels_and_features() -> None:
    real, a, b = images(40), *images(2)
    distance = ImageDistance(real, Halves())
    expected = 0.0
    for vectors in (lambda x: x.flatten(1), lambda x: Halves()(x).features):
        rows = vectors(real)
        pairs = torch.stack([(rows[i] - rows[j]).square().sum() for i, j in combinations(range(40), 2)])
        expected += float((vectors(a[None]) - vectors(b[None])).square().sum() / pairs.mean()) / 2
    assert float(distance.to(a)(b[None])) == pytest.approx(expected, rel=1e-4)
    assert distance.name == "pixels and features (halves)"


def test_a_shift_counts_less_than_unrelated_pixels() -> None:
    """The reduced images see that the content is the same."""
    blob = torch.zeros(1, 16, 16) - 1
    blob[:, 4:8, 4:8] = 1
    shifted, elsewhere = blob.roll(2, 2), blob.roll(8, 2)
    near, far = ImageDistance(images(50, 16), None).to(blob)(torch.stack((shifted, elsewhere)))
    pixels = [(blob - moved).square().sum() for moved in (shifted, elsewhere)]
    assert near / far < 0.8 * pixels[0] / pixels[1]


def test_gradient_reaches_the_images() -> None:
    x = images(3).requires_grad_()
    for extractor in (None, Halves()):
        (gradient,) = torch.autograd.grad(ImageDistance(images(9), extractor).to(images(1)[0])(x).sum(), [x])
        assert gradient.abs().min() > 0


def test_equal_real_images_have_no_scale() -> None:
    same = images(1).expand(4, -1, -1, -1)
    for real in (same, same[:1]):
        found = ImageDistance(real, None).to(same[0])(images(2))
        squares = [
            (a - b).square().sum((1, 2, 3)) for a, b in zip(*map(average_pyramid, (same[:1], images(2))), strict=True)
        ]
        torch.testing.assert_close(found, torch.stack(squares).mean(0))
