"""The images of a study's report: forest plots, learning curves and sample grids, each in its section."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from poise.report.document import ReportImage, ReportSection
from poise.study.effects import Effect
from poise.study.plots import curve_plot, forest_plot
from poise.study.sample_strips import Strip, draw_strips, find_strips
from poise.study.summary import StudyResults
from poise.utils.printing import count_noun


class ImageFiles:
    """The files of the images of a report.

    Args:
        folder: the folder that they will be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, bytes] = {}

    def new_name(self, title: str, suffix: str) -> str:
        """A name for a file: the title in lower case, without any characters that a file system might refuse."""
        slug = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")[:80] or "image"
        numbers = ("", *(f"-{n}" for n in range(2, len(self.files) + 3)))
        return next(name for n in numbers if (name := f"{slug}{n}{suffix}") not in self.files)

    def add_plot(self, title: str, plot: bytes, caption: str, width: int) -> ReportImage:
        """Add a plot, an SVG file; `width` is that in the page, in rem."""
        name = self.new_name(title, ".svg")
        self.files[name] = plot
        return ReportImage(self.folder / name, caption, "smooth", width)


def forest_section(results: StudyResults, images: ImageFiles) -> ReportSection:
    """A forest plot for each base and measure."""
    plots = [
        images.add_plot(f"forest {base.name} {measure}", plot, f"{base.name}: change of {measure} by each tip", 32)
        for base, measure, effects in results.groups()
        if (plot := forest_plot(effects)) is not None
    ]
    text = "Points are effects, bars their intervals of 95 %. A bar that ends in an arrow goes on."
    return ReportSection("Forest plots", [text] if plots else [], images=plots)


def curve_sections(results: StudyResults, images: ImageFiles) -> Iterator[ReportSection]:
    """Learning curves: first where an effect was seen or seeds were too few, then where no effect was seen."""
    text = (
        "Lines are medians over the seeds, bands go from the lower to the upper quartile. A seed whose run "
        "failed has the worst value of the others from there on."
    )
    for heading, unseen, folded in (
        ("Learning curves", False, False),
        ("Learning curves where no effect was seen", True, True),
    ):
        effects = [effect for effect in results.effects if (effect.verdict == "no effect seen") == unseen]
        plots = [plot for effect in effects if (plot := _curve_image(results, effect, images)) is not None]
        yield ReportSection(heading, [text] if plots else [], images=plots, folded=folded)


def _curve_image(results: StudyResults, effect: Effect, images: ImageFiles) -> ReportImage | None:
    bands = [results.band(arms, effect.measure, effect.better) for arms in results.sides(results.comparison(effect))]
    plot = curve_plot(bands[0], bands[1], effect.measure, results.floor(effect.base, effect.measure))
    if plot is None:
        return None
    title = f"curve {effect.base} {effect.measure} {effect.name}"
    caption = f"{effect.name}, {effect.base}: {effect.verdict} {effect.change}".rstrip()
    return images.add_plot(title, plot, caption, 17)


def sample_section(results: StudyResults, images: ImageFiles, runs: Path) -> Iterator[ReportSection]:
    """The sample grids of the best, the median and the worst run of each arm, with a section for each base."""
    found = {base.name: list(find_strips(results, base, runs)) for base in results.study.bases}
    files: dict[str, Strip] = {}
    for base, strips in found.items():
        for strip in strips:
            if isinstance(strip, Strip):
                name = images.new_name(f"samples {base} {strip.arm.name}", ".png")
                files[name], images.files[name] = strip, b""
    drawn = draw_strips(files)
    for name in files.keys() - drawn.keys():
        del images.files[name]
    images.files |= drawn
    text = "For each arm the newest sample grid of its best, median and worst finished run, by the first measure."
    yield ReportSection("Samples", [text])
    for base, strips in found.items():
        shown = {name: strip for name, strip in files.items() if name in drawn and strip.arm.base == base}
        absent = len(strips) - len(shown)
        note = f"{count_noun(absent, 'arm')} of {len(strips)} without sample grids." if absent else ""
        figures = [ReportImage(images.folder / name, strip.caption) for name, strip in shown.items()]
        yield ReportSection(base, [note] if note else [], images=figures, level=3)
