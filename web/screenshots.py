"""Screenshots of every view of the page at 390 and 1,600 pixels, light and dark, to be looked at.

    python web/screenshots.py ADDRESS OUT [VIEW ...]

ADDRESS is the line that `poise web` prints; OUT gets one PNG per view, width and theme. The views are those of the
first run of each sort that the server lists. Needs playwright and Chromium.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, sync_playwright

WIDTHS = {390: 844, 1600: 1000}
"""The widths, and the height of the window at each; a screenshot shows the page to its end."""

VIEW = {"studies": "study", "ladders": "ladder"}
"""The view of one entry of each list."""

DRAWN = """(hash) => {
    const images = [...document.images].filter((image) => image.checkVisibility());
    images.forEach((image) => { image.loading = "eager"; });
    return document.querySelector("main").dataset.shown === hash && images.every((image) => image.complete);
}"""
"""True once a view has its data and its images."""

SETTLED = 1000
"""Milliseconds after this in which charts and canvases are drawn."""


def views(overview: dict) -> dict[str, str]:
    """The fragment of each view's address, by the name of the view."""
    runs = sorted(overview["runs"], key=lambda run: -run["changed"])
    games = [run["id"] for run in runs if run["frames"]]
    images = [run["id"] for run in runs if not run["frames"] and run["last_grid"] is not None]
    found = {"runs": "/", "studies": "/studies", "ladders": "/ladders"}
    if images:
        found["run"] = f"/run/{images[0]}"
    if games:
        found["game"] = f"/run/{games[0]}"
    if len(games or images) > 1:
        found["compare"] = "/compare/" + ",".join((games if len(games) > 1 else images)[:2])
    for kind in ("studies", "ladders"):
        if overview[kind]:
            found[VIEW[kind]] = f"/{VIEW[kind]}/{overview[kind][0]['id']}"
    if overview["playground"]:
        found["playground"] = "/playground"
    return found


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
        page.goto(f"{base}#{fragment}")
        page.wait_for_function(DRAWN, arg=f"#{fragment}")
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
