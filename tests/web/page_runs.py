"""Runs, a study and a ladder for the page to show, written without training."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from poise.runs.frame_file import FrameFile
from poise.runs.frames import POINTS, REALS, Region, encode_frame, encode_header
from web.sites import ALARM, lines, make_run

PACKING = Path(__file__).parents[2] / "benchmarks/studies/packing"

INJECTIONS = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<svg onload=alert(1)>",
    "<iframe src=javascript:alert(1)>",
    "javascript:alert(1)",
    '"><img src=http://outside.example/x>',
    "'><img src=//outside.example/x>",
    "${alert(1)}",
    "{{constructor.constructor('alert(1)')()}}",
    "<a href=javascript:alert(1)>name</a>",
    "<style>@import 'http://outside.example/x.css'</style>",
    "<link rel=stylesheet href=http://outside.example/x.css>",
    "<meta http-equiv=refresh content='0;url=http://outside.example/'>",
    "<base href=http://outside.example/>",
    "<form action=http://outside.example/><button autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<math><mi xlink:href=data:text/html,x>",
    "&lt;img src=x onerror=alert(1)&gt;",
    "<!--<img src=--><img src=x onerror=alert(1)//>",
]
"""Text that would be markup, code or a request if the page took it for more than text."""


def wave(step: int, phase: float = 0.0) -> dict[str, float]:
    """A statistic that moves."""
    mean = 0.7 + 0.3 * math.exp(-step / 400) * math.sin(step / 40 + phase)
    return {"mean": mean, "std": 0.05, "min": mean - 0.1, "max": mean + 0.1}


def curve_row(step: int, names: dict[str, float]) -> dict[str, Any]:
    """A line of rows.jsonl, with a statistic per name."""
    stats = {name: wave(step, phase) for name, phase in names.items()}
    return {"step": step, "images": step * 64, "seconds": step / 10, "stats": stats}


NAMES = {"d/adversarial": 0.0, "g/adversarial": 1.0, "d/accuracy": 2.0, "d/r1": 1.5, "d/grad_norm": 0.5}


def make_curves(path: Path, *, alarms: int = 1, shade: int = 200, **info: Any) -> Path:
    """A run of 1,000 steps with curves, an alarm, measures and ten sample grids."""
    make_run(path, grids=tuple(range(100, 1001, 100)), **({"step": 1000, "steps": 1000} | info))
    (path / "rows.jsonl").write_text(lines([curve_row(step, NAMES) for step in range(10, 1001, 10)]))
    found = [ALARM | {"step": 400 + 5 * number, "since": 300} for number in range(alarms)]
    (path / "alarms.jsonl").write_text(lines(found))
    measured = {"measures": {"coverage": 0.6}, "floor": {"coverage": 0.96}, "n": 1000, "features": "points"}
    (path / "measures.jsonl").write_text(lines([{"step": step} | measured for step in (500, 1000)]))
    for grid in (path / "samples").iterdir():
        Image.new("L", (64, 64), shade).save(grid)
    return path


def add_frames(path: Path, count: int = 12) -> None:
    """Frames of a GAN on 2-D points, one every 100 steps."""
    draws = np.random.default_rng(0)
    real = draws.normal(size=(REALS, 2)).astype("f4")
    file = FrameFile(path / "frames.bin")
    for number in range(count):
        points = draws.normal(size=(POINTS, 2)) / (number + 1)
        scores = np.linspace(-1, 1, 1024)
        file.append(encode_frame(100 * number, Region.around(real), points, -points, scores), encode_header(real))


def make_hostile(path: Path) -> Path:
    """A run in which every text that the page shows is an injection."""
    changes = [{"step": 0, "detector": text, "set": [text, text]} for text in INJECTIONS]
    make_curves(
        path, name=INJECTIONS[0], device=INJECTIONS[1], versions={INJECTIONS[2]: INJECTIONS[3]}, changes=changes
    )
    series = {f"d/{text}": 0.0 for text in INJECTIONS} | NAMES
    (path / "rows.jsonl").write_text(lines([curve_row(step, series) for step in range(10, 101, 10)]))
    texts = {"detector": INJECTIONS[4], "message": INJECTIONS[0], "advice": f"--set '{INJECTIONS[5]}'", "tip": "T16"}
    alarms = [ALARM | texts | {"message": text, "step": 10 + number} for number, text in enumerate(INJECTIONS)]
    (path / "alarms.jsonl").write_text(lines(alarms))
    table = "\n".join(f"{json.dumps(text)} = {json.dumps(text)}" for text in INJECTIONS)
    (path / "recipe.toml").write_text(
        f"name = {json.dumps(INJECTIONS[0])}\n[data]\nkind = {json.dumps(INJECTIONS[6])}\n{table}\n"
    )
    measured = {"measures": dict.fromkeys(INJECTIONS, 0.5), "floor": {}, "n": 10, "features": INJECTIONS[7]}
    (path / "measures.jsonl").write_text(lines([{"step": 100} | measured]))
    return path


def make_study(path: Path) -> Path:
    """A study whose results are published, with the folder of one of its runs."""
    shutil.copytree(PACKING, path)
    make_curves(path / "runs" / "41feb5584562a45b", alarms=0)  # arm base, seed 0
    return path


def make_ladder(path: Path) -> Path:
    """A ladder of two rungs, with figures and images."""
    for name, value in (("gan", 12.5), ("vae", 18.0)):
        rung = make_curves(path / name, alarms=0) / "ladder"
        rung.mkdir()
        measures = {"fid": {"value": value}, "elbo": {"value": "nan"}}
        (rung / "figures.json").write_text(json.dumps({"measures": measures}))
        Image.new("L", (64, 64), 120).save(rung / "samples.png")
    return path


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append a line as training does."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
