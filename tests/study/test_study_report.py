"""The report of a study with invented results: its sections, tables, plots and sample grids."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from PIL import Image
from simulated import results_of, study_of

from contracts import synthetic_study
from poise.errors import DiskError, RecipeError
from poise.study.effects import Effect
from poise.study.plots import curve_plot, forest_plot
from poise.study.records import Arm, Better, Comparison, RunResult, Study, StudyBase, StudyMeasure
from poise.study.report import write_report
from poise.study.report_images import ImageFiles
from poise.study.report_tables import failure_table, overview_table, reason_for_seeds, seeds_table
from poise.study.sample_strips import BUDGET, Strip, draw_strips, find_strips, newest_grid
from poise.study.summary import Band, StudyResults
from poise.study.verdicts import analyse
from poise.utils.system import system

EVIL = "<script>x</script>|$y$ & ../z"


def made(study: Study, results: list[RunResult]) -> StudyResults:
    return StudyResults(study, results, analyse(study, results))


@pytest.fixture(scope="module")
def whole() -> StudyResults:
    study = synthetic_study.study()
    return made(study, synthetic_study.results(study))


@pytest.fixture(scope="module")
def report(whole: StudyResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the whole study with its report; the runs on the first base have sample grids."""
    out = tmp_path_factory.mktemp("study")
    for arm in whole.study.arms:
        for seed, run in arm.runs.items() if arm.base == "grid" else ():
            samples = out / "runs" / run / "samples"
            samples.mkdir(parents=True)
            Image.new("L", (30, 30), 10 * int(seed)).save(samples / "step-00000500.png")
            Image.new("L", (30, 30), 255).save(samples / "step-00000000.png")
    assert write_report(whole, out, out / "runs", 'name = "synthetic"\nseeds = 8\n') == out / "report.html"
    return out


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    return (report / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def twin(report: Path) -> str:
    return (report / "report.md").read_text("utf-8")


def html_tables(page: str) -> list[list[list[str]]]:
    return [
        [[unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in table.split("<tr>")[1:]]
        for table in re.findall(r"<table>(.*?)</table>", page, re.DOTALL)
    ]


def markdown_tables(twin: str) -> list[list[list[str]]]:
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", twin, re.MULTILINE):
        header, _, *rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
        tables.append([[unescape(cell.strip()).replace("\\|", "|") for cell in row] for row in (header, *rows)])
    return tables


def section(twin: str, heading: str) -> str:
    """The text under a heading of the Markdown, to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", twin, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def headings(twin: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", twin, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)


# ---------------------------------------------------------------- the two files


def test_the_page_is_self_contained(page: str) -> None:
    sources = re.findall(r'src="([^"]*)"', page)
    assert sources
    assert all(re.match(r"data:image/(png|svg\+xml);base64,", source) for source in sources)
    bare = re.sub(r'src="[^"]*"', "", page)
    for word in ("http", "://", "url(", "@import", "href", "<script", "<link", "file:"):
        assert word not in bare


def test_both_files_have_the_same_tables(page: str, twin: str) -> None:
    assert len(markdown_tables(twin)) > 8
    assert markdown_tables(twin) == html_tables(page)


def test_both_files_have_the_same_images(report: Path, page: str, twin: str) -> None:
    links = re.findall(r"^!\[.*\]\((.*)\)$", twin, re.MULTILINE)
    inside = [base64.b64decode(data) for data in re.findall(r'src="data:[^,]*,([^"]*)"', page)]
    assert [(report / link).read_bytes() for link in links] == inside
    assert {report / link for link in links} == set((report / "report").iterdir())


def test_sections_are_in_order(twin: str) -> None:
    assert [heading for heading in headings(twin) if ":" not in heading] == [
        *("Verdicts", "All numbers", "Forest plots", "Agreement with the literature", "Where seeds were too few"),
        *(
            "Final values",
            "Learning curves",
            "Learning curves where no effect was seen",
            "Samples",
            "grid",
            "digits",
            "colour",
        ),
        *("Failed runs", "Missing runs", "Reproduction", "plan.toml", "Arms"),
    ]


def test_the_same_study_gives_the_same_files(whole: StudyResults, report: Path, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "old.svg").write_text("of an earlier report")
    (tmp_path / "report.md").write_text("an earlier report")
    write_report(whole, tmp_path, report / "runs", 'name = "synthetic"\nseeds = 8\n')
    for path in (*report.glob("report.*"), *(report / "report").iterdir()):
        assert (tmp_path / path.relative_to(report)).read_bytes() == path.read_bytes()
    assert not (tmp_path / "report" / "old.svg").exists()


def test_foreign_names_are_text(tmp_path: Path) -> None:
    base = StudyBase(name=f"base {EVIL}", measures=(StudyMeasure(name=f"fid {EVIL}", better="less"),), summary=EVIL)
    arms = [Arm(base=base.name, name=name, changes=(EVIL,), steps=9, images=9, runs={"0": name, "1": name + "1"})
            for name in ("base", f"tip {EVIL}")]  # fmt: skip
    comparison = Comparison(base=base.name, tip="T1", name=f"tip {EVIL}", treatment=(arms[1].name,), control=("base",))
    study = Study(name=f"study {EVIL}", bases=(base,), arms=tuple(arms), comparisons=(comparison,))
    runs = [run for arm in arms for run in arm.runs.values()]
    values = {base.measures[0].name: 1.5}
    curves = {base.measures[0].name: [(1, 2.5), (9, 1.5)]}
    results = [RunResult(run=run, state="done", step=9, images=9, values=values, curves=curves) for run in runs[:-1]]
    results.append(RunResult(run=runs[-1], state="crashed", reason=EVIL, step=1, images=1))
    write_report(made(study, results), tmp_path / "out", tmp_path / "runs", EVIL)
    page, twin = ((tmp_path / "out" / name).read_text("utf-8") for name in ("report.html", "report.md"))
    assert "<script" not in page
    outside, code = re.subn(r"^```\n.*?^```\n", "", twin, flags=re.MULTILINE | re.DOTALL)
    assert code == 2
    assert "<" not in outside
    assert markdown_tables(twin) == html_tables(page)
    assert len(headings(twin)) == len(re.findall(r"<h\d>", page))
    assert shlex_of(twin) == f"runs/study {EVIL}"
    names = [path.name for path in (tmp_path / "out" / "report").iterdir()]
    assert len(names) == 2
    assert all(re.fullmatch(r"[a-z0-9-]+\.svg", name) for name in names)


def shlex_of(twin: str) -> str:
    """The folder in the command of the section on reproduction."""
    import shlex

    return shlex.split(section(twin, "Reproduction").split("poise study plan.toml --out ")[1].splitlines()[0])[0]


# ---------------------------------------------------------------- what is in it


def test_the_summary_counts_the_runs(twin: str) -> None:
    text = section(twin, "Study: synthetic")
    assert (
        "144 runs: 134 trained to the end, 4 not (4 diverged), 6 missing. 18 arms on 3 bases with 8 seeds each" in text
    )
    assert "for 15 comparisons" in text
    assert "grid: 25 Gaussians in the plane, MLPs with 2 layers of 64. Each run sees 32,000 real images." in text
    assert "A run that ends with modes below 5 counts as failed." in text
    assert "poise 0.1.0; torch 2.14.1; date 2026-11-27 to 2026-11-28; device cpu." in text
    assert "Verdicts: 8 helps, 8 harms, 0 unstable, 4 no effect seen, 0 too few seeds." in text


@pytest.mark.parametrize(("limit", "said"), [(1.0, True), (15.0, False)])
def test_a_limit_that_all_runs_exceed_is_pointed_out(limit: float, said: bool, tmp_path: Path) -> None:
    study = study_of({"base": 6, "tip": 6}, measures=(StudyMeasure(name="fid", better="less", failure=limit),))
    results = results_of(study, {"base": [20.0] * 6, "tip": [10.0] * 6})
    write_report(StudyResults(study, results, analyse(study, results)), tmp_path, tmp_path)
    assert ("All runs did: the limit may be wrong." in (tmp_path / "report.md").read_text()) is said


def test_reproduction_names_the_command_and_the_plan(twin: str) -> None:
    assert "poise study plan.toml --out runs/synthetic\npoise report runs/synthetic\n" in twin
    assert 'name = "synthetic"\nseeds = 8\n```' in section(twin, "plan.toml")


def test_overview_has_all_tips_and_measures(whole: StudyResults, twin: str) -> None:
    table = markdown_tables(twin)[0]
    assert table[0] == [
        *("tip", "grid: modes (more is better)", "grid: high_quality (more is better)"),
        *("digits: fid (less is better)", "colour: fid (less is better)"),
    ]
    assert [row[0] for row in table[1:]] == [
        *("packing (T16)", "sigmoid output (T01)", "identity", "soft labels (T07a)", "dropout in G (T20)"),
    ]
    effects = {(effect.name, effect.base, effect.measure): effect for effect in whole.effects}
    for row, name in zip(table[1:], synthetic_study.TIPS, strict=True):
        found = [effects[name, *key] for key in (("grid", "modes"), ("grid", "high_quality"), ("digits", "fid"))]
        assert row[1:4] == [f"{one.verdict} {one.change} {one.interval}" for one in found]


def test_overview_leaves_cells_empty_where_a_tip_was_not_tried(whole: StudyResults) -> None:
    kept = [effect for effect in whole.effects if (effect.base, effect.name) != ("digits", "packing")]
    rows = {row[0]: row for row in overview_table(kept, whole.study.bases)}
    assert rows["packing (T16)"][3] == ""
    assert all(rows["identity"])


def test_effects_have_failures_and_cost(twin: str) -> None:
    rows = {row[0]: row[1:] for row in markdown_tables(section(twin, "digits: effects on fid (less is better)"))[0]}
    assert rows["tip"] == [
        *("verdict", "effect", "95 % interval", "seeds", "failures with / without", "cost ratio", "expected")
    ]
    assert [rows["soft labels (T07a)"][index] for index in (0, 3, 4, 6)] == ["harms", "8", "4 / 0", "helps"]
    assert float(rows["packing (T16)"][5]) == pytest.approx(2, abs=0.05)
    assert float(rows["soft labels (T07a)"][5]) == pytest.approx(1, abs=0.05)
    rows = {row[0]: row[1:] for row in markdown_tables(section(twin, "colour: effects on fid (less is better)"))[0]}
    assert rows["packing (T16)"][3] == "7"


def test_verdicts_are_coloured_and_named(page: str) -> None:
    tones = {"helps": "good", "harms": "bad", "unstable": "warning", "no effect seen": "neutral"}
    cells = re.findall(r'<td class="words (good|bad|warning|neutral)">(helps|harms|unstable|no effect seen)', page)
    assert len(cells) > 40
    assert all(tones[verdict] == tone for tone, verdict in cells)


def test_agreement_with_the_literature(twin: str) -> None:
    text = section(twin, "Agreement with the literature")
    assert "agree with the published direction: 12 of 16; that disagree: 4;" in text
    rows = [row for row in markdown_tables(text)[0] if row[:2] == ["soft labels (T07a)", "digits"]]
    assert [row[3] for row in rows] == ["helps"]
    assert [row[5] for row in rows] == ["disagrees"]
    assert all(row[0] != "identity" for row in markdown_tables(text)[0])


def test_failed_and_missing_runs_are_listed(whole: StudyResults, twin: str) -> None:
    failed = markdown_tables(section(twin, "Failed runs"))[0][1:]
    assert [row[:6] for row in failed] == [
        ["soft labels", "digits", seed, "diverged", "120", "the loss is nan | twice"] for seed in "0246"
    ]
    missing = markdown_tables(section(twin, "Missing runs"))[0][1:]
    assert [row[0] for row in missing] == ["base", *synthetic_study.TIPS]
    assert {tuple(row[1:]) for row in missing} == {("colour", "7")}
    assert [row[:6] for row in list(failure_table(whole))[1:]] == [row[:6] for row in failed]


def test_runs_that_changed_their_recipes_are_listed(tmp_path: Path) -> None:
    study = study_of({"base": 2, "noise": 2})
    plain = results_of(study, {"base": [1.0, 2.0], "noise": [1.0, 2.0]})
    change = "optimizer.d.lr=5e-5 (d_at_zero, step 300)"
    changed = [plain[0].model_copy(update={"changes": [change]}), *plain[1:]]
    for results in (plain, changed):
        write_report(StudyResults(study, results, analyse(study, results)), tmp_path, tmp_path)
        text = (tmp_path / "report.md").read_text("utf-8")
        assert ("Changed recipes" in text) is (results is changed)
    assert markdown_tables(section(text, "Changed recipes"))[0][1:] == [
        ["base", "digits", "0", change, "digits/base/0"]
    ]


def test_too_few_seeds_are_told(tmp_path: Path) -> None:
    study = synthetic_study.study(seeds=4, bases=synthetic_study.BASES[:1])
    results = made(study, synthetic_study.results(study))
    write_report(results, tmp_path, tmp_path / "runs")
    text = section((tmp_path / "report.md").read_text("utf-8"), "Where seeds were too few")
    assert "10 of 10 effects." in text
    rows = markdown_tables(text)[0][1:]
    assert {(row[3], row[4], row[6]) for row in rows} == {("4", "too few seeds", "fewer than 6 pairs")}
    assert all("[" in row[5] for row in rows)


def test_missed_effects_are_told(whole: StudyResults) -> None:
    """An effect was not seen, but one of half of the control would have been missed as well."""
    effect = next(one for one in whole.effects if one.verdict == "no effect seen")
    assert effect.control_iqm is not None
    assert reason_for_seeds(effect) == ""
    blind = effect._replace(detectable=effect.control_iqm / 2)
    reason = "an effect of 50 % would have been missed in one of five such studies"
    assert reason_for_seeds(blind) == list(seeds_table([blind]))[1][-1] == reason
    wide = blind._replace(detectable=3.7 * effect.control_iqm)
    assert reason_for_seeds(wide) == "an effect of 370 % would have been missed in one of five such studies"
    assert reason_for_seeds(blind._replace(relative=None)) == ""
    assert reason_for_seeds(blind._replace(verdict="helps")) == ""
    near = effect._replace(low=0.1, high=0.2, p_adjusted=0.0625)
    assert reason_for_seeds(near) == "the interval does not contain zero, but the adjusted p is 0.062"


def test_a_measure_that_no_run_has_is_told(tmp_path: Path) -> None:
    study = synthetic_study.study(bases=synthetic_study.BASES[:1])
    results = [
        one.model_copy(update={"values": {name: value for name, value in one.values.items() if name != "high_quality"}})
        for one in synthetic_study.results(study)
    ]
    write_report(made(study, results), tmp_path, tmp_path / "runs")
    twin = (tmp_path / "report.md").read_text("utf-8")
    assert "high_quality could not be computed for any run on grid, so it decides nothing." in twin
    assert "modes could not be computed" not in twin
    with_modes, without = (
        markdown_tables(section(twin, f"grid: effects on {name} (more is better)"))[0][1]
        for name in ("modes", "high_quality")
    )
    assert (with_modes[4], with_modes[5]) == ("8", "0 / 0")
    assert (without[4], without[5]) == ("0", "")


@pytest.mark.parametrize("failed", [("base", "tip"), ("base",)])
def test_a_report_of_runs_that_failed(tmp_path: Path, failed: tuple[str, ...]) -> None:
    """It asks for no seeds, and shows no mean that rests on imputed values."""
    study = study_of({"base": 12, "tip": 12})
    values = {name: [float("nan")] * 12 if name in failed else [20.0] * 11 + [float("nan")] for name in ("base", "tip")}
    write_report(made(study, results_of(study, values)), tmp_path, tmp_path / "runs")
    twin = (tmp_path / "report.md").read_text("utf-8")
    assert "0 of 1 effect." in section(twin, "Where seeds were too few")
    assert ("No run was trained to the end." in twin) == (len(failed) == 2)
    verdict = (
        "no effect seen (all runs fail)"
        if len(failed) == 2
        else "helps (12 of 12 runs fail without it, 1 of 12 with it)"
    )
    row = markdown_tables(section(twin, "All numbers"))[0][1]
    with_it = "" if len(failed) == 2 else "20 (1 of 12 imputed)"
    assert row[3:7] == [verdict, "", with_it, ""]


def test_a_study_without_results(tmp_path: Path) -> None:
    study = synthetic_study.study()
    write_report(made(study, []), tmp_path, tmp_path / "runs")
    twin = (tmp_path / "report.md").read_text("utf-8")
    assert "0 trained to the end, 0 not, 144 missing" in twin
    assert "No run has a result yet." in twin
    assert "All finished runs were trained to the end. Runs that ended beyond the failure limit" in twin
    assert not list((tmp_path / "report").iterdir())
    assert "Forest plots" not in headings(twin)


def test_a_folder_that_cannot_be_written(whole: StudyResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(system, "mkdir", refuse)
    small = StudyResults(whole.study, [], [])
    with pytest.raises(DiskError, match="Permission denied"):
        write_report(small, tmp_path / "out", tmp_path / "runs")
    assert not list(tmp_path.iterdir())


def small_results() -> StudyResults:
    """A study of one run, whose report has one image."""
    base = StudyBase(name="b", measures=(StudyMeasure(name="fid", better="less"),))
    study = Study(
        name="s", bases=(base,), arms=(Arm(base="b", name="base", steps=9, images=9, runs={"0": "a"}),), comparisons=()
    )
    curves = {"fid": [(1, 2.5), (9, 1.5)]}
    return StudyResults(study, [RunResult(run="a", state="done", step=9, images=9, values={"fid": 1.5}, curves=curves)])


class Killed(BaseException):
    """Stands for the death of the process."""


@pytest.mark.parametrize("writes", range(3))
@pytest.mark.parametrize("again", [False, True])
def test_a_report_that_was_interrupted_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int, again: bool
) -> None:
    out, results, left = tmp_path / "out", small_results(), [writes]

    def kill_after(source: Path, target: Path) -> None:
        source.rename(target)
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    if again:
        write_report(results, out, tmp_path / "runs")
    with monkeypatch.context() as patch:
        patch.setattr(system, "replace", kill_after)
        patch.setattr(system, "rename", kill_after)
        with pytest.raises(Killed):
            write_report(results, out, tmp_path / "runs")
    write_report(results, out, tmp_path / "runs")
    assert sorted(path.name for path in out.iterdir()) == ["report", "report.html", "report.md"]


def test_images_without_a_report_are_of_a_report_if_they_have_its_names(tmp_path: Path) -> None:
    """An earlier version of poise wrote them first, and may have been interrupted then."""
    write_report(small_results(), tmp_path, tmp_path / "runs")
    for path in tmp_path.glob("report.*"):
        path.unlink()
    write_report(small_results(), tmp_path, tmp_path / "runs")
    for suffix in (".md", ".html"):
        (tmp_path / f"report{suffix}").unlink()
    (tmp_path / "report" / "mine.svg").write_text("mine")
    with pytest.raises(RecipeError, match=r"--out: 'report' has something in it .*mine.svg; choose another folder, or"):
        write_report(small_results(), tmp_path, tmp_path / "runs")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


# ---------------------------------------------------------------- summaries


def test_runs_that_arms_share_count_once() -> None:
    base = StudyBase(name="b", measures=(StudyMeasure(name="fid", better="less"),))
    arms = tuple(Arm(base="b", name=name, steps=10, images=20, runs={"0": "same"}) for name in ("base", "same"))
    study = Study(name="s", bases=(base,), arms=arms, comparisons=())
    results = StudyResults(study, [RunResult(run=run, state="done", step=1, images=1) for run in ("same", "other")])
    assert results.states() == {"done": 1, "missing": 0}


def two_arms(curves: dict[str, list[list[tuple[int, float]]]], **budgets: int) -> StudyResults:
    """A study of arms with given curves, one for each seed."""
    base = StudyBase(name="b", measures=(StudyMeasure(name="fid", better="less"),))
    arms = tuple(
        Arm(
            base="b",
            name=name,
            steps=10,
            images=budgets.get(name, 20),
            runs={str(k): f"{name}{k}" for k in range(len(one))},
        )
        for name, one in curves.items()
    )
    results = [
        RunResult(run=f"{name}{k}", state="done", step=10, images=20, curves={"fid": curve}, floor={"fid": k + 1.0})
        for name, one in curves.items()
        for k, curve in enumerate(one)
    ]
    return StudyResults(Study(name="s", bases=(base,), arms=arms, comparisons=()), results)


def test_bands_are_median_and_quartiles_over_the_seeds() -> None:
    curves = [[(0, 5.0 * k), (10, float(k))] for k in range(5)]
    results = two_arms({"base": curves})
    band = results.band([results.arms["b", "base"]], "fid")
    assert band == Band([0, 20], [10, 2], [5, 1], [15, 3])
    assert results.band([results.arms["b", "base"]], "kid") is None
    assert results.floor("b", "fid") == 3.0


def test_bands_leave_out_points_of_few_seeds() -> None:
    results = two_arms({"base": [[(0, 1.0), (5, 1.0), (10, 1.0)], [(0, 3.0), (5, 3.0)], [(0, 5.0)]]})
    band = results.band([results.arms["b", "base"]], "fid")
    assert band is not None
    assert band.images == [0, 10]
    assert band.median == [3, 3], "the seed that ends early has the worst value"


@pytest.mark.parametrize(("better", "medians"), [("less", [5, 9]), ("more", [5, 1])])
def test_seeds_that_failed_have_the_worst_value(better: Better, medians: list[float]) -> None:
    """Two of five end after the first point and one before it; those that end early are not the good ones."""
    curves = [[(0, 5.0), (5, 1.0)], [(0, 5.0), (5, 2.0)], [(0, 5.0), (5, 9.0)], [(0, 5.0)], []]
    results = two_arms({"base": curves})
    band = results.band([results.arms["b", "base"]], "fid", better)
    assert band is not None
    assert band.median == medians


def test_points_are_counted_against_all_seeds() -> None:
    results = two_arms({"base": [[(0, 8.0)], [(0, 6.0)], *[[]] * 8]})
    assert results.band([results.arms["b", "base"]], "fid") is None, "eight of ten failed before the first point"


def test_bands_of_several_arms_take_the_mean_for_each_seed() -> None:
    results = two_arms({"a": [[(0, 1.0), (5, 2.0)]], "b": [[(0, 3.0), (10, 4.0)]]})
    band = results.band([results.arms["b", "a"], results.arms["b", "b"]], "fid")
    assert band == Band([0], [2], [2], [2])


def test_curves_are_over_images_not_steps() -> None:
    results = two_arms({"a": [[(0, 1.0), (10, 2.0)]]}, a=1000)
    band = results.band([results.arms["b", "a"]], "fid")
    assert band is not None
    assert band.images == [0, 1000]


def test_cost_is_the_median_of_paired_ratios() -> None:
    base = StudyBase(name="b", measures=(StudyMeasure(name="fid", better="less"),))
    arms = tuple(
        Arm(base="b", name=name, steps=1, images=1, runs={str(k): f"{name}{k}" for k in range(4)}) for name in "tc"
    )
    one = Comparison(base="b", name="n", treatment=("t",), control=("c",))
    costs = {"t0": (30.0, 10), "c0": (10.0, 10), "t1": (8.0, 4), "c1": (4.0, 4), "t2": (9.0, 1), "c2": (1.0, 1)}
    done = [RunResult(run=run, state="done", step=1, images=n, cpu_seconds=s) for run, (s, n) in costs.items()]
    failed = RunResult(run="t3", state="diverged", step=1, images=1, cpu_seconds=1e6)
    study = Study(name="s", bases=(base,), arms=arms, comparisons=(one,))
    assert StudyResults(study, [*done, failed]).cost_ratio(one) == 3.0
    resumed = [run.model_copy(update={"cpu_seconds": 0.0}) if run.run == "t1" else run for run in done]
    assert StudyResults(study, resumed).cost_ratio(one) == 6.0
    assert StudyResults(study, [failed]).cost_ratio(one) is None


@pytest.mark.parametrize(("better", "order"), [("less", ["2", "0", "10"]), ("more", ["10", "0", "2"])])
def test_runs_are_ranked_by_the_measure(better: str, order: list[str]) -> None:
    measure = StudyMeasure.model_validate({"name": "fid", "better": better})
    values = {"10": 9.0, "0": 5.0, "2": 1.0}
    arm = Arm(base="b", name="base", steps=1, images=1, runs={seed: f"r{seed}" for seed in ("10", "0", "2", "1")})
    study = Study(name="s", bases=(StudyBase(name="b", measures=(measure,)),), arms=(arm,), comparisons=())
    done = [RunResult(run=f"r{k}", state="done", step=1, images=1, values={"fid": v}) for k, v in values.items()]
    failed = RunResult(run="r1", state="diverged", step=1, images=1)
    assert [seed for seed, _ in StudyResults(study, [*done, failed]).ranked(arm, measure)] == order


# ---------------------------------------------------------------- plots


def texts(svg: bytes | None) -> list[str]:
    assert svg is not None
    return [unescape(text) for text in re.findall(r"<text[^>]*>(.*?)</text>", svg.decode(), re.DOTALL)]


def labels(effects: list[Effect], names: list[str]) -> list[str]:
    return [text for text in texts(forest_plot(effects)) if text in names]


def test_forest_plots_are_sorted_with_the_best_at_the_top(whole: StudyResults) -> None:
    names = list(synthetic_study.TIPS)
    for base, measure, effects in whole.groups():
        best_first = ["packing", "dropout in G", "identity", "soft labels", "sigmoid output"]
        if base.name == "digits":
            best_first[3:] = sorted(
                best_first[3:], key=lambda name: next(e.effect for e in effects if e.name == name) or 0
            )
        assert labels(effects, names) == best_first[::-1], (base.name, measure)


def test_forest_plots_name_scale_and_direction(whole: StudyResults) -> None:
    effects = [effect for effect in whole.effects if effect.base == "digits"]
    assert "change of fid, % (less is better)" in texts(forest_plot(effects))
    absolute = [effects[0]._replace(relative=None), *effects[1:]]
    assert "change of fid, absolute (less is better)" in texts(forest_plot(absolute))


def test_forest_plots_name_the_verdicts_that_occur(whole: StudyResults) -> None:
    effects = [effect for effect in whole.effects if effect.base == "digits"]
    assert {"helps", "harms", "no effect seen"} <= set(texts(forest_plot(effects)))
    assert "unstable" not in texts(forest_plot(effects))


def test_forest_plots_show_names_literally(whole: StudyResults) -> None:
    effect = whole.effects[0]._replace(name="a $x$ <b> & \x1b", measure="$m_1$ \\frac")
    assert "a $x$ <b> & \\x1b" in texts(forest_plot([effect]))
    assert "change of $m_1$ \\frac, % (more is better)" in texts(forest_plot([effect]))


def test_no_effect_no_plot(whole: StudyResults) -> None:
    assert forest_plot([whole.effects[0]._replace(effect=None, low=None, high=None)]) is None
    assert curve_plot(None, None, "fid", 1.0) is None


def test_an_outlier_does_not_hide_the_rest(whole: StudyResults) -> None:
    """The axis ends where most effects do, and an arrow shows that an interval goes on."""
    effects = [effect for effect in whole.effects if effect.base == "colour"]
    first = effects[0]
    assert first.relative is not None
    outlier = first._replace(name="outlier", relative=first.relative._replace(value=90.0, low=50.0, high=120.0))
    ticks = [float(text.replace("−", "-")) for text in texts(forest_plot([*effects, *effects, outlier]))
             if re.fullmatch(r"−?[\d.]+", text)]  # fmt: skip
    assert 50 < max(ticks) < 500


@pytest.mark.parametrize(("top", "is_log"), [(4.0, False), (100.0, True)])
def test_curves_that_span_magnitudes_have_a_logarithmic_scale(top: float, is_log: bool) -> None:
    band = Band([0, 500, 1000], [top, 2, 1], [top, 2, 1], [top, 2, 1])
    ticks = texts(curve_plot(band, None, "fid", None))
    assert ("50" in ticks) == is_log
    assert "without" not in ticks
    assert "with" in ticks


def test_plots_are_deterministic(whole: StudyResults) -> None:
    assert forest_plot(whole.effects[:1]) == forest_plot(whole.effects[:1])


# ---------------------------------------------------------------- sample grids


def test_newest_grid(tmp_path: Path) -> None:
    assert newest_grid(tmp_path) is None
    (tmp_path / "samples").mkdir()
    for name in ("step-00000500.png", "step-00001000.png", "other.png"):
        (tmp_path / "samples" / name).touch()
    assert newest_grid(tmp_path) == tmp_path / "samples" / "step-00001000.png"


def test_strips_show_best_median_and_worst(whole: StudyResults, report: Path, twin: str) -> None:
    base = whole.study.bases[0]
    strips = [one for one in find_strips(whole, base, report / "runs") if isinstance(one, Strip)]
    assert [strip.arm.name for strip in strips] == ["base", *synthetic_study.TIPS]
    for strip in strips:
        ranked = whole.ranked(strip.arm, base.measures[0])
        assert [path.parts[-3] for path in strip.paths] == [ranked[at][1].run for at in (0, 3, 7)]
        assert strip.caption.startswith(f"{strip.arm.name}: best seed {ranked[0][0]} (modes ")
        assert f"![{strip.caption}](report/samples-grid-" in twin


def test_strips_are_drawn_from_the_newest_grids(whole: StudyResults, report: Path) -> None:
    base = whole.study.bases[0]
    seeds = [seed for seed, _ in whole.ranked(whole.arms["grid", "base"], base.measures[0])]
    with Image.open(report / "report" / "samples-grid-base.png") as image:
        strip = image.convert("L")
    assert strip.size == (3 * 30 + 2 * 6, 30)
    assert [strip.getpixel((at, 15)) for at in (15, 51, 87)] == [10 * int(seeds[at]) for at in (0, 3, 7)]


def test_absent_grids_are_told(twin: str) -> None:
    for base in ("digits", "colour"):
        assert section(twin, base).strip() == "6 arms of 6 without sample grids."


def test_damaged_grids_are_left_out(whole: StudyResults, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    assert draw_strips({"one.png": Strip(whole.study.arms[0], (path,), "c")}) == {}


def test_strips_shrink_to_the_budget(whole: StudyResults, tmp_path: Path) -> None:
    Image.effect_noise((640, 640), 90).save(tmp_path / "noise.png")
    strip = Strip(whole.study.arms[0], (tmp_path / "noise.png",) * 3, "c")
    large = draw_strips({"a.png": strip, "b.png": strip})
    budget = sum(map(len, large.values())) // 3
    small = draw_strips({"a.png": strip, "b.png": strip}, budget)
    assert small.keys() == large.keys()
    assert 0.5 * budget < sum(map(len, small.values())) <= budget
    assert 4 / 3 * BUDGET < 9e6


def test_names_of_files_are_distinct_and_plain(tmp_path: Path) -> None:
    images = ImageFiles(tmp_path)
    paths = [images.add_plot(title, b"<svg/>", "c", 20).path for title in ("A b", "a/b", "a|b", "../a b", "ÄÖ")]
    assert [path.name for path in paths] == ["a-b.svg", "a-b-2.svg", "a-b-3.svg", "a-b-4.svg", "image.svg"]
    assert all(path.parent == tmp_path for path in paths)


# ---------------------------------------------------------------- without torch


def test_reports_import_no_torch() -> None:
    code = (
        "import sys, poise.study.report, poise.study.verdicts; print({'torch', 'torchvision'} & set(sys.modules) or '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
