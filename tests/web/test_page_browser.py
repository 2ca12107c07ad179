"""The page in Chromium: each view is there and accessible, follows what happens, and takes hostile text for text."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from web.browser import Surfer, chromium, serving
from web.page_runs import ALARM, INJECTIONS, add_frames, append_line, curve_row, make_curves, make_hostile

playwright = pytest.importorskip("playwright.sync_api", reason="the page is not tested in a browser: no playwright")

STUDY = Path(__file__).parents[2] / "benchmarks/studies/packing"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    executable = chromium()
    with playwright.sync_playwright() as started:
        chrome = started.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chrome
        chrome.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind, and a study."""
    root = tmp_path_factory.mktemp("page") / "runs"
    make_curves(root / "first", shade=60)
    make_curves(root / "second", alarms=3, name="dcgan")
    add_frames(make_curves(root / "plane"))
    make_hostile(root / INJECTIONS[0].replace("/", ""))
    (root / "broken").mkdir()
    (root / "broken/run.json").write_text("{")
    shutil.copytree(STUDY, root / "packing")
    return root


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(folder) as found:
        yield found


@pytest.fixture(params=["light", "dark"])
def surfer(browser, address: str, request: pytest.FixtureRequest) -> Iterator[Surfer]:
    """A page in a light or dark theme, as a test wants it."""
    context = browser.new_context(
        color_scheme=request.param, reduced_motion="reduce", viewport={"width": 1200, "height": 900}
    )
    context.set_default_timeout(20_000)
    yield Surfer(context, address)
    context.close()


def one_theme(test):  # type: ignore[no-untyped-def]
    """A test that needs a page in one theme only."""
    return pytest.mark.parametrize("surfer", ["light"], indirect=True)(test)


def run_id(surfer: Surfer, name: str) -> str:
    """The id of a run by its name."""
    overview = surfer.page.request.get(f"{surfer.origin}/api/overview").json()
    return next(run["id"] for run in overview["runs"] if run["name"] == name)


def study_id(surfer: Surfer) -> str:
    return surfer.page.request.get(f"{surfer.origin}/api/overview").json()["studies"][0]["id"]


def test_no_view_has_an_accessibility_violation(surfer: Surfer) -> None:
    first, plane = run_id(surfer, "first"), run_id(surfer, "plane")
    views = ["/", f"/run/{first}", f"/run/{plane}", f"/compare/{first},{plane}", "/studies", "/ladders", "/run/none"]
    for view in [*views, f"/study/{study_id(surfer)}"]:
        surfer.visit(view)
        assert surfer.violations() == [], view
    surfer.visit(f"/run/{first}")
    surfer.page.click(".alarm-row")
    assert surfer.violations() == [], "an alarm that is explained"
    surfer.assert_harmless()


@one_theme
def test_no_view_is_wider_than_a_telephone(surfer: Surfer) -> None:
    surfer.page.set_viewport_size({"width": 390, "height": 844})
    first, plane = run_id(surfer, "first"), run_id(surfer, "plane")
    for view in (
        "/",
        f"/run/{first}",
        f"/run/{plane}",
        f"/compare/{first},{plane}",
        f"/study/{study_id(surfer)}",
        "/ladders",
    ):
        surfer.visit(view)
        assert surfer.page.evaluate("document.documentElement.scrollWidth") <= 390, view


@one_theme
def test_the_list_is_filtered_by_words_and_state(surfer: Surfer) -> None:
    page = surfer.page
    names = page.locator(".run-name a")
    page.wait_for_selector(".run-row")
    assert names.count() == 5
    page.fill("input[type=search]", "plane")
    assert names.all_inner_texts() == ["plane"]
    page.fill("input[type=search]", "")
    page.select_option("select", "damaged")
    assert "broken" in names.all_inner_texts()
    assert "first" not in names.all_inner_texts()
    assert page.locator(".run-row .reason").first.inner_text() != ""


@one_theme
def test_the_scrubber_moves_the_grid_and_all_curves(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit(f"/run/{run_id(surfer, 'first')}")
    page.wait_for_function("() => document.querySelector('.grid-image').src.endsWith('/1000')")
    page.focus("input[type=range]")
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('.grid-image').src.endsWith('/100')")
    assert page.locator(".toolbar output").inner_text() == "step 100"
    reading = page.locator(".reading").first.inner_text()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.grid-image').src.endsWith('/200')")
    assert page.locator(".reading").first.inner_text() != reading, "the value beside the curve is that of the step"


@one_theme
def test_pointing_at_a_curve_moves_the_grid(surfer: Surfer) -> None:
    surfer.visit(f"/run/{run_id(surfer, 'first')}")
    box = surfer.page.locator(".u-over").first.bounding_box()
    surfer.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    surfer.page.wait_for_function("() => /[45]00$/.test(document.querySelector('.grid-image').src)")


@one_theme
def test_an_alarm_on_the_axis_is_explained_by_the_keyboard(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit(f"/run/{run_id(surfer, 'second')}")
    mark = page.locator(".alarm-mark")
    assert mark.count() == 1, "alarms that would overlap are one mark"
    mark.focus()
    page.keyboard.press("Enter")
    assert "few modes" in page.locator("dialog").inner_text()
    page.get_by_role("button", name="Read tip T16").first.click()
    page.wait_for_function("() => document.querySelector('dialog h2').textContent.startsWith('T16')")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert page.evaluate("document.activeElement.className").startswith("alarm-mark"), "the focus returns"


@one_theme
def test_two_selected_runs_are_compared(surfer: Surfer) -> None:
    page = surfer.page
    page.get_by_label("Select first").check()
    page.get_by_label("Select second").check()
    page.get_by_role("link", name="Compare").click()
    page.wait_for_selector(".differences, .board canvas")
    assert page.locator(".compare-legend li").count() == 2
    assert page.locator(".grid-pair img").count() == 2
    assert page.locator(".chart").count() >= 5


@one_theme
def test_a_game_in_the_plane_is_drawn_and_scrubbed(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit(f"/run/{run_id(surfer, 'plane')}")
    page.wait_for_function("() => document.querySelector('.scrubber input').max === '11'")
    seen = "document.querySelector('canvas.plane').toDataURL()"
    last = page.evaluate(seen)
    page.focus(".scrubber input")
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('.plane').getAttribute('aria-label').endsWith('step 0')")
    assert page.evaluate(seen) != last


@one_theme
def test_hostile_text_is_shown_as_text(surfer: Surfer) -> None:
    page = surfer.page
    name = INJECTIONS[0].replace("/", "")
    page.wait_for_selector(".run-row")
    assert name in page.locator(".run-list").inner_text()
    hostile = run_id(surfer, name)
    surfer.visit(f"/run/{hostile}")
    shown = page.locator("main").inner_text()
    missing = [text for text in INJECTIONS if text.lower() not in shown.lower()]
    assert missing == []
    page.locator(".alarm-row").first.click()
    page.keyboard.press("Escape")
    surfer.visit(f"/compare/{hostile},{run_id(surfer, 'first')}")
    page.wait_for_timeout(300)
    surfer.assert_harmless()


@one_theme
def test_rows_grids_and_alarms_appear_while_a_run_goes_on(surfer: Surfer, folder: Path) -> None:
    page = surfer.page
    path = make_curves(folder / "growing", alarms=0, steps=2000)
    page.wait_for_selector("text=growing", timeout=5000)
    surfer.visit(f"/run/{run_id(surfer, 'growing')}")
    for step in range(1010, 1501, 10):
        append_line(path / "rows.jsonl", curve_row(step, {"d/adversarial": 0.0, "g/adversarial": 1.0}))
    page.wait_for_function("() => document.querySelector('.toolbar output').textContent === 'step 1,500'", timeout=5000)
    append_line(path / "alarms.jsonl", ALARM | {"step": 1500})
    page.wait_for_selector(".alarm-row", timeout=5000)
    shutil.rmtree(path)


def test_the_page_says_that_the_server_is_gone(browser, tmp_path: Path) -> None:
    make_curves(tmp_path / "runs/only")
    context = browser.new_context()
    with serving(tmp_path / "runs") as address:
        other = Surfer(context, address)
        other.page.wait_for_selector("text=only")
        assert not other.page.locator(".banner").is_visible()
    other.page.wait_for_selector("text=The server is gone", timeout=10_000)
    context.close()


def test_without_runs_the_page_says_how_to_start_one(browser, tmp_path: Path) -> None:
    context = browser.new_context()
    with serving(tmp_path) as address:
        other = Surfer(context, address)
        other.page.wait_for_selector("text=poise train ring")
        assert other.violations() == []
    context.close()


def test_a_training_is_on_the_page_three_seconds_after_its_first_row(browser, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    out = runs / "live"
    command = [
        sys.executable,
        "-m",
        "poise",
        "train",
        "ring",
        "--steps",
        "4000",
        "--out",
        str(out),
        "--set",
        "log.rows=10",
    ]
    context = browser.new_context()
    training = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        with serving(runs) as address:
            other = Surfer(context, address)
            rows = out / "rows.jsonl"
            while not (rows.exists() and rows.stat().st_size):
                time.sleep(0.05)
            other.page.wait_for_selector(".run-name a:text('live')", timeout=3000)
            other.page.click(".run-name a")
            other.page.wait_for_function("() => document.querySelectorAll('.chart').length > 3", timeout=5000)
            before = other.page.locator(".toolbar output").inner_text()
            other.page.wait_for_function(
                "was => document.querySelector('.toolbar output').textContent !== was", arg=before
            )
            other.page.wait_for_function("() => Number(document.querySelector('.scrubber input').max) > 3")
    finally:
        training.terminate()
        training.wait(20)
        context.close()
    assert json.loads(rows.read_text().splitlines()[0])["step"] == 10
