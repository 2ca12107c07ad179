"""What the suites share: one thread for each worker, and the command line, run in this process."""

from __future__ import annotations

import functools
import gc
import math
import os
import signal
from collections.abc import Callable, Hashable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer.main
from PIL import Image

from poise.cli import main, progress_view
from poise.data import derived_digits
from poise.data.rendered_digits import render_digits
from poise.data.source import ImageDataset, SizedSource
from poise.data.stacked_digits import StackedDigits
from poise.measure import classifier
from poise.training import diagnostics
from poise.training.memorization import MemorizationCheck
from poise.utils.images import Bytes
from poise.utils.system import System

# Typer builds all commands anew at every call, which takes longer than most commands here
typer.main.get_command = functools.cache(typer.main.get_command)

# tiny networks gain nothing from threads, and workers that fight over them lose a lot; children inherit it
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# whoever started the tests may ignore it, as nohup does, and children inherit that; tests send it
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# no test cuts the power, and thousands of small files that wait for the disk take a tenth of the time of all tests
System.fsync = lambda self, handle: None


def pytest_collection_finish() -> None:
    """What is imported and collected stays until the end; to search it for garbage takes half a second each time."""
    gc.collect()
    gc.freeze()


_checks: dict[Hashable, MemorizationCheck] = {}


def _memorization_check(
    train: SizedSource, held_out: SizedSource, device: torch.device, *, mirror: bool = False
) -> MemorizationCheck:
    """A check depends on the data alone, and to make one takes longer than the rest of a short run on digits."""
    if type(train) not in (ImageDataset, StackedDigits) or len(train) < 1000:
        return MemorizationCheck(train, held_out, device, mirror=mirror)
    key = (train.fingerprint, held_out.fingerprint, device, mirror)
    if key not in _checks:
        _checks[key] = MemorizationCheck(train, held_out, device, mirror=mirror)
    return _checks[key]


diagnostics.MemorizationCheck = _memorization_check  # type: ignore[misc,assignment]

_rendered: dict[Hashable, tuple[Bytes, np.ndarray, Any]] = {}


def _render_digits(n: int, random: np.random.Generator) -> tuple[Bytes, np.ndarray]:
    """The digits of the recipe `simgan` are always the same, and to render them takes longer than its first steps."""
    key = n, str(random.bit_generator.state)
    if key not in _rendered:
        _rendered[key] = (*render_digits(n, random), random.bit_generator.state)
    images, labels, random.bit_generator.state = _rendered[key]
    return images.copy(), labels.copy()


derived_digits.render_digits = _render_digits


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


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20 colour images of 30 x 20 pixels."""
    folder, rng = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    folder.mkdir()
    for n in range(20):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / f"{n}.png")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _cache(session_folder: Path) -> None:
    """Classifiers and features are kept for the session, for all its workers, and nowhere else.

    Classifiers are trained on few images, because most tests need one and not a good one; `measure/conftest.py` sets
    this back.
    """
    os.environ["POISE_CACHE"] = str(session_folder / "cache")
    classifier.SAMPLES_SEEN = (2_560, 2_560)


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
