"""Sample grids for a study's report: the best, the median and the worst run of an arm side by side in one image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from poise.study.records import Arm, StudyBase
from poise.study.summary import StudyResults

SIDE = 220
"""The largest side of a grid in the report, in pixels."""

MIN_SIDE = 48
BUDGET = 6_000_000
"""The number of bytes that all strips may have together, so that the HTML file stays below 15 MB."""

COLOURS = 64
GAP = 6


class Strip(NamedTuple):
    """The sample grids of an arm.

    Attributes:
        arm: the arm.
        paths: the grid of the best, the median and the worst run.
        caption: the arm, and for each grid the seed and the value of the measure.
    """

    arm: Arm
    paths: tuple[Path, ...]
    caption: str


def newest_grid(run: Path) -> Path | None:
    """The newest sample grid of a run folder; None if there is none."""
    return max((run / "samples").glob("step-*.png"), default=None)


def find_strips(results: StudyResults, base: StudyBase, runs: Path) -> Iterator[Strip | Arm]:
    """For each arm of a base its strip, or the arm itself if a sample grid is missing or no run was finished.

    Args:
        results: the study.
        base: the base; its first measure decides which run is the best.
        runs: the folder of the run folders.
    """
    measure = base.measures[0]
    for arm in (arm for arm in results.study.arms if arm.base == base.name):
        ranked = results.ranked(arm, measure)
        chosen = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
        paths = [newest_grid(runs / result.run) for _, result in ranked]
        if not ranked or any(paths[index] is None for index in chosen.values()):
            yield arm
            continue
        parts = [
            f"{word} seed {ranked[index][0]} ({measure.name} {ranked[index][1].values[measure.name]:.4g})"
            for word, index in chosen.items()
        ]
        found = tuple(path for index in chosen.values() if (path := paths[index]) is not None)
        yield Strip(arm, found, f"{arm.name}: {', '.join(parts)}")


def draw_strips(strips: Mapping[str, Strip], budget: int = BUDGET) -> dict[str, bytes]:
    """The strips as PNG files by name; those whose files are damaged are left out.

    All have the same height: as large as possible, up to `SIDE`, while their total size is within the budget.
    """
    side = SIDE
    while True:
        drawn = dict(_draw_all(strips.items(), side))
        size = sum(map(len, drawn.values()))
        if size <= budget or side <= MIN_SIDE:
            return drawn
        side = max(MIN_SIDE, min(side - 8, int(side * math.sqrt(budget / size))))


def _draw_all(strips: Iterable[tuple[str, Strip]], side: int) -> Iterator[tuple[str, bytes]]:
    for name, strip in strips:
        try:
            yield name, _draw(strip.paths, side)
        except (OSError, ValueError, Image.DecompressionBombError):
            continue


def _draw(paths: Sequence[Path], side: int) -> bytes:
    """Grids in a row, with a reduced palette, since the differences that matter are seen with it as well."""
    tiles = []
    for path in paths:
        with Image.open(path) as image:
            tile = image.convert("RGBA" if "A" in image.getbands() else "RGB")
        tile.thumbnail((side, side), Image.Resampling.BOX)
        tiles.append(tile)
    width = sum(tile.width for tile in tiles) + GAP * (len(tiles) - 1)
    strip = Image.new("RGB", (width, max(tile.height for tile in tiles)), "white")
    left = 0
    for tile in tiles:
        strip.paste(tile, (left, 0), tile if tile.mode == "RGBA" else None)
        left += tile.width + GAP
    stream = BytesIO()
    strip.quantize(COLOURS).save(stream, "png")
    return stream.getvalue()
