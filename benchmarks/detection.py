"""The detection rate of the monitor: small trainings, healthy and failing, their alarms and their outcomes.

    python benchmarks/detection.py train detection --workers 2   (about four hours of one core)
    python benchmarks/detection.py replay detection              (writes outcomes.jsonl, with a line for each run)
    python benchmarks/detection.py table                         (all rates, from the committed outcomes)
    python benchmarks/detection.py summary                       (the table of docs/watching.md)
    python benchmarks/detection.py train detection --quick       (two short runs, to see that it works)

`train` runs two studies, on digits of 16 x 16 pixels or points in the plane. The same command continues a study that
was stopped. In the collection `early` (`studies/detection/plan.toml`) most failing runs fail from their first steps on;
in `late` (`studies/detection-late/plan.toml`) they are healthy for three fifths of their steps, and FID is measured at
each hundredth. Alarms are only logged; a run continues to its end, or until a value is not finite.

`replay` gives the logged rows to a monitor with its default settings, with the measures in them and without. Whether
a run failed depends on its final measures, not on its configuration: it diverged, or a measure is beyond its limit in
the plan (coverage, the number of modes, class balance, C_T, the share of samples of the requested class), or the last
FID is greater than 1.5 times the best one plus the FID of real samples.

Recall, false alarms and lead are given for all seeds and for those that had not been trained when the rules and
thresholds were written. The lead is the number of steps from the first alarm to the first measurement that shows the
failure: from then on all measurements are beyond a limit, while those of a healthy run would not be. An alarm is in
time if it comes before the FID is twice the best one.
"""

# The workers of a study import this file before they set their number of threads, so it must not import NumPy or torch.
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poise.errors import PoiseError
from poise.utils.printing import count_noun

if TYPE_CHECKING:
    from _detection_rates import Outcome

ROOT = Path(__file__).parents[1]
STUDY = Path("benchmarks/studies/detection")
COLLECTIONS = {"early": STUDY, "late": Path("benchmarks/studies/detection-late")}
"""The folders of the plans, relative to the repository."""

OUTCOMES = ROOT / STUDY / "outcomes.jsonl"
"""The committed outcomes."""

REPORTED = {"early": frozenset({12, 13, 14}), "late": frozenset({6, 7, 8})}
"""The seeds on which no rule or threshold was chosen."""

INTERVALS = (
    "Intervals: Clopper-Pearson, 95 %, as if all runs were independent. The seeds of one configuration often have the "
    "same outcome, so the rates on other configurations are less certain than that."
)


def make_images(path: Path) -> None:
    """Write a thousand digits, of which the configuration `fifty-images` trains on fifty."""
    import numpy as np

    from poise.data.digits import load_digits

    images, labels = load_digits()
    order = np.random.default_rng(0).permutation(len(images))[:1000]
    np.savez_compressed(path, images=images[order], labels=labels[order].astype(np.int64))


def train(plan: Path, out: Path, workers: int, *, dry_run: bool) -> None:
    """Train the runs of the plan that have no result yet; or print their number and how long that takes."""
    from poise.cli.study_view import choose_study_view, print_estimate
    from poise.study.engines import executor_of
    from poise.study.execute import Options, run_study
    from poise.study.folder import StudyFolder

    options, folder = Options(device="cpu", trust_code=True), StudyFolder(out)
    with chdir(ROOT):  # the paths in the plan are relative to it
        if not (STUDY / "fifty.npz").is_file():
            make_images(STUDY / "fifty.npz")
        if dry_run:
            print_estimate(plan, folder, workers, options)
            return
        resume = folder.study.is_file()
        view = choose_study_view()
        run_study(plan, out, executor_of("local", workers), resume=resume, options=options, listener=view)


def table_line(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def print_table(header: list[str], lines: list[list[str]]) -> None:
    """Print a Markdown table."""
    for cells in (header, ["---"] * len(header), *lines):
        print(table_line(cells))
    print()


def format_rate(rate: dict[str, Any]) -> str:
    """A rate such as "30 of 63 (48 % [35, 61])"."""
    if not rate["of"]:
        return ""
    share, low, high = (f"{100 * rate[key]:.0f}" for key in ("share", "low", "high"))
    return f"{rate['count']} of {rate['of']} ({share} % [{low}, {high}])"


def format_lead(lead: dict[str, Any] | None) -> str:
    """A lead such as "-25 (-100 to 50)"."""
    return "" if lead is None else f"{lead['median']:,.0f} ({lead['min']:,} to {lead['max']:,})"


def print_rates(rates: dict[str, Any]) -> None:
    """Print the detection rates of `evaluate`."""
    header = [
        "failed runs with an alarm",
        "healthy runs with an alarm",
        "failed runs with an alarm in time",
        "lead in steps, median and range",
    ]

    def cells(entry: dict[str, Any]) -> list[str]:
        shares = [format_rate(entry[name]) for name in ("recall", "false_alarms", "in_time")]
        return [*shares, format_lead(entry["lead"])]

    print(f"### {rates['title']}\n")
    detectors = [[f"`{name}`", f"{one['threshold']:g}", *cells(one)] for name, one in rates["detectors"].items()]
    print_table(["detector", "threshold", *header], [*detectors, ["**any, without notes**", "", *cells(rates["any"])]])
    configurations = [[name, *cells(one)] for name, one in rates["configurations"].items()]
    print_table(["configuration", *header], configurations)
    for what in ("missed", "false_alarms"):
        for entry in rates[what]:
            print(f"{what.replace('_alarms', ' alarm')}: {entry}")
    print()


def replay_runs(out: Path) -> list[Outcome]:
    """Replay the monitor over all runs that have ended; those that have not are named on stderr."""
    from _detection_rates import find_outcome, read_runs
    from poise.study.folder import StudyFolder

    outcomes = []
    for name in COLLECTIONS:
        if not StudyFolder(out / name).study.is_file():
            print(f"left out: {name}, which has not been trained", file=sys.stderr)
            continue
        runs, others = read_runs(out / name)
        for state, count in others.items():
            print(f"{name}: left out: {count_noun(count, 'run')}: {state}", file=sys.stderr)
        outcomes += [find_outcome(name, run) for run in runs]
    return outcomes


def print_outcomes(outcomes: list[Outcome]) -> None:
    """Print which runs failed, by configuration and seed."""
    by_name: dict[str, list[Outcome]] = {}
    for one in outcomes:
        by_name.setdefault(one.configuration, []).append(one)
    print_table(
        ["configuration", "runs", "failed", "outcomes by seed"],
        [
            [
                name,
                str(len(same)),
                str(sum(bool(one.failure) for one in same)),
                "; ".join(one.failure or "healthy" for one in same),
            ]
            for name, same in by_name.items()
        ],
    )


def select(outcomes: list[Outcome], collection: str, *, new: bool) -> list[Outcome]:
    """The runs of a collection; if `new`, those of the seeds on which nothing was chosen."""
    return [one for one in outcomes if one.collection == collection and (not new or one.seed in REPORTED[collection])]


def print_tables(outcomes: list[Outcome]) -> None:
    """Print the outcomes of the runs and the detection rates."""
    from _detection_rates import evaluate

    for name in COLLECTIONS:
        runs, new = select(outcomes, name, new=False), select(outcomes, name, new=True)
        print_outcomes(runs)
        print_rates(evaluate(runs, f"{name}: all seeds"))
        print_rates(evaluate(new, f"{name}: new seeds"))
        print_rates(evaluate([one.bare() for one in new], f"{name}: new seeds, without measures"))
    print(INTERVALS)


def summary(outcomes: list[Outcome]) -> str:
    """The table of docs/watching.md, in Markdown."""
    from _detection_rates import evaluate

    runs = {name: select(outcomes, name, new=True) for name in COLLECTIONS}
    early, late = evaluate(runs["early"], "early"), evaluate(runs["late"], "late")
    bare = evaluate([one.bare() for one in runs["late"]], "late, without measures")
    header = [
        "detector",
        "failed early, with an alarm",
        "failed late, with an alarm",
        "before FID has doubled",
        "the same without measures",
        "healthy, with an alarm (early)",
        "healthy, with an alarm (late)",
    ]

    def cells(name: str, of: Callable[[dict[str, Any]], dict[str, Any]]) -> list[str]:
        shares = [of(early)["recall"], of(late)["recall"], of(late)["in_time"], of(bare)["in_time"]]
        return [name, *map(format_rate, [*shares, of(early)["false_alarms"], of(late)["false_alarms"]])]

    lines = [cells(f"`{name}`", lambda table, name=name: table["detectors"][name]) for name in early["detectors"]]
    lines.append(cells("**any, without notes**", lambda table: table["any"]))
    return "\n".join(map(table_line, [header, ["---"] * len(header), *lines]))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("train", "replay", "table", "summary"))
    parser.add_argument(
        "out", type=Path, nargs="?", default=Path("detection"), help="train, replay: the folder of the studies"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true", help="train: print what would run, and for how long")
    parser.add_argument(
        "--outcomes", type=Path, metavar="FILE", default=OUTCOMES, help="what replay writes and the tables read"
    )
    parser.add_argument("--quick", action="store_true", help="two runs of twenty steps; not a measurement")
    args = parser.parse_args()
    try:
        if args.command == "train":
            for name, folder in COLLECTIONS.items():
                plan = folder / ("quick.toml" if args.quick else "plan.toml")
                train(plan, args.out.resolve() / name, args.workers, dry_run=args.dry_run)
            return
        from _detection_rates import read_outcomes, write_outcomes

        if args.command == "replay":
            outcomes = replay_runs(args.out)
            write_outcomes(outcomes, args.outcomes)
            print(f"{args.outcomes}: {count_noun(len(outcomes), 'run')}")
        elif args.command == "table":
            print_tables(read_outcomes(args.outcomes))
        else:
            print(summary(read_outcomes(args.outcomes)))
    except PoiseError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
