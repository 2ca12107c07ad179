"""A plan with a custom trick: it needs `trust_code`, is checked before anything is written, and can be continued."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import DirectExecutor, QuietView, write_plan

from poise.errors import RecipeError, Stopped
from poise.study.execute import Options, run_study

TRICK = """
from poise.core.hooks import InputTransform


class Spoiler(InputTransform):
    def transform_input(self, images, origin, context):
        return images * float("nan")
"""


class StoppedAtOnce(DirectExecutor):
    """An engine during whose first job a signal asks to stop."""

    def submit(self, function: Callable[[Any], Any], job: Any, progress: Callable[[], Any]) -> Future[Any]:
        """Send the signal; the job does not begin."""
        os.kill(os.getpid(), signal.SIGTERM)
        future: Future[Any] = Future()
        future.cancel()
        return future


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan in a folder of its own; the working directory is the one above."""
    folder = tmp_path / "plans"
    folder.mkdir()
    (folder / "spoiler.py").write_text(TRICK)
    plan = write_plan(folder / "plan.toml", seeds=1, images=512)
    text = (
        plan.read_text()
        + """
[[tip]]
name = "spoiler"
set = ['tricks+=[{kind="python", file="plans/spoiler.py", name="Spoiler"}]']
"""
    )
    plan.write_text(text)
    monkeypatch.chdir(tmp_path)
    return plan


def test_untrusted_code_is_refused_before_anything_is_written(plan: Path) -> None:
    with pytest.raises(RecipeError, match=r"arm 'spoiler': plans/spoiler\.py: .* --trust-code"):
        run_study(plan, Path("study"), DirectExecutor, listener=QuietView())
    assert not Path("study").exists()


def test_a_missing_file_is_found_before_anything_is_written(plan: Path) -> None:
    plan.write_text(plan.read_text().replace("plans/spoiler.py", "spoiler.py"))
    with pytest.raises(RecipeError, match=r"arm 'spoiler': spoiler\.py: .* relative to the working directory"):
        run_study(plan, Path("study"), DirectExecutor, options=Options(trust_code=True), listener=QuietView())
    assert not Path("study").exists()


def test_a_stopped_study_names_the_command_with_its_options(plan: Path) -> None:
    options = Options(device="cpu", data_root=Path("my data"), trust_code=True, engine="ray")
    command = (
        "poise study plans/plan.toml --out study --resume --engine ray --device cpu --data-root 'my data' --trust-code"
    )
    with pytest.raises(Stopped) as stopped:
        run_study(Path("plans/plan.toml"), Path("study"), StoppedAtOnce, options=options, listener=QuietView())
    assert str(stopped.value).endswith(f"continue with: {command}")


def test_trusted_code_is_trained(plan: Path) -> None:
    options = Options(device="cpu", trust_code=True)
    results = run_study(plan, Path("study"), DirectExecutor, options=options, listener=QuietView())
    assert [result.state for result in results] == ["done", "done", "diverged"]
