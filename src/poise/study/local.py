"""The local engine: worker processes on this machine, each with one thread, that survive the death of one another.

This module is imported by each worker before torch, and must stay light.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context, parent_process
from typing import Any

from poise.study.executor import THREAD_VARIABLES, Executor, ProcessDied


class LocalExecutor(Executor):
    """Runs jobs in `workers` processes, which are asked to stop by SIGTERM.

    Each worker is a `ProcessPoolExecutor` of one process, because the death of a process breaks its whole pool.

    Args:
        workers: the number of processes.
    """

    def __init__(self, workers: int) -> None:
        _start_tracker()
        super().__init__(workers, _block_interrupts)
        self._own = threading.local()
        self._pools: dict[ProcessPoolExecutor, int] = {}

    def _attempt(self, function: Callable[[Any], Any], job: Any) -> Any:
        try:
            return self._pool().submit(function, job).result()
        except BrokenProcessPool:
            self._own.pool.shutdown()
            self._pools.pop(self._own.pool, None)
            self._own.pool = None
            raise ProcessDied from None

    def _interrupt(self) -> None:
        for process in list(self._pools.values()):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)

    def _close(self) -> None:
        for pool in list(self._pools):
            pool.shutdown()

    def _pool(self) -> ProcessPoolExecutor:
        """The worker of this thread."""
        if getattr(self._own, "pool", None) is None:
            pool = self._own.pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=prepare_worker)
            self._pools[pool] = pool.submit(os.getpid).result()
        if self._stopping:  # `_interrupt` may not have seen this worker
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
