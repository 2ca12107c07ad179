"""The live page: a run of a million rows and ten thousand sample grids, and training while the page is open.

    python benchmarks/web.py large
    python benchmarks/web.py training

`large` writes such a run, starts `poise web` on it and prints the seconds until each of the first answers, until all
rows have been read, and the largest memory of the server. `training` trains the recipe `ring` alternately with and
without a page that follows the run, and prints the median ratio of both times, pair by pair, with its quartiles. The
browser's own work is not in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path, PurePosixPath
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from poise.recipe.shipped import load_table
from poise.recipe.toml import to_toml
from poise.web.run_index import id_of

METRICS = [f"{side}/metric_{n}" for side in "dg" for n in range(6)]
SHOWN = "d/adversarial,g/adversarial,d/real_score,d/fake_score"
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
        host, _, query = address.removeprefix("http://").partition("/?token=")
        self.host, self.cookie = host, {"Cookie": f"poise-{host.partition(':')[2]}={query}"}

    def get(self, address: str) -> bytes:
        """The body of an answer."""
        connection = HTTPConnection(self.host, timeout=600)
        with closing(connection):
            connection.request("GET", address, headers=self.cookie)
            answer = connection.getresponse()
            body = answer.read()
        assert answer.status == 200, (address, answer.status, body)
        return body

    def follow(self, run_id: str) -> None:
        """Do what a page does that shows a run: read the events, and get the series when there are new rows."""
        connection = HTTPConnection(self.host, timeout=600)
        with suppress(OSError, HTTPException):  # the server ends
            connection.request("GET", f"/api/events?runs={run_id}", headers=self.cookie)
            with connection.getresponse() as events:
                while line := events.readline():
                    if line.startswith(b"event: run"):
                        self.get(f"/api/runs/{run_id}/series?names={SHOWN}")
        connection.close()

    def memory(self) -> float | None:
        """The largest memory so far in MiB; None where the system does not tell."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) / 1024
        return None


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


def train(folder: Path, name: str, steps: int) -> float:
    """The seconds of a training."""
    out = folder / name
    words = ["train", "ring", "--steps", str(steps), "--out", str(out), "--set", "measure=none", "--set", "log.rows=20"]
    subprocess.run([sys.executable, "-m", "poise", *words], check=True, capture_output=True)
    return json.loads((out / "run.json").read_text())["seconds"]


def measure_training(rounds: int, steps: int) -> None:
    """Print the ratio of the times with and without a page; see the module."""
    ratios = []
    with TemporaryDirectory(dir=".") as folder:
        path = Path(folder)
        train(path, "first", steps)  # what is imported or compiled once
        for number in range(rounds):
            times = {}
            for opened in (True, False) if number % 2 else (False, True):
                name = f"run-{number}-{'open' if opened else 'closed'}"
                if not opened:
                    times[opened] = train(path, name, steps)
                    continue
                with open_page(path) as page:
                    reader = threading.Thread(target=page.follow, args=(id_of(PurePosixPath(name)),), daemon=True)
                    reader.start()
                    times[opened] = train(path, name, steps)
                reader.join(60)
            ratios.append(times[True] / times[False])
    low, _, high = quantiles(ratios, n=4)
    print(f"training with the page open: {median(ratios):.3f} times as long as without ({low:.3f} to {high:.3f})")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["large", "training"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--grids", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--quick", action="store_true", help="few rows, grids and steps; not a measurement")
    args = parser.parse_args()
    if args.quick:
        args.rows, args.grids, args.rounds, args.steps = 10_000, 20, 2, 2
    if args.what == "large":
        measure_large(args.rows, args.grids)
    else:
        measure_training(args.rounds, args.steps)


if __name__ == "__main__":
    main()
