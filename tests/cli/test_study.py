"""`poise study`: what is printed, exit codes, and the estimate of `--dry-run`."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from poise.cli import study_view
from poise.cli.study_view import LiveStudyView, read_step
from poise.study.engines import ENGINES
from poise.study.expand import expand
from poise.study.folder import StudyFolder
from poise.study.plan import read_plan
from poise.study.records import RunResult
from study.tiny_studies import DirectExecutor, write_plan


@pytest.fixture(scope="module")
def trained(poise: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A plan, the folder of its study of two runs, and what was said on stderr."""
    folder = tmp_path_factory.mktemp("study")
    plan, out = write_plan(folder / "plan.toml", seeds=1, images=1000), folder / "out"
    result = poise("study", plan, "--out", out, "--workers", 1)
    assert (result.code, result.out) == (0, ""), result.err
    return plan, out, result.err


def test_a_line_for_each_run(trained: tuple[Path, Path, str]) -> None:
    _, out, err = trained
    lines = err.splitlines()
    assert lines[:2] == ["starting ...", "0 of 2 runs done"]
    assert lines[2].startswith("1/2  ring, base, seed 0: modes ")
    assert lines[3].startswith("2/2  ring, packing, seed 0: modes ")
    assert lines[4:] == [f"the verdicts: poise report {out}"]
    assert max(map(len, lines[:4])) <= 80


def test_a_plan_without_tips_trains_its_bases(poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report then has their values, and no verdicts."""
    monkeypatch.setitem(ENGINES, "local", lambda workers: DirectExecutor())  # `trained` has real workers
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    base = 'recipe = "ring"\nset = ["log.rows=1"]\nmeasures = ["modes", "coverage"]'
    plan.write_text(
        f'name = "bases"\nseeds = 1\nbudget = {{ images = 512 }}\n[base.first]\n{base}\n[base.second]\n{base}\n',
        "utf-8",
    )
    result = poise("study", plan, "--out", out, "--workers", 1)
    assert result.code == 0, result.err
    assert result.err.splitlines()[-1] == f"the results: poise report {out}"
    shown = poise("report", out)
    assert shown.code == 0
    lines = [line.split() for line in shown.out.splitlines()]
    assert ["base", "arm", "seeds", "modes", "coverage", "CPU", "minutes"] in lines
    assert [line[:3] for line in lines if line[:1] in (["first"], ["second"])] == [
        [name, *words] for name in ("first", "second") for words in (["base", "1"], ["real", "samples"])
    ]
    page = (out / "report.md").read_text("utf-8")
    assert "## Final values" in page
    assert "Verdicts" not in page
    assert json.loads(poise("report", out, "--json").out)["tips"] == []


def test_files(trained: tuple[Path, Path, str]) -> None:
    plan, out, _ = trained
    assert sorted(path.name for path in out.iterdir()) == [
        "plan.toml",
        "results.jsonl",
        "runs",
        "study.json",
        "study.lock",
    ]
    assert (out / "plan.toml").read_text() == plan.read_text()
    runs = {run for arm in json.loads((out / "study.json").read_text())["arms"] for run in arm["runs"].values()}
    assert {path.name for path in (out / "runs").iterdir()} == runs
    assert {result.run for result in StudyFolder(out).read_results()} == runs
    assert not list(out.glob("runs/*/saves"))


def test_a_complete_study_trains_nothing(poise: Any, trained: tuple[Path, Path, str]) -> None:
    plan, out, _ = trained
    result = poise("study", plan, "--out", out, "--resume")
    assert (result.code, result.err.splitlines()[1]) == (0, "2 of 2 runs done")
    assert len((out / "results.jsonl").read_text().splitlines()) == 2


def test_a_study_is_not_started_twice(poise: Any, trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    plan, out, _ = trained
    poise("study", plan, "--out", out).assert_error(2, f"--out {out}", "found a study", "--resume")
    poise("study", plan, "--out", tmp_path / "new", "--resume").assert_error(4, "no study to resume")
    assert not (tmp_path / "new").exists()


def test_dry_run(poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_view.TerminalConsole, "__init__", narrow)
    write_plan(Path("plan.toml"), seeds=3)
    result = poise("study", "plan.toml", "--dry-run", "--workers", 2)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].split() == ["base", "arm", "steps", "seeds", "new", "changes"]
    assert lines[1].split() == ["ring", "base", "78", "3", "3"]
    assert lines[2].split()[:5] == ["ring", "packing", "78", "3", "3"]
    assert lines[-2] == "6 runs, 6 new; 1 comparison"
    assert lines[-1].startswith("about 0.00")
    assert lines[-1].endswith(" with 2 workers, if each arm is as fast as its base")
    assert max(map(len, lines)) <= 80
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


def narrow(self: Any, **options: Any) -> None:
    """A console of 80 columns."""
    Console.__init__(self, markup=False, emoji=False, highlight=False, width=80)


def test_dry_run_says_what_is_new(poise: Any, trained: tuple[Path, Path, str], tmp_path: Path) -> None:
    _, out, _ = trained
    before = sorted(out.rglob("*"))
    longer = write_plan(tmp_path / "plan.toml", seeds=2, images=1000)
    lines = poise("study", longer, "--out", out, "--dry-run").out.splitlines()
    assert [line.split()[2:5] for line in lines[1:3]] == [["4", "2", "1"]] * 2
    assert lines[3] == "4 runs, 2 new; 1 comparison"
    done = poise("study", out / "plan.toml", "--out", out, "--dry-run").out.splitlines()
    assert done[-1] == "2 runs, 0 new; 1 comparison"
    other = write_plan(tmp_path / "other.toml", seeds=1, images=1500)
    lines = poise("study", other, "--out", out, "--dry-run").out.splitlines()
    unused = "2 results in this folder belong to no run of this plan; they are kept and not used"
    assert lines[3:5] == [f"{unused}, and --resume is refused", "2 runs, 2 new; 1 comparison"]
    poise("study", other, "--out", out, "--resume").assert_error(2, f"--out {out}: no result in this folder belongs")
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (("seeds = 1", "sedes = 1"), ["plan.toml", "sedes", "did you mean 'seeds'?"]),
        (('"ring"', '"rign"'), ["ring: ", "rign"]),
        (("packing", "pcking"), ["ring, arm 'pcking'", "'pcking'"]),
        (("seeds = 1", "seeds = 1\nlimit = 1"), ["more than 1 run, found 2, which would take about", "core-hours"]),
        (("samples=2", "samples=3"), ["ring, arm 'packing'"]),
        (
            ("[[tip]]", '[[tip]]\nname = "packing"\nset = ["steps=9"]\n\n[[tip]]'),
            ["ring", "two arms have the same name", "'packing'"],
        ),
        (("T16", "T99"), ["ring, arm 'packing': id", "T99"]),
    ],
    ids=str,
)
def test_refused(poise: Any, tmp_path: Path, change: tuple[str, str], parts: list[str]) -> None:
    plan = write_plan(tmp_path / "plan.toml", seeds=1)
    plan.write_text(plan.read_text().replace(*change))
    for option in ([], ["--dry-run"]):
        poise("study", plan, "--out", tmp_path / "out", *option).assert_error(2, f"{plan}: ", *parts)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


def test_bad_arguments(poise: Any, tmp_path: Path) -> None:
    poise("study", tmp_path / "none.toml").assert_error(2, "none.toml", "no such plan file")
    plan = write_plan(tmp_path / "plan.toml", seeds=1)
    poise("study", plan, "--workers", 0).assert_error(2, "--workers")
    poise("study", plan, "--engine", "steam").assert_error(2, "--engine", "'steam'")


def test_crashed_runs_are_told(poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = RunResult(run="a", state="crashed", reason="killed", step=0, images=0)
    monkeypatch.setattr("poise.study.execute.run_study", lambda *given, **options: [crash])
    result = poise("study", write_plan(tmp_path / "plan.toml", seeds=1), "--out", tmp_path / "out")
    assert result.code == 1
    crashes = tmp_path / "out" / "runs" / "*" / "crash.txt"
    assert f"1 run crashed ({crashes}); continue with --resume to try again\n" in result.err


def test_live_table(tmp_path: Path) -> None:
    plan = read_plan(write_plan(tmp_path / "plan.toml", seeds=2))
    expansion, folder, view = expand(plan, tmp_path), StudyFolder(tmp_path / "out"), LiveStudyView()
    first, second, third, _ = expansion.recipes
    (folder.runs / third).mkdir(parents=True)
    (folder.runs / third / "rows.jsonl").write_text('{"step": 50}\n{"step": 78')
    assert read_step(folder.runs / third) == 50
    results = {first: RunResult(run=first, state="done", step=78, images=1, values={"modes": 5.0})}
    view.on_start(expansion, results, folder)
    reason = f"d/adversarial is nan at step 3; lower both learning rates {'and more ' * 30}"
    bad = RunResult(run=second, state="diverged", reason=reason, step=3, images=1)
    results[second] = bad
    view.on_result(bad)
    console = Console(width=80, record=True, file=StringIO())
    assert view.progress is not None
    console.print(view._render(view.progress, [third]))
    view.on_end()
    text = console.export_text()
    assert "2 of 4 runs done (1 diverged), 0:00 left" in text
    assert "running  ring, base, seed 1     step 50 of 78" in text
    assert "failed   ring, packing, seed 0  diverged: d/adversarial is nan at step 3" in text
    assert [line[:8].strip() for line in text.splitlines()[1:]] == ["running", "failed"]


@pytest.mark.parametrize(("device", "gpu", "one"), [("auto", True, True), ("cpu", True, False), ("auto", False, False)])
def test_a_study_on_a_gpu_has_one_worker_by_default(
    device: str, gpu: bool, one: bool, poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    monkeypatch.setattr("poise.study.engines.executor_of", lambda engine, workers: asked.append(workers))
    monkeypatch.setattr("poise.study.execute.run_study", lambda *given, **options: [])
    plan = write_plan(tmp_path / "plan.toml", seeds=1)
    assert poise("study", plan, "--out", tmp_path / "out", "--device", device).code == 0
    assert asked == [1 if one else 16]
