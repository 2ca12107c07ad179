"""Tests of `python -m poise.study.publish`: from the folders of studies to the verdicts of the catalogue."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poise.errors import CheckpointError, RecipeError
from poise.study import publish as command
from poise.study import statistics
from poise.study.effects import Effect
from poise.study.folder import StudyFolder
from poise.study.publish import publish
from poise.study.records import Arm, Comparison, RunResult, Study, StudyBase, StudyMeasure
from poise.study.verdicts import analyse, judge, verdict_of
from poise.tips.verdicts import PACKAGE, Verdict, changed_files, file_hash, published, read_verdicts, verdicts_text

PACKING, LABELS = "tricks/packing.py", "tricks/soft_labels.py"
FID = StudyMeasure(name="fid", better="less", failure=100.0)
SEEDS = range(8)
WAVE = (0.0, 1.7, -0.4, 2.9, 0.8, -1.3, 2.2, 0.5)
"""Noise that all arms of a seed share in part, so that pairs differ less than seeds."""
FIDS = {
    "base": [50 + 3 * wave for wave in WAVE],
    "packing": [40 + 3 * wave + 0.3 * other for wave, other in zip(WAVE, reversed(WAVE), strict=True)],
    "soft": [52 + 3 * wave - other for wave, other in zip(WAVE, reversed(WAVE), strict=True)],
    "one-sided": [120 + 3 * wave for wave in WAVE],
}


def hash_of(arm: str, seed: int) -> str:
    return f"{list(FIDS).index(arm):06x}{seed:06x}"


def arm(name: str, **components: str) -> Arm:
    runs = {str(seed): hash_of(name, seed) for seed in SEEDS}
    named = {f"tricks.{kind}": file for kind, file in components.items()}
    return Arm(base="digits", name=name, steps=100, images=3200, runs=runs, components=named)


def comparison(tip: str, treatment: str, control: str = "base", **more: Any) -> Comparison:
    return Comparison(base="digits", tip=tip, name=treatment, treatment=(treatment,), control=(control,), **more)


STUDY = Study(
    name="made",
    bases=(StudyBase(name="digits", measures=(FID, StudyMeasure(name="recall", better="more")), summary="Digits."),),
    arms=(
        arm("base"),
        arm("packing", packing=PACKING),
        arm("soft", soft_labels=LABELS),
        arm("one-sided", soft_labels=LABELS, packing=PACKING),
    ),
    comparisons=(
        comparison("T16", "packing", expected="helps"),
        comparison("T07a", "soft"),
        comparison("T07a", "one-sided", "soft"),
        Comparison(base="digits", name="not a tip", treatment=("soft",), control=("packing",)),
    ),
    sources={PACKING: file_hash(PACKAGE / PACKING), LABELS: file_hash(PACKAGE / LABELS)},
)


def result(name: str, seed: int) -> RunResult:
    versions = {"poise": "0.1.0", "torch": "2.9.0", "date": f"2026-11-{20 + seed}"}
    values = {"fid": FIDS[name][seed], "recall": 0.5 + seed / 100}
    return RunResult(run=hash_of(name, seed), state="done", step=100, images=3200, values=values, versions=versions)


RESULTS = [result(name, seed) for name in FIDS for seed in SEEDS]

COMMITTED = [Path(__file__).parents[2] / "benchmarks" / "studies" / name for name in ("tips", "packing")]

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a study's folder into a repository at `tmp_path`."""

    def write(study: Study = STUDY, results: list[RunResult] = RESULTS, folder: str = "studies/made") -> Path:
        files = StudyFolder(tmp_path / folder)
        files.path.mkdir(parents=True)
        files.plan.write_text(f'name = "{study.name}"\n')
        files.write_study(study)
        for one in results:
            files.append_result(one)
        return files.path

    return write


def test_every_comparison_about_a_tip_has_a_verdict_for_each_measure(write: Write, tmp_path: Path) -> None:
    verdicts = publish([write()], tmp_path)
    assert [(one.tip, one.name, one.measure, one.verdict) for one in verdicts] == [
        ("T07a", "soft", "fid", "no effect seen"),
        ("T07a", "soft", "recall", "no effect seen"),
        ("T07a", "one-sided", "fid", "harms"),
        ("T07a", "one-sided", "recall", "unstable"),
        ("T16", "packing", "fid", "helps"),
        ("T16", "packing", "recall", "no effect seen"),
    ]


def test_a_verdict_has_the_numbers_of_the_analysis_and_says_how_to_repeat_it(write: Write, tmp_path: Path) -> None:
    (packing,) = (one for one in publish([write()], tmp_path) if (one.tip, one.measure) == ("T16", "fid"))
    (effect,) = (one for one in analyse(STUDY, RESULTS) if (one.tip, one.measure) == ("T16", "fid"))
    assert effect.effect is not None
    assert effect.relative is not None
    assert packing.effect == pytest.approx(effect.effect, rel=1e-5)
    assert (packing.relative_low, packing.relative_high) == pytest.approx(effect.relative[1:], rel=1e-5)
    assert packing.effect == pytest.approx(-10, abs=1)
    assert -0.25 < packing.relative_low < packing.relative_high < -0.15  # type: ignore[operator]
    assert packing.text == effect.text
    assert (packing.seeds, packing.failures, packing.control_failures) == (8, 0, 0)
    assert (packing.data, packing.summary, packing.expected) == ("digits", "Digits.", "helps")
    assert (packing.budget.images, packing.budget.steps) == (3200, 100)
    assert (packing.study.name, packing.study.plan) == ("made", "studies/made/plan.toml")
    assert packing.date == "2026-11-27"
    assert packing.versions == {"poise": "0.1.0", "torch": "2.9.0"}


def test_the_recipes_are_those_of_the_first_seed_in_the_study(write: Write, tmp_path: Path) -> None:
    arms = {arm.name: arm for arm in STUDY.arms}
    for one in publish([write()], tmp_path):
        (made,) = (other for other in STUDY.comparisons if (other.tip, other.name) == (one.tip, one.name))
        assert one.recipe.treatment == tuple(arms[name].runs["0"] for name in made.treatment)
        assert one.recipe.control == tuple(arms[name].runs["0"] for name in made.control)


def test_the_first_seed_is_the_first_that_both_arms_have(write: Write, tmp_path: Path) -> None:
    missing = {hash_of("packing", 0), hash_of("base", 1)}
    folder = write(results=[one for one in RESULTS if one.run not in missing])
    packing = publish([folder], tmp_path)[-1]
    assert (packing.seeds, packing.verdict) == (6, "no effect seen")
    assert packing.recipe.treatment == (hash_of("packing", 2),)
    assert packing.recipe.control == (hash_of("base", 2),)


def test_the_components_of_both_arms_are_recorded_with_their_hashes(write: Write, tmp_path: Path) -> None:
    recorded = {one.name: one.components for one in publish([write()], tmp_path)}
    assert set(recorded["packing"]) == {"tricks.packing"}
    assert set(recorded["one-sided"]) == {"tricks.packing", "tricks.soft_labels"}
    assert recorded["packing"]["tricks.packing"].file == PACKING
    assert recorded["packing"]["tricks.packing"].sha256 == file_hash(PACKAGE / PACKING)


def test_the_hash_is_that_of_the_file_when_the_study_began(write: Write, tmp_path: Path) -> None:
    folder = write(STUDY.model_copy(update={"sources": {PACKING: "0" * 64, LABELS: "1" * 64}}))
    packing = publish([folder], tmp_path)[-1]
    assert packing.components["tricks.packing"].sha256 == "0" * 64
    assert packing.stale_files == (PACKING,)


def test_publishing_again_makes_no_stale_verdict_current(write: Write, tmp_path: Path) -> None:
    package = tmp_path / "package"
    for file in (PACKING, LABELS):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text("before\n")

    def stale(verdicts: list[Verdict]) -> set[str]:
        return {one.name for one in verdicts if changed_files(one.components.values(), package)}

    recorded = {file: file_hash(package / file) for file in (PACKING, LABELS)}
    whole = write(STUDY.model_copy(update={"sources": recorded}))
    verdicts = publish([whole], tmp_path)
    assert stale(verdicts) == set()
    (package / PACKING).write_text("after\n")
    partial = write(STUDY.model_copy(update={"sources": {LABELS: recorded[LABELS]}}), folder="studies/earlier")
    for folder in (whole, partial):
        again = publish([folder], tmp_path, verdicts)
        assert stale(again) == {"packing", "one-sided"}
        assert [one.components for one in again] == [one.components for one in verdicts]
    with pytest.raises(
        RecipeError,
        match=r"has the hash of the source file of tricks.packing, found tricks/packing.py; repeat the study",
    ):
        publish([partial], tmp_path, [])


def test_publishing_the_committed_effects_again_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their dates, recipes and source files, and the verdicts from their numbers; the slow test computes these too."""
    committed = [one for group in published().values() for one in group]

    def recorded(study: Study, results: object) -> list[Effect]:
        effects = [effect_of(one) for one in committed if one.study.name == study.name]
        judged = zip(judge(effects), effects, strict=True)  # with failures adjusted, and p as it was
        return [one._replace(verdict=verdict_of(one._replace(p_adjusted=other.p))) for one, other in judged]

    monkeypatch.setattr(command, "analyse", recorded)
    left_out = {"p_adjusted", "relative", "relative_low", "relative_high", "text"}
    assert [one.model_dump(exclude=left_out) for one in publish(COMMITTED)] == [
        one.model_dump(exclude=left_out) for one in committed
    ]


def effect_of(one: Verdict) -> Effect:
    """The effect of a verdict, as far as it is recorded."""
    known = {field: getattr(one, field) for field in Effect._fields if hasattr(one, field)}
    p_failures = statistics.more_failures_p(one.failures, one.control_failures, one.seeds)
    p_fewer = statistics.more_failures_p(one.control_failures, one.failures, one.seeds)
    fields = dict.fromkeys(Effect._fields) | known | {"base": one.data, "p": one.p_adjusted, "relative": None}
    return Effect(**fields | {"p_failures": p_failures, "p_fewer_failures": p_fewer})


@pytest.mark.slow
def test_publishing_the_committed_studies_writes_the_committed_file() -> None:
    assert verdicts_text(publish(COMMITTED)) == (PACKAGE / "tips/verdicts.json").read_text("utf-8")


def test_the_mean_over_arms_names_the_recipes_of_all(write: Write, tmp_path: Path) -> None:
    factor = Comparison(
        base="digits", tip="T16", name="packed", treatment=("packing", "one-sided"), control=("base", "soft")
    )
    (one, _) = publish([write(STUDY.model_copy(update={"comparisons": (factor,)}))], tmp_path)
    assert one.recipe.treatment == (hash_of("packing", 0), hash_of("one-sided", 0))
    assert one.recipe.control == (hash_of("base", 0), hash_of("soft", 0))


def test_fewer_than_two_pairs_are_left_out(write: Write, tmp_path: Path) -> None:
    folder = write(results=[one for one in RESULTS if one.run[:6] != "000001" or one.run.endswith("3")])
    assert {one.tip for one in publish([folder], tmp_path)} == {"T07a"}


def test_earlier_studies_come_first(write: Write, tmp_path: Path) -> None:
    first, second = write(), write(STUDY.model_copy(update={"name": "again"}), folder="studies/again")
    for folders, names in (([first, second], ["made", "again"]), ([second, first], ["again", "made"])):
        verdicts = publish(folders, tmp_path)
        assert [one.tip for one in verdicts] == ["T07a"] * 8 + ["T16"] * 4
        assert [one.study.name for one in verdicts if one.tip == "T16"] == [name for name in names for _ in range(2)]


def test_the_same_studies_give_the_same_file(write: Write, tmp_path: Path) -> None:
    first = verdicts_text(publish([write()], tmp_path))
    shuffled = verdicts_text(publish([write(results=RESULTS[::-1], folder="other")], tmp_path))
    assert shuffled == first.replace("studies/made", "other")
    assert verdicts_text(read_verdicts(first)) == first
    for one in read_verdicts(first):
        for number in (one.effect, one.low, one.high, one.relative, one.p_adjusted, one.detectable):
            assert number is None or number == float(f"{number:.6g}")


def test_what_cannot_be_published(write: Write, tmp_path: Path) -> None:
    folder = write()
    with pytest.raises(RecipeError, match="the plan of a published study is in the repository"):
        publish([folder], tmp_path / "elsewhere")
    with pytest.raises(RecipeError, match="another study has the same name"):
        publish([folder, folder], tmp_path)
    with pytest.raises(RecipeError, match="not a study"):
        publish([tmp_path], tmp_path)
    unknown = STUDY.model_copy(update={"name": "unknown", "comparisons": (comparison("T99", "packing"),)})
    with pytest.raises(RecipeError, match="no such tip, found 'T99'"):
        publish([write(unknown, folder="unknown")], tmp_path)
    (folder / "study.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        publish([folder], tmp_path)


def test_the_command(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write()
    (tmp_path / "tips").mkdir()
    monkeypatch.setattr(command, "PACKAGE", tmp_path)
    monkeypatch.setattr(command, "REPOSITORY", tmp_path)
    monkeypatch.setattr(sys, "argv", ["publish", str(folder)])
    command.main()
    stored = (tmp_path / "tips/verdicts.json").read_text("utf-8")
    assert read_verdicts(stored) == tuple(publish([folder], tmp_path))
    assert capsys.readouterr().out == "6 verdicts on 2 tips from 1 study\n"
    monkeypatch.setattr(sys, "argv", ["publish", str(folder), str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith(f"poise: {tmp_path}: not a study")
    assert (tmp_path / "tips/verdicts.json").read_text("utf-8") == stored, "nothing is written on an error"
