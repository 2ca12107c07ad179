"""The recipe zoo: every shipped recipe of images is trained at its own length over three seeds, and measured.

    python benchmarks/zoo.py train                         (trains what is missing in runs/zoo, and prints the table)
    python benchmarks/zoo.py publish                       (the results and sample grids, into this repository)
    python benchmarks/zoo.py table                         (of the committed results, or of a study --out FOLDER)
    python benchmarks/zoo.py train --colour                (some recipes on colour images: the emoji of the studies)
    python benchmarks/zoo.py train --colour --data DIR     (the same on a folder of images, such as those of CIFAR-10)
    python benchmarks/zoo.py train --quick                 (two steps of two recipes, to see that everything runs)

The plans, `studies/zoo/plan.toml` and `studies/zoo-colour/plan.toml`, are ordinary studies without comparisons, which
`poise study` would train as well; each run has one thread, and `train` can be stopped and continued. The table has
the parameters, the moves of D and G per step, the real images that D has seen, CPU minutes, and for each measure the
median over the seeds with the smallest and the largest value.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import torch

from poise.cli.study_view import choose_study_view
from poise.core.random_streams import RandomStreams
from poise.data.source import Source
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.errors import PoiseError
from poise.recipe.model import Recipe
from poise.recipe.toml import parse_toml, to_toml
from poise.study.engines import executor_of
from poise.study.execute import run_study
from poise.study.expand import expand
from poise.study.folder import StudyFolder
from poise.study.plan import label_of, read_plan
from poise.study.report_tables import spread
from poise.study.sample_strips import newest_grid
from poise.study.summary import FinalValues, StudyResults
from poise.training.run_info import parameter_counts

ROOT = Path(__file__).parents[1]
NAMES = ("zoo", "zoo-colour")
GRID_SEED = "0"
"""The seed whose sample grids are shown."""

QUICK = ["steps=2", "batch=4", "measure.n=40", 'measure.features="pixels"', "log.sheet=4"]
"""The changes of `--quick`."""


def study_folder(name: str) -> Path:
    """The folder of the plan and of the committed results."""
    return ROOT / "benchmarks" / "studies" / name


def plan_on(data: Path, plan: str) -> str:
    """The text of a plan whose only data set is a folder of images, at 32 x 32 pixels."""
    table = parse_toml(plan, "plan.toml")
    return to_toml(table | {"data": {"folder": {"kind": "folder", "path": str(data.resolve()), "size": 32}}})


def shorten(plan: str) -> str:
    """The text of a plan for `--quick`: the first two bases with one seed, two steps and one measure."""
    table = parse_toml(plan, "plan.toml")
    table.pop("budget", None)
    bases = list(table["base"].items())[:2]
    short = {name: {"recipe": base["recipe"], "set": QUICK, "measures": ["fid"]} for name, base in bases}
    return to_toml(table | {"seeds": 1, "evaluations": 1, "base": short})


def start_from(study: Path, out: Path) -> None:
    """Let a study that has not begun yet continue the committed one, so that only what is missing there is trained."""
    if (study / "results.jsonl").is_file() and not out.exists():
        out.mkdir(parents=True)
        for path in (StudyFolder(study).plan, StudyFolder(study).study, StudyFolder(study).results):
            shutil.copy(path, out / path.name)
        print(f"{out}: continues the results in {study}; to train everything anew, give another --out", file=sys.stderr)


def forget_recipes(folder: StudyFolder) -> None:
    """Let a study go on with the recipes as they are now: the zoo trains those anew that have changed since."""
    study = folder.read_study()
    bases = tuple(base.model_copy(update={"recipe": {}, "definition": ""}) for base in study.bases)
    folder.write_study(study.model_copy(update={"bases": bases}))


def train(plan: str, out: Path, workers: int) -> None:
    """Train the runs of a plan that have no result yet."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.toml"
        path.write_text(plan, "utf-8")
        resume = StudyFolder(out).study.exists()
        if resume:
            forget_recipes(StudyFolder(out))
        with chdir(ROOT):  # the paths in the plans are relative to it
            run_study(path, out, executor_of("local", workers), resume=resume, listener=choose_study_view())


def publish(out: Path, study: Path, images: Path) -> None:
    """Copy what the table needs, and the last sample grid of one seed of each recipe."""
    study.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    folder = StudyFolder(out)
    planned = {run for arm in folder.read_study().arms for run in arm.runs.values()}
    for path in (folder.plan, folder.study):
        shutil.copy(path, study / path.name)
    lines = folder.results.read_text("utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["run"] in planned]
    (study / folder.results.name).write_text("".join(f"{line}\n" for line in kept), "utf-8")
    for arm in folder.read_study().arms:
        grid = newest_grid(folder.runs / arm.runs[GRID_SEED]) if GRID_SEED in arm.runs else None
        if grid is not None:
            shutil.copy(grid, images / f"{arm.base}.png")


def table_rows(out: Path) -> Iterator[list[str]]:
    """The header of the table, a row for each recipe, and the floors of each image size."""
    folder = StudyFolder(out)
    study = folder.read_study()
    results = StudyResults(study, folder.read_results())
    plan = read_plan(folder.plan)
    titles = {label_of(base, data): base for base in plan.base for data in plan.data or ("",)}
    with chdir(ROOT):
        expansion = expand(plan, out, before=study)
    recipes = {arm.base: expansion.recipes[next(iter(arm.runs.values()))] for arm in expansion.study.arms}
    measures = list(dict.fromkeys(measure.name for base in study.bases for measure in base.measures))
    yield ["recipe", "parameters G / D / encoder", "moves D : G", "images", "CPU minutes", "seeds", *measures]
    floors: dict[str, dict[str, float]] = {}
    for one in results.final_values():
        recipe = recipes[one.base]
        with chdir(ROOT):
            source = recipe.data.load().train
        yield _row(titles[one.base], one, measures, recipe, source, results.arms[one.base, one.arm].images)
        height, width = source.shape[-2:]
        known = floors.setdefault(f"real images, {height} x {width} pixels", {})
        known |= {name: floor for name in measures if (floor := results.floor(one.base, name)) is not None}
    for title, known in sorted(floors.items()):
        yield [title, *[""] * 5, *(f"{known[name]:.3g}" if name in known else "" for name in measures)]


def _row(title: str, one: FinalValues, measures: list[str], recipe: Recipe, source: Source, images: int) -> list[str]:
    compute = ComputeSettings(torch.device("cpu"), "fp32")
    game = build_game(recipe, source.spec(), compute, RandomStreams(recipe.seed))
    counts, moves = parameter_counts(game), game.tempo.max_moves
    return [
        title,
        " / ".join(f"{counts[name] / 1e3:,.0f} k" for name in ("g", "d", "e") if name in counts),
        "" if recipe.network.d is None else f"{moves.d} : {moves.g}",
        f"{images / 1000:,.0f} k",
        spread(one.cpu_minutes),
        str(one.seeds),
        *(spread(one.measures.get(name, [])) for name in measures),
    ]


def table(out: Path) -> str:
    """The table in Markdown."""
    header, *rows = (f"| {' | '.join(cells)} |" for cells in table_rows(out))
    return "\n".join([header, "|---" * (header.count("|") - 1) + "|", *rows])


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    name = NAMES[args.colour]
    plan = (study_folder(name) / "plan.toml").read_text("utf-8")
    if args.quick:
        with tempfile.TemporaryDirectory() as folder:
            out, study = Path(folder) / "runs", Path(folder) / "study"
            train(shorten(plan), out, 1)
            publish(out, study, Path(folder) / "images")
            print(table(study))
        return
    out = (args.out or Path("runs") / (f"{name}-{args.data.name}" if args.data else name)).resolve()
    if args.action == "train":
        if args.out is None and not args.data:
            start_from(study_folder(name), out)
        train(plan_on(args.data, plan) if args.data else plan, out, args.workers)
        print(table(out))
    elif args.action == "publish":
        publish(out, study_folder(name), ROOT / "docs" / "images" / name)
    else:
        print(table(out if args.out or args.data else study_folder(name)))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["train", "publish", "table"])
    parser.add_argument("--colour", action="store_true", help="the plan for colour images")
    parser.add_argument("--data", type=Path, metavar="DIR", help="with --colour: your own images")
    parser.add_argument("--out", type=Path, help="the folder of the study")
    parser.add_argument("--workers", type=int, default=2, help="the number of runs at the same time")
    parser.add_argument("--quick", action="store_true", help="two steps of two recipes; not a measurement")
    args = parser.parse_args()
    if args.data and not args.colour:
        parser.error("--data needs --colour")
    if args.data and args.action == "publish":
        parser.error("results on your own images are not published: leave out --data")
    try:
        run(args)
    except PoiseError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
