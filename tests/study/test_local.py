"""The local engine: processes with one thread that are replaced when they die, and that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import fake_jobs
import pytest

from poise.study.executor import MAX_DEATHS, WorkerDied
from poise.study.local import LocalExecutor
from poise.utils.temporary import is_process_alive

NEVER: Callable[[], object] = lambda: None  # noqa: E731


@pytest.fixture
def engine() -> Iterator[LocalExecutor]:
    made = LocalExecutor(1)
    yield made
    made.stop()


def until(there: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_jobs_share_a_process_with_one_thread(engine: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert engine.submit(fake_jobs.threads, None, NEVER).result() == "1"
    first, second = (engine.submit(fake_jobs.process_of, None, NEVER).result() for _ in range(2))
    assert first == second != os.getpid()


def test_two_workers_are_two_processes() -> None:
    engine = LocalExecutor(2)
    jobs = [engine.submit(fake_jobs.process_of, None, NEVER) for _ in range(2)]
    assert engine.submit(fake_jobs.square, 3, NEVER).result() == 9
    assert os.getpid() not in {job.result() for job in jobs}
    engine.shutdown()


def test_an_error_of_the_job_is_that_of_the_future(engine: LocalExecutor) -> None:
    with pytest.raises(ValueError, match="as it was"):
        engine.submit(fake_jobs.fail, "as it was", NEVER).result()
    assert engine.submit(fake_jobs.square, 2, NEVER).result() == 4


def test_a_job_whose_process_dies_is_repeated(engine: LocalExecutor, tmp_path: Path) -> None:
    assert engine.submit(fake_jobs.die_twice, tmp_path / "counter", NEVER).result() == 3
    assert engine.submit(fake_jobs.square, 2, NEVER).result() == 4


def test_a_job_that_always_dies_is_given_up(engine: LocalExecutor, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    with pytest.raises(WorkerDied, match=f"died {MAX_DEATHS} times without progress"):
        engine.submit(fake_jobs.die, counter, NEVER).result()
    assert counter.stat().st_size == MAX_DEATHS
    assert engine.submit(fake_jobs.square, 2, NEVER).result() == 4


def test_deaths_with_progress_between_them_do_not_count(engine: LocalExecutor, tmp_path: Path) -> None:
    counter = tmp_path / "counter"

    def progress() -> int:  # until the third death
        return min(3, counter.stat().st_size) if counter.is_file() else 0

    with pytest.raises(WorkerDied):
        engine.submit(fake_jobs.die, counter, progress).result()
    assert counter.stat().st_size == 2 + MAX_DEATHS


def test_stop_lets_the_running_job_end_and_cancels_the_others(engine: LocalExecutor, tmp_path: Path) -> None:
    running = engine.submit(fake_jobs.wait_for_signal, tmp_path / "started", NEVER)
    waiting = engine.submit(fake_jobs.square, 2, NEVER)
    until((tmp_path / "started").is_file)
    engine.stop()
    assert running.result() == "SIGTERM"
    assert waiting.cancelled()


def test_stop_while_the_worker_starts(tmp_path: Path) -> None:
    engine = LocalExecutor(1)
    job = engine.submit(fake_jobs.wait_long, tmp_path / "started", NEVER)
    begun = time.monotonic()
    engine.stop()
    assert time.monotonic() - begun < 30
    with pytest.raises((CancelledError, WorkerDied)):
        job.result()
    assert not (tmp_path / "started").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT of a process")
def test_ctrl_c_reaches_a_job_but_not_an_idle_worker(engine: LocalExecutor, tmp_path: Path) -> None:
    process = engine.submit(fake_jobs.process_of, None, NEVER).result()
    os.kill(process, signal.SIGINT)
    job = engine.submit(fake_jobs.wait_for_signal, tmp_path / "started", NEVER)
    until((tmp_path / "started").is_file)
    os.kill(process, signal.SIGINT)
    assert job.result() == "SIGINT"
    assert engine.submit(fake_jobs.process_of, None, NEVER).result() == process


PARENT = """
import sys
from pathlib import Path
import fake_jobs
from poise.study.local import LocalExecutor

if __name__ == "__main__":
    engine = LocalExecutor(1)
    print(engine.submit(fake_jobs.process_of, None, lambda: None).result(), flush=True)
    engine.submit(fake_jobs.wait_long, Path(sys.argv[1]), lambda: None).result()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by a signal")
def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    words = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path / "started")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        until((tmp_path / "started").is_file)
        parent.kill()
    until(lambda: not is_process_alive(worker), seconds=20)
