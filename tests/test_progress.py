"""Long work says how far it is, to whoever listens; what is soon over says nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise import progress
from poise.progress import Paced, progress_to, report


class Slow:
    """A clock that goes a second further whenever somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_whoever_listens_is_told_and_nobody_else() -> None:
    heard: list[tuple[str, float]] = []
    report("work", 0.1)
    with progress_to(lambda *told: heard.append(told)):
        report("work", 0.2)
        with progress_to(lambda what, share: None):
            report("inner work", 0.3)
        report("work", 0.4)
    report("work", 0.5)
    assert heard == [("work", 0.2), ("work", 0.4)]


def test_sentences_come_late_and_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said: list[str] = []
    paced = Paced(said.append, after=1.0, every=5.0)
    for at in range(130):
        now[0] = at / 10
        paced("reading", at / 130)
    assert said == ["reading (8%)", "reading (46%)", "reading (85%)"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A few of them."""
    dice = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(dice.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


SMALL = ["--steps", 2, "--set", "data.size=8", "--set", "batch=4", "--set", "measure.n=10"]
SMALL += ["--set", "network.g.width=4", "--set", "network.d.width=4"]


@pytest.mark.parametrize("command", ["train", "check", "compare"])
def test_a_slow_scan_and_a_slow_measuring_say_how_far_they_are(
    command: str,
    pictures: Path,
    poise: Callable,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path_factory.mktemp("runs") / "run"
    words = {
        "train": ["train", "--data", pictures, "--out", out, *SMALL],
        "check": ["check", "--data", pictures, *SMALL],
        "compare": ["compare", pictures, pictures, "--measures", "fid"],
    }[command]
    quick = poise(*words)
    assert quick.code == 0, quick.err
    assert "picture 1 of 8" not in quick.err
    monkeypatch.setattr(progress.time, "monotonic", Slow())
    slow = poise(*[word if word != out else out.with_name("slow") for word in words])
    assert slow.code == 0, slow.err
    assert "picture 1 of 8" in slow.err
    if command == "train":
        assert "measuring at step 2" in slow.err
    assert slow.out == quick.out or command == "check"  # which tells times
