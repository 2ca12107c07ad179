"""A directory with runs, and a visitor of its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from web.sites import Visitor, make_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs, one of them two levels below."""
    make_run(tmp_path / "runs" / "ring")
    make_run(tmp_path / "runs" / "deep" / "digits", recipe="dcgan", name="dcgan")
    return tmp_path / "runs"


@pytest.fixture
def visitor(runs: Path) -> Visitor:
    """A visitor of the page of these runs."""
    return Visitor(runs)
