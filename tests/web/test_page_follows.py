"""The page in Chromium while the files of its runs change as training changes them: it shows what is there now."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.playground.commands import Start
from poise.playground.options import DEFAULT_GAME
from poise.runs.frame_file import FrameFile
from poise.runs.frames import POINTS, REALS, Region, encode_frame, encode_header
from poise.web import events
from poise.web.run_index import RunIndex
from web.browser import Surfer, launched, serving
from web.page_runs import NAMES, add_frames, append_line, curve_row, make_curves, make_ladder, make_study, wave
from web.running import Running
from web.sites import ALARM, INFO, lines, make_run
from web.test_playground import Recorded

STEP = "text => document.querySelector('.toolbar output').textContent === `step ${text}`"
"""Whether the page of a run shows a step."""

READING = "text => document.querySelector('.reading').textContent.startsWith(text)"
"""Whether the first value beside a curve begins with a text."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("follows") / "runs"
    for name in ("back", "back zoomed", "game", "late", "failing", "gone"):
        make_run(root / name, grids=(), step=1000, steps=1000)
        write_rows(root / name, range(10, 1001, 10))
    make_curves(root / "finished")
    begun = make_run(root / "begun", grids=(), step=0, steps=2000)
    for name in ("rows.jsonl", "measures.jsonl"):
        (begun / name).write_text("")
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as started:
        yield started


@pytest.fixture(scope="module")
def surfer(browser: Any, folder: Path) -> Iterator[Surfer]:
    """A page that all tests share, of a server with a playground."""
    with serving(folder, "--playground") as address:
        yield Surfer(browser, address)


@pytest.fixture
def quick(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Surfer]:
    """A page of a server that looks often, of the runs that the test makes in `tmp_path`."""
    monkeypatch.setattr(events, "RUN_SECONDS", 0.1)
    monkeypatch.setattr(events, "OVERVIEW_SECONDS", 0.1)
    monkeypatch.setattr(RunIndex.found, "__defaults__", (0.1,))
    with Running(tmp_path / "runs") as running:
        surfer = Surfer(browser, running.server.address)
        yield surfer
        surfer.context.close()


def write_rows(run: Path, steps: range, phase: float = 0.0) -> None:
    """Replace the rows of a run, as a roll-back does."""
    names = {name: start + phase for name, start in NAMES.items()}
    (run / "new").write_text(lines([curve_row(step, names) for step in steps]))
    (run / "new").replace(run / "rows.jsonl")


def write_info(run: Path, **info: Any) -> None:
    (run / "run.json").write_text(json.dumps(INFO | info))


def reading(step: int, phase: float = 0.0) -> str:
    """The beginning of what is shown of the first curve at a step."""
    return f"{wave(step, phase)['mean']:.3g} "


def test_curves_follow_a_run_that_goes_back(surfer: Surfer, folder: Path) -> None:
    run = folder / "back"
    surfer.visit_run("back")
    surfer.wait(STEP, "1,000")
    write_rows(run, range(10, 501, 10))
    write_info(run, step=500, steps=1000)
    surfer.wait(STEP, "500")
    for step in range(510, 601, 10):
        append_line(run / "rows.jsonl", curve_row(step, NAMES))
    surfer.wait(STEP, "600")
    surfer.wait(READING, reading(600))
    write_rows(run, range(10, 611, 10), phase=1.5)  # back and on between two looks
    surfer.wait(READING, reading(610, 1.5))
    append_line(run / "rows.jsonl", curve_row(620, {name: start + 1.5 for name, start in NAMES.items()}))
    surfer.wait(STEP, "620")
    write_rows(run, range(0))
    surfer.page.locator("figure[aria-label='Adversarial losses']").wait_for(state="detached")
    surfer.assert_harmless()


def test_curves_that_are_zoomed_follow_a_run_that_goes_back(surfer: Surfer, folder: Path) -> None:
    surfer.visit_run("back zoomed")
    surfer.wait(STEP, "1,000")
    with surfer.page.expect_response("**/series*from=5*"):
        surfer.page.get_by_role("button", name="Zoom in").click()
    write_rows(folder / "back zoomed", range(10, 1011, 10), phase=1.5)
    surfer.wait(READING, reading(1000, 1.5))
    surfer.page.get_by_role("button", name="Whole run").click()


def test_a_game_in_the_plane_follows_a_run_that_goes_back(surfer: Surfer, folder: Path) -> None:
    run = folder / "game"
    add_frames(run)
    surfer.visit_run("game")
    surfer.wait("() => document.querySelector('.scrubber input').max === '11'")
    file, points = FrameFile(run / "frames.bin"), np.zeros((POINTS, 2))
    real = np.random.default_rng(0).normal(size=(REALS, 2)).astype("f4")
    region, header = Region.around(real), encode_header(real)
    file.drop_after(500)
    file.append(encode_frame(600, region, points), header)
    surfer.wait("() => document.querySelector('.scrubber input').max === '6'")
    surfer.wait("() => document.querySelector('.plane').ariaLabel.endsWith('step 600')")
    picture = "document.querySelector('canvas.plane').toDataURL()"
    seen = surfer.page.evaluate(picture)
    file.drop_after(500)
    for step in (600, 700):
        file.append(encode_frame(step, region, points + 1), header)  # back and on between two looks
    surfer.wait("() => document.querySelector('.scrubber input').max === '7'")
    surfer.page.focus(".scrubber input")
    surfer.page.keyboard.press("ArrowLeft")
    surfer.wait("() => document.querySelector('.plane').ariaLabel.endsWith('step 600')")
    assert surfer.page.evaluate(picture) != seen


def test_a_series_that_begins_late_has_all_its_rows(surfer: Surfer, folder: Path) -> None:
    run, page = folder / "late", surfer.page
    surfer.visit_run("late")
    for step in range(1010, 1101, 10):
        append_line(run / "rows.jsonl", curve_row(step, NAMES | {"g/shades": 0.0}))
    surfer.wait(STEP, "1,100")
    write_info(run, state="stopped", step=1100, steps=2000)
    chart = "figure[aria-label='Shades']"
    page.wait_for_selector(chart)
    box = page.locator(".u-over").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * (1050 - 10) / (1100 - 10), box["y"] + 20)
    shown = f"texts => texts.some(one => document.querySelector(`{chart} .reading`).textContent.startsWith(one))"
    surfer.wait(shown, [reading(step) for step in (1040, 1050)])
    page.mouse.move(0, 0)


def test_a_comparison_follows_its_runs(surfer: Surfer, folder: Path) -> None:
    page, run, before = surfer.page, folder / "begun", len(surfer.requests)
    surfer.visit(f"/compare/{surfer.id_of('begun')},{surfer.id_of('finished')}")
    assert page.locator(".compare-legend .state").all_inner_texts() == ["done", "done"]
    surfer.wait("() => document.querySelector('.scrubber input').max === '9'")
    page.focus(".compare-legend li:nth-child(2) a")
    write_rows(run, range(10, 2001, 10))
    append_line(run / "rows.jsonl", curve_row(2010, NAMES | {"g/shades": 0.0}))
    surfer.wait("() => [...document.querySelectorAll('.reading')].slice(0, 2).every(one => one.textContent !== '–')")
    page.wait_for_selector("figure[aria-label='Shades']")
    measured = {"floor": {}, "n": 9, "features": "points"}
    for step, modes in ((2000, 7.0), (2010, 8.0)):
        append_line(run / "measures.jsonl", {"step": step, "measures": {"modes": modes}} | measured)
        figure = "figure[aria-label=Modes] .reading"
        surfer.wait(f"text => document.querySelector('{figure}')?.textContent === text", f"{modes:.0f}")
    for step in (900, 1000, 1100):
        Image.new("L", (8, 8), 100).save(run / f"samples/step-{step:08d}.png")
    surfer.wait("() => document.querySelector('.scrubber input').max === '1'")
    surfer.wait("() => document.querySelector('.grid-pair img').src.includes('/1000?')")
    assert page.evaluate("document.activeElement.textContent") == "finished", "the focus stays"
    recipe = run / "recipe.toml"
    recipe.write_text("seed = 123\n" + recipe.read_text())
    write_info(run, state="failed", step=2010, steps=3000)
    surfer.wait("() => document.querySelector('.compare-legend .state').textContent === 'failed'")
    page.locator(".differences").get_by_role("rowheader", name="seed").wait_for()
    asked = [address for address in surfer.requests[before:] if "/series?" in address]
    assert "from=2011" in asked[-1], "rows that are there already are not fetched again"
    surfer.assert_harmless()


KEEP = "texts => window.kept = texts.map(text => document.querySelector(text))"
KEPT = "() => [...window.kept.map(one => one.isConnected), window.kept.includes(document.activeElement)]"
"""Whether the elements that were kept are still there, and whether one of them has the focus."""


def test_the_focus_and_selected_text_stay_while_a_run_goes_on(quick: Surfer, tmp_path: Path) -> None:
    """On the page of a run, in the list of runs, which it leads from now on, and in the list of studies."""
    surfer, page, folder = quick, quick.page, tmp_path / "runs"
    run = make_curves(folder / "steady", alarms=8)
    make_run(folder / "other")
    make_study(folder / "packing")
    surfer.wait("() => document.querySelectorAll('.run-row').length === 2")
    surfer.visit_run("steady")
    page.wait_for_selector(".alarm-mark")
    page.evaluate(KEEP, [".crumbs a", "h1", ".alarm-mark", ".alarm-row", ".thumb", ".run-facts dd"])
    page.focus(".alarm-mark")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    append_line(run / "rows.jsonl", curve_row(1010, NAMES))
    append_line(run / "alarms.jsonl", ALARM | {"step": 1010})
    measured = {"measures": {"coverage": 0.1}, "floor": {"coverage": 0.2}, "n": 64, "features": "other"}
    append_line(run / "measures.jsonl", {"step": 1010} | measured)
    Image.new("L", (8, 8), 100).save(run / "samples/step-00001010.png")
    write_info(run, state="stopped", step=1010, steps=2000)
    surfer.wait("() => document.querySelectorAll('.alarm-row').length === 9")
    surfer.wait("() => document.querySelector('.run-line').innerText.includes('1,010 of 2,000')")
    surfer.wait("() => document.querySelector('.thumb[aria-current=true] img').src.includes('/1010?')")
    assert page.evaluate(KEPT) == [True] * 7
    assert page.evaluate("getSelection().toString()") == "steady"
    about = page.locator("figure[aria-label=Coverage] h3").get_attribute("title")
    assert about == "Of 64 samples; the line is what as many real samples reach", "those of the last measurement"
    surfer.visit("/")
    row = f".run-row:has(a[href='#/run/{surfer.id_of('steady')}'])"
    surfer.wait("row => document.querySelector(row)", row)
    page.evaluate(KEEP, [f"{row} .run-name a", f"{row} input", f"{row} img"])
    page.focus(f"{row} .run-name a")
    write_info(run, state="failed", step=1020, steps=2000)
    surfer.wait("row => document.querySelector(row).innerText.includes('1,020 of 2,000')", row)
    assert page.evaluate(KEPT) == [True] * 4
    assert page.evaluate("row => document.querySelector('.run-row').matches(row)", row)
    surfer.visit("/studies")
    page.wait_for_selector(".plain-list a")
    page.evaluate(KEEP, [".plain-list a"])
    page.focus(".plain-list a")
    told = page.locator(".plain-list .figures").first.inner_text()
    results = folder / "packing/results.jsonl"
    results.write_text("".join(results.read_text().splitlines(keepends=True)[:-1]))
    surfer.wait("told => document.querySelector('.plain-list .figures').innerText !== told", told)
    assert page.evaluate(KEPT) == [True] * 2
    surfer.assert_harmless()


def test_a_change_between_two_streams_of_events_is_not_lost(surfer: Surfer, folder: Path) -> None:
    page = surfer.page
    surfer.visit("/")
    page.get_by_role("link", name="gone").wait_for()

    def hold(route: Any) -> None:
        """The stream of before is closed. What the new one sees first is not told, so it is all that has happened."""
        (folder / "gone").rename(folder.parent / "gone")
        write_info(folder / "failing", state="failed", step=1000, steps=1000)
        time.sleep(1.2)  # until the server looks again
        surfer.get("/api/overview")
        route.continue_()

    page.route("**/api/events?runs=*", hold, times=1)
    with page.expect_response("**/api/events?runs=*"):
        surfer.visit_run("late")
    surfer.visit("/")
    page.get_by_role("link", name="gone").wait_for(state="detached", timeout=5000)
    row = page.locator(".run-row").filter(has=page.get_by_role("link", name="failing", exact=True))
    assert row.locator(".state").inner_text() == "failed"


def test_a_run_that_is_moved_or_removed_is_said_to_be_and_is_not_selected(quick: Surfer, tmp_path: Path) -> None:
    surfer, page, folder = quick, quick.page, tmp_path / "runs"
    surfer.visit("/playground")
    assert "started without its playground" in page.locator("main").inner_text()
    surfer.visit("/")
    for name in ("leaving", "renamed", "finished"):
        make_run(folder / name)
    surfer.wait("() => document.querySelectorAll('.run-row').length === 3")
    ids = {name: surfer.id_of(name) for name in ("leaving", "renamed", "finished")}
    for name in ("leaving", "finished"):
        page.get_by_label(f"Select {name}", exact=True).check()
    (folder / "leaving").rename(folder.parent / "leaving")
    page.wait_for_selector(".selection-bar:has-text('1 run selected, select another')")
    surfer.visit(f"/compare/{ids['renamed']},{ids['leaving']},{ids['finished']}")
    assert page.locator(".run-head .reason").inner_text() == "Run B is not there: it was moved or removed."
    assert page.locator(".compare-legend li strong").all_inner_texts() == ["A", "C"]
    (folder / "renamed").rename(folder.parent / "renamed")
    page.wait_for_selector(".compare-legend li:has-text('renamed'):has-text('moved or removed')")
    (folder.parent / "renamed").rename(folder / "renamed")
    page.wait_for_selector(".compare-legend .state >> nth=1")
    surfer.visit_run("renamed")
    (folder / "renamed").rename(folder.parent / "renamed")
    page.wait_for_selector(".run-line:has-text('This run was moved or removed; the page shows what it was.')")
    assert page.locator(".run-line .state").count() == 0
    surfer.assert_harmless()


SHADES = """run => [...document.querySelectorAll(`main img[src*='${run}']`)].map(image => {
    if (!image.complete || !image.naturalWidth) return 0;
    const pen = new OffscreenCanvas(1, 1).getContext("2d");
    pen.drawImage(image, 0, 0);
    return pen.getImageData(0, 0, 1, 1).data[0];
})"""
"""How light the images of a run are."""


def paint(run: Path, shade: int) -> None:
    """Replace all images of a rung, as a run does that goes back to the beginning."""
    for path in (*(run / "samples").iterdir(), run / "ladder/samples.png"):
        Image.new("L", (64, 64), shade).save(run / "new.png")
        (run / "new.png").replace(path)


def test_images_are_those_of_now_though_others_had_their_steps_and_a_ladder_gets_its_rungs(
    quick: Surfer, tmp_path: Path
) -> None:
    """A browser does not ask again for the address of an image that it has shown since the page was opened."""
    surfer, page = quick, quick.page
    ladder = make_ladder(tmp_path / "runs/steps")
    surfer.wait("() => document.querySelectorAll('.run-row').length === 2")
    gan, vae, rungs = surfer.id_of("steps/gan"), surfer.id_of("steps/vae"), surfer.id_of("steps", "ladders")
    views = {"/": 1, f"/run/{gan}": 9, f"/compare/{gan},{vae}": 1, f"/ladder/{rungs}": 1}
    for shade in (50, 100):
        for number, (view, images) in enumerate(views.items()):
            surfer.visit(view)
            paint(ladder / "gan", shade + number)
            shown = f"([run, shade, images]) => ({SHADES})(run).filter(one => one === shade).length === images"
            surfer.wait(shown, [gan, shade + number, images], 5)
    shutil.copytree(ladder / "gan", ladder / "autoencoder")
    surfer.wait("() => document.querySelector('.ladder-runs').innerText.startsWith('autoencoder')", seconds=5)
    assert page.locator(".rungs img").count() == 3
    surfer.assert_harmless()


@pytest.mark.parametrize("view", ["/playground", "/run/none"])
def test_a_view_that_is_opened_first_follows_too(surfer: Surfer, view: str) -> None:
    surfer.visit(view)
    with surfer.page.expect_request("**/api/events*", timeout=5000):
        surfer.page.reload()


def test_a_single_game_after_two_has_an_axis_of_its_own_steps(browser: Any, tmp_path: Path) -> None:
    for name, last in (("a", 1000), ("b", 1000), ("c", 100)):
        write_rows(make_run(tmp_path / name, grids=()), range(10, last + 1, 10))
    limits = {"max_steps": 20_000, "max_seconds": 900, "seconds": 1.0, "seed": 1, "speed": 100, "message": None}
    with Running(tmp_path, Recorded(tmp_path)) as running:
        surfer = Surfer(browser, running.server.address)
        surfer.record_labels()
        surfer.visit("/playground")

        def play(*names: str, until: str) -> None:
            """Tell of a game with these runs, and wait until the axes of all its charts end at a step."""
            game = {"state": "ended", "runs": [surfer.id_of(name) for name in names], "step": [1] * len(names)}
            running.server.pages.events.game = game | limits | {"games": [DEFAULT_GAME] * len(names)}
            end = time.monotonic() + 10
            while [chart["x"][-1:] for chart in surfer.labels()] != [[until]] * len(names):
                assert time.monotonic() < end, surfer.labels()
                time.sleep(0.1)

        play("a", "b", until="1,000")
        play("c", until="100")
        surfer.assert_harmless()
        surfer.context.close()


FORM = """labels => labels.map(text => {
    const label = [...document.querySelectorAll("label")].find(one => one.textContent === text);
    const control = document.getElementById(label.htmlFor);
    return control.ariaValueText ?? control.value;
})"""
"""What the controls of the playground with these labels are set to."""


def test_the_form_of_the_playground_shows_the_game_that_is_played(browser: Any, tmp_path: Path) -> None:
    """Of a game that was begun before or elsewhere; what is chosen for the next game stays while it is played."""
    labels = ["Penalty on D's gradient", "Weight of the penalty", "Learning rate of G", "Steps per second, at most"]
    limits = {"max_steps": 20_000, "max_seconds": 900, "seconds": 1.0, "runs": [], "message": None}
    first = DEFAULT_GAME | {"penalty": "r1", "penalty_weight": 10.0, "lr_g": 0.002}
    game: dict[str, Any] = {"state": "paused", "step": [5], "seed": 7, "speed": 3.0, "games": [first]} | limits
    playground = Recorded(tmp_path)
    playground.game = game
    drawn = b"\0" * 4000 + b"\xff" * 96
    playground._start = Start(games=[first | {"data": "density"}], seed=7, density=base64.b64encode(drawn).decode())
    with Running(tmp_path, playground) as running:
        surfer = Surfer(browser, running.server.address)
        surfer.visit("/playground")
        page, told = surfer.page, running.server.pages.events
        page.wait_for_selector(".game-status:has-text('paused, step 5 of')")
        assert page.evaluate(FORM, labels) == ["r1", "10", "0.002", "3"]
        page.get_by_label("Penalty on D's gradient").select_option("")
        told.game = game | {"state": "ended", "step": [1200], "message": "stopped"}
        page.wait_for_selector(".game-status:has-text('ended: stopped (step 1,200 of')")
        assert page.evaluate(FORM, labels)[0] == "", "the choice for the next game"
        assert page.locator("[role=status]").all_inner_texts() == ["ended: stopped"], "what is read out"
        assert page.locator("output:not([aria-live=off])").count() == 0
        told.game = game | {"games": [first | {"lr_g": 0.001, "penalty_weight": 1.0}], "speed": 20.0}
        surfer.wait(f"labels => ({FORM})(labels).join() === 'r1,1,0.001,20'", labels)
        page.get_by_label("Penalty on D's gradient").select_option("weight_clipping")
        limit = page.get_by_label("Largest weight of D", exact=True)
        limit.press("End")
        assert page.evaluate(FORM, ["Largest weight of D"]) == ["1"], "a larger one bounds D less"
        page.get_by_label("Penalty on D's gradient").select_option("r1")
        page.get_by_label("Data", exact=True).select_option("density")
        playground.game = game | {"state": "ended"}
        with page.expect_request("**/api/playground/start") as started:
            page.get_by_role("button", name="Start", exact=True).click()
        assert base64.b64decode(started.value.post_data_json["density"]) == drawn, "the drawing of the game of before"
        speed = page.get_by_label(labels[-1])
        told.game = game | {"state": "ended", "speed": 20.0}
        speed.press("ArrowLeft")
        with page.expect_request("**/api/playground/start") as started:
            page.get_by_role("button", name="Start", exact=True).click()
        assert started.value.post_data_json["speed"] == 16
        speed.press("ArrowLeft")
        with page.expect_request("**/api/playground/resume") as resumed:
            told.game = game | {"state": "running", "speed": 20.0}
        assert resumed.value.post_data_json == {"speed": 13}, "chosen before the page knew that the game was starting"
        told.game = game | {"state": "starting", "speed": 100.0}
        surfer.wait(f"labels => ({FORM})(labels)[3] === '100'", labels)
        speed.press("ArrowLeft")
        assert page.evaluate(FORM, labels)[3] == "79"
        with page.expect_request("**/api/playground/resume") as resumed:
            told.game = game | {"state": "running", "speed": 100.0}
        assert resumed.value.post_data_json == {"speed": 79}, "chosen while the game was starting"
        with page.expect_request("**/api/playground/resume") as resumed:
            speed.press("ArrowLeft")
        assert resumed.value.post_data_json == {"speed": 63}
        with page.expect_request("**/api/playground/reset") as reset:
            page.get_by_role("button", name="Reset").click()
        assert reset.value.post_data_json == {"speed": 63}
        surfer.assert_harmless()
        surfer.context.close()
