"""`poise tips` on the command line."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from poise import cli
from poise.tips import catalogue
from poise.tips.catalogue import Tip, tips
from poise.utils.console import TerminalConsole
from tips.example_verdicts import PACKING, with_examples


def poise(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(["tips", *words])
    return int(left.value.code or 0)


def test_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert poise() == 0
    out = capsys.readouterr().out
    for tip in tips():
        assert tip.id in out
        assert tip.name in out
    assert "minibatch_stddev" in out


def test_details_of_a_tip(capsys: pytest.CaptureFixture[str]) -> None:
    assert poise("packing") == 0
    out = " ".join(capsys.readouterr().out.split())
    (tip,) = (tip for tip in tips() if tip.id == "T16")
    for words in (tip.summary, tip.switch, tip.disagree, *(e.text for e in tip.evidence), *tip.source):
        assert " ".join(words.split()) in out
    assert "samples = 2" in out


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[Tip, ...]:
    """A catalogue in which T16 has verdicts made by hand, and no other tip has any."""
    made = with_examples(tuple(dataclasses.replace(tip, verdicts=()) for tip in tips()), "T16")
    monkeypatch.setattr(catalogue, "tips", lambda: made)
    return made


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(("columns", "lines"), [(80, 4), (120, 2)])
def test_the_list_fits_the_terminal(
    columns: int, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("poise.cli.tips._console", lambda: TerminalConsole(piped_width=columns))
    assert poise() == 0
    listed = capsys.readouterr().out.splitlines()
    assert max(map(len, listed)) <= columns
    start = next(i for i, line in enumerate(listed) if line.startswith("T16"))
    texts = [
        "packing (1 of 2 arms):",
        "helps -12 % [-19, -4] digits",
        "no effect seen grid",
        "harms +5.1 % [0.2, 9.3] colour",
    ]
    verdicts = [line[35:].strip() for line in listed[start : start + lines]]
    wide = [f"{texts[0]} {texts[1]} · {texts[2]}", texts[3]]
    assert verdicts == (texts if columns == 80 else wide)
    assert "fid on digits and colour, modes on grid" in " ".join(" ".join(listed).split())
    (other,) = [line for line in listed if line.startswith("T20")]
    assert other.split() == ["T20", "historical-averaging", "not", "measured"]


@pytest.mark.usefixtures("made")
def test_verdicts_of_a_tip(capsys: pytest.CaptureFixture[str]) -> None:
    assert poise("T16") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "digits fid -12 % [-19, -4] helps 10 0, 1 without" in lines
    assert "grid modes +2.5 [0.2, 3.5] too few seeds 5 0, 1 without" in lines
    assert lines[lines.index("minibatch standard deviation, 2026-11-27") + 1] == f"(stale: {PACKING} changed since)"
    assert lines.count("digits: Digits at 16 pixels, narrow DCGANs, 60,000 images.") == 1, "once per data set"
    assert lines.count(f"(stale: {PACKING} changed since)") == 1, "the other arm is current"
    assert "measured by poise study benchmarks/studies/tips/plan.toml --out runs/tips" in lines
    assert poise("T20") == 0
    assert "our verdict  not measured" in capsys.readouterr().out


def test_the_study_of_each_data_set_is_named_where_two_have_the_same_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert poise("T16") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for study, width in (("tips", 128), ("packing", 400)):
        (about,) = [line for line in lines if line.startswith(f"grid, study {study}: ")]
        assert f"mlp (width {width})" in about
        assert any(line.startswith(f"grid, study {study} modes ") for line in lines), "a row of the table"
    assert sum(line.startswith("digits: ") for line in lines) == 1, "only one study has digits"
    assert poise("T16", "--json") == 0
    (tip,) = json.loads(capsys.readouterr().out)
    assert {(v["data"], v["study"]["name"]) for v in tip["verdicts"]} >= {("grid", "tips"), ("grid", "packing")}


@pytest.mark.usefixtures("made")
def test_verdicts_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert poise("T16", "--json") == 0
    (tip,) = json.loads(capsys.readouterr().out)
    first, *_, last = tip["verdicts"]
    assert len(tip["verdicts"]) == 6
    assert (first["verdict"], first["data"], first["effect"], first["seeds"]) == ("helps", "digits", -6.0, 10)
    assert first["text"] == "helps -12 % [-19, -4], 10 seeds, digits"
    assert (first["stale"], last["stale"]) == ("", f"stale: {PACKING} changed since")
    assert first["recipe"] == {"treatment": ["0123456789ab"], "control": ["ba9876543210"]}


def test_json_is_complete_and_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert poise("--json") == 0
    result = capsys.readouterr()
    assert result.err == ""
    listed = json.loads(result.out)
    assert [one["id"] for one in listed] == [tip.id for tip in tips()]
    for one in listed:
        assert set(one) == {"id", "name", "summary", "switch", "options", "source", "evidence", "verdicts"}
    assert poise("soft-labels", "--json") == 0
    assert [one["id"] for one in json.loads(capsys.readouterr().out)] == ["T07a"]


def test_statuses_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert poise("--recipe", "dcgan") == 0
    lines = capsys.readouterr().out.splitlines()
    (noise,) = [line for line in lines if "T14a" in line]
    assert noise.startswith("not followed")
    assert poise("T14a", "--recipe", "dcgan", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["id"], result["stands"]) == ("T14a", "not followed")


@pytest.mark.parametrize("words", [("soft-lables",), ("--recipe", "dcgam"), ("--recipe", "missing.toml")])
def test_unknown_tip_exits_with_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert poise(*words) == 2
    result = capsys.readouterr()
    assert result.out == ""
    assert len(result.err.strip().splitlines()) == 1


@pytest.mark.parametrize("words", [[], ["soft-labels"], ["--json"], ["--recipe", "wgan-gp"]], ids=str)
def test_answers_without_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom poise import cli\n"
        f"try: cli.main(['tips', *{words!r}])\nexcept SystemExit as left: assert left.code == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
