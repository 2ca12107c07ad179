"""`poise report`: the table, the files, the JSON, and the errors of damaged folders."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from contracts import synthetic_study
from poise.utils.system import system

FIXED = ["tip", "data", "measure", "effect", "low", "high", "seeds", "failures", "verdict"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a study with one base and two tips."""
    return synthetic_study.write(tmp_path / "study")


def test_table_and_files(poise: Callable, folder: Path) -> None:
    result = poise("report", str(folder))
    assert result.code == 0
    lines = [line.split() for line in result.out.splitlines()]
    assert ["synthetic:", "24", "done"] in lines
    assert ["packing", "T16", "digits", "fid", "less", "helps"] in [line[:6] for line in lines]
    assert ["identity", "digits", "fid", "less", "no", "effect", "seen"] in [line[:7] for line in lines]
    assert result.out.splitlines()[-1] == f"report: {folder / 'report.html'} and report.md"
    assert {path.name for path in folder.iterdir()} == {
        *("study.json", "results.jsonl", "report.html", "report.md", "report")
    }


def test_json_is_all_that_is_printed_and_written(poise: Callable, folder: Path) -> None:
    before = sorted(folder.iterdir())
    result = poise("report", str(folder), "--json")
    assert result.code == 0
    assert sorted(folder.iterdir()) == before
    whole = json.loads(result.out)
    assert whole["study"] == "synthetic"
    assert whole["runs"] == {"done": 24, "missing": 0}
    packing, identity = whole["tips"]
    assert list(packing)[:9] == FIXED
    assert [packing[key] for key in ("tip", "data", "measure", "seeds", "failures", "verdict")] == [
        *("T16", "digits", "fid", 8, 0, "helps")
    ]
    assert packing["low"] < packing["effect"] < packing["high"] < 0
    assert packing["cost_ratio"] == pytest.approx(2, abs=0.05)
    assert identity["verdict"] == "no effect seen"


def test_report_can_be_written_elsewhere(poise: Callable, folder: Path, tmp_path: Path) -> None:
    before = sorted(folder.iterdir())
    assert poise("report", str(folder), "--out", str(tmp_path / "deep" / "other")).code == 0
    assert sorted(folder.iterdir()) == before
    assert {path.name for path in (tmp_path / "deep" / "other").iterdir()} == {"report.html", "report.md", "report"}


def test_a_report_replaces_no_files_but_those_of_a_report(poise: Callable, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    (out / "report").mkdir(parents=True)
    (out / "report" / "figure.png").write_bytes(b"mine")
    poise("report", str(folder), "--out", str(out)).assert_error(2, "--out", "not of a report", "figure.png")
    assert (out / "report" / "figure.png").read_bytes() == b"mine"
    assert [path.name for path in out.iterdir()] == ["report"]
    (out / "report" / "figure.png").unlink()
    for _ in range(2):
        assert poise("report", str(folder), "--out", str(out)).code == 0
    (out / "report" / "thesis.tex").write_text("mine")
    poise("report", str(folder), "--out", str(out)).assert_error(2, "thesis.tex")
    assert (out / "report" / "thesis.tex").read_text() == "mine"


def test_the_plan_is_quoted(poise: Callable, folder: Path) -> None:
    (folder / "plan.toml").write_bytes(b'name = "caf\xe9"\n')
    assert poise("report", str(folder)).code == 0
    assert 'name = "caf\ufffd"' in (folder / "report.md").read_text("utf-8")


def test_a_study_that_is_not_finished(poise: Callable, folder: Path) -> None:
    lines = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.jsonl").write_text("".join(lines[:9]) + lines[9][:40])
    result = poise("report", str(folder))
    assert result.code == 0
    assert "9 done, 15 missing" in result.out
    (folder / "results.jsonl").unlink()
    assert poise("report", str(folder), "--json").code == 0


@pytest.mark.parametrize("name", ["", "missing", "results.jsonl"])
def test_not_a_study(poise: Callable, folder: Path, tmp_path: Path, name: str) -> None:
    place = folder / name if name else tmp_path
    result = poise("report", str(place))
    assert result.code == 2
    assert result.err.startswith(f"poise: {place}: not a study")
    assert result.err.endswith("give the folder that poise study has written, its --out\n")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "name": 3}'])
def test_damaged_study(poise: Callable, folder: Path, text: str) -> None:
    (folder / "study.json").write_text(text)
    result = poise("report", str(folder))
    assert result.code == 4
    assert str(folder / "study.json") in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("line", ["{", "[]", '{"run": "x"}', '{"run": "x", "state": "odd", "step": 1, "images": 1}'])
def test_damaged_results_name_the_line(poise: Callable, folder: Path, line: str) -> None:
    lines = (folder / "results.jsonl").read_text().splitlines()
    (folder / "results.jsonl").write_text("\n".join([*lines[:4], line, *lines[5:], ""]))
    result = poise("report", str(folder), "--json")
    assert result.code == 4
    assert f"{folder / 'results.jsonl'}:5: line 5 is damaged" in result.err
    assert result.out == ""


def test_a_folder_that_cannot_be_written(poise: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(system, "mkdir", refuse)
    result = poise("report", str(folder))
    assert result.code == 6
    assert result.err.endswith("Permission denied; name another folder: --out DIR\n")
    assert not (folder / "report.html").exists()


def test_a_measure_that_no_run_has(poise: Callable, folder: Path) -> None:
    text = (folder / "results.jsonl").read_text()
    (folder / "results.jsonl").write_text(text.replace('"fid"', '"kid"'))
    result = poise("report", str(folder))
    assert result.code == 0
    assert "fid could not be computed for any run on digits, so it decides nothing.\n" in result.out


def test_report_imports_no_torch(folder: Path) -> None:
    code = (
        "import sys\nfrom poise.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "finally:\n    print({'torch'} & set(sys.modules) or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", code, "report", str(folder)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "light"
    assert (folder / "report.html").is_file()


def test_a_narrow_table_keeps_all_letters_of_a_name(
    poise: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "pseudopseudohypoparathyroidism"
    for file in ("study.json", "results.jsonl"):
        (folder / file).write_text((folder / file).read_text().replace("identity", name))
    narrow = functools.partial(Console, width=80)
    monkeypatch.setattr("poise.utils.console.TerminalConsole", narrow)
    result = poise("report", str(folder))
    assert name in "".join(line.split()[0] for line in result.out.splitlines()[3:] if line[:1].strip())
