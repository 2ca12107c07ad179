"""How often verdicts are false, on simulated studies and for a tip that does nothing in a real one.

    python benchmarks/verdicts.py simulate                                      (half an hour of one core)
    python benchmarks/verdicts.py control FOLDER --comparison NAME              (a minute)
    python benchmarks/verdicts.py control --quick                               (on a small simulated study)

`simulate` draws studies with a base and 35 tips, some of which improve FID by three standard deviations, and prints for
each number of seeds and share of diverging runs: the share of tips without an effect that get a verdict other than "no
effect seen", the mean share of such verdicts among all verdicts, and the share of real effects that are found. Before,
it prints the share of 95 % intervals that contain the true effect, from simulated normal pairs.

`control` takes a study with a comparison that does nothing by construction, draws 200 times 10 of its pairs, and judges
them, alone and in place of the comparison in its family, that is, among all other tips on the same base and measure. It
draws without replacement if there are more than 10 pairs. Otherwise it draws with replacement, which repeats pairs, so
that the test finds more than it should. The draws share pairs, so they are no independent studies: if the pairs differ
by chance, all draws do. Therefore the same is printed for pairs whose sides are swapped at random, which have no effect
for certain. The intervals are those of Clopper and Pearson for 200 independent draws, so the first ones are too narrow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from poise.study import statistics
from poise.study.effects import Effect
from poise.study.folder import StudyFolder
from poise.study.records import Arm, Comparison, RunResult, Study, StudyBase, StudyMeasure
from poise.study.verdicts import Pairs, analyse, estimate, judge, outcomes_of, pairs_of

NOTHING = "no effect seen"
FID = StudyMeasure(name="fid", better="less", failure=60.0)
TIPS, REAL, SHIFT = 35, 5, -3.0


def simulated(seed: int, shifts: Sequence[float], seeds: int, failing: float = 0.0) -> tuple[Study, list[RunResult]]:
    """A study of a base with FID 20 +- 2 and tips that shift it by these numbers of standard deviations."""
    rng = np.random.default_rng(seed)
    names = ["base", *(f"tip {number}" for number in range(len(shifts)))]
    arms, results = [], []
    for name, shift in zip(names, (0.0, *shifts), strict=True):
        runs = {str(s): f"{name}/{s}" for s in range(seeds)}
        arms.append(Arm(base="simulated", name=name, steps=1, images=1, runs=runs))
        for run, value, fails in zip(runs.values(), rng.normal(shift, 1, seeds), rng.random(seeds), strict=True):
            values = {} if fails < failing else {"fid": 20 + 2 * float(value)}
            results.append(RunResult(run=run, state="done" if values else "diverged", step=1, images=1, values=values))
    comparisons = [Comparison(base="simulated", name=name, treatment=(name,), control=("base",)) for name in names[1:]]
    base = StudyBase(name="simulated", measures=(FID,))
    return Study(name="simulated", bases=(base,), arms=tuple(arms), comparisons=tuple(comparisons)), results


def share(count: int, total: int) -> str:
    """A share and its interval in per cent."""
    value, low, high = (100 * number for number in statistics.failure_rate(count, total))
    return f"{value:5.1f} % [{low:.1f}, {high:.1f}]"


def simulate(repetitions: int, tips: int) -> None:
    """Print the coverage of intervals and the rates of false verdicts."""
    print("seeds   95 % intervals that contain the true difference")
    for seeds in (6, 10, 12, 20):
        draws = range(10 * repetitions)
        pairs = [np.random.default_rng([seeds, draw]).normal(size=(2, seeds)) for draw in draws]
        intervals = [statistics.iqm_difference(*pair) for pair in pairs]
        print(f"{seeds:5d}   {share(sum(low <= 0 <= high for _, low, high in intervals), len(draws))}", flush=True)
    print(f"\n{tips} tips, {repetitions} studies each")
    print(f"seeds  diverging  real effects   {'verdicts on the others':<24}false among verdicts  found")
    for seeds in (10, 12):
        for failing in (0.0, 0.2):
            for real in sorted({0, 1, min(REAL, tips - 1)}):
                print(false_verdicts(repetitions, tips, seeds, failing, real), flush=True)


def false_verdicts(repetitions: int, tips: int, seeds: int, failing: float, real: int) -> str:
    """One line of the table of `simulate`."""
    false, shares, found = 0, [], 0
    shifts = [SHIFT] * real + [0.0] * (tips - real)
    for repetition in range(repetitions):
        verdicts = [effect.verdict for effect in analyse(*simulated(repetition, shifts, seeds, failing))]
        wrong = sum(verdict != NOTHING for verdict in verdicts[real:])
        false += wrong
        shares.append(wrong / max(1, sum(verdict != NOTHING for verdict in verdicts)))
        found += sum(verdict == "helps" for verdict in verdicts[:real])
    hits = f"{100 * found / (real * repetitions):.0f} %" if real else "-"
    others = share(false, (tips - real) * repetitions)
    return f"{seeds:5d}  {100 * failing:7.0f} %  {real:12d}   {others:<24}{100 * np.mean(shares):18.1f} %  {hits}"


def control(folder: StudyFolder, name: str, repetitions: int, size: int) -> None:
    """Print how often a comparison that does nothing gets a verdict, on each base and measure that have it."""
    study, results = folder.read_study(), {result.run: result for result in folder.read_results()}
    chosen = [comparison for comparison in study.comparisons if comparison.name == name]
    if not chosen:
        sys.exit(
            f"there is no comparison '{name}'; there are: {', '.join(sorted({c.name for c in study.comparisons}))}"
        )
    bases = {base.name: base for base in study.bases}
    for comparison in chosen:
        outcomes = outcomes_of(study, bases[comparison.base], results)
        for measure in bases[comparison.base].measures:
            pool = pairs_of(study, comparison, measure.name, outcomes)
            others = [
                estimate(other, measure, pairs_of(study, other, measure.name, outcomes))
                for other in study.comparisons
                if other.base == comparison.base and other.name != name
            ]
            if len(pool.seeds) < 2:
                print(f"{comparison.base}, {measure.name}: has too few pairs")
                continue
            how = "without" if len(pool.seeds) > size else "with"
            print(f"{comparison.base}, {measure.name}: {len(pool.seeds)} pairs, {size} drawn {how} replacement")
            for swapped in (False, True):
                drawn = list(draws(pool, size, repetitions, swapped))
                print_rates(swapped, [estimate(comparison, measure, pairs) for pairs in drawn], others)


def draws(pool: Pairs, size: int, repetitions: int, swapped: bool) -> Iterator[Pairs]:
    """`size` pairs, drawn again and again, with their sides swapped at random or not."""
    rng = np.random.default_rng(0)
    both = (
        (pool.treatment, pool.control),
        (pool.failed, pool.control_failed),
        (pool.measured, pool.control_measured),
    )
    for _ in range(repetitions):
        chosen = rng.choice(len(pool.seeds), size, replace=len(pool.seeds) <= size)
        swap = rng.random(size) < 0.5 if swapped else np.zeros(size, dtype=bool)
        sides = [
            tuple(side[i] for first, second in both for side in ((second, first) if flip else (first, second)))
            for i, flip in zip(chosen, swap, strict=True)
        ]
        yield Pairs(tuple(pool.seeds[i] for i in chosen), *zip(*sides, strict=True))


def print_rates(swapped: bool, drawn: Sequence[Effect], others: Sequence[Effect]) -> None:
    """Print the shares of verdicts of the drawn comparisons, alone and in their family."""
    print(f"  sides {'swapped at random' if swapped else 'as they are'}")
    for label, family in (("alone", []), (f"among {len(others)} others", list(others))):
        verdicts = Counter(judge([effect, *family])[0].verdict for effect in drawn)
        wrong = len(drawn) - verdicts[NOTHING]
        named = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
        print(f"    {label:<18} verdicts other than '{NOTHING}': {share(wrong, len(drawn))}   ({named})", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="How often verdicts are false.")
    parser.add_argument("what", choices=["simulate", "control"])
    parser.add_argument("folder", nargs="?", type=Path, help="with study.json and results.jsonl (control)")
    parser.add_argument("--comparison", metavar="NAME", help="the comparison that does nothing (control)")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=10, help="pairs in each draw (control)")
    parser.add_argument("--quick", action="store_true", help="few repetitions on simulated records; not a measurement")
    args = parser.parse_args()
    if args.repetitions < 1 or args.pairs < 6:
        parser.error("--repetitions must be at least 1 and --pairs at least 6")
    if args.what == "simulate":
        simulate(*((1, 2) if args.quick else (args.repetitions, TIPS)))
    elif args.quick:
        with tempfile.TemporaryDirectory() as place:
            control(write_simulated(Path(place)), "tip 0", 5, args.pairs)
    elif args.folder is None or args.comparison is None:
        parser.error("control needs a folder and --comparison")
    else:
        control(StudyFolder(args.folder), args.comparison, args.repetitions, args.pairs)


def write_simulated(place: Path) -> StudyFolder:
    """The folder of a small simulated study, whose first tip does nothing."""
    folder = StudyFolder(place)
    study, results = simulated(0, [0.0, SHIFT, 0.0, 0.0], 16, 0.1)
    folder.write_study(study)
    for result in results:
        folder.append_result(result)
    return folder


if __name__ == "__main__":
    main()
