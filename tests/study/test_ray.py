"""The engine of Ray, on a cluster of two nodes of this machine, one of which is killed."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fake_jobs
import pytest
from tiny_studies import (
    DirectExecutor,
    QuietView,
    checkpoints_of,
    effects_of,
    lines_of,
    samples_of,
    values_of,
    write_plan,
)

from poise.errors import DataError, RecipeError
from poise.study.execute import run_study
from poise.study.executor import MAX_DEATHS, WorkerDied
from poise.study.ray_engine import RayExecutor, run_on_node
from poise.study.records import RunResult

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
quiet = pytest.mark.filterwarnings("ignore")  # of Ray


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match=r"Ray is not installed; install it: pip install 'poise\[ray\]'"):
        RayExecutor(1)


def test_a_node_works_in_the_same_folder_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # it is restored at the end

    def job(name: str) -> str:
        if not Path(name).is_file():
            raise DataError("no such file", where="data.path", found=name, cure="check the spelling")
        return Path(name).read_text()

    (tmp_path / "photos").write_text("here")
    assert run_on_node(job, "photos", tmp_path) == "here"
    with pytest.raises(
        DataError, match=rf"^data\.path on {re.escape(socket.gethostname())}: no such file, found cats; "
    ):
        run_on_node(job, "cats", tmp_path / "missing")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes with one core each; workers import the modules of these tests."""
    here, given = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, [given])]))
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)  # type: ignore[attr-defined]
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    made.shutdown()


@pytest.mark.slow
@needs_ray
@quiet
def test_jobs_that_end_fail_die_and_stop(cluster: Any, tmp_path: Path) -> None:
    engine = RayExecutor(2)
    try:
        assert [engine.submit(fake_jobs.square, n, int).result() for n in range(3)] == [0, 1, 4]
        assert engine.submit(fake_jobs.threads, None, int).result() == "1"
        with pytest.raises(ValueError, match=r"^as it was$"):
            engine.submit(fake_jobs.fail, "as it was", int).result()
        assert engine.submit(fake_jobs.die_twice, tmp_path / "twice", int).result() == 3
        with pytest.raises(WorkerDied):
            engine.submit(fake_jobs.die, tmp_path / "always", int).result()
        assert (tmp_path / "always").stat().st_size == MAX_DEATHS
        running = engine.submit(fake_jobs.wait_for_signal, tmp_path / "started", int)
        other = engine.submit(fake_jobs.wait_for_signal, tmp_path / "other", int)
        waiting = engine.submit(fake_jobs.square, 2, int)
        while not ((tmp_path / "started").is_file() and (tmp_path / "other").is_file()):
            time.sleep(0.05)
    finally:
        engine.stop()
    assert running.result() == other.result() == "SIGINT"
    assert waiting.cancelled()


class NodeKiller(QuietView):
    """Kills the second node when some runs have ended, and both nodes are at work."""

    def __init__(self, cluster: Any, results: int) -> None:
        super().__init__()
        self.cluster, self.needed = cluster, results
        self.killed_after: int | None = None

    def on_result(self, result: RunResult) -> None:
        super().on_result(result)
        if len(self.results) == self.needed:
            time.sleep(0.3)  # in the middle of other runs
            self.cluster.remove_node(self.cluster.second, allow_graceful=False)
            self.killed_after = len(self.results)


@pytest.mark.slow
@needs_ray
@quiet
@pytest.mark.timeout(1200)
def test_a_node_is_killed_during_a_study(cluster: Any, tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.toml", seeds=10)
    whole, out, view = tmp_path / "whole", tmp_path / "ray", NodeKiller(cluster, 5)
    run_study(plan, whole, DirectExecutor, listener=QuietView())
    results = run_study(plan, out, lambda: RayExecutor(2), listener=view)
    assert view.killed_after == 5
    assert Counter(result.state for result in results) == {"done": 20}
    assert Counter(line["run"] for line in lines_of(out)) == Counter(list(values_of(whole)))
    assert values_of(out) == values_of(whole)
    assert effects_of(out) == effects_of(whole)
    assert samples_of(out) == samples_of(whole)
    assert checkpoints_of(out) == []
