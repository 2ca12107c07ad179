"""The linear map: it starts as the identity, has no bias, and takes vectors only."""

from __future__ import annotations

import torch

from poise.networks.linear import LinearMapConfig


def test_it_starts_as_the_identity() -> None:
    vectors = torch.randn(4, 3)
    assert torch.equal(LinearMapConfig().build_translator((3,), (3,))(vectors), vectors)
    assert torch.equal(LinearMapConfig().build_translator((3,), (2,))(vectors), vectors[:, :2])


def test_it_is_linear() -> None:
    net = LinearMapConfig().build_translator((3,), (2,))
    ((name, weight),) = net.named_parameters()
    assert name == "weight"
    with torch.no_grad():
        weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]]))
    assert net(torch.tensor([[1.0, 10.0, 100.0]])).tolist() == [[321.0, 40.0]]


def test_images_are_refused() -> None:
    assert LinearMapConfig().incompatibility((300,)) is None
    reason, cure = LinearMapConfig().incompatibility((3, 8, 8)) or ("", "")
    assert "images" in reason
    assert "unet" in cure
