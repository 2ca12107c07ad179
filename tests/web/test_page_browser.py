"""The page in Chromium: each view is there and accessible, leads on to others, and takes hostile text for text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from web.browser import TELEPHONE, WIDE, Surfer, launched, serving
from web.page_runs import INJECTIONS, add_frames, make_curves, make_hostile, make_ladder, make_study, wave
from web.sites import ALARM

HOSTILE = INJECTIONS[0].replace("/", "")

VIEWS = {
    "the list of runs": "/",
    "a run with images": "/run/{first}",
    "a GAN on 2-D points": "/run/{plane}",
    "a comparison": "/compare/{first},{plane}",
    "the list of studies": "/studies",
    "a study": "/study/{packing}",
    "the list of ladders": "/ladders",
    "a ladder": "/ladder/{steps}",
    "the playground": "/playground",
    "a run that is not there": "/run/none",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind, a study and a ladder."""
    root = tmp_path_factory.mktemp("page") / "runs"
    make_curves(root / "first", shade=60)
    changes = [
        {"step": 300, "detector": "d_at_zero", "set": ["optimizer.d.lr=5e-5", "tempo.d=1"]},
        {"step": 200, "detector": "d_at_zero", "set": []},
    ]
    make_curves(root / "second", alarms=3, name="cyclegan", recipe="cyclegan", changes=changes)
    add_frames(make_curves(root / "plane"))
    make_hostile(root / HOSTILE)
    (root / "broken").mkdir()
    (root / "broken/run.json").write_text("{")
    make_study(root / "packing")
    make_ladder(root / "steps")
    return root


@pytest.fixture(scope="module")
def surfer(folder: Path) -> Iterator[Surfer]:
    """A page that all tests share, of a server with a playground."""
    with launched() as browser, serving(folder, "--playground") as address:
        yield Surfer(browser, address)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_accessible_in_both_themes_and_fits_a_telephone(surfer: Surfer, view: str) -> None:
    page = surfer.page
    ids = {name: surfer.id_of(name) for name in ("first", "plane")}
    ids |= {"packing": surfer.id_of("packing", "studies"), "steps": surfer.id_of("steps", "ladders")}
    surfer.visit(VIEWS[view].format_map(ids))
    assert surfer.violations() == []
    page.emulate_media(color_scheme="dark")
    assert surfer.violations("color-contrast") == []
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(TELEPHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= TELEPHONE["width"]
    page.set_viewport_size(WIDE)
    surfer.assert_harmless()


def test_the_list_is_filtered_by_words_and_state(surfer: Surfer) -> None:
    page = surfer.page
    names = page.locator(".run-name a")
    surfer.visit("/")
    assert names.count() == 7
    page.fill("input[type=search]", "plane")
    assert names.all_inner_texts() == ["plane"]
    page.fill("input[type=search]", "")
    page.select_option("select", "damaged")
    assert "broken" in names.all_inner_texts()
    assert "first" not in names.all_inner_texts()
    assert page.locator(".run-row .reason").first.inner_text() != ""
    surfer.visit("/studies")
    surfer.visit("/")
    assert "first" not in names.all_inner_texts(), "what the list was filtered by is kept"
    page.select_option("select", "")


def test_the_caption_of_a_sample_grid_says_what_its_samples_are_made_of(surfer: Surfer) -> None:
    for name, starts in (("first", "latents"), ("second", "source images")):
        surfer.visit_run(name)
        caption = surfer.page.locator(".grid-frame figcaption").inner_text()
        assert caption == f"samples at step 1,000, always of the same {starts}"


def test_runs_of_studies_are_listed_if_asked_for_and_lead_back_to_their_study(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit("/")
    assert "packing/runs" not in page.locator(".run-list").inner_text()
    page.get_by_label("1 run of studies").check()
    page.get_by_role("link", name="packing/runs/").click()
    page.get_by_role("link", name="packing", exact=True).click()
    page.wait_for_selector(".forest-table")
    surfer.visit("/")
    page.get_by_label("1 run of studies").uncheck()


def test_a_cell_of_a_study_leads_to_its_run(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit("/studies")
    page.get_by_role("link", name="packing").click()
    page.wait_for_selector(".forest-table .marker")
    assert page.locator(".forest-table tbody tr").count() == 1
    assert "packing of 2, equal packs" in page.locator(".forest-table tbody").inner_text()
    assert "harms" in page.locator(".forest-table tbody").inner_text()
    effect = page.locator(".forest-table tbody").inner_text()
    page.get_by_label("Base and measure").select_option(label="grid: high quality")
    assert page.locator(".forest-table tbody").inner_text() != effect
    page.get_by_role("link", name="base, seed 0: 0.5164").click()
    page.wait_for_selector("h1:text('packing/runs/41feb5584562a45b')")


def test_a_ladder_shows_its_rungs_side_by_side_and_leads_to_their_runs(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit("/ladders")
    page.get_by_role("link", name="steps").click()
    page.wait_for_selector(".rungs img")
    surfer.wait("() => [...document.querySelectorAll('.rungs img')].every(image => image.naturalWidth === 64)")
    assert page.locator(".rungs figcaption").all_inner_texts() == ["vae", "gan"], "from the simplest model on"
    assert page.get_by_role("row", name="FID").inner_text().split() == ["FID", "18", "12.5"]
    page.locator(".ladder-runs").get_by_role("link", name="vae").click()
    page.wait_for_selector("h1:text('steps/vae')")


def test_the_scrubber_moves_the_grid_and_all_curves(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit_run("first")
    shown = "step => document.querySelector('.grid-image').src.includes(`/${step}?tag=`)"
    surfer.wait(shown, 1000)
    page.focus("input[type=range]")
    page.keyboard.press("Home")
    surfer.wait(shown, 100)
    assert page.locator(".toolbar output").inner_text() == "step 100"
    reading = page.locator(".reading").first.inner_text()
    page.keyboard.press("ArrowRight")
    surfer.wait(shown, 200)
    assert page.locator(".reading").first.inner_text() != reading, "the value beside the curve is that of the step"
    box = page.locator(".u-over").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    surfer.wait("() => /[45]00[?]/.test(document.querySelector('.grid-image').src)")
    page.mouse.move(0, 0)


def test_a_drag_zooms_and_a_double_click_shows_the_whole_run_as_it_was(surfer: Surfer) -> None:
    """On the page of a run, where all that is shown is of the last of the steps that are zoomed to."""
    page = surfer.page
    surfer.visit("/")  # the page of before has a chosen step
    surfer.visit_run("first")
    page.locator(".toolbar").get_by_text("step 1,000").wait_for()
    first = page.locator(".reading").first
    newest, box = first.inner_text(), page.locator(".u-over").first.bounding_box()

    def at(step: int) -> tuple[float, float]:
        return box["x"] + box["width"] * (step - 10) / 990, box["y"] + 50

    page.mouse.move(*at(100))
    page.mouse.down()
    page.mouse.move(*at(300), steps=3)
    page.mouse.up()
    page.mouse.move(0, 0)
    surfer.wait("text => document.querySelector('.reading').textContent.startsWith(text)", f"{wave(300)['mean']:.3g} ")
    assert page.locator(".toolbar output").inner_text() == "step 300"
    assert page.locator(".grid-frame figcaption").inner_text().startswith("samples at step 300,")
    assert page.locator("figure[aria-label=Coverage] .reading").inner_text() == "–", "it was measured later"
    page.mouse.dblclick(*at(500))
    page.mouse.move(0, 0)
    surfer.wait("text => document.querySelector('.reading').textContent === text", newest)
    assert page.get_by_role("button", name="Newest").is_disabled(), "no step was chosen"
    page.mouse.click(*at(500), button="right")
    page.mouse.move(0, 0)
    assert page.get_by_role("button", name="Newest").is_disabled()
    page.mouse.click(*at(500))
    page.mouse.move(0, 0)
    page.locator(".toolbar").get_by_text("step 500").wait_for()


def test_a_run_names_the_changes_of_its_recipe(surfer: Surfer) -> None:
    surfer.visit_run("second")
    assert surfer.page.locator(".changes li").all_inner_texts() == [
        "optimizer.d.lr=5e-5 and tempo.d=1 from step 300, on the advice of d at zero",
        "the change for d at zero was taken back at step 200",
    ]
    surfer.visit_run("first")
    assert surfer.page.locator(".changes").count() == 0


def test_an_alarm_on_the_axis_is_explained_by_the_keyboard(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit_run("second")
    mark = page.locator(".alarm-mark")
    assert mark.count() == 1, "alarms that would overlap are one mark"
    mark.focus()
    page.keyboard.press("Enter")
    assert f"{ALARM['message']}. It began after step 300." in page.locator("dialog").inner_text()
    assert surfer.violations() == []
    page.get_by_role("button", name="Read tip T16").first.click()
    surfer.wait("() => document.querySelector('dialog h2').textContent.startsWith('T16')")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert page.evaluate("document.activeElement.className").startswith("alarm-mark"), "the focus returns"


def test_two_selected_runs_are_compared(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit("/")
    page.get_by_label("Select first").check()
    page.get_by_label("Select second").check()
    page.get_by_role("link", name="Compare").click()
    page.wait_for_selector(".board canvas")
    assert page.locator(".compare-legend li").count() == 2
    assert page.locator(".grid-pair img").count() == 2
    assert page.locator(".chart").count() >= 5
    with page.expect_response("**/series*from=5*"):
        page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Whole run").click()


def test_a_game_in_the_plane_is_drawn_and_scrubbed(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit_run("plane")
    surfer.wait("() => document.querySelector('.scrubber input').max === '11'")
    seen = "document.querySelector('canvas.plane').toDataURL()"
    last = page.evaluate(seen)
    page.focus(".scrubber input")
    page.keyboard.press("Home")
    surfer.wait("() => document.querySelector('.plane').getAttribute('aria-label').endsWith('step 0')")
    assert page.evaluate(seen) != last


def test_hostile_text_is_shown_as_text(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit("/")
    assert HOSTILE in page.locator(".run-list").inner_text()
    surfer.visit_run(HOSTILE)
    shown = page.locator("main").inner_text()
    missing = [text for text in INJECTIONS if text.lower() not in shown.lower()]
    assert missing == []
    page.locator(".alarm-row").first.click()
    page.keyboard.press("Escape")
    surfer.visit(f"/compare/{surfer.id_of(HOSTILE)},{surfer.id_of('first')}")
    page.wait_for_selector(".differences")
    surfer.assert_harmless()
