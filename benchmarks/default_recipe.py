"""The comparison behind the default recipe of `poise train --data DIR`: the results of its study as a table.

    python benchmarks/default_recipe.py measure runs/default     # measures the emoji anew, see below
    python benchmarks/default_recipe.py table                    # of benchmarks/studies/default, or of another FOLDER

The plan, its data and its rule are in `benchmarks/studies/default/plan.toml`. `measure` reads the kept checkpoints of a
finished study and measures those of the two sets of emoji in features of photographs (`photographs.py` there says why);
the results are appended to `measured.jsonl`, and those that are there already are not measured again. `table` prints,
for each set and arm, the median over the seeds with the smallest and the largest value, and what the rule says.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from poise.measure.catalogue import select_measures
from poise.runs.evaluate import measure_run
from poise.runs.run import Run
from poise.study.folder import StudyFolder
from poise.utils.files import append_line

STUDY = Path(__file__).parent / "studies" / "default"
FEATURES = "benchmarks/studies/default/photographs.py:photographs"
MEASURED_ANEW = ("emoji", "transparent")
NUM_SAMPLES = 480
MEASURES = ("fid", "recall", "coverage", "high_frequencies")
COLOUR, GREY, BASE = ("photos", "emoji", "transparent"), "digits", "base"


class Outcome(NamedTuple):
    """The results of one arm on one set: for each measure, one value per seed."""

    values: dict[str, list[float]]
    num_failed: int

    def median(self, measure: str) -> float:
        """The median over the seeds; NaN without any."""
        return median(self.values[measure]) if self.values[measure] else math.nan


def measured(folder: Path) -> dict[str, dict[str, float]]:
    """The values in `measured.jsonl`, by run."""
    path = folder / "measured.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    return {line["run"]: line["values"] for line in lines}


def measure(folder: Path) -> None:
    """Measure the last checkpoints of the emoji in features of photographs."""
    study, out = StudyFolder(folder), folder / "measured.jsonl"
    known = set(measured(folder))
    done = {result.run for result in study.read_results() if result.state == "done"}
    for arm in study.read_study().arms:
        for run in arm.runs.values():
            if arm.base in MEASURED_ANEW and run in done - known:
                opened = Run(study.runs / run, trust_code=True)
                result, _ = measure_run(opened, select_measures(MEASURES), n=NUM_SAMPLES, features=FEATURES)
                values = {name: float(f"{one.value.value:.7g}") for name, one in result.results.items()}
                append_line(out, {"run": run, "n": NUM_SAMPLES, "features": result.features, "values": values})
                print(f"{arm.base}, {arm.name}: {values}", flush=True)


def outcomes(folder: Path) -> dict[str, dict[str, Outcome]]:
    """The outcome of each arm, by set and name."""
    study = StudyFolder(folder)
    trained, anew = {result.run: result.values for result in study.read_results()}, measured(folder)
    found: dict[str, dict[str, Outcome]] = {}
    for arm in study.read_study().arms:
        values = anew if arm.base in MEASURED_ANEW else trained
        runs = [values[run] for run in arm.runs.values() if run in values]
        failed = sum(run.get("coverage", 0.0) < 0.1 for run in runs)
        by_measure = {name: [run[name] for run in runs if name in run] for name in MEASURES}
        found.setdefault(arm.base, {})[arm.name] = Outcome(by_measure, failed)
    return found


def score(found: dict[str, dict[str, Outcome]], arm: str) -> float:
    """The geometric mean, over the colour sets, of the ratio of the arm's median FID to that of the base."""
    ratios = [found[name][arm].median("fid") / found[name][BASE].median("fid") for name in COLOUR]
    return math.prod(ratios) ** (1 / len(ratios))


def table(folder: Path) -> str:
    """The results in Markdown, and the scores of the arms on the colour sets."""
    found = outcomes(folder)
    lines = ["| set | arm | seeds | FID | ratio to base | recall | coverage | high frequencies |", "|" + "---|" * 8]
    for name, arms in found.items():
        for arm, outcome in arms.items():
            seeds = len(outcome.values["fid"])
            if seeds:
                ratio = outcome.median("fid") / arms[BASE].median("fid")
                spreads = {key: spread(values, 1 if key == "fid" else 2) for key, values in outcome.values.items()}
                fid, *others = spreads.values()
                lines.append(f"| {name} | {arm} | {seeds} | {fid} | {ratio:.2f} | {' | '.join(others)} |")
    lines.append("")
    for arm in found[COLOUR[0]]:
        recall = min(found[name][arm].median("recall") - found[name][BASE].median("recall") for name in COLOUR)
        failed = sum(found[name][arm].num_failed for name in COLOUR)
        lines.append(
            f"{arm}: score {score(found, arm):.2f}, recall at worst {recall:+.2f} beside the base, {failed} failed"
        )
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    """The median with the smallest and the largest value."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "table"))
    parser.add_argument("folder", type=Path, nargs="?", default=STUDY, metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="the same as without: `table` takes no time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "measure":
        measure(options.folder)
    else:
        print(table(options.folder))


if __name__ == "__main__":
    main()
