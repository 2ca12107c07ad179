"""A study does not mix results of different data, custom code or precision, which are not part of a recipe's hash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_studies import DirectExecutor, QuietView

from poise.errors import DataError, PoiseError, RecipeError
from poise.study.execute import Options, run_study
from poise.study.folder import StudyFolder
from poise.study.origin import add_sources
from poise.study.records import Arm, Study, StudyBase, StudyMeasure
from poise.user_code import loading

OUT = Path("study")
TRICK = """
from poise.core.hooks import InputTransform


class Scaled(InputTransform):
    def transform_input(self, images, origin, context):
        return {factor} * images
"""


def write_images(seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    np.savez("images.npz", images=images)


def write_plan(seeds: int, **keys: str) -> Path:
    lines = "\n".join(f"{key} = {value}" for key, value in keys.items())
    path = Path("plan.toml")
    path.write_text(
        f"""
name = "tiny"
seeds = {seeds}
evaluations = 1
{lines}

[base.images]
recipe = "dcgan"
set = [
  'data={{kind="npz", path="images.npz", size=8}}', "steps=2", "batch=8", "tricks=[]", "measure.n=16",
  "network.g.width=4", "network.d.width=4", "latent.dim=4",
]
measures = ["coverage"]

[[tip]]
name = "scaled"
set = ['tricks+=[{{kind="python", file="scaled.py", name="Scaled"}}]']
"""
    )
    return path


@pytest.fixture(autouse=True)
def one_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of one seed."""
    monkeypatch.chdir(tmp_path)
    write_images(0)
    Path("scaled.py").write_text(TRICK.format(factor=1.0))
    study(write_plan(1), resume=False)


def study(plan: Path, *, resume: bool = True) -> None:
    run_study(plan, OUT, DirectExecutor, resume=resume, options=Options("cpu", trust_code=True), listener=QuietView())


def refused(plan: Path, error: type[PoiseError]) -> str:
    before = [path.read_bytes() for path in (OUT / "plan.toml", OUT / "study.json", OUT / "results.jsonl")]
    with pytest.raises(error) as caught:
        study(plan)
    assert before == [path.read_bytes() for path in (OUT / "plan.toml", OUT / "study.json", OUT / "results.jsonl")]
    return str(caught.value)


def test_results_record_their_origin() -> None:
    results = StudyFolder(OUT).read_results()
    assert len({result.versions["data"] for result in results}) == 1
    assert sorted(result.versions.get("code", "")[:10] for result in results) == ["", "scaled.py "]


def test_more_seeds_on_the_same_data() -> None:
    study(write_plan(2))
    assert len(StudyFolder(OUT).read_results()) == 4


def test_other_data_is_refused() -> None:
    write_images(1)
    message = refused(write_plan(2), DataError)
    assert "images, arm 'base': 1 result of this study came from another content of the data" in message
    assert "restore it, or start a new study with another --out" in message


def test_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_executed", {})  # a file is executed once in each process
    Path("scaled.py").write_text(TRICK.format(factor=2.0))
    assert "arm 'scaled': 1 result of this study came from another version of the custom code" in refused(
        write_plan(2), RecipeError
    )


def test_another_precision_is_refused() -> None:
    message = refused(write_plan(2, precision='"bf16"'), RecipeError)
    assert "came from another precision, found bf16, before fp32" in message


def with_component(file: str) -> Study:
    arm = Arm(base="b", name="a", steps=1, images=1, runs={"0": "x"}, components={"tricks.packing": file})
    base = StudyBase(name="b", measures=(StudyMeasure(name="modes", better="more"),))
    return Study(name="s", bases=(base,), arms=(arm,), comparisons=())


def test_source_files_are_recorded_as_they_were_when_the_study_began(tmp_path: Path) -> None:
    (tmp_path / "packing.py").write_text("one")
    began, notes = add_sources(with_component("packing.py"), None, tmp_path)
    assert (list(began.sources), notes) == (["packing.py"], [])
    assert add_sources(with_component("packing.py"), began, tmp_path) == (began, [])
    (tmp_path / "packing.py").write_text("two")
    resumed, notes = add_sources(with_component("packing.py"), began, tmp_path)
    assert resumed == began
    assert notes == ["changed since this study began, which makes its verdicts stale: packing.py"]


@pytest.mark.parametrize("new", [False, True])
def test_the_file_of_an_arm_that_was_not_recorded_then_is_not_recorded_as_it_is_now(tmp_path: Path, new: bool) -> None:
    (tmp_path / "packing.py").write_text("now")
    study = with_component("packing.py")
    before = study.model_copy(update={"arms": ()} if new else {})
    resumed, notes = add_sources(study, before, tmp_path)
    assert (list(resumed.sources), notes) == (["packing.py"] if new else [], [])


def test_a_damaged_study_file_is_written_anew() -> None:
    (OUT / "study.json").write_text("{")
    study(write_plan(2))
    assert StudyFolder(OUT).read_study().sources == {}  # custom code is not part of the package
