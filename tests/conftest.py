"""What the suites share: one thread for each worker, and the command line, run in this process."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import NamedTuple

import pytest
import torch

from poise.cli import main, progress_view

# tiny networks gain nothing from threads, and workers that fight over them lose a lot; children inherit it
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


class CommandResult(NamedTuple):
    """The exit code and the output of a command."""

    code: object
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return self.err.splitlines()[-1] if self.err else ""

    def assert_error(self, code: int, *parts: str) -> None:
        """Assert that it failed with `code` and one line on stderr that contains every part, and nothing on stdout."""
        assert self.code == code, self.err
        assert [line for line in self.err.splitlines() if line.startswith("poise: ")] == [self.last]
        assert self.out == ""
        assert "Traceback" not in self.err
        for part in parts:
            assert part in self.last


Command = Callable[..., CommandResult]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Classifiers and features are kept for the session, for all its workers, and nowhere else."""
    base = tmp_path_factory.getbasetemp()
    os.environ["POISE_CACHE"] = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache")


@pytest.fixture(scope="session", autouse=True)
def _no_lines_about_slow_work() -> None:
    """What a command says must not depend on how busy the machine is; tests/utils/test_progress.py sets this back."""
    progress_view.QUIET_SECONDS = math.inf


def _run(*words: object) -> CommandResult:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return CommandResult(left.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def poise() -> Command:
    """`poise("train", "ring", "--steps", 3)`: the exit code and what was printed."""
    return _run
