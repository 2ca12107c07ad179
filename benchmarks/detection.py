"""Does the monitor see failure coming? Small real trainings, healthy and failing, their alarms, and how they ended.

    python benchmarks/detection.py train detection --seeds 6 --workers 2      (an hour of one core)
    python benchmarks/detection.py table detection
    python benchmarks/detection.py train detection --quick                    (one short run: whether it works)

`train` makes, for every kind below and every seed, a run of 1,000 to 2,000 steps on digits of 16 pixels or on points of
the plane, measured every 100 steps. Every alarm is only written down; a run goes on to its end, or until a number is
not finite. `table` replays the monitor over the rows. Whether a run failed is read from its measures at the end, not
from how it was made:

    it broke off, or coverage (points: found modes) is below BAR, or its worst class is nearly missing, or the samples
    are copies of training pictures (C_T), or they are not of the classes that were asked for, or the last FID is half
    as much again as the best.

Thresholds are fitted on the even seeds, one detector at a time: the most sensitive of a grid that does not raise an
alarm on a run that did not fail. Recall, false alarms and lead time are reported on the odd seeds, for the fitted
thresholds and for the defaults. The lead is counted from the first alarm to the first measuring at which the figures
show it: the run is below the bar for good, and a healthy one would be above.
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
ASKED = {"every": 100, "measures": ["fid", "coverage", "class_balance", "gan_test"], "n": 300}


def adam(lr: float, betas: list[float] | None = None) -> dict[str, Any]:
    """An entry."""
    return {"kind": "adam", "lr": lr} | ({} if betas is None else {"betas": betas})


def critic(**changes: Any) -> dict[str, Any]:
    """The Wasserstein family: no norm in D, no momentum."""
    told: dict[str, Any] = {
        "network": {**DCGAN["network"], "d": {"kind": "dcgan", "width": 16, "norm": "none"}},
        "objective": {"kind": "wasserstein"},
        "optimizer": {"g": adam(1e-3, BETAS), "d": adam(1e-3, BETAS)},
        "tempo": {"kind": "ratio", "d": 2},
    }
    return {**DCGAN, **told, **changes}


KINDS: dict[str, dict[str, Any]] = {
    # meant to do well
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
    "conditional": {**DCGAN, "conditioning": {**LABELS, "d": {"kind": "projection"}}, "measure": ASKED},
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
    "labels-ignored": {**DCGAN, "conditioning": LABELS, "measure": ASKED},
    "critic-without-bounds": critic(tricks=[], optimizer={"g": adam(1e-3, BETAS), "d": adam(5e-3, BETAS)}),
    "toy-g-in-the-inner-loop": {
        **TOY,
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": adam(1e-3), "d": adam(1e-3)},
        "tempo": {"kind": "ratio", "g": 10},
        "tricks": [],
    },
}
SPOILER = '''"""A trick that spoils one fake at one step."""

from poise.core.hooks import InputTransform


class Spoiler(InputTransform):
    """Not a number from step `at` on."""

    def __init__(self, name, at=700):
        super().__init__(name)
        self.at = at

    def transform_input(self, images, origin, context):
        return images * float("nan") if context.step >= self.at else images
'''
BAR = {"coverage": 0.2, "modes": 7, "class_balance": 0.6, "copying": -3.0, "gan_test": 0.3, "worse": 1.5}
FACTORS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
"""What each default threshold is multiplied with in the fit; those of a share are taken from its distance to 1 too."""


def prepare(out: Path) -> None:
    """The files that some kinds need."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "spoiler.py").write_text(SPOILER)
    if not (out / "fifty.npz").is_file():
        from poise.data.digits import embedded

        images, labels = embedded()
        order = np.random.default_rng(0).permutation(len(images))[:1000]
        np.savez(out / "fifty.npz", images=images[order], labels=labels[order].astype(np.int64))


def one(kind: str, seed: int, out: Path, *, quick: bool) -> None:
    """Train one run and measure its end (in a process of its own)."""
    from poise.errors import Diverged
    from poise.measure.catalogue import select_measures
    from poise.recipe.decode import decode
    from poise.runs.evaluate import measure_run
    from poise.runs.run import Run
    from poise.training.train import train

    words = json.dumps({**KINDS[kind], "seed": seed})
    words = words.replace("SPOILER", str(out / "spoiler.py")).replace("FIFTY", str(out / "fifty.npz"))
    table = json.loads(words) | ({"steps": 20, "batch": 16} if quick else {})
    if quick:
        table["measure"] |= {"every": 10, "n": 100}
        table["log"] |= {"rows": 5}
    table["monitor"] = {"policy": {"not_finite": "stop"}}
    place = out / f"{kind}.{seed}"
    ended: dict[str, Any] = {"broke": False}
    try:
        run = train(decode(table), place, device="cpu", precision="fp32", trust_code=True)
    except Diverged:
        ended["broke"] = True
        run = None
    if run is not None:
        names = (
            "modes,high_quality" if table["data"]["kind"] == "ring" else "fid,coverage,class_balance,copying,gan_test"
        )
        result, _ = measure_run(Run(place, trust_code=True), select_measures(names))
        ended |= {name: told.value.value for name, told in result.results.items()}
    (place / "end.json").write_text(json.dumps(ended))


class Ended(NamedTuple):
    """One run, and what became of it."""

    kind: str
    seed: int
    log: Log
    why: str
    shown: int


def measured(place: Path) -> list[dict[str, Any]]:
    """What was measured as a run went."""
    return read_jsonl(place / "measures.jsonl", check_measures)


def verdict(place: Path) -> str:
    """Why a run failed; empty if it did not."""
    end = json.loads((place / "end.json").read_text())
    lines = measured(place)
    fids = [line["measures"]["fid"] for line in lines if "fid" in line["measures"]]
    if end["broke"]:
        return "broke off"
    for name in ("copying", "coverage", "modes", "class_balance", "gan_test"):
        if name in end and end[name] < BAR[name]:
            return f"{name} {end[name]:.2f}"
    if fids and fids[-1] > BAR["worse"] * min(fids) + lines[-1]["floor"]["fid"]:
        return f"fid {fids[-1]:.1f}, was {min(fids):.1f}"
    return ""


def above(line: dict[str, Any]) -> bool:
    """Whether a measuring looks healthy."""
    told = line["measures"]
    return told.get("coverage", 1.0) >= BAR["coverage"] and told.get("modes", 8) >= BAR["modes"]


def gather(out: Path) -> list[Ended]:
    """All runs."""
    healthy: list[int] = []
    places = sorted(place.parent for place in out.glob("*/end.json"))
    for place in places:
        if not verdict(place):
            good = [line["step"] for line in measured(place) if above(line)]
            healthy.append(min(good, default=0))
    expected = int(median(healthy)) if healthy else 0
    found: list[Ended] = []
    for place in places:
        kind, _, seed = place.name.rpartition(".")
        log, why = read_log(place), verdict(place)
        good = [line["step"] for line in measured(place) if above(line)] if why else []
        shown = max([expected, *(step + 100 for step in good)])
        found.append(Ended(kind, int(seed), log, why, min(shown, log.rows[-1][0])))
    return found


def alarms(run: Ended, how: MonitorConfig) -> list[Alarm]:
    """What the monitor says of a run, told what [monitor] says."""
    return replay(run.log._replace(monitor=how.model_dump())).alarms


def counts(alarm: Alarm) -> bool:
    """Whether an alarm speaks of failure: notes don't."""
    return alarm.level != "note"


def fitted(runs: list[Ended]) -> dict[str, float]:
    """The most sensitive threshold of each detector that leaves the runs that did not fail in peace."""
    told: dict[str, float] = {}
    for name, detector in DETECTORS.items():
        best: tuple[int, float] | None = None
        for threshold in grid(detector.threshold):
            only = {other: "off" for other in DETECTORS if other != name}
            how = MonitorConfig(policy={**only, name: "warn"}, threshold={name: threshold})
            hits = [run for run in runs if alarms(run, how)]
            if any(not run.why for run in hits):
                continue
            closeness = -abs(np.log(max(threshold, 1e-9) / max(detector.threshold, 1e-9)))
            if best is None or (len(hits), closeness) > (
                best[0],
                -abs(np.log(max(best[1], 1e-9) / max(detector.threshold, 1e-9))),
            ):
                best = (len(hits), threshold)
        told[name] = detector.threshold if best is None or best[0] == 0 else best[1]
    return told


def grid(threshold: float) -> list[float]:
    """Candidates around a default."""
    shares = [1 - (1 - threshold) * factor for factor in FACTORS] if 0.5 < threshold < 1 else []
    return sorted({round(t, 6) for t in [*(threshold * factor for factor in FACTORS), *shares] if t >= 0} | {threshold})


def line(cells: list[str]) -> str:
    """A row in Markdown."""
    return "| " + " | ".join(cells) + " |"


def report(runs: list[Ended], thresholds: dict[str, float] | None, title: str) -> None:
    """Recall, false alarms and lead, by detector and together."""
    how = MonitorConfig(threshold=thresholds or {})
    heard = {(run.kind, run.seed): alarms(run, how) for run in runs}
    failed, sound = [run for run in runs if run.why], [run for run in runs if not run.why]
    print(f"\n{title}: {len(failed)} runs that failed, {len(sound)} that did not\n")
    print(line(["detector", "threshold", "failed runs it alarms on", "false alarms", "median lead, steps"]))
    print("|---" * 5 + "|")

    def row(name: str, pick: Callable[[Alarm], bool], threshold: str) -> None:
        hits = {key: [a for a in told if pick(a)] for key, told in heard.items()}
        right = [run for run in failed if hits[run.kind, run.seed]]
        wrong = [run for run in sound if hits[run.kind, run.seed]]
        leads = [run.shown - hits[run.kind, run.seed][0].step for run in right]
        lead = f"{median(leads):,.0f}" if leads else ""
        share = f"{len(right)} of {len(failed)}"
        print(line([name, threshold, share, f"{len(wrong)} of {len(sound)}", lead]))

    for name, detector in DETECTORS.items():
        at = (thresholds or {}).get(name, detector.threshold)
        row(name, lambda alarm, name=name: alarm.detector == name, f"{at:g}")  # type: ignore[misc]
    row("**any, notes left out**", counts, "")
    for run in failed:
        if not any(counts(alarm) for alarm in heard[run.kind, run.seed]):
            print(f"missed: {run.kind}, seed {run.seed}: {run.why}")
    for run in sound:
        if wrong := [f"{a.detector} at {a.step}" for a in heard[run.kind, run.seed] if counts(a)]:
            print(f"false alarm: {run.kind}, seed {run.seed}: {', '.join(wrong)}")


def table(out: Path) -> None:
    """See the module."""
    runs = gather(out)
    print(line(["kind", "runs", "failed", "how they ended, by seed"]))
    print("|---" * 4 + "|")
    for kind in KINDS:
        those = [run for run in runs if run.kind == kind]
        if those:
            ends = "; ".join(run.why or "sound" for run in those)
            print(line([kind, str(len(those)), str(sum(bool(run.why) for run in those)), ends]))
    fit_on, held = [r for r in runs if r.seed % 2 == 0], [r for r in runs if r.seed % 2]
    report(held, fitted(fit_on), "Thresholds fitted on the even seeds, reported on the odd ones")
    report(runs, None, "Default thresholds, all seeds")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "table", "one"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one run of twenty steps: not a measurement")
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.only = 1, ["ring"]
    out = asked.out.resolve()
    if asked.what == "table":
        table(out)
        return
    prepare(out)
    if asked.what == "one":
        one(asked.only[0], asked.seed, out, quick=asked.quick)
        return
    waiting = [(kind, seed) for seed in range(asked.seeds) for kind in asked.only]
    waiting = [(kind, seed) for kind, seed in waiting if not (out / f"{kind}.{seed}" / "end.json").is_file()]

    def run(job: tuple[str, int]) -> str:
        kind, seed = job
        words = [sys.executable, __file__, "one", str(out), "--only", kind, "--seed", str(seed)]
        words += ["--quick"] if asked.quick else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        return f"{kind}.{seed}: {'done' if done.returncode == 0 else (done.stderr.splitlines() or ['?'])[-1]}"

    with ThreadPoolExecutor(asked.workers) as pool:
        for told in pool.map(run, waiting):
            print(told, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
