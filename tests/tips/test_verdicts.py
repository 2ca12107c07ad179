"""Tests of the verdicts: the records, when they are stale, what is shown of them, and those that ship with poise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from poise.errors import RecipeError
from poise.tips import record
from poise.tips import verdicts as verdicts_module
from poise.tips.catalogue import Tip, tips
from poise.tips.revise import revise
from poise.tips.verdicts import (
    PACKAGE,
    Revision,
    by_arm,
    changed_files,
    data_names,
    file_hash,
    format_effect,
    leading,
    leading_arm,
    published,
    read_verdicts,
    revisions,
    short_text,
    verdicts_text,
)
from tips.example_verdicts import PACKING, POINTS, examples, outdated, verdict, with_examples

UNKNOWN = {"relative": None, "relative_low": None, "relative_high": None}


def test_the_file_round_trips() -> None:
    text = verdicts_text(examples())
    assert read_verdicts(text) == examples()
    assert verdicts_text(read_verdicts(text)) == text
    stored = (PACKAGE / "tips/verdicts.json").read_text("utf-8")
    assert verdicts_text(read_verdicts(stored)) == stored


@pytest.mark.parametrize(
    ("old", "new"), [('"helps"', '"cures"'), ('"seeds"', '"seed"'), ('"effect": -6.0', '"effect": NaN')]
)
def test_an_invalid_file_is_refused(old: str, new: str) -> None:
    text = verdicts_text([verdict()])
    assert old in text
    with pytest.raises(ValidationError):
        read_verdicts(text.replace(old, new))


def test_a_verdict_is_stale_exactly_while_a_file_differs(tmp_path: Path) -> None:
    file, one = tmp_path / PACKING, verdict()
    file.parent.mkdir()
    published = (PACKAGE / PACKING).read_bytes()
    file.write_bytes(published)
    assert not changed_files(one.components.values(), tmp_path)
    file.write_bytes(published + b"\n")
    assert changed_files(one.components.values(), tmp_path)
    assert changed_files(one.components.values(), tmp_path) == (PACKING,)
    file.write_bytes(published.replace(b"\n", b"\r\n"))
    assert not changed_files(one.components.values(), tmp_path), "line endings do not matter"
    file.unlink()
    assert changed_files(one.components.values(), tmp_path) == (PACKING,), "the file is gone"


def test_the_note_names_each_changed_file_once() -> None:
    (part,) = outdated().values()
    other = part.model_copy(update={"file": "networks/gone.py"})
    assert verdict(components={"a": part, "b": part, "c": other}).stale_note == (
        f"stale: networks/gone.py, {PACKING} changed since"
    )
    assert verdict().stale_note == ""
    assert file_hash(PACKAGE / "networks/gone.py") == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "-12 % [-19, -4]"),
        ({"relative": 0.0513, "relative_low": 0.0021, "relative_high": 0.093}, "+5.1 % [0.2, 9.3]"),
        ({"relative": 12.0, "relative_low": 3.0, "relative_high": 40.0}, "+1,200 % [300, 4,000]"),
        ({"relative": -0.0001, "relative_low": -0.1, "relative_high": 0.1}, "0 % [-10, 10]"),
        (UNKNOWN | {"effect": 0.0213, "low": 0.0104, "high": 0.0302}, "+0.021 [0.010, 0.030]"),
        (UNKNOWN | {"effect": 0.0, "low": 0.0, "high": 0.0}, "0 [0, 0]"),
        (UNKNOWN | {"effect": 1.0, "low": None, "high": None}, "-"),
    ],
)
def test_the_effect_has_two_digits(changes: dict[str, float | None], text: str) -> None:
    assert format_effect(verdict(**changes)) == text


def test_short_texts() -> None:
    assert [short_text(one) for one in examples()] == [
        "helps -12 % [-19, -4] digits",
        "no effect seen digits",
        "no effect seen grid",
        "harms +5.1 % [0.2, 9.3] colour",
        "unstable digits (stale)",
        "too few seeds grid (stale)",
    ]


def test_the_arm_on_most_data_sets_leads_with_its_first_measure() -> None:
    packing, stddev = examples()[:4], examples()[4:]
    assert leading(examples()) == (packing[0], packing[2], packing[3])
    assert leading(stddev + packing) == (packing[0], packing[2], packing[3])
    assert leading(stddev + packing[:3]) == stddev, "of two arms on as many data sets, the first"
    assert leading(()) == ()
    assert leading_arm(examples()) == "packing (1 of 2 arms)"
    assert (leading_arm(packing), leading_arm(())) == ("packing", "")
    assert by_arm(examples()) == [list(packing), list(stddev)]


def test_a_tip_in_one_line() -> None:
    measured, other = (tip for tip in with_examples(tips(), "T16") if tip.id in ("T16", "T20"))
    line = "packing (1 of 2 arms): helps -12 % [-19, -4] digits · no effect seen grid · harms +5.1 % [0.2, 9.3] colour"
    assert measured.verdict == line
    if not other.verdicts:
        assert other.verdict == "not measured"


OTHER_STUDY = {"summary": "Another grid.", "study": {"name": "packing", "plan": "packing.toml"}}


def test_the_study_is_named_where_two_have_bases_of_one_name() -> None:
    (digits, _, grid, *_), other = examples(), verdict(**POINTS, **OTHER_STUDY)
    assert data_names([digits, grid]) == {(v.data, v.summary): v.data for v in (digits, grid)}
    assert data_names([digits, grid, other]) == {
        (digits.data, digits.summary): "digits",
        (grid.data, grid.summary): "grid, study tips",
        (other.data, other.summary): "grid, study packing",
    }
    same = verdict(**POINTS, study=OTHER_STUDY["study"])
    assert set(data_names([grid, same]).values()) == {"grid"}, "the same base in two studies"


def test_the_published_bases_have_names_of_their_own() -> None:
    names = data_names(verdict for group in published().values() for verdict in group)
    assert len(set(names.values())) == len(names)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[Tip, ...]:
    """A catalogue in which only T16 has verdicts."""
    blank = tuple(Tip(**(vars(tip) | {"verdicts": ()})) for tip in tips())
    catalogue = with_examples(blank, "T16")
    monkeypatch.setattr(record, "tips", lambda: catalogue)
    return catalogue


def test_the_page_says_which_study_a_base_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = (*examples(), verdict(name="packing of 2", **POINTS, **OTHER_STUDY))
    tip = next(tip for tip in tips() if tip.id == "T16")
    monkeypatch.setattr(record, "tips", lambda: (Tip(**(vars(tip) | {"verdicts": verdicts})),))
    overview, _, section = record.page().partition("\n## T16 ")
    assert "| tip | arm | digits (fid) | grid, study tips (modes) | colour (fid) |" in overview
    assert "\n- **grid, study packing**: Another grid." in overview
    assert "| packing of 2 | grid, study packing | modes |" in section
    assert "| packing | grid, study tips | modes |" in section


def test_the_page_has_an_overview_and_a_table_per_tip(made: tuple[Tip, ...]) -> None:
    page = record.page()
    overview, sections = page.split("\n## T01 ")
    rows = [line for line in overview.splitlines() if line.startswith("|")]
    assert rows[0] == "| tip | arm | digits (fid) | grid (modes) | colour (fid) |"
    assert len(rows) == 2 + len(made)
    (row,) = [row for row in rows if "T16" in row]
    cells = ["packing (1 of 2 arms)", "helps -12 % [-19, -4]", "no effect seen +0.2 % [-3.0, 4.0]"]
    assert row.endswith(f"| {' | '.join(cells)} | harms +5.1 % [0.2, 9.3] |")
    assert overview.count("- **digits**: Digits at 16 pixels, narrow DCGANs, 60,000 images.\n") == 1
    table = sections.partition("\n## T16 ")[2].partition("\n## T17 ")[0]
    assert "| packing | digits | fid | -12 % [-19, -4] | helps | 10 | 0 / 1 | 2026-11-27 |" in table
    assert f"unstable (stale: {PACKING} changed since) | 10 | 7 / 1 |" in table
    assert table.count("\npoise study benchmarks/studies/tips/plan.toml --out runs/tips\n") == 1
    assert sections.count("Our verdict: not measured.") == len(made) - 1


def test_every_published_verdict_is_about_a_tip_and_a_plan_in_the_repository() -> None:
    assert set(published()) <= {tip.id for tip in tips()}
    repository = PACKAGE.parents[1]
    for one in (one for group in published().values() for one in group):
        assert (repository / one.study.plan).is_file()
        assert one.components, f"{one.name} ({one.tip}) changes no component"
        for part in one.components.values():
            assert re.fullmatch(r"[0-9a-f]{64}", part.sha256)
        assert f"{one.seeds} seed" in one.text
        assert one.text.endswith(f", {one.data}")


def test_a_revision_keeps_a_verdict_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after several of them in a row, but not if one is missing, or for another file."""
    one, file = verdict(), tmp_path / PACKING
    (part,) = one.components.values()
    file.parent.mkdir()
    file.write_text("revised twice")
    second = file_hash(file)
    first = Revision(file=PACKING, old=part.sha256, new="1" * 64, reason="a new docstring")
    then = Revision(file=PACKING, old="1" * 64, new=second, reason="a new function")
    for known, stale in (((first, then), False), ((then,), True), ((first,), True), ((then, first), True)):
        monkeypatch.setattr(verdicts_module, "revisions", lambda known=known: known)
        assert bool(changed_files(one.components.values(), tmp_path)) == stale
    other = first.model_copy(update={"file": "networks/dcgan.py", "new": second})
    monkeypatch.setattr(verdicts_module, "revisions", lambda: (other,))
    assert changed_files(one.components.values(), tmp_path)


def test_revisions_lead_to_files_that_exist() -> None:
    assert all(file_hash(PACKAGE / revision.file) for revision in revisions())


def test_only_files_with_verdicts_that_changed_are_revised(monkeypatch: pytest.MonkeyPatch) -> None:
    for file, message in (("errors.py", "no verdict depends"), (PACKING, "has not changed since")):
        with pytest.raises(RecipeError, match=message):
            revise(file, "a new docstring", revisions())
    monkeypatch.setattr("poise.tips.revise.file_hash", lambda path: "2" * 64)
    added = revise(PACKING, "a new docstring", ())
    assert {revision.new for revision in added} == {"2" * 64}
