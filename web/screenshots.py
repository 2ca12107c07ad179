"""Screenshots of every view of the page at 390 and 1,600 pixels, light and dark, to be looked at.

    python web/screenshots.py ADDRESS OUT [VIEW ...]

ADDRESS is the line that `poise web --playground` prints; OUT gets one PNG per view, width and theme. The views are
those of the newest run of each sort that the server lists, the lists as they are without any, and an address without a
run. In the playground two games are played for a while, once. Needs playwright and Chromium.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Page, sync_playwright

WIDTHS = {390: 844, 1600: 1000}
"""The widths, and the height of the window at each; a screenshot shows the page to its end."""

VIEW = {"studies": "study", "ladders": "ladder"}
"""The view of one entry of each list."""

DRAWN = """(hash) => {
    const images = [...document.images].filter((image) => image.src && image.checkVisibility());
    images.forEach((image) => Object.assign(image, { loading: "eager", decoding: "sync" }));
    return document.querySelector("main").dataset.shown === hash && images.every((image) => image.naturalWidth);
}"""
"""True once a view has its data and its images."""

PLAYED = """steps => {
    const planes = [...document.querySelectorAll("canvas.plane")].map((one) => one.ariaLabel.split(" ").at(-1));
    return planes.length === 2 && planes.every((step) => Number(step.replace(",", "")) >= steps);
}"""
"""True once both games of the playground have made so many steps."""

SETTLED = 1000
"""Milliseconds after this in which charts and canvases are drawn."""


EMPTY = {"runs": [], "studies": [], "ladders": []}


def views(overview: dict) -> dict[str, str]:
    """The fragment of each view's address, by the name of the view."""
    runs = sorted(overview["runs"], key=lambda run: -run["changed"])
    own = [run for run in runs if run["study"] is None and not run["name"].startswith("playground")]
    games = [run["id"] for run in own if run["frames"]]
    images = [run["id"] for run in own if not run["frames"] and run["last_grid"] is not None]
    found = {"runs": "/", "studies": "/studies", "ladders": "/ladders", "missing": "/run/none"}
    if images:
        found["run"] = f"/run/{images[0]}"
    if games:
        found["game"] = f"/run/{games[0]}"
    if len(games) > 1:
        found["compare"] = "/compare/" + ",".join(games[:2])
    if len(images) > 1:
        found["compare-images"] = "/compare/" + ",".join(images[:2])
    for kind in ("studies", "ladders"):
        if overview[kind]:
            found[VIEW[kind]] = f"/{VIEW[kind]}/{overview[kind][0]['id']}"
    if overview["playground"]:
        found["playground"] = "/playground"
    return found | {"no-runs": "/", "no-studies": "/studies", "no-ladders": "/ladders"}


def play(page: Page, steps: int = 1500) -> None:
    """Play two games side by side and pause them."""
    page.get_by_label("A second game").check()
    page.get_by_label("Objective of the second").select_option("minimax")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_function(PLAYED, arg=steps, timeout=300_000)
    page.get_by_role("button", name="Pause").click()


def take(context: BrowserContext, address: str, out: Path, suffix: str, wanted: list[str]) -> None:
    """Screenshots of the views in one browser context."""
    page = context.new_page()
    page.on("console", lambda message: print(f"{message.type}: {message.text}") if message.type == "error" else None)
    page.goto(address)
    base = "{0.scheme}://{0.netloc}/".format(urlsplit(address))
    overview = json.loads(page.request.get(f"{base}api/overview").text())
    for name, fragment in views(overview).items():
        if wanted and name not in wanted:
            continue
        if name.startswith("no-"):
            page.route("**/api/overview", lambda route: route.fulfill(json=overview | EMPTY))
            page.goto("about:blank")
        page.goto(f"{base}#{fragment}")
        page.wait_for_function(DRAWN, arg=f"#{fragment}")
        if name == "playground" and not page.locator(".playground-side").count():
            play(page)
        page.wait_for_timeout(SETTLED)
        page.screenshot(path=out / f"{name}-{suffix}.png", full_page=True)
    page.close()


def main(address: str, out: Path, wanted: list[str]) -> None:
    """Take the screenshots."""
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for width, height in WIDTHS.items():
            for theme in ("light", "dark"):
                size = {"width": width, "height": height}
                context = browser.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce")
                take(context, address, out, f"{width}-{theme}", wanted)
                context.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
