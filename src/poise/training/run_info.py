"""What is said of a run: before its first step, after its last one, and in `run.json`."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from poise.data.domains import TwoDomains
from poise.data.source import BadFile, SizedSource, SkippedFolder, Source
from poise.engine.compute import ComputeSettings
from poise.engine.game import Game
from poise.engine.initial_weights import NETWORK_NAMES
from poise.errors import DiskError
from poise.recipe.model import Recipe
from poise.runs.changes import Changes, changes_to_json, describe_with_cause
from poise.runs.code_copies import code_contents
from poise.runs.folder import RunFolder
from poise.runs.reload import DATA_ROOT
from poise.training.alarms import AlarmHandler
from poise.training.evaluation import PeriodicEvaluator
from poise.training.listener import StartInfo
from poise.training.state import TrainState
from poise.utils.files import make_folder, write_bytes, write_text
from poise.utils.printing import count_noun, shape_text
from poise.utils.system import disk_errors
from poise.watch.base import Alarm

MAX_BAD_NOTES = 10


def parameter_counts(game: Game) -> dict[str, int]:
    """The number of parameters of each player and of G's encoder."""
    nets = {side.value: player.net for side, player in game.players.items()}
    nets |= {} if game.g.encoder is None else {"e": game.g.encoder}
    return {name: sum(weight.numel() for weight in net.parameters()) for name, net in nets.items()}


def frozen_counts(game: Game) -> dict[str, int]:
    """The number of parameters that are not trained, for each player that has any."""
    counts = {
        NETWORK_NAMES[side.value]: sum(weight.numel() for weight in player.net.parameters() if not weight.requires_grad)
        for side, player in game.players.items()
    }
    return {label: count for label, count in counts.items() if count}


def start_info(
    recipe: Recipe,
    game: Game,
    source: Source,
    compute: ComputeSettings,
    first: int,
    notes: list[str],
    folder: RunFolder,
) -> StartInfo:
    """The information for listeners before the first step."""
    sizes = parameter_counts(game)
    shape = shape_text(source.shape, source.parts)
    data = f"{_count(source)}, {shape}" if isinstance(source, SizedSource) else source.contents
    parameters = ", ".join(f"{label} {sizes[name]:,}" for name, label in NETWORK_NAMES.items() if name in sizes)
    facts = [
        f"{recipe.data.tag()}: {data}",
        f"parameters: {parameters}",
        *[f"frozen: {count:,} of {label}'s parameters" for label, count in frozen_counts(game).items()],
        f"{compute.device}, {compute.precision}, {count_noun(torch.get_num_threads(), 'thread')}",
    ]
    return StartInfo(
        name=recipe.name,
        first=first,
        steps=recipe.steps,
        batch=recipe.batch,
        lines=[*facts, *notes],
        equilibrium=recipe.objective.equilibrium,
        folder=str(folder.path),
        measure_every=recipe.measure.every if recipe.measure else 0,
    )


def _count(source: SizedSource) -> str:
    """The number of images; of pairs, or of each domain, if there are two."""
    if isinstance(source, TwoDomains):
        return " and ".join(count_noun(len(domain), "image") for domain in source.domain_sources)
    return count_noun(len(source), "pair" if source.paired else "image")


def closing_messages(
    folder: RunFolder,
    step: int,
    alarm_handler: AlarmHandler,
    evaluator: PeriodicEvaluator | None,
    *,
    translates: bool = False,
    labelled: bool = False,
    changes: Changes = (),
) -> list[str]:
    """The messages after the last step: the best measure, where the samples are, and last how the run has ended.

    Args:
        folder: the run folder.
        step: the number of steps done.
        alarm_handler: knows the alarms of the run.
        evaluator: knows its measures, if it has any.
        translates: whether G starts from images.
        labelled: whether such a G takes labels.
        changes: the changes of the recipe that are in force.
    """
    summary, option = "", ""
    if evaluator is not None:
        summary = evaluator.summary()
        is_better = evaluator.can_rank and evaluator.best_is_kept and not evaluator.is_best(step)
        option = " --best" if is_better else ""
    grid, run = max(folder.samples.glob("step-*.png"), default=folder.path), shlex.quote(str(folder.path))
    more = f"to generate more samples: poise sample {run}{option}"
    if translates:
        label = " --label CLASS" if labelled else ""
        more = f"to translate images: poise translate {run} --data DIR --out DIR{label}{option}"
    changed = "; ".join(map(describe_with_cause, changes))
    return [
        *([f"the recipe was changed on the advice of alarms: {changed}"] if changed else []),
        *([summary] if summary else []),
        f"samples: {grid}",
        more,
        alarm_handler.summary(),
    ]


def describe_return(step: int, alarm: Alarm, sound: int) -> str:
    """To which step a run has been rolled back, and why to this one.

    Args:
        step: the step.
        alarm: the alarm.
        sound: the last step at which the run is taken to be healthy.
    """
    if step == 0 or sound >= alarm.step:
        return f"back to step {step:,}" + (", as there is no checkpoint" if step == 0 and sound > 0 else "")
    began = f"{alarm.detector} began after step {sound:,}"
    if step > sound:
        return f"back to step {step:,}, the oldest checkpoint; {began}, and there is no earlier one"
    return f"back to step {step:,}, as {began}"


def run_json(
    state: TrainState,
    run_state: str,
    seconds: float,
    alarms: Mapping[str, int],
    best: Mapping[str, Any] | None,
    data_root: Path | None = None,
) -> dict[str, Any]:
    """The contents of `run.json`.

    Args:
        state: the training state.
        run_state: "running", "done", "failed" or "stopped".
        seconds: the training time so far.
        alarms: the number of alarms by detector.
        best: the best and the last value of the selecting measure; None if there are none.
        data_root: the folder in which a named data set was looked for; None for the default.
    """
    recipe = state.recipe
    info: dict[str, Any] = {
        "name": recipe.name,
        "state": run_state,
        "step": state.steps_done,
        "steps": recipe.steps,
        "seconds": round(seconds, 3),
        "recipe": recipe.hash,
        **state.trained_with(),
        "data": data_info(recipe, state.source, len(state.data.bad_files)),
        "parameters": parameter_counts(state.game),
        **state.critic_info(),
    }
    if data_root is not None:
        info[DATA_ROOT] = str(data_root.absolute())
    if state.changes:
        info |= {"original": state.original.hash, "changes": changes_to_json(state.changes)}
    if state.num_rollbacks:
        info |= {"setbacks": state.num_rollbacks, "returned_to": list(state.returns)}
    if alarms:
        info["alarms"] = dict(alarms)
    if best:
        info["best"] = best
    return info


def data_info(recipe: Recipe, source: Source, bad: int) -> dict[str, Any]:
    """The description of the data in `run.json`.

    Args:
        recipe: the recipe of the run.
        source: the training data.
        bad: the number of files that could not be used.
    """
    return {
        "kind": recipe.data.tag(),
        "fingerprint": source.fingerprint,
        "shape": list(source.shape),
        **({"parts": list(source.parts)} if source.parts else {}),
        "classes": list(source.classes),
        "class_counts": list(source.class_counts),
        "count": len(source) if isinstance(source, SizedSource) else None,
        "bad": bad,
    }


def copy_user_code(recipe: Recipe, folder: RunFolder) -> None:
    """Copy the Python files that the recipe names to the run folder, so that the run can be opened without them.

    Raises:
        DiskError: a file can't be written.
    """
    for name, source in code_contents(recipe).items():
        with disk_errors(folder.code):
            make_folder(folder.code)
        write_bytes(folder.code / name, source)


def write_bad_images(bad: list[BadFile], folder: RunFolder) -> list[str]:
    """List the images that could not be used, with reasons, in `bad_images.csv`; return messages about the first 10."""
    path = folder.path / "bad_images.csv"
    table = StringIO()
    csv.writer(table, lineterminator="\n").writerows([("name", "reason"), *bad])
    try:
        write_text(path, table.getvalue())
    except DiskError as error:  # the run does not need the list
        failure = f"the list of bad images can't be written: {error}"
        return [*bad_image_notes(bad, failure), *[failure] * (len(bad) <= MAX_BAD_NOTES)]
    return bad_image_notes(bad, f"all are listed in {path}")


def bad_image_notes(bad: Sequence[BadFile], where: str = "") -> list[str]:
    """Messages about the first 10 of what can't be used, and the number of the others with `where` these are."""
    kinds = ["skipped folder" if isinstance(one, SkippedFolder) else "bad image" for one in bad[:MAX_BAD_NOTES]]
    notes = [f"{kind}: {one.name}: {one.reason}" for kind, one in zip(kinds, bad, strict=False)]
    more = f"and {len(bad) - MAX_BAD_NOTES:,} more{'; ' * bool(where)}{where}"
    return [*notes, more] if len(bad) > MAX_BAD_NOTES else notes
