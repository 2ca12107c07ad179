"""The local engine: worker processes on this machine, each with one thread, that survive the death of one another.

This module is imported by each worker before torch, and must stay light.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context, parent_process
from typing import Any

MAX_DEATHS = 5
"""How often in a row a worker may die in the same job, without any progress, before the job is given up."""

THREAD_VARIABLES = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""The environment variables that limit a process to one thread, before it imports torch."""

Progress = Callable[[], Any]


class WorkerDied(Exception):
    """The worker process of a job died repeatedly, for example killed by the system for lack of memory."""


class LocalExecutor:
    """Runs jobs in `workers` processes, and repeats a job whose process dies.

    Each worker is a `ProcessPoolExecutor` of one process, because the death of a process breaks its whole pool.

    Args:
        workers: the number of processes.
    """

    def __init__(self, workers: int) -> None:
        _start_tracker()
        self._threads = ThreadPoolExecutor(workers, initializer=_block_interrupts)
        self._own = threading.local()
        self._pools: dict[ProcessPoolExecutor, int] = {}
        self._stopping = False

    def submit(self, function: Callable[[Any], Any], job: Any, progress: Progress) -> Future[Any]:
        """Run `function(job)` in a worker.

        Args:
            function: a function of a module.
            job: its argument.
            progress: returns a value that changes when the job makes progress; a job whose worker dies `MAX_DEATHS`
                times without any is given up.

        Returns:
            A future, whose exception is that of the function, `WorkerDied`, or `CancelledError` after `stop`.
        """
        return self._threads.submit(self._run, function, job, progress)

    def stop(self) -> None:
        """Ask the running jobs to stop, by SIGTERM, and cancel the others; returns when all have ended."""
        self._stopping = True
        for process in list(self._pools.values()):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        self.shutdown()

    def shutdown(self) -> None:
        """End the workers when the running jobs have ended; jobs that have not begun are cancelled."""
        self._threads.shutdown(cancel_futures=True)
        for pool in list(self._pools):
            pool.shutdown()

    def _run(self, function: Callable[[Any], Any], job: Any, progress: Progress) -> Any:
        deaths, last = 0, progress()
        while True:
            try:
                return self._pool().submit(function, job).result()
            except BrokenProcessPool:
                self._own.pool.shutdown()
                self._pools.pop(self._own.pool, None)
                self._own.pool = None
                now = progress()
                deaths, last = (1 if now != last else deaths + 1), now
                if self._stopping or deaths >= MAX_DEATHS:
                    raise WorkerDied(f"its worker process died {deaths} times without progress") from None

    def _pool(self) -> ProcessPoolExecutor:
        """The worker of this thread."""
        if getattr(self._own, "pool", None) is None:
            pool = self._own.pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=prepare_worker)
            self._pools[pool] = pool.submit(os.getpid).result()
        if self._stopping:  # `stop` may not have seen this worker
            raise CancelledError
        return self._own.pool


def _start_tracker() -> None:
    """Start the process of `multiprocessing` that the workers share, so that the signals of a terminal don't end it.

    It ignores SIGINT and SIGTERM, but not SIGHUP. If the first worker started it, SIGINT would no longer be blocked.
    """
    if hasattr(signal, "pthread_sigmask"):
        from multiprocessing import resource_tracker

        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _block_interrupts() -> None:
    """Block SIGINT in this thread, and so in the workers that it starts until they have a handler."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


def prepare_worker() -> None:
    """Prepare a worker process: one thread, no Ctrl-C outside of a run, and no life after that of its parent."""
    os.environ |= THREAD_VARIABLES
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a run handles it itself
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit at once when the parent process ends: a new one may soon continue this worker's run."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
