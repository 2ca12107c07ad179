"""The job for Slurm in the docs, on a cluster of two machines: stopped, requeued by itself, and resumed to its end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from training.test_ranks import POISE, run, state_of, stats, weights, write_recipe
from training.two_machines import NAMES, TwoMachines, why_not

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "several-ranks.md"
BLOCK = re.compile(r"^```(bash|yaml)\n(.*?)^```", re.M | re.S)
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
REQUEUE_SECONDS = 240
"""Slurm lets a requeued job wait for two minutes."""


def blocks(language: str) -> list[str]:
    """The scripts and files in the docs."""
    return [text for name, text in BLOCK.findall(PAGE.read_text("utf-8")) if name == language]


def jobs() -> list[str]:
    """The jobs in the docs: a training and a study."""
    return [text for text in blocks("bash") if "#SBATCH" in text]


def script_of_sky() -> str:
    """What SkyPilot runs on each machine."""
    (text,) = blocks("yaml")
    return "".join(line.removeprefix("  ") for line in text.partition("run: |\n")[2].splitlines(keepends=True))


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """The text with other words, each of which must be there."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("script", [*blocks("bash"), script_of_sky()], ids=range(len(blocks("bash")) + 1))
def test_scripts_have_no_syntax_error(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


CONFIGURATION = """\
ClusterName=two
SlurmctldHost=node0
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=node[0-1] CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


class Cluster:
    """Two machines with Slurm.

    Args:
        machines: the machines.
        folder: for the files of Slurm.
    """

    def __init__(self, machines: TwoMachines, folder: Path) -> None:
        self.machines, self.folder = machines, folder
        for name in ("state", "munge", *(f"spool-{name}" for name in NAMES)):
            (folder / name).mkdir(parents=True)
        (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # it only has to be found
        munge = folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o600)
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._start(0, "munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files)
        wait_until(lambda: (munge / "socket").exists(), 10)
        self._start(0, "slurmctld", "-D")
        for machine, name in enumerate(NAMES):
            self._start(machine, "slurmd", "-D", "-N", name)
        wait_until(lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"], 60)

    def _start(self, machine: int, *command: str) -> None:
        self.machines.start(machine, command, **self.variables, **PATHS)

    def ask(self, *command: str, folder: Path | None = None) -> str:
        """Run a command of Slurm on the first machine; its output."""
        words = ["sh", "-c", f'cd {folder or self.folder} && exec "$@"', "sh", *command]
        process = self.machines.start(0, words, **self.variables, **PATHS)
        process.wait(60)
        return self.machines.text(process)


PATHS = {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
}


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something.

    Raises:
        AssertionError: it has not come true in this time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.3)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[TwoMachines]:
    with TwoMachines(tmp_path) as connected:
        yield connected


needs_machines = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there are two machines")


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_machines
@pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason=f"needs {', '.join(PROGRAMS)}")
def test_the_job_is_stopped_requeued_and_resumed(machines: TwoMachines, tmp_path: Path) -> None:
    cluster, work = Cluster(machines, tmp_path / "slurm"), tmp_path / "work"
    work.mkdir()
    recipe = write_recipe(work / "ring.toml", "ring", "steps=1500")
    on_cpus = (
        (" --gpus-per-node 8 --cpus-per-task 64", " --cpus-per-task 1"),
        ("--nproc-per-node 8", "--nproc-per-node 1"),
        ("train images --data photos --steps 20000", "train ring.toml"),
    )
    training, study = jobs()
    (work / "job.sh").write_text(replaced(training, *on_cpus))
    assert "Submitted batch job 1" in cluster.ask("sbatch", "job.sh", folder=work)
    out, output = work / "runs" / "big", work / "slurm-1.out"
    wait_until(lambda: (out / "rows.jsonl").is_file() and (out / "rows.jsonl").read_bytes().count(b"\n") > 3, 60)
    cluster.ask("scancel", "--signal", "TERM", "1")
    wait_until(lambda: "PENDING" in cluster.ask("squeue", "-h", "-o", "%T"), 60)
    assert "poise: stopped by " in output.read_text()
    assert state_of(out) == "stopped"
    stop_a_study(cluster, work, replaced(study, ("--cpus-per-task 32", "--cpus-per-task 2")))
    wait_until(lambda: not cluster.ask("squeue", "-h"), REQUEUE_SECONDS)
    assert state_of(out) == "done", output.read_text()
    assert run([*POISE, "train", str(recipe), "--out", str(tmp_path / "whole")])[0] == [0, 0]
    assert weights(out) == weights(tmp_path / "whole")
    assert stats(out) == stats(tmp_path / "whole")


def stop_a_study(cluster: Cluster, work: Path, script: str) -> None:
    """Submit the job of a study, stop it, see that it is requeued, and remove it."""
    plan = """
        name = "three-tips"
        seeds = 6
        [base.ring]
        recipe = "ring"
        measures = ["modes"]
        [[tip]]
        id = "T16"
        name = "packing"
        set = ['tricks+=[{kind="packing", samples=2}]']
    """
    (work / "three-tips.toml").write_text(plan)
    (work / "study.sh").write_text(script)
    assert "Submitted batch job 2" in cluster.ask("sbatch", "study.sh", folder=work)
    wait_until(lambda: any(work.glob("runs/three-tips/runs/*/rows.jsonl")), 60)
    cluster.ask("scancel", "--signal", "TERM", "2")
    wait_until(lambda: "PENDING" in cluster.ask("squeue", "-h", "-j", "2", "-o", "%T"), 60)
    text = (work / "slurm-2.out").read_text()
    assert "stopped by SIGTERM, results and states saved" in text
    cluster.ask("scancel", "2")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("sky") is None, reason="SkyPilot is not installed")
@pytest.mark.filterwarnings("ignore")
def test_skypilot_reads_the_file(tmp_path: Path) -> None:
    import sky  # pyrefly: ignore

    (tmp_path / "train.yaml").write_text(blocks("yaml")[0])
    task = sky.Task.from_yaml(str(tmp_path / "train.yaml"))
    assert task.num_nodes == 2
    assert task.run == script_of_sky()
    assert [str(resources.accelerators) for resources in task.resources] == ["{'A100': 8}"]


@pytest.mark.slow
@needs_machines
def test_the_script_of_skypilot_trains_and_resumes(machines: TwoMachines, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "ring.toml")
    script = replaced(
        script_of_sky(),
        ("train images --data /shared/photos --steps 20000", f"train {recipe} --steps $STEPS"),
        ("/shared", str(tmp_path)),
    )
    both = {"SKYPILOT_NODE_IPS": "node0\nnode1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "1"}
    for steps in ("40", "60"):
        processes = [
            machines.start(
                machine, ["bash", "-c", script], SKYPILOT_NODE_RANK=str(machine), STEPS=steps, **both, **PATHS
            )
            for machine in (0, 1)
        ]
        assert [process.wait(120) for process in processes] == [0, 0], machines.text(processes[0])
    assert len(stats(tmp_path / "big")) == 12
    assert state_of(tmp_path / "big") == "done"
