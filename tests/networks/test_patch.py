"""PatchGAN: patches and maps of the stated sizes, the parameters of the authors' networks, and what is refused."""

from __future__ import annotations

import pytest
import torch

from poise.networks.patch import PatchDiscriminatorConfig, patch_side, score_map_size


@pytest.mark.parametrize(("layers", "side"), [(0, 1), (1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_score_depends_on_a_patch_of_the_stated_side(layers: int, side: int) -> None:
    assert patch_side(layers) == side
    size = 2 * side + 2 ** (layers + 2)
    net = PatchDiscriminatorConfig(width=1, layers=layers, norm="none").build((1, size, size))
    images = torch.randn(1, 1, size, size, requires_grad=True)
    scores = net(images).score
    in_the_middle = (
        score_map_size(size, layers) * (score_map_size(size, layers) // 2) + score_map_size(size, layers) // 2
    )
    (gradient,) = torch.autograd.grad(scores[0, in_the_middle], images)
    rows, columns = gradient[0, 0].nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side


@pytest.mark.parametrize(("layers", "size", "expected"), [(3, 256, 30), (3, 32, 2), (2, 32, 6), (1, 8, 2), (0, 8, 8)])
def test_there_is_a_score_for_each_patch(layers: int, size: int, expected: int) -> None:
    output = PatchDiscriminatorConfig(width=2, layers=layers).build((3, size, 2 * size))(
        torch.zeros(2, 3, size, 2 * size)
    )
    assert output.score.shape == (2, expected * score_map_size(2 * size, layers))
    assert score_map_size(size, layers) == expected
    assert output.features.shape == (2, 2 * 2 ** min(layers or 1, 3))


@pytest.mark.parametrize(
    ("config", "channels", "count"),
    [
        (PatchDiscriminatorConfig(), 6, 2_768_705),
        (PatchDiscriminatorConfig(norm="instance"), 3, 2_764_737),
    ],
)
def test_the_parameters_are_those_of_the_authors(config: PatchDiscriminatorConfig, channels: int, count: int) -> None:
    """Their code prints 2.769 M for pix2pix and 2.765 M for each D of CycleGAN."""
    net = config.build((channels, 256, 256))
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    weights = torch.cat([p.flatten() for name, p in net.named_parameters() if p.dim() == 4])
    assert abs(weights.std() - 0.02) < 1e-4


def test_what_is_refused() -> None:
    reason, cure = PatchDiscriminatorConfig().incompatibility((1, 16, 16)) or ("", "")
    assert reason == "images of 16 x 16 pixels are too small for a PatchGAN of 3 layers"
    assert cure == "set layers to at most 2"
    assert PatchDiscriminatorConfig().incompatibility((2,)) is not None
    assert PatchDiscriminatorConfig(layers=2).incompatibility((1, 16, 16)) is None
