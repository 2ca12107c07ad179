"""`poise watch`: the table, JSON, the plot, errors, and no import of torch."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from poise.core.metrics_log import Row, Stat, row_to_json
from poise.utils.console import TerminalConsole
from poise.watch.monitor import DETECTORS


def csv(folder: Path, d: float, head: str = "iter,loss_D,loss_G", rows: int = 20) -> Path:
    path = folder / "log.csv"
    path.write_text(f"{head}\n" + "".join(f"{50 * k},{d},1.5\n" for k in range(1, rows + 1)))
    return path


@pytest.fixture
def won(tmp_path: Path) -> Path:
    """A log in which D has won; its windows are of eight rows, 400 steps."""
    return csv(tmp_path, 0.001)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return csv(tmp_path, 0.69)


def watch_json(poise: Any, *words: object) -> dict[str, Any]:
    result = poise("watch", *words, "--json")
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_table(poise: Any, won: Path) -> None:
    result = poise("watch", won)
    assert (result.code, result.err) == (0, "")
    words = " ".join(result.out.split())
    assert f"{won}:".replace("/", "") in words.replace(" ", "").replace("/", "")
    assert "20 rows up to step 1,000 (from 50, every 50), loss family: unknown (pass --loss-family)" in words
    assert "detectors without data: g_falling" not in words
    assert "collapse" in words.split("step since detector")[0]
    [row] = [line.split() for line in result.out.splitlines() if "d_at_zero" in line]
    assert row[:3] == ["400", "0", "d_at_zero"]
    assert "D's loss has been 0.001 on average since step 50 (equilibrium: 0.693)" in words
    assert "(T11)" in words
    assert "sigma=0.5}]'" in result.out
    assert "no alarm" not in words


def test_no_alarm(poise: Any, sound: Path) -> None:
    result = poise("watch", sound, "--loss-family", "logistic")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == "no alarm"
    assert "loss family: logistic" in " ".join(result.out.split())


def test_nothing_is_cut_on_a_narrow_terminal(poise: Any, won: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poise.utils.console.TerminalConsole", partial(TerminalConsole, width=40))
    result = poise("watch", won)
    assert "…" not in result.out
    lines = [line[len("step  since  ") :] for line in result.out.splitlines()]
    advice = "".join("".join(lines).split())
    assert "d_at_zero" in advice
    assert "kind=" in advice


def test_steps_have_commas(poise: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("iter,loss_D\n" + "".join(f"{5000 * k},0.001\n" for k in range(1, 9)))
    assert "40,000      0  d_at_zero" in poise("watch", path).out


def test_what_set_means_for_other_trainers(poise: Any, won: Path) -> None:
    hint = "--set is an option of poise train; make the same change in your trainer. poise tips T11 explains T11"
    assert poise("watch", csv(won.parent, 0.001)).out.splitlines()[-1] == hint
    result = poise("watch", a_run(won.parent))
    assert "--set" in result.out
    assert hint not in result.out


def test_json(poise: Any, won: Path, sound: Path) -> None:
    found = watch_json(poise, csv(won.parent, 0.001))
    keys = ["rows", "alarms", "columns", "family", "notes"]
    assert list(found) == [*keys, "family_source", "steps", "inactive_detectors", "has_d_loss"]
    assert found["rows"] == 20
    [alarm] = found["alarms"]
    detector = DETECTORS["d_at_zero"]
    assert alarm == {
        "step": 400,
        "detector": "d_at_zero",
        "level": "warning",
        "message": "D's loss has been 0.001 on average since step 50 (equilibrium: 0.693)",
        "advice": detector.advice,
        "tip": detector.tip,
        "since": 0,
    }
    assert list(alarm) == ["step", "detector", "level", "message", "advice", "tip", "since"]
    found = watch_json(poise, csv(won.parent, 0.69))
    assert "collapse" in found.pop("inactive_detectors")
    assert found == {
        "rows": 20,
        "alarms": [],
        "columns": {"step": "iter", "d/adversarial": "loss_D", "g/adversarial": "loss_G"},
        "family": None,
        "notes": [],
        "family_source": "pass --loss-family",
        "steps": {"first": 50, "last": 1000, "every": 50},
        "has_d_loss": True,
    }


def test_plot(poise: Any, won: Path, tmp_path: Path) -> None:
    path = tmp_path / "losses.png"
    result = poise("watch", won, "--plot", path, "--json")
    assert (result.code, result.err) == (0, f"{path}: plot of the losses and alarms\n")
    assert len(json.loads(result.out)["alarms"]) == 1
    with Image.open(path) as image:
        assert image.format == "PNG"
        with_alarm = image.tobytes()
    assert poise("watch", won, "--plot", path, "--loss-family", "energy").code == 0
    with Image.open(path) as image:
        assert image.tobytes() != with_alarm


def test_content_of_the_plot(poise: Any, won: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr("poise.watch.plot.plot", lambda *words: drawn.append(words))
    path = tmp_path / "losses.png"
    assert poise("watch", won, "--plot", path, "--loss-family", "hinge").code == 0
    [(log, [alarm], where, family, title)] = drawn
    assert (log.count, alarm.detector, where) == (20, "d_at_zero", path)
    assert (family, title) == ("hinge", str(won))


def test_loss_family(poise: Any, won: Path) -> None:
    assert [a["detector"] for a in watch_json(poise, won, "--loss-family", "hinge")["alarms"]] == ["d_at_zero"]
    assert watch_json(poise, won, "--loss-family", "energy")["alarms"] == []
    assert "(equilibrium: 1)" in watch_json(poise, won, "--loss-family", "hinge")["alarms"][0]["message"]
    for objective, family in (
        ("non_saturating", "logistic"),
        ("bce", "logistic"),
        ("least_squares", "least_squares"),
        ("squares", "least_squares"),
    ):
        assert watch_json(poise, won, "--loss-family", objective)["family"] == family


def test_critic_is_recognised_by_its_loss(poise: Any, tmp_path: Path) -> None:
    path = csv(tmp_path, -5.0, rows=24)  # three windows of eight rows, 400 steps each
    result = poise("watch", path)
    assert "loss family: wasserstein" in " ".join(result.out.split())
    assert [(a["step"], a["detector"]) for a in watch_json(poise, path)["alarms"]] == [(1200, "wasserstein_stuck")]


def test_columns(poise: Any, tmp_path: Path) -> None:
    path = csv(tmp_path, 0.001, "a,b,c")
    [alarm] = watch_json(poise, path, "--columns", "step=a,d=b,g=c")["alarms"]
    assert (alarm["step"], alarm["detector"]) == (400, "d_at_zero")
    assert watch_json(poise, path, "--columns", "d=c")["alarms"] == []


def test_pattern(poise: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("".join(f"at {50 * k}: D 0.001 against G 1.5\n" for k in range(1, 21)))
    [alarm] = watch_json(poise, path, "--pattern", r"at (?P<step>\d+): D (?P<d>\S+) against G (?P<g>\S+)")["alarms"]
    assert (alarm["step"], alarm["detector"]) == (400, "d_at_zero")


def a_run(folder: Path, recipe: str = "") -> Path:
    run = folder / "run"
    run.mkdir()
    rows = [Row(50 * k, 1, 1.0, {"d/adversarial": Stat.of(0.001)}) for k in range(1, 21)]
    (run / "rows.jsonl").write_text("".join(json.dumps(row_to_json(row)) + "\n" for row in rows))
    (run / "recipe.toml").write_text(f'steps = 4000\n[objective]\nkind = "hinge"\n{recipe}')
    return run


def test_run_folder(poise: Any, tmp_path: Path) -> None:
    run = a_run(tmp_path)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    found = watch_json(poise, run)
    assert [(a["step"], a["detector"], a["level"]) for a in found["alarms"]] == [(400, "d_at_zero", "warning")]
    assert "loss family: hinge" in " ".join(poise("watch", run).out.split())
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_advice_is_fitted_to_the_recipe_of_a_run(poise: Any, tmp_path: Path) -> None:
    tricks = '[optimizer.d]\nlr = 1e-5\n[[tricks]]\nkind = "instance_noise"\nsigma = 0.2\n'
    [alarm] = watch_json(poise, a_run(tmp_path, tricks))["alarms"]
    change = "--set tricks.instance_noise.sigma=0.5 (optimizer.d.lr is 1e-05 already)"
    assert alarm["advice"].startswith(f"weaken D with a lower learning rate and instance noise, {change}; if ")


def test_evaluations_are_used_but_not_counted_as_rows(poise: Any, tmp_path: Path) -> None:
    run = a_run(tmp_path)
    lines = [{"step": step, "measures": {"class_balance": 0.1}, "floor": {}} for step in (*range(100, 1001, 100), 1040)]
    (run / "measures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = watch_json(poise, run)
    assert found["rows"] == 20
    steps = [(400, "d_at_zero"), (500, "classes_missing")]  # an eighth of its 4,000 steps
    assert [(a["step"], a["detector"]) for a in found["alarms"]] == steps
    assert "20 rows up to step 1,000 (from 50, every 50)" in " ".join(poise("watch", run).out.split())


def test_trained_run(poise: Any, ring_run: Path) -> None:
    assert watch_json(poise, ring_run)["rows"] == 4


def test_brackets_are_printed_literally(poise: Any, tmp_path: Path) -> None:
    folder = tmp_path / "[bold]x"
    folder.mkdir()
    assert "[bold]x" in "".join(poise("watch", csv(folder, 0.001)).out.split())


def test_unreadable_monitor_settings(poise: Any, tmp_path: Path) -> None:
    run = a_run(tmp_path, '[monitor.policy]\ncolapse = "off"\n')
    poise("watch", run).assert_error(2, "monitor.policy", "no such detector 'colapse'", "did you mean 'collapse'?")


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["nowhere"], 3, ["nowhere", "no such run or log"]),
        (["empty.csv"], 3, ["empty.csv", "no line contains a number"]),
        (["."], 3, ["no line contains a number"]),
        (["log.csv", "--columns", "d=lossD"], 2, ["--columns", "no such column", "did you mean 'loss_D'?"]),
        (["log.csv", "--columns", "e=loss_D"], 2, ["--columns", "no such metric", "'e'"]),
        (["log.csv", "--columns", "loss_D"], 2, ["--columns", "must be name=column"]),
        (["log.csv", "--pattern", "D"], 2, ["--pattern", "has no named group"]),
        (["log.csv", "--loss-family", "hnge"], 2, ["--loss-family", "'hnge'", "did you mean 'hinge'?"]),
        (["log.csv", "--plot", "losses.jpg"], 2, ["--plot", "must end in .png", "write losses.png"]),
        (["log.csv", "--plot", "no/losses.png"], 2, ["--plot", "its folder does not exist"]),
        (["other.csv"], 2, ["other.csv", "no column is recognised as a loss of D or G", "the columns are a, b"]),
        ([], 2, ["RUN_OR_LOG"]),
    ],
    ids=str,
)
def test_refused(
    poise: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    csv(tmp_path, 0.5)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    poise("watch", *words).assert_error(code, *parts)


def test_a_bad_regular_expression(poise: Any, sound: Path) -> None:
    poise("watch", sound, "--pattern", "(?P<d>").assert_error(2, "--pattern", "not a regular expression")


def test_invalid_plot_path_is_refused_before_reading(poise: Any, tmp_path: Path) -> None:
    poise("watch", tmp_path / "nowhere", "--plot", "a.gif").assert_error(2, "--plot")


def test_help(poise: Any) -> None:
    result = poise("watch", "--help")
    assert (result.code, result.err) == (0, "")
    for option in ("--columns", "--loss-family", "--pattern", "--sum", "--threshold", "--window", "--plot", "--json"):
        assert option in result.out


def test_no_torch(won: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom poise.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as left:\n    print(left.code, 'torch' in sys.modules, file=sys.stderr)\n"
    )
    words = [sys.executable, "-c", script, "watch", str(won), "--json", "--plot", str(tmp_path / "a.png")]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["rows"] == 20
    assert result.stderr.splitlines()[-1] == "0 False"


def test_the_absence_of_alarms_in_few_rows_is_qualified(poise: Any, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("step,loss_D,loss_G\n" + "".join(f"{step},0.69,0.7\n" for step in range(3)))
    result = poise("watch", log)
    assert result.out.splitlines()[-1] == "no alarm; most detectors need more than 3 rows"
