"""The engine of Ray: every run is a task on a cluster of one or more machines."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from poise.errors import DataError, DiskError, RecipeError
from poise.study.executor import THREAD_VARIABLES, Executor, NodeDied, ProcessDied

NUM_CPUS = 1
"""The cores of each run."""


class RayExecutor(Executor):
    """Runs jobs as Ray core tasks, which are asked to stop as by Ctrl-C.

    The cluster is the one that this machine belongs to, or that of the variable RAY_ADDRESS; without one, Ray is
    started on this machine. Without a shared file system a run folder stays on its node; only the result comes back.

    Args:
        workers: the number of runs at the same time.

    Raises:
        RecipeError: Ray is not installed, or can't be started.
    """

    def __init__(self, workers: int) -> None:
        with _keep_signal_handlers():
            self._ray = _import_ray()
            self._owned = not self._ray.is_initialized()
            if self._owned:
                _connect(self._ray, workers)
        super().__init__(workers)
        self._running: set[Any] = set()

    def _attempt(self, function: Callable[[Any], Any], job: Any) -> Any:
        errors = self._ray.exceptions
        options = {"num_cpus": NUM_CPUS, "max_retries": 0, "runtime_env": {"env_vars": THREAD_VARIABLES}}
        task = self._ray.remote(**options)(run_on_node).remote(function, job, Path.cwd())
        self._running.add(task)
        if self._stopping:  # `_interrupt` may not have seen this task
            self._cancel(task)
        try:
            return self._ray.get(task)
        except errors.TaskCancelledError:
            raise CancelledError from None
        except errors.RayTaskError as error:
            raise error.cause from None
        except (errors.WorkerCrashedError, errors.OutOfMemoryError):
            raise ProcessDied from None
        except errors.RaySystemError:
            raise
        except errors.RayError:
            raise NodeDied from None
        finally:
            self._running.discard(task)

    def _interrupt(self) -> None:
        for task in list(self._running):
            self._cancel(task)

    def _close(self) -> None:
        if self._owned:
            with _keep_signal_handlers():
                self._ray.shutdown()

    def _cancel(self, task: Any) -> None:
        with suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.cancel(task, force=False)


def run_on_node(function: Callable[[Any], Any], job: Any, folder: Path) -> Any:
    """Run a job on a node, in the working directory of `poise study` if the node has it, for relative paths.

    Raises:
        DataError, DiskError: those of the job; they name the machine.
    """
    with suppress(OSError):
        os.chdir(folder)
    try:
        return function(job)
    except (DataError, DiskError) as error:
        where = f"{error.where} on {socket.gethostname()}"
        raise type(error)(error.what, where=where, found=error.found, cure=error.cure) from None


def _import_ray() -> Any:
    """The library, which poise does not require.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        return import_module("ray")
    except ImportError:
        cure = "install it: pip install 'poise[ray]'"
        raise RecipeError("Ray is not installed", where="--engine ray", cure=cure) from None


def _connect(ray: Any, workers: int) -> None:
    """Connect to the cluster, or start Ray on this machine.

    Raises:
        RecipeError: Ray can't be started.
    """
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        cure = "check RAY_ADDRESS and `ray status`"
        raise RecipeError("Ray can't be started", where="--engine ray", found=str(error), cure=cure) from None


@contextmanager
def _keep_signal_handlers() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM at the end: Ray installs its own when it is imported."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
