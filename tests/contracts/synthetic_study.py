"""A study with invented results: three bases, tips of known effect, failed runs and missing runs."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

from poise.study.folder import StudyFolder
from poise.study.records import Arm, Comparison, Expected, RunResult, Study, StudyBase, StudyMeasure

BASES = (
    StudyBase(
        name="grid",
        measures=(
            StudyMeasure(name="modes", better="more", failure=5.0),
            StudyMeasure(name="high_quality", better="more"),
        ),
        summary="25 Gaussians in the plane, MLPs with 2 layers of 64",
    ),
    StudyBase(name="digits", measures=(StudyMeasure(name="fid", better="less"),), summary="digits at 16 pixels"),
    StudyBase(name="colour", measures=(StudyMeasure(name="fid", better="less"),)),
)
LEVELS = {"modes": 16.0, "high_quality": 0.6, "fid": 40.0}
TIPS: dict[str, tuple[str, float, Expected]] = {
    "packing": ("T16", 0.35, "helps"),
    "sigmoid output": ("T01", -0.5, "harms"),
    "identity": ("", 0.0, ""),
    "soft labels": ("T07a", -0.3, "helps"),
    "dropout in G": ("T20", 0.05, "helps"),
}
"""Id, improvement as a fraction of the level, and what the literature says."""

STEPS, BATCH = 500, 64


def run_hash(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode()).hexdigest()[:12]


def study(seeds: int = 8, tips: Sequence[str] = tuple(TIPS), bases: Sequence[StudyBase] = BASES) -> Study:
    arms, comparisons = [], []
    for base in bases:
        for name in ("base", *tips):
            runs = {str(seed): run_hash(base.name, name, str(seed)) for seed in range(seeds)}
            changes = () if name == "base" else (f'tricks+=[{{kind="{name}"}}]',)
            arms.append(Arm(base=base.name, name=name, changes=changes, steps=STEPS, images=STEPS * BATCH, runs=runs))
        for name in tips:
            tip, _, expected = TIPS.get(name, ("T99", 0.0, ""))
            comparisons.append(
                Comparison(base=base.name, tip=tip, name=name, treatment=(name,), control=("base",), expected=expected)
            )
    return Study(name="synthetic", bases=tuple(bases), arms=tuple(arms), comparisons=tuple(comparisons))


def write(path: Path) -> Path:
    """Write a study of one base and two tips, with its results, to a new folder."""
    folder = StudyFolder(path)
    folder.path.mkdir()
    study_of_two = study(8, ("packing", "identity"), BASES[1:2])
    folder.write_study(study_of_two)
    lines = [json.dumps(one.model_dump(mode="json")) for one in results(study_of_two)]
    folder.results.write_text("".join(f"{line}\n" for line in lines))
    return path


def result(base: StudyBase, arm: str, seed: str, run: str) -> RunResult:
    """A finished run. The seed shifts the runs of all arms alike, as in a paired study."""
    shared, own = random.Random(f"{base.name} {seed}"), random.Random(run)
    _, improvement, _ = TIPS.get(arm, ("", 0.0, ""))
    values, curves = {}, {}
    for measure in base.measures:
        level = LEVELS[measure.name]
        sign = 1 if measure.better == "more" else -1
        values[measure.name] = level * (1 + sign * improvement + 0.05 * shared.gauss(0, 1) + 0.02 * own.gauss(0, 1))
        start = 0.1 * level if measure.better == "more" else 9 * level
        shares = [2.0 ** (-5 * at / 10) for at in range(11)]
        curves[measure.name] = [
            (at * STEPS // 10, values[measure.name] + share * (start - values[measure.name]))
            for at, share in enumerate(shares)
        ]
    return RunResult(
        run=run,
        state="done",
        step=STEPS,
        images=STEPS * BATCH,
        values=values,
        floor={measure.name: 0.9 for measure in base.measures if measure.name != "modes"},
        curves=curves,
        cpu_seconds=(20.0 if arm == "packing" else 10.0) * (1 + 0.01 * own.random()),
        versions={"poise": "0.1.0", "torch": "2.14.1", "date": f"2026-11-{27 + int(seed) % 2}", "device": "cpu"},
    )


def results(of: Study) -> list[RunResult]:
    """On digits, "soft labels" diverges with every even seed; on colour, the last seed has not been run."""
    bases = {base.name: base for base in of.bases}
    found = []
    for arm in of.arms:
        for seed, run in arm.runs.items():
            done = result(bases[arm.base], arm.name, seed, run)
            if arm.base == "colour" and seed == str(len(arm.runs) - 1):
                continue
            if (arm.base, arm.name) == ("digits", "soft labels") and int(seed) % 2 == 0:
                failed = {"state": "diverged", "reason": "the loss is nan | twice", "step": 120, "values": {}}
                done = RunResult.model_validate(done.model_dump() | failed)
            found.append(done)
    return found
