"""A page in a real browser: `poise web` in a process of its own, Chromium, and what a page asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the page is not tested in a browser: no playwright")

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"

NO_BROWSER = "the page is not tested in a browser: chromium is not installed (apt-get install chromium)"
NO_AXE = "accessibility is not checked: `make page` has not installed axe-core"

WIDE = {"width": 1200, "height": 900}
"""The size of the window."""

TELEPHONE = {"width": 390, "height": 844}

RECORD_LABELS = """() => {
    if (window.labels) return;
    const pen = CanvasRenderingContext2D.prototype;
    const { fillText, clearRect } = pen;
    window.labels = new Map();
    pen.clearRect = function (...box) {
        window.labels.set(this.canvas, { x: [], y: [] });
        clearRect.apply(this, box);
    };
    pen.fillText = function (text, ...place) {
        const axis = { top: "x", middle: "y" }[this.textBaseline];
        if (axis) window.labels.get(this.canvas)?.[axis].push(text);
        fillText.call(this, text, ...place);
    };
}"""
"""Keeps what is written along the axes of each chart when it is drawn: on a canvas no text can be read."""

LABELS = "[...window.labels].filter(([one]) => one.isConnected && one.closest('.u-wrap')).map(([, axes]) => axes)"


def chromium() -> str:
    """The path of Chromium; without it the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip(NO_BROWSER)
    return found


@contextmanager
def launched() -> Iterator[Any]:
    """Chromium, without a window."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def serving(root: Path, *options: str) -> Iterator[str]:
    """`poise web` on a free port; yields the address that it prints."""
    command = [sys.executable, "-m", "poise", "web", str(root), "--port", "0", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), address
        yield address
    finally:
        server.terminate()
        server.wait(60)
        server.stdout.close()


class Surfer:
    """One page of a browser, with the addresses that it asked for, its dialogs and its errors."""

    def __init__(self, browser, address: str) -> None:  # type: ignore[no-untyped-def]
        parts = urlsplit(address)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.errors: list[str] = []
        self.context = browser.new_context(color_scheme="light", reduced_motion="reduce", viewport=WIDE)
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._dismiss)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("main[id=content]")

    def _dismiss(self, dialog) -> None:  # type: ignore[no-untyped-def]
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def get(self, address: str) -> Any:
        """The JSON at an address of the server."""
        return self.page.request.get(f"{self.origin}{address}").json()

    def id_of(self, name: str, kind: str = "runs") -> str:
        """The id of a run, study or ladder by its name."""
        return next(found["id"] for found in self.get("/api/overview")[kind] if found["name"] == name)

    def visit(self, fragment: str) -> None:
        """Open a view and wait until it has its data and two frames have been drawn."""
        self.page.goto(f"{self.origin}/#{fragment}")
        self.page.wait_for_function("hash => document.querySelector('main').dataset.shown === hash", arg=f"#{fragment}")
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def visit_run(self, name: str) -> None:
        """Open the view of a run by its name."""
        self.visit(f"/run/{self.id_of(name)}")

    def wait(self, condition: str, arg: Any = None, seconds: float = 20) -> None:
        """Wait until a function of JavaScript returns true."""
        self.page.wait_for_function(condition, arg=arg, timeout=1000 * seconds)

    def record_labels(self) -> None:
        """From now on, keep the labels that are drawn; see `labels`."""
        self.page.evaluate(RECORD_LABELS)

    def labels(self) -> list[dict[str, list[str]]]:
        """The labels of the axes `x` and `y` of each chart, as they were drawn last."""
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self.page.evaluate(LABELS)

    def violations(self, *rules: str) -> list[str]:
        """What axe-core finds wrong with what is shown now, by all of its rules or by those that are named."""
        if not AXE.exists():
            pytest.skip(NO_AXE)
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE.read_text())
        options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
        found = self.page.evaluate("options => axe.run(options)", options)["violations"]
        return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]

    def assert_harmless(self) -> None:
        """No dialog, no error, and no request to anywhere but the server."""
        assert self.dialogs == []
        assert not self.errors, self.errors
        outside = [address for address in self.requests if not address.startswith((self.origin, "data:"))]
        assert outside == []
