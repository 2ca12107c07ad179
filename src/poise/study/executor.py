"""What all engines share: threads that each run one job at a time elsewhere, and repeat it if its process dies.

This module is imported by each local worker before torch, and must stay light.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

MAX_DEATHS = 5
"""How often in a row a worker may die in the same job, without any progress, before the job is given up."""

THREAD_VARIABLES = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""The environment variables that limit a process to one thread, before it imports torch."""

Progress = Callable[[], Any]


class ProcessDied(Exception):
    """The process of a job has died."""


class NodeDied(Exception):
    """The machine of a job has died, which says nothing about the job."""


class WorkerDied(Exception):
    """The worker process of a job died repeatedly, for example killed by the system for lack of memory."""


class Executor(ABC):
    """Runs jobs elsewhere, and repeats a job whose process dies.

    Args:
        workers: the number of jobs at the same time.
        initializer: called at the beginning of each thread.
    """

    def __init__(self, workers: int, initializer: Callable[[], None] | None = None) -> None:
        self._threads = ThreadPoolExecutor(workers, initializer=initializer)
        self._stopping = False

    def submit(self, function: Callable[[Any], Any], job: Any, progress: Progress) -> Future[Any]:
        """Run `function(job)` elsewhere.

        Args:
            function: a function of a module.
            job: its argument.
            progress: returns a value that changes when the job makes progress; a job whose process dies `MAX_DEATHS`
                times without any is given up. The death of a whole machine does not count.

        Returns:
            A future, whose exception is that of the function, `WorkerDied`, or `CancelledError` after `stop`.
        """
        return self._threads.submit(self._run, function, job, progress)

    def stop(self) -> None:
        """Ask the running jobs to stop, and cancel the others; returns when all have ended."""
        self._stopping = True
        self._interrupt()
        self.shutdown()

    def shutdown(self) -> None:
        """Return when the running jobs have ended; jobs that have not begun are cancelled."""
        self._threads.shutdown(cancel_futures=True)
        self._close()

    @abstractmethod
    def _attempt(self, function: Callable[[Any], Any], job: Any) -> Any:
        """Run the job once and return its result. It may be called after `_interrupt`, and must then not begin it.

        Raises:
            ProcessDied, NodeDied: the job has not ended.
            CancelledError: it was asked to stop.
        """

    @abstractmethod
    def _interrupt(self) -> None:
        """Ask the running jobs to stop."""

    @abstractmethod
    def _close(self) -> None:
        """Release what the engine holds, when no job runs any more."""

    def _run(self, function: Callable[[Any], Any], job: Any, progress: Progress) -> Any:
        deaths, last = 0, progress()
        while not self._stopping:
            try:
                return self._attempt(function, job)
            except NodeDied:
                continue
            except ProcessDied:
                now = progress()
                deaths, last = (1 if now != last else deaths + 1), now
                if deaths >= MAX_DEATHS:
                    raise WorkerDied(f"its worker process died {deaths} times without progress") from None
        raise CancelledError
