"""The detection rate of the monitor: small trainings, healthy and failing, their alarms and their outcomes.

    python benchmarks/detection.py train detection --seeds 6 --workers 2      (an hour of one core)
    python benchmarks/detection.py table detection
    python benchmarks/detection.py train detection --quick                    (one short run, to see that it works)

`train` makes a run of 1,000 to 2,000 steps for every configuration below and every seed, on digits of 16 x 16 pixels or
points in the plane, measured every 100 steps. Alarms are only logged; a run continues to its end, or until a value is
not finite. `table` replays the monitor over the logged rows. Whether a run failed depends on its final measures, not on
its configuration:

    it was aborted, or coverage (for points: the number of modes) is below its limit (`LIMITS`), or classes are nearly
    missing, or the samples are copies of training images (C_T), or they are not of the requested classes, or the last
    FID is at least 1.5 times the best one.

Thresholds are fitted on the even seeds, one detector at a time: the most sensitive value of a grid that raises no alarm
on a healthy run. Recall, false alarms and lead are reported on the odd seeds for the fitted thresholds, and on all
seeds for the defaults. The lead is the number of steps from the first alarm to the first measurement that shows the
failure: from then on the run stays below the limits, while a healthy one would be above them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from poise.core.metrics_log import check_measures, read_jsonl
from poise.watch.base import Alarm
from poise.watch.logs import Log, read_log
from poise.watch.monitor import DETECTORS, MonitorConfig
from poise.watch.replay import replay

AVERAGED = {"kind": "averaged_weights", "half_life": 4000.0}
DCGAN = {
    "name": "detection",
    "steps": 1500,
    "batch": 32,
    "data": {"kind": "digits", "size": 16},
    "latent": {"kind": "gaussian", "dim": 32},
    "network": {"g": {"kind": "dcgan", "width": 16}, "d": {"kind": "dcgan", "width": 16}},
    "objective": {"kind": "non_saturating"},
    "optimizer": {"g": {"kind": "adam", "lr": 1e-3}, "d": {"kind": "adam", "lr": 5e-4}},
    "tempo": {"kind": "ratio"},
    "tricks": [{"kind": "instance_noise", "sigma": 0.5}, AVERAGED],
    "log": {"rows": 25, "samples": 100_000, "saves": 100_000, "sheet": 100},
    "measure": {"every": 100, "measures": ["fid", "coverage", "class_balance"], "n": 300},
}
TOY = {
    **DCGAN,
    "steps": 2000,
    "batch": 256,
    "data": {"kind": "ring", "sigma": 0.05},
    "latent": {"kind": "gaussian", "dim": 16},
    "network": {
        "g": {"kind": "mlp", "width": 64, "depth": 3, "activation": "relu"},
        "d": {"kind": "mlp", "width": 64, "depth": 3},
    },
    "objective": {"kind": "relativistic"},
    "optimizer": {
        "g": {"kind": "adam", "lr": 3e-3, "betas": [0.0, 0.99]},
        "d": {"kind": "adam", "lr": 3e-3, "betas": [0.0, 0.99]},
    },
    "tricks": [{"kind": "r1", "gamma": 0.1}, {"kind": "r2", "gamma": 0.1}],
    "measure": {"every": 100, "measures": ["modes", "high_quality", "coverage"], "n": 1000},
}
PAIRS = [{"kind": "r1", "gamma": 1.0}, {"kind": "r2", "gamma": 1.0}, AVERAGED]
BETAS = [0.0, 0.9]
LABELS = {"g": {"kind": "concat"}}
MEASURE_LABELS = {"every": 100, "measures": ["fid", "coverage", "class_balance", "gan_test"], "n": 300}


def adam(lr: float, betas: list[float] | None = None) -> dict[str, Any]:
    """An Adam optimiser in a recipe."""
    return {"kind": "adam", "lr": lr} | ({} if betas is None else {"betas": betas})


def critic(**changes: Any) -> dict[str, Any]:
    """A recipe of the Wasserstein family: no norm in D, no momentum."""
    recipe: dict[str, Any] = {
        "network": {**DCGAN["network"], "d": {"kind": "dcgan", "width": 16, "norm": "none"}},
        "objective": {"kind": "wasserstein"},
        "optimizer": {"g": adam(1e-3, BETAS), "d": adam(1e-3, BETAS)},
        "tempo": {"kind": "ratio", "d": 2},
    }
    return {**DCGAN, **recipe, **changes}


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    # meant to succeed
    "dcgan": DCGAN,
    "lsgan": {**DCGAN, "objective": {"kind": "least_squares"}},
    "wgan-gp": critic(tricks=[{"kind": "wgan_gp", "weight": 10.0}, AVERAGED]),
    "hinge-sn": {
        **DCGAN,
        "network": {**DCGAN["network"], "d": {"kind": "dcgan", "width": 16, "norm": "spectral"}},
        "objective": {"kind": "hinge"},
        "optimizer": {"g": adam(1e-3), "d": adam(1e-3)},
    },
    "pairs": {
        **critic(objective={"kind": "relativistic"}, tempo={"kind": "ratio"}, tricks=PAIRS),
    },
    "conditional": {**DCGAN, "conditioning": {**LABELS, "d": {"kind": "projection"}}, "measure": MEASURE_LABELS},
    "ring": TOY,
    # meant to fail
    "d-far-too-strong": critic(
        objective={"kind": "non_saturating"},
        optimizer={"g": adam(5e-5), "d": adam(1e-3)},
        tempo={"kind": "ratio", "d": 3},
        tricks=[],
        steps=1000,
    ),
    "minimax-strong-d": {
        **DCGAN,
        "objective": {"kind": "minimax"},
        "optimizer": {"g": adam(2e-4), "d": adam(2e-3)},
        "tempo": {"kind": "ratio", "d": 3},
        "tricks": [],
        "steps": 1000,
    },
    "g-rate-too-high": {**DCGAN, "optimizer": {"g": adam(0.5), "d": adam(5e-4)}},
    "both-rates-too-high": {**DCGAN, "optimizer": {"g": adam(0.1), "d": adam(0.1)}, "tricks": []},
    "range-mismatch": {
        **DCGAN,
        "network": {**DCGAN["network"], "g": {"kind": "dcgan", "width": 16, "output": "sigmoid"}},
    },
    "g-in-the-inner-loop": {**DCGAN, "tempo": {"kind": "ratio", "g": 8}, "tricks": [], "steps": 1000},
    "not-a-number": {
        **DCGAN,
        "tricks": [{"kind": "python", "file": "SPOILER", "name": "Spoiler", "options": {"at": 700}}],
    },
    "dead-d": {**DCGAN, "optimizer": {"g": adam(1e-3), "d": adam(1e-9)}},
    "fifty-pictures": {
        **critic(objective={"kind": "non_saturating"}, tempo={"kind": "ratio"}, tricks=[{"kind": "r1", "gamma": 0.1}]),
        "data": {"kind": "npz", "path": "FIFTY", "size": 16, "held_out": 0.95},
        "steps": 2000,
    },
    "labels-ignored": {**DCGAN, "conditioning": LABELS, "measure": MEASURE_LABELS},
    "critic-without-bounds": critic(tricks=[], optimizer={"g": adam(1e-3, BETAS), "d": adam(5e-3, BETAS)}),
    "toy-g-in-the-inner-loop": {
        **TOY,
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": adam(1e-3), "d": adam(1e-3)},
        "tempo": {"kind": "ratio", "g": 10},
        "tricks": [],
    },
}
SPOILER = '''"""A trick that makes D's input NaN."""

from poise.core.hooks import InputTransform


class Spoiler(InputTransform):
    """Multiplies the images by NaN from step `at` on."""

    def __init__(self, name, at=700):
        super().__init__(name)
        self.at = at

    def transform_input(self, images, origin, context):
        return images * float("nan") if context.step >= self.at else images
'''
LIMITS = {"coverage": 0.2, "modes": 7, "class_balance": 0.6, "copying": -3.0, "gan_test": 0.3, "worse": 1.5}
FACTORS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
"""The factors of the default thresholds in the fit; for a fraction also the factors of its distance to 1."""


def prepare(out: Path) -> None:
    """Write the files that some configurations need."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "spoiler.py").write_text(SPOILER)
    if not (out / "fifty.npz").is_file():
        from poise.data.digits import load_digits

        images, labels = load_digits()
        order = np.random.default_rng(0).permutation(len(images))[:1000]
        np.savez(out / "fifty.npz", images=images[order], labels=labels[order].astype(np.int64))


def train_one(kind: str, seed: int, out: Path, *, quick: bool) -> None:
    """Train one run and measure it at the end, in this process."""
    from poise.errors import Diverged
    from poise.measure.catalogue import select_measures
    from poise.recipe.decode import decode
    from poise.runs.evaluate import measure_run
    from poise.runs.run import Run
    from poise.training.train import train

    text = json.dumps({**CONFIGURATIONS[kind], "seed": seed})
    text = text.replace("SPOILER", str(out / "spoiler.py")).replace("FIFTY", str(out / "fifty.npz"))
    recipe = json.loads(text) | ({"steps": 20, "batch": 16} if quick else {})
    if quick:
        recipe["measure"] |= {"every": 10, "n": 100}
        recipe["log"] |= {"rows": 5}
    recipe["monitor"] = {"policy": {"not_finite": "stop"}}
    folder = out / f"{kind}.{seed}"
    end: dict[str, Any] = {"broke": False}
    try:
        run = train(decode(recipe), folder, device="cpu", precision="fp32", trust_code=True)
    except Diverged:
        end["broke"] = True
        run = None
    if run is not None:
        is_toy = recipe["data"]["kind"] == "ring"
        names = "modes,high_quality" if is_toy else "fid,coverage,class_balance,copying,gan_test"
        result, _ = measure_run(Run(folder, trust_code=True), select_measures(names))
        end |= {name: one.value.value for name, one in result.results.items()}
    (folder / "end.json").write_text(json.dumps(end))


class Outcome(NamedTuple):
    """A run and its outcome.

    Attributes:
        kind: the configuration.
        seed: the seed.
        log: the logged rows.
        failure: why the run failed; empty if it did not.
        shown_at: the step of the first measurement that shows the failure.
    """

    kind: str
    seed: int
    log: Log
    failure: str
    shown_at: int


def read_measures(folder: Path) -> list[dict[str, Any]]:
    """The measurements during a run."""
    return read_jsonl(folder / "measures.jsonl", check_measures)


def find_failure(folder: Path) -> str:
    """Why a run failed; empty if it did not."""
    end = json.loads((folder / "end.json").read_text())
    lines = read_measures(folder)
    fids = [line["measures"]["fid"] for line in lines if "fid" in line["measures"]]
    if end["broke"]:
        return "aborted"
    for name in ("copying", "coverage", "modes", "class_balance", "gan_test"):
        if name in end and end[name] < LIMITS[name]:
            return f"{name} {end[name]:.2f}"
    if fids and fids[-1] > LIMITS["worse"] * min(fids) + lines[-1]["floor"]["fid"]:
        return f"fid {fids[-1]:.1f}, at best {min(fids):.1f}"
    return ""


def is_above_limits(line: dict[str, Any]) -> bool:
    """Whether a measurement during a run is that of a healthy run."""
    values = line["measures"]
    return values.get("coverage", 1.0) >= LIMITS["coverage"] and values.get("modes", 8) >= LIMITS["modes"]


def read_outcomes(out: Path) -> list[Outcome]:
    """The outcomes of all runs."""
    healthy: list[int] = []
    folders = sorted(file.parent for file in out.glob("*/end.json"))
    for folder in folders:
        if not find_failure(folder):
            above = [line["step"] for line in read_measures(folder) if is_above_limits(line)]
            healthy.append(min(above, default=0))
    expected = int(median(healthy)) if healthy else 0
    outcomes: list[Outcome] = []
    for folder in folders:
        kind, _, seed = folder.name.rpartition(".")
        log, failure = read_log(folder), find_failure(folder)
        above = [line["step"] for line in read_measures(folder) if is_above_limits(line)] if failure else []
        shown_at = max([expected, *(step + 100 for step in above)])
        outcomes.append(Outcome(kind, int(seed), log, failure, min(shown_at, log.rows[-1][0])))
    return outcomes


def find_alarms(run: Outcome, config: MonitorConfig) -> list[Alarm]:
    """The alarms of a monitor with this configuration on a run."""
    return replay(run.log._replace(monitor=config.model_dump())).alarms


def is_alarm(alarm: Alarm) -> bool:
    """Whether it counts as an alarm; notes do not."""
    return alarm.level != "note"


def fit_thresholds(runs: list[Outcome]) -> dict[str, float]:
    """The most sensitive threshold of each detector that raises no alarm on a healthy run."""
    thresholds: dict[str, float] = {}
    for name, detector in DETECTORS.items():
        best: tuple[int, float] | None = None
        for threshold in grid(detector.threshold):
            others = {other: "off" for other in DETECTORS if other != name}
            config = MonitorConfig(policy={**others, name: "warn"}, threshold={name: threshold})
            hits = [run for run in runs if find_alarms(run, config)]
            if any(not run.failure for run in hits):
                continue
            closeness = -abs(np.log(max(threshold, 1e-9) / max(detector.threshold, 1e-9)))
            if best is None or (len(hits), closeness) > (
                best[0],
                -abs(np.log(max(best[1], 1e-9) / max(detector.threshold, 1e-9))),
            ):
                best = (len(hits), threshold)
        thresholds[name] = detector.threshold if best is None or best[0] == 0 else best[1]
    return thresholds


def grid(threshold: float) -> list[float]:
    """Candidates around a default threshold."""
    fractions = [1 - (1 - threshold) * factor for factor in FACTORS] if 0.5 < threshold < 1 else []
    candidates = [*(threshold * factor for factor in FACTORS), *fractions]
    return sorted({round(t, 6) for t in candidates if t >= 0} | {threshold})


def table_line(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def report(runs: list[Outcome], thresholds: dict[str, float] | None, title: str) -> None:
    """Print recall, false alarms and lead, for each detector and for all of them."""
    config = MonitorConfig(threshold=thresholds or {})
    alarms = {(run.kind, run.seed): find_alarms(run, config) for run in runs}
    failed, healthy = [run for run in runs if run.failure], [run for run in runs if not run.failure]
    print(f"\n{title}\n")
    with_alarm = [f"failed runs with an alarm (of {len(failed)})", f"healthy runs with an alarm (of {len(healthy)})"]
    print(table_line(["detector", "threshold", *with_alarm, "median lead, steps"]))
    print("|---" * 5 + "|")

    def print_row(name: str, includes: Callable[[Alarm], bool], threshold: str) -> None:
        hits = {key: [alarm for alarm in raised if includes(alarm)] for key, raised in alarms.items()}
        detected = [run for run in failed if hits[run.kind, run.seed]]
        false_alarms = [run for run in healthy if hits[run.kind, run.seed]]
        leads = [run.shown_at - hits[run.kind, run.seed][0].step for run in detected]
        lead = f"{median(leads):,.0f}" if leads else ""
        print(table_line([name, threshold, str(len(detected)), str(len(false_alarms)), lead]))

    for name, detector in DETECTORS.items():
        threshold = (thresholds or {}).get(name, detector.threshold)
        print_row(f"`{name}`", lambda alarm, name=name: alarm.detector == name, f"{threshold:g}")  # type: ignore[misc]
    print_row("**any, without notes**", is_alarm, "")
    for run in failed:
        if not any(is_alarm(alarm) for alarm in alarms[run.kind, run.seed]):
            print(f"missed: {run.kind}, seed {run.seed}: {run.failure}")
    for run in healthy:
        if raised := [f"{a.detector} at step {a.step}" for a in alarms[run.kind, run.seed] if is_alarm(a)]:
            print(f"false alarm: {run.kind}, seed {run.seed}: {', '.join(raised)}")


def print_tables(out: Path) -> None:
    """Print the outcomes of the runs and the detection rates."""
    runs = read_outcomes(out)
    print(table_line(["configuration", "runs", "failed", "outcomes by seed"]))
    print("|---" * 4 + "|")
    for kind in CONFIGURATIONS:
        same = [run for run in runs if run.kind == kind]
        if same:
            outcomes = "; ".join(run.failure or "healthy" for run in same)
            print(table_line([kind, str(len(same)), str(sum(bool(run.failure) for run in same)), outcomes]))
    even, odd = [run for run in runs if run.seed % 2 == 0], [run for run in runs if run.seed % 2]
    report(odd, fit_thresholds(even), "Thresholds fitted on the even seeds, reported on the odd ones")
    report(runs, None, "Default thresholds, all seeds")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("train", "table", "one"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(CONFIGURATIONS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one run of twenty steps; not a measurement")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.only = 1, ["ring"]
    out = args.out.resolve()
    if args.command == "table":
        print_tables(out)
        return
    prepare(out)
    if args.command == "one":
        train_one(args.only[0], args.seed, out, quick=args.quick)
        return
    jobs = [(kind, seed) for seed in range(args.seeds) for kind in args.only]
    jobs = [(kind, seed) for kind, seed in jobs if not (out / f"{kind}.{seed}" / "end.json").is_file()]

    def run(job: tuple[str, int]) -> str:
        kind, seed = job
        command = [sys.executable, __file__, "one", str(out), "--only", kind, "--seed", str(seed)]
        command += ["--quick"] if args.quick else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return f"{kind}.{seed}: {'done' if done.returncode == 0 else (done.stderr.splitlines() or ['?'])[-1]}"

    with ThreadPoolExecutor(args.workers) as pool:
        for message in pool.map(run, jobs):
            print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
