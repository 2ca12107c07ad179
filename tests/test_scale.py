"""The model of `benchmarks/scale.py`, its counts, and that the pages show what is recorded."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmarks() -> Any:
    """Imports a module of the folder `benchmarks`."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "benchmarks"))


def test_an_all_reduce_sends_every_byte_almost_twice(benchmarks: Any) -> None:
    scale = benchmarks("scale")
    link = scale.Link(latency=1e-3, bandwidth=1e6)
    assert scale.all_reduce_seconds(1e6, 1, link) == 0
    assert scale.all_reduce_seconds(1e6, 2, link) == pytest.approx(2e-3 + 1.0)
    assert scale.all_reduce_seconds(1e6, 4, link) == pytest.approx(6e-3 + 1.5)
    assert scale.step_seconds(0.2, 0.5, [1e6, 2e6], 2, link) == pytest.approx(0.5 + 2e-3 + 1 + 2e-3 + 2)


def test_a_link_is_fitted_to_what_it_would_take(benchmarks: Any) -> None:
    scale = benchmarks("scale")
    link = scale.Link(latency=2e-4, bandwidth=3e8)
    found = scale.fit_link({str(size): scale.all_reduce_seconds(size, 2, link) for size in (4, 10**4, 10**6, 10**8)}, 2)
    assert found == pytest.approx(link)


def test_a_published_time_means_a_share_of_the_peak(benchmarks: Any) -> None:
    scale = benchmarks("scale")
    published = scale.Published("r3gan-32", "", ranks=2, device="", peak=1e12, images=100, seconds=5.0)
    assert scale.implied_share(published, {"flops_per_image": 2e10}) == pytest.approx(0.2)
    counted = json.loads(scale.RESULTS.read_text("utf-8"))["count"]["r3gan-32"]
    assert {round(weights / 1e6, 1) for weights in counted["weights"].values()} == {20.7}  # as in the paper's table 9


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_both_gradients_of_a_convolution_take_as_much_as_the_convolution(
    layer: type[nn.Module], groups: int, benchmarks: Any
) -> None:
    counter = benchmarks("_measuring").FlopCounter
    net, images = layer(16, 32, 3, padding=1, groups=groups), torch.randn(2, 16, 8, 8, requires_grad=True)
    with counter() as forward:
        output = net(images)
    with counter() as backward:
        (gradient,) = torch.autograd.grad(output.sum(), images, retain_graph=True)
        output.sum().backward()
    assert forward.get_total_flops() == 2 * 2 * 32 * 8 * 8 * 16 // groups * 9
    assert backward.get_total_flops() == 3 * forward.get_total_flops()
    assert gradient.shape == images.shape


def test_the_pages_show_what_is_recorded(benchmarks: Any) -> None:
    scale, sizes = benchmarks("scale"), benchmarks("sizes")
    recorded, page = json.loads(scale.RESULTS.read_text("utf-8")), scale.PAGE.read_text("utf-8")
    assert scale.run_table(recorded["count"]) in page
    assert scale.published_table(recorded["count"]) in page
    assert scale.check_table(recorded["check"]["steps"], scale.Link(**recorded["check"]["link"])) in page
    lines = [json.loads(line) for line in sizes.RESULTS.read_text("utf-8").splitlines()]
    assert sizes.table(lines) in sizes.PAGE.read_text("utf-8")
