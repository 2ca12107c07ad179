"""How tensors of the host reach a device."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from poise.utils.images import send


class OnTheHost:
    """Stands for a tensor of the host, and records what is asked of it."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.asked: list[object] = []

    def pin_memory(self) -> OnTheHost:
        self.asked.append("pinned")
        return self

    def to(self, device: object, *, non_blocking: bool) -> OnTheHost:
        self.asked.append((str(device), non_blocking))
        return self


@pytest.mark.parametrize(
    ("device", "pinned"), [("cpu", []), ("meta", []), ("cuda", ["pinned"]), ("cuda:1", ["pinned"])]
)
def test_a_copy_to_a_cuda_device_is_from_pinned_memory(device: str, pinned: list[str]) -> None:
    values = OnTheHost()
    send(cast("torch.Tensor", values), torch.device(device))
    assert values.asked == [*pinned, (device, True)]
