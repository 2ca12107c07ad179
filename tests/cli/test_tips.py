"""`poise tips` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from poise import cli
from poise.tips.catalogue import tips


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
    assert "not measured yet" in out


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
    assert noise.startswith("broken")
    assert poise("T14a", "--recipe", "dcgan", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert (result["id"], result["stands"]) == ("T14a", "broken")


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
