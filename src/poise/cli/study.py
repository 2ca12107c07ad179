"""`poise study`: trains a recipe with and without each tip, over paired seeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from poise.cli import completion
from poise.cli.options import DataRoot, Device, Text, TrustCode
from poise.utils.printing import count_noun


def study(
    plan: Annotated[Path, typer.Argument(help="The plan, a .toml file.", autocompletion=completion.plans)],
    out: Annotated[Text, typer.Option(help="The study's folder.", show_default="runs/NAME")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Runs at the same time.", show_default="the number of cores; 1 on a GPU"),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Processes of this machine, or a Ray cluster.")
    ] = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and for how long.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the study in --out.")] = False,
    data_root: DataRoot = None,
    device: Device = "auto",
    trust_code: TrustCode = False,
) -> None:
    """Train a recipe with and without each tip over paired seeds; `poise report` shows the verdicts."""
    from poise.cli.study_view import choose_study_view, print_estimate
    from poise.study.engines import executor_of
    from poise.study.execute import run_study
    from poise.study.folder import StudyFolder
    from poise.study.job import CRASH
    from poise.study.plan import read_plan
    from poise.study.prepare import Options

    options = Options(device, data_root, trust_code, engine)
    whole = read_plan(plan)
    folder = Path(out) if out is not None else Path("runs") / whole.name
    workers = workers or _default_workers(device)
    if dry_run:
        print_estimate(plan, StudyFolder(folder), workers, options)
        return
    view = choose_study_view()
    view.on_message("starting ...")
    results = run_study(
        plan,
        folder,
        executor_of(engine, workers),
        resume=resume,
        options=options,
        listener=view,
    )
    if crashed := sum(result.state == "crashed" for result in results):
        where = folder / "runs" / "*" / CRASH
        view.on_message(f"{count_noun(crashed, 'run')} crashed ({where}); continue with --resume to try again")
    view.on_message(f"{'the verdicts' if whole.compares else 'the results'}: poise report {folder}")
    if crashed:
        raise typer.Exit(1)


def _default_workers(device: str) -> int:
    """One for each core; one alone on a GPU, whose memory several runs would have to share."""
    if device == "cpu":
        return os.cpu_count() or 1
    import torch

    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    return 1 if on_gpu else os.cpu_count() or 1
