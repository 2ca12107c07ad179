"""Publishes the verdicts of studies in the catalogue: `python -m poise.study.publish STUDY...`.

It reads the folders of studies, which are in the repository so that anyone can repeat them, and writes all their
verdicts to `src/poise/tips/verdicts.json`; `python -m poise.tips.record` then updates the page of the documentation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from poise.errors import PoiseError, RecipeError
from poise.study.effects import Effect
from poise.study.folder import StudyFolder
from poise.study.records import Arm, Comparison, RunResult, Study
from poise.study.verdicts import analyse
from poise.tips.catalogue import tips
from poise.tips.verdicts import (
    PACKAGE,
    Budget,
    ComponentFile,
    PairRecipes,
    StudyReference,
    Verdict,
    published,
    verdicts_text,
)
from poise.utils.files import write_text
from poise.utils.printing import count_noun, print_error, print_line

REPOSITORY = PACKAGE.parents[1]
"""The folder of the repository, if poise runs from a checkout."""

SIGNIFICANT_DIGITS = 6
"""The digits to which numbers are rounded, so that all machines write the same file."""

COPIED = ("tip", "name", "measure", "better", "seeds", "failures", "control_failures", "verdict", "expected", "text")
ROUNDED = ("effect", "low", "high", "p_adjusted", "detectable")
"""The fields of an effect that a verdict has too, as they are or rounded."""


def publish(
    folders: Iterable[Path], repository: Path = REPOSITORY, earlier: Iterable[Verdict] | None = None
) -> list[Verdict]:
    """The verdicts of all comparisons of some studies that are about a tip.

    Args:
        folders: the folders of the studies. Their order matters: a tip has the verdicts of earlier studies first.
        repository: the folder that the paths of the plans are relative to.
        earlier: the verdicts that are published already, by default those that ship with poise. They have the hashes
            of source files that a study of an earlier version of poise has not recorded.

    Returns:
        The verdicts in the order of the catalogue, and for each tip in that of the studies and their comparisons.
        Comparisons with fewer than two finished pairs are left out.

    Raises:
        RecipeError: a folder is not a study or not in the repository, two studies have the same name, a tip is not in
            the catalogue, or it is not known with which version of its source file a component was trained.
        CheckpointError: a file of a study is damaged.
    """
    if earlier is None:
        earlier = [verdict for group in published().values() for verdict in group]
    hashes: dict[tuple[str, ...], str] = {
        (one.study.name, one.data, one.tip, one.name, part.file): part.sha256
        for one in earlier
        for part in one.components.values()
    }
    order = {tip.id: number for number, tip in enumerate(tips())}
    found: dict[str, list[Verdict]] = {}
    for folder in folders:
        files = StudyFolder(folder)
        study, results = files.read_study(), files.read_results()
        if study.name in found:
            raise RecipeError("another study has the same name", where=str(folder), found=f"'{study.name}'")
        reference = StudyReference(name=study.name, plan=_path_of_plan(files.plan, repository))
        measured = _Measured(study, {result.run: result for result in results}, reference, hashes)
        found[study.name] = list(_verdicts(measured))
    verdicts = [verdict for group in found.values() for verdict in group]
    for verdict in verdicts:
        if verdict.tip not in order:
            cure = "poise tips lists them"
            raise RecipeError("no such tip", where=verdict.study.plan, found=f"'{verdict.tip}'", cure=cure)
    return sorted(verdicts, key=lambda verdict: order[verdict.tip])


def _path_of_plan(plan: Path, repository: Path) -> str:
    whole, root = plan.resolve(), repository.resolve()
    if not whole.is_relative_to(root) or not whole.is_file():
        cure = f"copy plan.toml, study.json and results.jsonl into a folder of {root}"
        raise RecipeError("the plan of a published study is in the repository", where=str(plan), cure=cure)
    return whole.relative_to(root).as_posix()


class _Measured(NamedTuple):
    """A study that is published.

    Attributes:
        study: what it consists of.
        runs: the results of its runs.
        reference: its name and its plan.
        published: the hashes of source files in verdicts that are published already, by the name of the study, the
            base, the tip, the name of the comparison and the file.
    """

    study: Study
    runs: dict[str, RunResult]
    reference: StudyReference
    published: Mapping[tuple[str, ...], str]


def _verdicts(measured: _Measured) -> Iterable[Verdict]:
    """The verdicts of a study, in the order of its comparisons."""
    comparisons = {(one.base, one.name): one for one in measured.study.comparisons}
    for effect in analyse(measured.study, measured.runs.values()):
        if effect.tip and effect.seeds > 1:
            yield _verdict(effect, comparisons[effect.base, effect.name], measured)


def _verdict(effect: Effect, comparison: Comparison, measured: _Measured) -> Verdict:
    arms = {arm.name: arm for arm in measured.study.arms if arm.base == comparison.base}
    treatment, control = ([arms[name] for name in side] for side in (comparison.treatment, comparison.control))
    both = [*treatment, *control]
    first = _first_seed(both, measured.runs)
    done = [measured.runs[run].versions for arm in both for run in arm.runs.values() if run in measured.runs]
    relative = effect.relative or (None, None, None)
    numbers: dict[str, Any] = {name: _rounded(getattr(effect, name)) for name in ROUNDED}
    numbers |= dict(zip(("relative", "relative_low", "relative_high"), map(_rounded, relative), strict=True))
    return Verdict(
        **{name: getattr(effect, name) for name in COPIED},
        **numbers,
        data=effect.base,
        summary=next(base.summary for base in measured.study.bases if base.name == effect.base),
        budget=Budget(images=treatment[0].images, steps=treatment[0].steps),
        study=measured.reference,
        recipe=PairRecipes(
            treatment=tuple(arm.runs[first] for arm in treatment), control=tuple(arm.runs[first] for arm in control)
        ),
        date=max(versions.get("date", "") for versions in done),
        versions={name: ", ".join(sorted({v[name] for v in done if name in v})) for name in ("poise", "torch")},
        components=_components(both, comparison, measured),
    )


def _first_seed(arms: Sequence[Arm], runs: dict[str, RunResult]) -> str:
    """The first seed that all arms have finished."""
    return min((seed for seed in arms[0].runs if all(arm.runs.get(seed) in runs for arm in arms)), key=int)


def _components(arms: Sequence[Arm], comparison: Comparison, measured: _Measured) -> dict[str, ComponentFile]:
    """The components in which any of the arms differs from the base, with the hashes of their files in the study.

    A file that the study has not recorded is never taken as it is now, as it may have changed since.
    """
    components: dict[str, ComponentFile] = {}
    for name, file in sorted(item for arm in arms for item in arm.components.items()):
        key = (measured.study.name, comparison.base, comparison.tip, comparison.name, file)
        sha256 = measured.study.sources.get(file) or measured.published.get(key)
        if not sha256:
            what = f"neither the study nor a published verdict has the hash of the source file of {name}"
            cure = "repeat the study with this version of poise, with another --out"
            raise RecipeError(what, where=measured.reference.plan, found=file, cure=cure)
        components[name] = ComponentFile(file=file, sha256=sha256)
    return components


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def main() -> None:
    """Write `verdicts.json` from the studies named on the command line."""
    folders = [Path(word) for word in sys.argv[1:]]
    try:
        if not folders:
            raise RecipeError(
                "name the folders of studies", where="STUDY", cure="python -m poise.study.publish STUDY..."
            )
        verdicts = publish(folders, REPOSITORY)
        write_text(PACKAGE / "tips" / "verdicts.json", verdicts_text(verdicts))
    except PoiseError as error:
        print_error(str(error))
        raise SystemExit(error.exit_code) from None
    measured = count_noun(len({verdict.tip for verdict in verdicts}), "tip")
    print_line(
        f"{count_noun(len(verdicts), 'verdict')} on {measured} from {count_noun(len(folders), 'study', 'studies')}"
    )


if __name__ == "__main__":
    main()
