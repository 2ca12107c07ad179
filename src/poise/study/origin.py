"""What the result of a run depends on besides its recipe: the data, custom code and the precision.

The hash of a recipe names the location of the data and of Python files, not their content. A study therefore records
the content as well, and refuses to mix results that come from different contents. It also records the source files of
poise on which its verdicts depend, but goes on if they have changed, because most changes do not alter a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from poise.data.source import Source
from poise.engine.compute import ComputeSettings
from poise.errors import DataError, RecipeError
from poise.recipe.model import Recipe
from poise.study.records import Arm, RunResult, Study
from poise.tips.verdicts import PACKAGE, file_hash
from poise.user_code.loading import code_hash
from poise.utils.printing import count_noun


def origin_of(recipe: Recipe, source: Source, compute: ComputeSettings) -> dict[str, str]:
    """The origin of the results of a recipe that is trained now."""
    return _origin(source.fingerprint, code_hash(recipe), compute.precision)


def recorded_origin(info: Mapping[str, Any]) -> dict[str, str]:
    """The origin of the result of a run, from the contents of its `run.json`; empty if the run never began."""
    if "data" not in info:
        return {}
    return _origin(info["data"]["fingerprint"], info.get("code", {}), str(info.get("precision", "")))


def _origin(fingerprint: str, code: Mapping[str, str], precision: str) -> dict[str, str]:
    files = ", ".join(f"{file} {digest}" for file, digest in sorted(code.items()))
    return {"data": fingerprint, "precision": precision} | ({"code": files} if files else {})


def check_origins(
    origins: Mapping[tuple[str, str], dict[str, str]], arms: Iterable[Arm], results: Mapping[str, RunResult]
) -> None:
    """Refuse to add to results that have another origin.

    Args:
        origins: the present origin of each base and arm.
        arms: the arms.
        results: the results so far, by the hash of the recipe.

    Raises:
        DataError: the data has changed.
        RecipeError: custom code or the precision has changed.
    """
    for arm in arms:
        now = origins.get((arm.base, arm.name), {})
        known = [results[run].versions for run in arm.runs.values() if run in results]
        for key, value in now.items():
            others = [versions[key] for versions in known if versions.get(key, value) != value]
            if others:
                error = DataError if key == "data" else RecipeError
                what = f"{count_noun(len(others), 'result')} of this study came from another {NAMES[key]}"
                cure = "restore it, or start a new study with another --out"
                raise error(
                    what, where=f"{arm.base}, arm '{arm.name}'", found=f"{value}, before {others[0]}", cure=cure
                )


def check_origin(expected: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Refuse a result that has another origin than the study, as on a machine with other files at the same paths.

    Args:
        expected: the origin of the arm.
        found: what the result records.
        where: the run folder, for the error.

    Raises:
        DataError, RecipeError: see `check_origins`.
    """
    for key, value in expected.items():
        if not has_origin(found, {key: value}):
            error = DataError if key == "data" else RecipeError
            cure = "copy the files of the machine on which the study was started"
            what = f"was trained with another {NAMES[key]}"
            raise error(what, where=where, found=f"{found[key]} instead of {value}", cure=cure)


def has_origin(found: Mapping[str, str], expected: Mapping[str, str]) -> bool:
    """Whether what a run records is the expected origin; what it does not record is not compared."""
    return all(found.get(key, value) == value for key, value in expected.items())


def add_sources(study: Study, before: Study | None, package: Path = PACKAGE) -> tuple[Study, list[str]]:
    """A study with the hashes of its source files, and a message if some have changed since it began.

    A file that has changed keeps the earlier hash, so that a verdict from both versions counts as stale. A file that
    was not recorded for an arm which the study had already gets no hash, as it may have changed since.

    Args:
        study: the study.
        before: the same study when it was last started, if it is resumed.
        package: the folder that the files are relative to.
    """
    files = sorted({file for arm in study.arms for file in arm.components.values()})
    old, arms = (before.sources, {(arm.base, arm.name) for arm in before.arms}) if before is not None else ({}, set())
    had = {file for arm in study.arms if (arm.base, arm.name) in arms for file in arm.components.values()}
    now = {file: file_hash(package / file) for file in files if file in old or file not in had}
    changed = [file for file in now if old.get(file, now[file]) != now[file]]
    notes = [f"changed since this study began, which makes its verdicts stale: {', '.join(changed)}"] if changed else []
    return study.model_copy(update={"sources": now | {file: old[file] for file in files if file in old}}), notes


NAMES = {"data": "content of the data (fingerprint)", "code": "version of the custom code", "precision": "precision"}
