"""The charts of the page in Chromium: what is drawn on their canvases, which no text of the page says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from web.browser import Surfer, launched, serving
from web.page_runs import curve_row
from web.sites import ALARM, lines, make_run, row

INK = """steps => {
    const chart = document.querySelector("figure[aria-label='Gradient penalties']");
    const [canvas, over] = [chart.querySelector(".u-wrap canvas"), chart.querySelector(".u-over")];
    const [outer, inner] = [canvas.getBoundingClientRect(), over.getBoundingClientRect()];
    const ratio = canvas.width / outer.width;
    const [top, height] = [20 * ratio, (inner.height - 20) * ratio];
    return steps.filter(step => {
        const x = (inner.left - outer.left + (inner.width * (step - 100)) / 800) * ratio;
        const { data } = canvas.getContext("2d").getImageData(Math.round(x), top, 1, height);
        return data.some((_, at) => at % 4 === 0 && data[at + 2] - data[at] > 20);
    });
}"""
"""At which of the steps, from 100 to 900, the chart of the gradient penalty has a line, a band or a mark."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("charts") / "runs"
    rows = [curve_row(step, {"d/r1": 0.0}) for step in range(100, 901, 100)]
    for broken in (rows[2], rows[4]):
        broken["stats"]["d/r1"] = dict.fromkeys(("mean", "std", "min", "max"), "nan")
    (make_run(root / "with gaps", grids=()) / "rows.jsonl").write_text(lines(rows))
    for name, first in (("hundreds", 400), ("thousands", 120_000), ("millions", 1_234_000)):
        steps = range(first, first + 10_001, 100)
        run = make_run(root / name, grids=(), step=steps[-1], steps=steps[-1])
        (run / "rows.jsonl").write_text(lines([curve_row(step, {"d/r1": 0.0}) for step in steps]))
    run = make_run(root / "long", grids=(), step=30_000, steps=30_000)
    (run / "rows.jsonl").write_text(lines([row(step, close_loss(step)) for step in range(50, 30_001, 50)]))
    (run / "measures.jsonl").write_text("")
    (run / "alarms.jsonl").write_text(lines([ALARM | {"step": step} for step in (50, 15_000, 30_000)]))
    return root


def close_loss(step: int) -> float:
    """A loss whose values differ in the sixth digit."""
    return 0.6931 + 2e-5 * (step % 1900) / 1900


@pytest.fixture(scope="module")
def surfer(folder: Path) -> Iterator[Surfer]:
    """A page that all tests share."""
    with launched() as browser, serving(folder) as address:
        yield Surfer(browser, address)


def test_values_that_are_not_finite_are_gaps(surfer: Surfer) -> None:
    """At steps 300 and 500; the value between them has no neighbour and is a mark."""
    surfer.visit_run("with gaps")
    surfer.wait("() => document.querySelector('.toolbar output').textContent === 'step 900'")
    assert surfer.page.evaluate(INK, [150, 250, 350, 400, 450, 550, 650]) == [150, 400, 650]
    reading = "text => document.querySelector('.reading').textContent.startsWith(text)"
    box = surfer.page.locator(".u-over").first.bounding_box()
    surfer.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    surfer.wait(reading, "–")
    surfer.page.mouse.move(0, 0)
    surfer.wait(reading, "0.")
    surfer.assert_harmless()


def number(label: str) -> float:
    """What a label of an axis says."""
    unit = {"k": 1e3, "M": 1e6}.get(label[-1], 1)
    return float(label.rstrip("kM").replace(",", "").replace("−", "-")) * unit


@pytest.mark.parametrize("name", ["hundreds", "thousands", "millions"])
def test_the_labels_of_an_axis_are_as_far_apart_as_its_ticks(surfer: Surfer, name: str) -> None:
    surfer.record_labels()
    surfer.visit_run(name)
    shown = set()
    for _ in range(14):  # the last ones would be less than two steps and are refused
        found = surfer.labels()
        assert len(found) >= 2
        for axis in [chart["x"] for chart in found] + [chart["y"] for chart in found]:
            values = [number(label) for label in axis]
            assert len(values) >= 2, axis
            distances = [after - before for before, after in pairwise(values)]
            assert distances == pytest.approx([distances[0]] * len(distances), rel=1e-4), axis
            assert distances[0] > 0, axis
        shown.update(number(label) for chart in found for label in chart["x"])
        surfer.page.get_by_role("button", name="Zoom in").click()
    assert all(step == pytest.approx(round(step), abs=1e-6) for step in shown), "steps are whole"
    surfer.page.get_by_role("button", name="Whole run").click()
    surfer.assert_harmless()


def test_a_view_that_is_left_while_it_zooms_leaves_no_error(surfer: Surfer) -> None:
    surfer.visit_run("hundreds")
    surfer.page.route("**/series*", lambda route: None, times=1)  # never answered
    with surfer.page.expect_request("**/series*"):
        surfer.page.get_by_role("button", name="Zoom in").click()
    surfer.visit("/")
    surfer.page.wait_for_timeout(100)
    surfer.assert_harmless()


def test_a_long_run_of_close_values_has_its_alarms_and_distinct_labels(surfer: Surfer) -> None:
    """Alarms at both ends of the axis, where the curves end in the middles of buckets; losses that differ by 1e-5."""
    surfer.record_labels()
    surfer.visit_run("long")
    surfer.wait("() => document.querySelectorAll('.alarm-mark').length === 3")
    places = surfer.page.eval_on_selector_all(".alarm-mark", "marks => marks.map(mark => mark.ariaLabel)")
    assert [text.split(":")[0].split(" step ")[1] for text in places] == ["50", "15,000", "30,000"]
    drawn = surfer.labels()[0]["y"]
    assert len(set(drawn)) == len(drawn) >= 3
    assert surfer.page.locator(".reading").first.inner_text().startswith("0.69311")
    surfer.visit(f"/compare/{surfer.id_of('long')},{surfer.id_of('with gaps')}")
    surfer.wait("() => document.querySelectorAll('.chart .u-over').length > 1")
    assert surfer.labels()[0]["x"][-1] == "30k"
    surfer.assert_harmless()
