"""The live page: a run of a million rows and ten thousand sample grids, and training while the page is open.

    python benchmarks/web.py large
    python benchmarks/web.py training

`large` writes such a run and opens it in Chromium, with a server that has just been started: it prints the seconds from
navigation until the first chart has curves. Then it prints, of another new server, the seconds until each of the first
answers, until all rows have been read, and the largest memory.

`training` trains the recipe `ring` on one core while Chromium and the server, on the others, show the run and an empty
page by turns, for a few seconds each. It prints the median ratio of the time of a step with the page open to that
without, pair by pair, with a 95 % bootstrap interval, once by the clock and once by the CPU time of the training, which
depends less on what else the machine does. Linux only.

Both need playwright and Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path, PurePosixPath
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from playwright.sync_api import sync_playwright

from poise.recipe.shipped import load_table
from poise.recipe.toml import to_toml
from poise.web.run_index import id_of

METRICS = [f"{side}/metric_{n}" for side in "dg" for n in range(6)]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
"""An image of one pixel; the number of files matters here, not their size."""


class Page:
    """`poise web` as a process, and requests to it."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "poise", "web", str(folder), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        address = self.process.stdout.readline().strip()
        self.host, _, self.token = address.removeprefix("http://").partition("/?token=")
        self.name = f"poise-{self.host.partition(':')[2]}"

    def get(self, address: str) -> bytes:
        """The body of an answer."""
        connection = HTTPConnection(self.host, timeout=600)
        with closing(connection):
            connection.request("GET", address, headers={"Cookie": f"{self.name}={self.token}"})
            answer = connection.getresponse()
            body = answer.read()
        assert answer.status == 200, (address, answer.status, body)
        return body

    def memory(self) -> float | None:
        """The largest memory so far in MiB; None where the system does not tell."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) / 1024
        return None


class Moment(NamedTuple):
    """What the clocks of a training show when a row is written.

    Attributes:
        step: the step.
        seconds: the seconds of training.
        cpu: the seconds of CPU time of the process.
    """

    step: int
    seconds: float
    cpu: float


DRAWN = """
    const look = () => {
        const values = [...document.querySelectorAll(".reading")].filter((one) => /\\d/.test(one.textContent));
        if (values.length && document.querySelector(".chart canvas")) window.drawn = performance.now();
        else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
"""
"""Notes, on a page that has just been opened, the milliseconds until the first chart has curves."""


@contextmanager
def open_browser(page: Page) -> Iterator[Any]:
    """Chromium with a window that is signed in to the page."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1600, "height": 1000})
        window.context.add_cookies([{"name": page.name, "value": page.token, "url": f"http://{page.host}"}])
        yield window
        browser.close()


@contextmanager
def open_page(folder: Path) -> Iterator[Page]:
    """A page that is closed at the end."""
    page = Page(folder)
    try:
        yield page
    finally:
        page.process.terminate()
        page.process.communicate()


def write_large_run(path: Path, rows: int, grids: int) -> None:
    """Write a run folder with so many rows and sample grids."""
    (path / "samples").mkdir(parents=True)
    data = {"kind": "ring", "fingerprint": "0", "shape": [2], "classes": [], "count": None}
    info: dict[str, Any] = {"state": "done", "step": rows, "steps": rows, "seconds": rows / 100, "recipe": "0"}
    (path / "run.json").write_text(json.dumps(info | {"data": data, "parameters": {"g": 1, "d": 1}}))
    (path / "recipe.toml").write_text(to_toml(load_table("ring")))
    with (path / "rows.jsonl").open("w") as stream:
        for step in range(1, rows + 1):
            value = 0.5 + (step * 2654435761 % 1000) / 1000
            stat = {"mean": value, "std": 0.123456789, "min": value - 0.5, "max": value + 0.5}
            row = {"step": step, "images": step * 64, "seconds": step / 100, "stats": dict.fromkeys(METRICS, stat)}
            stream.write(json.dumps(row) + "\n")
    for step in range(grids):
        (path / "samples" / f"step-{step:08d}.png").write_bytes(PNG)


def measure_large(rows: int, grids: int) -> None:
    """Print the times and the memory; see the module."""
    with TemporaryDirectory(dir=".") as folder:
        write_large_run(Path(folder) / "large", rows, grids)
        size = (Path(folder) / "large" / "rows.jsonl").stat().st_size
        print(f"{rows:,} rows ({size / 2**20:,.0f} MiB), {grids:,} sample grids")
        with open_page(Path(folder)) as page, open_browser(page) as browser:
            browser.add_init_script(DRAWN)
            browser.goto(f"http://{page.host}/#/run/{id_of(PurePosixPath('large'))}")
            browser.wait_for_function("() => window.drawn")
            seconds = browser.evaluate("() => window.drawn") / 1000
            print(f"{'Chromium':>12}  {seconds:8.2f} s from navigation until the first chart has curves")
        with open_page(Path(folder)) as page:
            begun = time.perf_counter()
            (run,) = json.loads(page.get("/api/overview"))["runs"]
            series = f"/api/runs/{run['id']}/series?names={','.join(METRICS)}"
            for what, address in (
                ("overview", "/api/overview"),
                ("run", f"/api/runs/{run['id']}"),
                ("series", series),
                ("sample grid", f"/api/runs/{run['id']}/grids/{grids - 1}"),
            ):
                page.get(address)
                print(f"{what:>12}  {time.perf_counter() - begun:8.2f} s after the first request")
            while not (answer := json.loads(page.get(series)))["complete"]:
                time.sleep(0.5)
            print(f"{'all rows':>12}  {time.perf_counter() - begun:8.2f} s after the first request")
            assert answer["rows"] == rows
            if (memory := page.memory()) is not None:
                print(f"      memory  {memory:8.0f} MiB at most")


class Training:
    """`poise train ring` as a process on one core, which is stopped at the end.

    Args:
        out: its run folder.
        core: the core.
    """

    def __init__(self, out: Path, core: int) -> None:
        words = ["train", "ring", "--steps", "10000000", "--out", str(out), "--set", "measure=none"]
        words += ["--set", "log.rows=20", "--set", "log.saves=1000000"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "poise", *words],
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        self.rows = out / "rows.jsonl"

    def at_next_row(self) -> Moment:
        """Wait until a row is written, and read the clocks."""
        size = self._size()
        while self._size() == size:
            if self.process.poll() is not None:
                raise SystemExit("the training has ended")
            time.sleep(0.002)
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        with self.rows.open("rb") as stream:
            stream.seek(-min(self._size(), 20_000), os.SEEK_END)
            row = json.loads(stream.read().splitlines()[-1])
        return Moment(row["step"], row["seconds"], cpu)

    def _size(self) -> int:
        return self.rows.stat().st_size if self.rows.exists() else 0

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def per_step(start: Moment, end: Moment) -> tuple[float, float]:
    """The seconds and the seconds of CPU time per step between two moments."""
    steps = end.step - start.step
    return (end.seconds - start.seconds) / steps, (end.cpu - start.cpu) / steps


def interval(ratios: list[float], draws: int = 10_000) -> tuple[float, float]:
    """The 95 % bootstrap interval of a median."""
    samples = np.random.default_rng(0).choice(ratios, (draws, len(ratios)))
    low, high = np.quantile(np.median(samples, axis=1), [0.025, 0.975])
    return float(low), float(high)


def measure_training(blocks: int, seconds: float) -> None:
    """Print the ratio of the times with and without a page; see the module."""
    train_core, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(others) or {train_core})
    with TemporaryDirectory(dir=".") as folder, open_page(Path(folder)) as page, open_browser(page) as browser:
        training = Training(Path(folder) / "ring", train_core)
        address = f"/#/run/{id_of(PurePosixPath('ring'))}"
        pairs = []
        try:
            training.at_next_row()
            for number in range(blocks):
                times = {}
                for opened in (True, False) if number % 2 else (False, True):
                    browser.goto(f"http://{page.host}{address}" if opened else "about:blank")
                    browser.wait_for_timeout(1000 * min(1.0, seconds))
                    start = training.at_next_row()
                    browser.wait_for_timeout(1000 * seconds)
                    times[opened] = per_step(start, training.at_next_row())
                pairs.append(
                    [with_page / without for with_page, without in zip(times[True], times[False], strict=True)]
                )
        finally:
            training.stop()
    print(f"{blocks} pairs of {seconds:.1f} s, training on core {train_core}, server and browser on the others")
    for what, ratios in zip(("time", "CPU time"), zip(*pairs, strict=True), strict=True):
        low, high = interval(list(ratios))
        print(
            f"{what:>8} of a step with the page open: {median(ratios):.3f} times that without [{low:.3f}, {high:.3f}]"
        )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["large", "training"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--grids", type=int, default=10_000)
    parser.add_argument("--blocks", type=int, default=40, help="pairs of blocks")
    parser.add_argument("--seconds", type=float, default=5.0, help="the length of a block")
    parser.add_argument("--quick", action="store_true", help="few rows, grids and short blocks; not a measurement")
    args = parser.parse_args()
    if args.quick:
        args.rows, args.grids, args.blocks, args.seconds = 10_000, 20, 2, 0.2
    if args.what == "large":
        measure_large(args.rows, args.grids)
    else:
        measure_training(args.blocks, args.seconds)


if __name__ == "__main__":
    main()
