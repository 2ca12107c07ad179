"""A study on a Ray cluster of two machines, network namespaces of this one, started as in the docs; as root."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_studies import DirectExecutor, QuietView, lines_of, values_of, write_plan

from poise.study.execute import run_study
from training.two_machines import TwoMachines, why_not

PAGE = Path(__file__).parents[2] / "docs" / "studies.md"
PATHS = {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    "RAY_USAGE_STATS_ENABLED": "0",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "there are two machines"),
    pytest.mark.skipif(shutil.which("ray", path=PATHS["PATH"]) is None, reason="Ray is not installed"),
]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[TwoMachines]:
    with TwoMachines(tmp_path) as connected:
        yield connected


def study(machines: TwoMachines, folder: Path, plan: str, own: list[Path]) -> tuple[int, str]:
    """Run a study in `folder` on both machines, with the commands of the docs; its exit code and what it prints.

    Args:
        machines: the machines.
        folder: the working directory.
        plan: the name of the plan there.
        own: folders that the second machine has for itself, empty.
    """
    found = re.search(
        r"^(ray start --head .*?) +#.*\n(ray start --address .*?) +#.*\n(poise study .*?) +#", PAGE.read_text(), re.M
    )
    assert found is not None
    head, node, command = found.groups()
    command = command.replace("three-tips.toml", plan).replace("--workers 64", "--workers 2")
    assert plan in command
    Path("/tmp/ray").mkdir(exist_ok=True)
    private = [Path("/tmp/ray"), Path("/dev/shm")]
    joined, more = folder / "joined", "--num-cpus 1 --disable-usage-stats --node-ip-address"
    first = [
        f"cd {shlex.quote(str(folder))}",
        f"{head} {more} node0 --include-dashboard false > ray.txt 2>&1",
        f"while ! [ -f {joined.name} ]; do sleep 0.2; done",
        f"{sys.executable} -m {command}",
    ]
    second = f"until {node} {more} node1; do sleep 1; done; touch {shlex.quote(str(joined))}; sleep 1000"
    conductor = machines.start(0, ["bash", "-c", " && ".join(first)], own=private, **PATHS)
    machines.start(1, ["bash", "-c", f"cd /; {second}"], own=[*private, *own], **PATHS)
    return conductor.wait(300), machines.text(conductor)


def test_both_machines_train_and_the_results_are_those_of_one(machines: TwoMachines, tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.toml", seeds=3, images=8000)
    run_study(plan, tmp_path / "local", DirectExecutor, listener=QuietView())
    out = tmp_path / "runs" / "three-tips"
    code, text = study(machines, tmp_path, plan.name, [])
    assert code == 0, text
    assert values_of(out) == values_of(tmp_path / "local")
    holders = Counter(path.read_text().split(" on ")[1] for path in out.glob("runs/*/run.lock"))
    assert set(holders) == {"node0", "node1"}


def test_without_a_shared_folder_the_results_arrive(machines: TwoMachines, tmp_path: Path) -> None:
    plan, runs = write_plan(tmp_path / "plan.toml", seeds=2, images=8000), tmp_path / "runs"
    runs.mkdir()
    code, text = study(machines, tmp_path, plan.name, [runs])
    assert code == 0, text
    assert Counter(line["state"] for line in lines_of(runs / "three-tips")) == {"done": 4}
    assert 0 < len(list(runs.glob("three-tips/runs/*"))) < 4


def test_a_machine_without_the_data_is_named(machines: TwoMachines, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "data" / "photos.npz", images=images)
    (tmp_path / "plan.toml").write_text(
        """
        name = "tiny"
        seeds = 3
        budget = { images = 64 }
        evaluations = 1
        [base.small]
        recipe = "dcgan"
        set = [
            'data={kind="npz", path="data/photos.npz"}', "batch=8", "measure.n=10",
            "network.g.width=4", "network.d.width=4",
        ]
        measures = ["fid"]
        [[tip]]
        id = "T16"
        name = "packing"
        set = ['tricks+=[{kind="packing", samples=2}]']
        """
    )
    code, text = study(machines, tmp_path, "plan.toml", [tmp_path / "data"])
    assert code == 3, text
    assert "poise: data.path on node1: no such file or folder, found data/photos.npz" in text
