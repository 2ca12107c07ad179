"""The page in Chromium beside what trains: `poise train`, the playground's worker, and a server that ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poise.runs.frames import parse_frames
from web.browser import Surfer, launched, serving
from web.page_runs import make_curves

WRONG = ('objective={kind="minimax"}', "tricks=[]", "optimizer.d.lr=0.05", "measure=none", "log.rows=10")
"""Changes of the recipe `ring` with which D is soon never wrong, which raises alarms."""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with launched() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training") / "runs"


@pytest.fixture(scope="module")
def surfer(browser: object, folder: Path) -> Iterator[Surfer]:
    """A page of a server with a playground and no runs yet."""
    with serving(folder, "--playground") as address:
        yield Surfer(browser, address)


@contextmanager
def training(out: Path, *changes: str) -> Iterator[None]:
    """`poise train ring` as a process, from its first row on."""
    options = [word for change in changes for word in ("--set", change)]
    command = [sys.executable, "-m", "poise", "train", "ring", "--steps", "1000", "--out", str(out), *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    rows = out / "rows.jsonl"
    try:
        while not (rows.exists() and rows.stat().st_size):
            assert process.poll() is None, "the training has ended before its first row"
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(60)


def test_a_training_is_on_the_page_three_seconds_after_its_first_row(surfer: Surfer, folder: Path) -> None:
    page = surfer.page
    with training(folder / "live", *WRONG):
        page.wait_for_selector(".run-name a:text('live')", timeout=3000)
        page.click(".run-name a")
        surfer.wait("() => document.querySelectorAll('.chart').length > 3")
        step = page.locator(".toolbar output").inner_text()
        surfer.wait("was => document.querySelector('.toolbar output').textContent !== was", step)
        surfer.wait("() => Number(document.querySelector('.scrubber input').max) > 3")
        page.wait_for_selector(".alarm-mark")
        page.focus(".scrubber input")
        page.keyboard.press("Home")
        surfer.wait("() => document.querySelector('.plane').getAttribute('aria-label').endsWith('step 0')")
    surfer.wait("() => /stopped|done/.test(document.querySelector('.run-head .state').textContent)")
    surfer.assert_harmless()


PLAYED = """n => {
    const steps = [...document.querySelectorAll("canvas.plane")].map(one => one.ariaLabel.split(" ").at(-1));
    return steps.length === 2 && steps.every(step => Number(step.replace(",", "")) >= n);
}"""
"""Whether both games of the playground have reached a step."""


def losses(surfer: Surfer, player: str) -> list[str]:
    """The loss of a player that each game of the playground shows."""
    found = surfer.page.locator(".playground-side").get_by_text(player, exact=True).locator("xpath=../span[last()]")
    return found.all_inner_texts()


@pytest.mark.slow
def test_two_games_of_the_playground_differ_in_their_objective_alone(surfer: Surfer) -> None:
    page = surfer.page
    surfer.visit("/playground")
    page.get_by_label("A second game, which differs in").check()
    page.get_by_label("Objective of the second").select_option("minimax")
    page.get_by_role("button", name="Start", exact=True).click()
    surfer.wait(PLAYED, 40)
    assert page.locator(".playground-side h2").all_inner_texts() == ["A: Non-saturating", "B: Minimax"]
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").and_(page.locator(":enabled")).wait_for()
    page.get_by_role("button", name="Reset").click()
    page.wait_for_selector(".game-status:has-text('paused, step 0 of')")
    page.get_by_role("button", name="Step D").click()
    surfer.wait(PLAYED, 1)
    surfer.wait("() => document.querySelectorAll('.playground-side .u-over').length === 2")
    page.wait_for_selector(".game-status:has-text('paused, step 1 of')")
    surfer.wait("() => [...document.querySelectorAll('.reading')].filter(one => one.textContent !== '–').length === 2")
    first, second = losses(surfer, "D")
    assert first == second, "the first move of D sees the same points from the same weights"
    page.get_by_role("button", name="Step G").click()
    surfer.wait("() => [...document.querySelectorAll('.reading')].every(one => one.textContent !== '–')")
    first, second = losses(surfer, "G")
    assert first != second
    ids = [
        link.get_attribute("href").rpartition("/")[2] for link in page.get_by_role("link", name="Open this run").all()
    ]
    a, b = (parse_frames(page.request.get(f"{surfer.origin}/api/runs/{run}/frames").body(), run) for run in ids)
    assert a.header == b.header, "the real points that are drawn"
    assert a.records["points"][0].tolist() == b.records["points"][0].tolist()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".game-status:has-text('ended')")
    surfer.assert_harmless()


@pytest.mark.slow
def test_runs_come_and_go_and_a_lost_server_is_told(browser: object, tmp_path: Path) -> None:
    with serving(tmp_path / "runs") as address:
        surfer = Surfer(browser, address)
        empty = "text=poise train ring"
        surfer.page.wait_for_selector(empty)
        assert surfer.violations() == []
        for view, command in (("/studies", "poise study plan.toml"), ("/ladders", "poise ladder")):
            surfer.visit(view)
            assert command in surfer.page.locator("main").inner_text()
        surfer.visit("/")
        make_curves(tmp_path / "runs/only")
        surfer.page.wait_for_selector("text=only")
        shutil.rmtree(tmp_path / "runs/only")
        surfer.page.wait_for_selector(empty)
        assert not surfer.page.locator(".banner").is_visible()
    surfer.page.wait_for_selector("text=The server is gone", timeout=10_000)
    assert surfer.page.locator(empty).is_visible()
    surfer.context.close()
