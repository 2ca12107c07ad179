"""The data that `benchmarks/two_domains.py` makes: edges, true translations, drawn digits, and how they are combined."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "two_domains.py"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """The names in the script."""
    return runpy.run_path(str(SCRIPT))


def test_edges_are_lines_around_a_shape_and_depend_on_their_own_image(made: dict[str, Any]) -> None:
    square = np.zeros((12, 12), np.uint8)
    square[3:9, 3:9] = 255
    images = np.stack([square, np.zeros_like(square), square.T[::-1]])
    edges = made["edge_map"](images)
    assert set(np.unique(edges)) == {0, 255}
    assert not edges[1].any(), "an empty image between two others stays empty"
    assert np.array_equal(edges[:1], made["edge_map"](images[:1]))
    rows, columns = np.nonzero(edges[0])
    distance = np.maximum(np.abs(rows - 5.5), np.abs(columns - 5.5))
    assert (np.abs(distance - 3) <= 1).all(), "edges are at the border"
    assert {(edges[0, 6] > 0).sum(), (edges[0, :, 6] > 0).sum()} == {2}, "a line of one pixel on each side"


def test_a_twin_is_inverted_and_slanted_to_the_right(made: dict[str, Any]) -> None:
    image = np.zeros((1, 33, 33), np.uint8)
    image[0, :, 16] = 200
    twin = 255.0 - made["twin"](image)[0]
    centres = (twin * np.arange(33)).sum(1) / twin.sum(1)
    assert np.allclose(centres, 16 + made["SLANT"] * (16 - np.arange(33)), atol=0.05)
    assert twin.max() == 200


def test_the_sets_have_equal_sizes_and_unpaired_ones_share_no_digit(made: dict[str, Any]) -> None:
    sets = made["make_sets"](made["load_digits"](Path(), quick=True), 30)
    assert set(sets) == {"edges", "colours", "twins", "fonts"}
    assert all(len(arrays["a"]) == len(arrays["b"]) == 30 for arrays in sets.values())
    for name in ("twins", "fonts"):
        originals = {image.tobytes() for image in sets["twins"]["a"]}
        others = {image.tobytes() for image in sets[name]["b"]} | {image.tobytes() for image in sets["fonts"]["b"]}
        assert not originals & others
    drawn = sets["fonts"]["a"]
    assert "b_labels" not in sets["fonts"]
    assert ((drawn > 128).mean((1, 2)) > 0.01).all(), "every digit is visible"
    assert not drawn[:, [0, -1]].any(), "and within the image"
