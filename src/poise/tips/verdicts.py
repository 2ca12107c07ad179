"""The verdicts measured here: the records of `verdicts.json`, their text, and whether they are still current. No torch.

`python -m poise.study.publish` writes the file from the results of studies. docs/studies.md says how a verdict is made.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict, TypeAdapter

from poise.core.config import Config

VerdictName = Literal["helps", "harms", "no effect seen", "unstable", "too few seeds"]
Hashes = Annotated[tuple[str, ...], Strict(False)]

PACKAGE = Path(__file__).parents[1]
"""The folder of the installed package, to which the files of components are relative."""

NOT_MEASURED = "not measured"
"""What is shown for a tip without a verdict."""


class Budget(Config):
    """What each run with the tip was given.

    Attributes:
        images: the real images that D saw.
        steps: the steps.
    """

    images: int
    steps: int


class StudyReference(Config):
    """The study that measured a verdict.

    Attributes:
        name: its name.
        plan: the path of its plan in the repository.
    """

    name: str
    plan: str


class PairRecipes(Config):
    """The hashes of the recipes of the first seed; several if the effect is a mean over several arms.

    Attributes:
        treatment: those with the tip.
        control: those without it.
    """

    treatment: Hashes
    control: Hashes


class ComponentFile(Config):
    """The source file of a component when the verdict was published.

    Attributes:
        file: its path relative to the package, such as "tricks/packing.py".
        sha256: the hash of its content, see `file_hash`.
    """

    file: str
    sha256: str


class Verdict(Config):
    """What a study found about a tip: one way to apply it, on one base and one measure.

    Attributes:
        tip: the id of the tip, such as "T16".
        name: what was compared, such as "packing".
        data: the name of the base, such as "digits".
        summary: the data, the networks and the budget in a sentence.
        measure: the measure that decided.
        better: whether less or more of it is better.
        effect: the difference of the interquartile means, with the tip minus without it;
            None, as is all that follows from it, if too few runs had a value.
        low: the lower end of its interval of 95 %.
        high: the upper end.
        relative: the effect as a fraction of the interquartile mean without the tip; None if that makes no sense.
        relative_low: the lower end of the interval, as such a fraction.
        relative_high: the upper end.
        seeds: the number of pairs of runs.
        failures: how many of the runs with the tip failed.
        control_failures: how many of those without it failed.
        verdict: the verdict.
        p_adjusted: the p-value, adjusted for all tips on this base and measure.
        detectable: the smallest effect that this number of seeds finds in four of five studies.
        expected: what the literature says; empty if it says nothing.
        budget: what each run was given.
        study: the study.
        recipe: the recipes of the first pair.
        date: the day of the last run, such as "2026-11-27".
        versions: of poise and torch.
        components: the file of each component that the arms add to the base, remove or alter.
        text: the verdict in one line, such as "helps -12 % [-19, -4], 10 seeds, digits".
    """

    tip: str
    name: str
    data: str
    summary: str = ""
    measure: str
    better: Literal["less", "more"]
    effect: float | None
    low: float | None
    high: float | None
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    seeds: int
    failures: int
    control_failures: int
    verdict: VerdictName
    p_adjusted: float | None
    detectable: float | None
    expected: Literal["", "helps", "harms", "no effect seen"] = ""
    budget: Budget
    study: StudyReference
    recipe: PairRecipes
    date: str
    versions: dict[str, str]
    components: dict[str, ComponentFile] = Field(default_factory=dict)
    text: str

    @property
    def stale_files(self) -> tuple[str, ...]:
        """The files of its components that have changed since it was published, or are gone."""
        return changed_files(self.components.values())

    @property
    def stale_note(self) -> str:
        """A note that names these files; empty if the verdict is current."""
        return f"stale: {', '.join(self.stale_files)} changed since" if self.stale_files else ""


VERDICTS = TypeAdapter(tuple[Verdict, ...])
"""The content of `verdicts.json`, a list."""


def file_hash(path: Path) -> str:
    r"""The SHA-256 of a source file in which each line ends in "\n", whatever the system wrote; empty if it is gone."""
    try:
        return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    except OSError:
        return ""


class Revision(Config):
    """A change of a source file that left what it computes as it was, such as a new function or another docstring.

    Attributes:
        file: the file, relative to the package.
        old: the hash before the change.
        new: the hash after it.
        reason: what shows that nothing else changed.
    """

    file: str
    old: str
    new: str
    reason: str = Field(min_length=10)


REVISIONS = TypeAdapter(tuple[Revision, ...])
"""The content of `revisions.json`, a list in the order of the changes. `python -m poise.tips.revise` adds to it."""


@cache
def revisions() -> tuple[Revision, ...]:
    """The revisions that ship with poise."""
    return REVISIONS.validate_json((files("poise.tips") / "revisions.json").read_bytes())


def equivalent_hashes(part: ComponentFile, known: Iterable[Revision]) -> frozenset[str]:
    """The recorded hash of a component's file and those of its later revisions."""
    hashes = {part.sha256}
    for revision in known:
        if revision.file == part.file and revision.old in hashes:
            hashes.add(revision.new)
    return frozenset(hashes)


def changed_files(components: Iterable[ComponentFile], package: Path = PACKAGE) -> tuple[str, ...]:
    """The files that are neither as recorded nor a known revision of that, or are gone, in alphabetical order.

    Args:
        components: the recorded files.
        package: the folder that they are relative to.
    """
    known = revisions()
    changed = {part.file for part in components if file_hash(package / part.file) not in equivalent_hashes(part, known)}
    return tuple(sorted(changed))


def read_verdicts(text: str) -> tuple[Verdict, ...]:
    """The verdicts of a file like `verdicts.json`.

    Raises:
        pydantic.ValidationError: the text is not a list of such records.
    """
    return VERDICTS.validate_json(text)


def verdicts_text(verdicts: Iterable[Verdict]) -> str:
    """The text of a file like `verdicts.json`, which `read_verdicts` reads."""
    return VERDICTS.dump_json(tuple(verdicts), indent=1).decode() + "\n"


@cache
def published() -> dict[str, tuple[Verdict, ...]]:
    """The verdicts that ship with poise, by the id of the tip."""
    verdicts = read_verdicts((files("poise.tips") / "verdicts.json").read_text("utf-8"))
    return {tip: tuple(v for v in verdicts if v.tip == tip) for tip in dict.fromkeys(v.tip for v in verdicts)}


def leading(verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """The verdicts that stand for a tip in a list: one per data set, its first measure.

    They are those of the arm that was measured on the most data sets; of several such arms, of the first.
    """
    on: dict[str, dict[str, Verdict]] = {}
    for verdict in verdicts:
        on.setdefault(verdict.name, {}).setdefault(verdict.data, verdict)
    return tuple(max(on.values(), key=len).values()) if on else ()


def leading_arm(verdicts: tuple[Verdict, ...]) -> str:
    """The name of the arm of `leading`, as `packing (1 of 2 arms)` if there are others; empty without verdicts."""
    names = {verdict.name for verdict in verdicts}
    several = f" (1 of {len(names)} arms)" if len(names) > 1 else ""
    return f"{leading(verdicts)[0].name}{several}" if verdicts else ""


def by_arm(verdicts: tuple[Verdict, ...]) -> list[list[Verdict]]:
    """The verdicts in groups, one for each arm of each study."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.study.plan, verdict.name), []).append(verdict)
    return list(groups.values())


def data_names(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], str]:
    """What the data of the verdicts is called, by `data` and `summary`: the name of the base, such as "digits".

    Where studies have different bases of that name, the study is named too: "grid, study packing".
    """
    studies = {(verdict.data, verdict.summary): verdict.study.name for verdict in verdicts}
    count = Counter(data for data, _ in studies)
    return {base: base[0] if count[base[0]] == 1 else f"{base[0]}, study {name}" for base, name in studies.items()}


def format_effect(verdict: Verdict) -> str:
    """The change of the measure with its interval, as `-12 % [-19, -4]`; a dash if there were too few pairs.

    It is in percent of the value without the tip, or in units of the measure if percentages make no sense.
    """
    values, unit = (verdict.effect, verdict.low, verdict.high), ""
    if verdict.relative is not None and verdict.relative_low is not None and verdict.relative_high is not None:
        values, unit = (100 * verdict.relative, 100 * verdict.relative_low, 100 * verdict.relative_high), " %"
    known = [value for value in values if value is not None]
    if len(known) < 3:
        return "-"
    decimals = _decimals(known)
    value, low, high = (f"{round(value, decimals) + 0.0:,.{decimals}f}" for value in known)
    return f"{'+' if known[0] > 0 else ''}{value}{unit} [{low}, {high}]"


def _decimals(values: list[float]) -> int:
    """The decimals that give the largest of the values two digits."""
    largest = max(map(abs, values))
    return max(0, 1 - math.floor(math.log10(largest))) if largest else 0


def short_text(verdict: Verdict) -> str:
    """The verdict on its data set, as `helps -12 % [-19, -4] digits` or `no effect seen grid (stale)`."""
    effect = f" {format_effect(verdict)}" if verdict.verdict in ("helps", "harms") else ""
    return f"{verdict.verdict}{effect} {verdict.data}{' (stale)' if verdict.stale_files else ''}"
