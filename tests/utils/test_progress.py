"""Long work reports its progress, and short work reports nothing."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from poise.cli import progress_view, run_progress
from poise.cli.progress_view import LiveView, NotebookView, PlainView, equilibrium_note
from poise.cli.run_progress import RunProgress
from poise.core.config import find_components
from poise.core.metrics_log import Row, Stat
from poise.data.config import DataConfig
from poise.data.folder import FolderConfig
from poise.data.npz import NpzConfig
from poise.data.zip_archive import ZipConfig
from poise.errors import DataError
from poise.objectives.base import Objective
from poise.recipe.decode import decode
from poise.training.listener import NullListener, SafeListener, StartInfo
from poise.training.train import train
from poise.utils import progress
from poise.utils.console import TerminalConsole
from poise.utils.progress import DelayedProgress, no_progress, progress_to, report

if TYPE_CHECKING:
    from conftest import Command

Reports = list[tuple[str, float]]


@pytest.fixture(autouse=True)
def _nothing_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images whose decoding once took half a second, as on a busy machine, would not be read again."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by half a second whenever it is read."""
    ticks = count()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 2))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that has stopped."""
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 0.0))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataConfig]:
    """The same twenty images in a folder, a zip and an npz."""
    base, streams = tmp_path_factory.mktemp("places"), np.random.default_rng(0)
    pixels = streams.integers(0, 256, (20, 8, 8, 3), np.uint8)
    (base / "folder").mkdir()
    with zipfile.ZipFile(base / "all.zip", "w") as archive:
        for i, picture in enumerate(pixels):
            Image.fromarray(picture).save(base / "folder" / f"{i:02}.png")
            archive.write(base / "folder" / f"{i:02}.png", f"{i:02}.png")
    np.savez(base / "all.npz", images=pixels)
    return {
        "folder": FolderConfig(path=str(base / "folder"), size=4),
        "zip": ZipConfig(path=str(base / "all.zip"), size=4),
        "npz": NpzConfig(path=str(base / "all.npz"), size=4),
    }


def messages(work: Callable[[], object]) -> Reports:
    result: Reports = []
    with progress_to(lambda what, share: result.append((what, share))):
        work()
    return result


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize(
    ("kind", "words"),
    [("folder", ("inspecting", "reading")), ("zip", ("inspecting", "reading")), ("npz", ("resizing",))],
)
def test_slow_reading_is_reported(places: dict[str, DataConfig], kind: str, words: tuple[str, ...]) -> None:
    result = messages(places[kind].load)
    assert result[-1] == ("", 1.0)
    assert [word for word in words if not any(what.startswith(word) for what, _ in result)] == []
    assert (f"{words[-1]} 20 of 20 images", 1.0) in result
    for word in words:
        shares = [share for what, share in result if what.startswith(word)]
        assert shares == sorted(shares)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("kind", ["folder", "zip", "npz"])
def test_fast_reading_is_not_reported(places: dict[str, DataConfig], kind: str) -> None:
    assert messages(places[kind].load) == []


@pytest.mark.usefixtures("slowly")
def test_callback_is_optional(places: dict[str, DataConfig]) -> None:
    assert places["folder"].load().train.fingerprint == places["zip"].load().train.fingerprint


def test_reports_are_delayed_and_rate_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def work() -> None:
        with DelayedProgress() as slow:
            slow.phase("{:,} of {:,}", 20_000)
            for now[0] in np.arange(0, 2, 0.0001).tolist():
                slow.step()

    result = messages(work)
    assert result[0] == ("10,001 of 20,000", pytest.approx(0.5, abs=1e-3))
    assert len(result) == 5
    assert result[-1] == ("", 1.0)


def test_report_is_cleared_when_the_work_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = count(step=2)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    result: Reports = []
    with progress_to(lambda what, share: result.append((what, share))), pytest.raises(DataError):
        FolderConfig(path=str(tmp_path)).load()
    assert result[-1] == ("", 1.0)


def test_previous_callback_is_restored() -> None:
    outer: Reports = []
    with progress_to(lambda what, share: outer.append((what, share))):
        messages(lambda: report("inside", 0.1))
        with pytest.raises(ValueError, match="no"), progress_to(no_progress):
            raise ValueError("no")
        report("outside", 0.2)
    report("nobody", 0.3)
    assert outer == [("outside", 0.2)]


# ---- runs -----------------------------------------------------------------------------------------------------


class Ear(NullListener):
    """A listener that receives progress reports."""

    def __init__(self) -> None:
        self.reports: Reports = []

    def on_progress(self, what: str, share: float) -> None:
        self.reports.append((what, share))


def recipe(entry: DataConfig, **more: object) -> object:
    from poise.recipe.shipped import load_table

    result = load_table("gan") | {"steps": 2, "batch": 4, "data": entry.model_dump(mode="json") | {"size": 8}} | more
    return decode(result)


@pytest.mark.usefixtures("slowly")
def test_run_reports_reading_and_measuring(places: dict[str, DataConfig], tmp_path: Path) -> None:
    ear = Ear()
    measured = recipe(places["folder"], measure={"every": 2, "measures": ["kid"], "features": "pixels"})
    train(measured, tmp_path / "run", listener=ear, device="cpu")  # type: ignore[arg-type]
    result = [what for what, _ in ear.reports]
    assert "reading 20 of 20 images" in result
    assert "measuring at step 2" in result
    assert "measuring at step 2: kid" in result
    for work in ("drawing the sample grid of step 0", "writing the checkpoint of step 2"):
        assert result[result.index(work) + 1] == ""
    assert result[-1] == ""
    report("afterwards", 0.0)
    assert result == [what for what, _ in ear.reports]


@pytest.mark.parametrize("every", [0, 3])
def test_a_listener_learns_how_often_the_run_is_measured(
    places: dict[str, DataConfig], tmp_path: Path, every: int
) -> None:
    class StartListener(NullListener):
        def on_start(self, start: StartInfo) -> None:
            self.every = start.measure_every

    table = {"every": every, "measures": ["kid"], "features": "pixels"} if every else None
    listener = StartListener()
    train(recipe(places["folder"], measure=table), tmp_path / "run", listener=listener)  # type: ignore[arg-type]
    assert listener.every == every


def test_listener_without_progress_or_with_errors() -> None:
    SafeListener(NullListener(), lambda who: None).on_progress("reading", 0.5)

    class Failing(Ear):
        def on_progress(self, what: str, share: float) -> None:
            raise RuntimeError("deaf")

    listener = SafeListener(Failing(), lambda who: None)
    listener.on_progress("reading", 0.5)
    assert listener.failed


# ---- what people see --------------------------------------------------------------------------------------------


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the view, set by the test."""
    clock = [0.0]
    monkeypatch.setattr(progress_view, "QUIET_SECONDS", 1.0)
    for module in (progress_view, run_progress):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


def test_plain_view_prints_after_a_second_and_then_every_five(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = PlainView()
    for now[0] in np.arange(0, 13, 0.1).round(1).tolist():
        plain.on_progress(f"reading at {now[0]:g}", 0.5)
    plain.on_progress("", 1.0)
    assert capsys.readouterr().err == "reading at 1 (50%)\nreading at 6 (50%) 0:06\nreading at 11 (50%) 0:11\n"
    plain.on_message("a line")
    now[0] += 0.9
    plain.on_progress("kid", 0.0)
    now[0] += 9
    plain.on_step(3)
    now[0] += 0.9
    plain.on_progress("kid", 0.0)
    now[0] += 0.2
    plain.on_progress("kid", 0.0)
    assert capsys.readouterr().err == "a line\nkid ... 0:10\n"


def test_plain_view_has_no_line_for_work_that_is_reported_only_once(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = PlainView()
    for now[0] in (10.0, 20.0):
        plain.on_progress("writing a checkpoint", 0.0)
        plain.on_progress("", 1.0)
    assert capsys.readouterr().err == ""


def test_notebook_view_overwrites_its_line(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    book = NotebookView()
    for now[0] in np.arange(0, 1, 0.1).tolist():
        book.on_progress(f"reading {now[0]:.1f}", now[0])
    book.on_progress("", 1.0)
    book.on_end()
    assert capsys.readouterr().out == "\rreading 0.0 ...\rreading 0.5 ...\r               "
    for now[0] in (10.0, 14.0):
        book.on_progress("measuring", 0.0)
    assert capsys.readouterr().out == "\rmeasuring ...\rmeasuring ... 0:04"


def test_live_view_shows_a_transient_line() -> None:
    out = io.StringIO()
    live = LiveView(TerminalConsole(file=out, force_terminal=True, width=80))
    live.on_progress("reading \x1b[2J 5 of 9 pictures", 0.5)
    live.on_progress("", 1.0)
    shown = out.getvalue()
    assert "5 of 9 pictures ..." in shown
    assert "\x1b[2J" not in shown
    assert shown.rstrip().endswith("\x1b[2K")
    live.on_progress("", 1.0)
    live.on_end()
    assert out.getvalue() == shown


def panel(live: LiveView) -> str:
    console = TerminalConsole(file=io.StringIO(), width=80)
    console.print(live.panel())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_panel_shows_what_is_measured_and_stays_open(now: list[float]) -> None:
    out = io.StringIO()
    live = LiveView(TerminalConsole(file=out, force_terminal=True, width=80))
    live.on_progress("reading", 0.5)
    live.on_progress("", 1.0)
    live.on_start(StartInfo("ring", 0, 10, 4, [], {}, "runs/x"))
    live.on_progress("kid", 0.0)
    assert "kid" not in panel(live)  # short work would flicker
    now[0] = 2.0
    assert "kid ...\n" in panel(live)
    now[0] = 75.0
    assert "kid ... 1:15\n" in panel(live)
    live.on_progress("", 1.0)
    assert "kid" not in panel(live)
    assert live._live is not None
    live.on_end()


def test_panel_closes_after_the_last_step() -> None:
    """So that the messages about the whole run come below it."""
    out = io.StringIO()
    live = LiveView(TerminalConsole(file=out, force_terminal=True, width=80))
    live.on_start(StartInfo("ring", 0, 2, 4, [], {}, "runs/x"))
    live.on_step(1)
    assert live._live is not None
    live.on_step(2)
    live.on_message("done")
    live.on_end()
    assert "step 2 of 2" in out.getvalue()
    assert out.getvalue().endswith("done\n")


def test_panel_does_not_open_for_a_run_without_steps_to_make() -> None:
    """A signal has interrupted the last measurement, and the run is resumed."""
    out = io.StringIO()
    live = LiveView(TerminalConsole(file=out, force_terminal=True, width=80))
    live.on_start(StartInfo("ring", 10, 10, 4, [], {}, "runs/x", measure_every=5))
    live.on_progress("measuring at step 10", 0.0)
    live.on_progress("", 1.0)
    live.on_message("done")
    live.on_end()
    assert "measuring at step 10 ..." in out.getvalue()
    assert "elapsed" not in out.getvalue()
    assert out.getvalue().endswith("done\n")


# ---- the remaining time -----------------------------------------------------------------------------------------


RATE, LOSSES = {"time/images_per_second": Stat.of(640.0)}, {"d/adversarial": Stat.of(0.5), "g/adversarial": Stat.of(1)}


def plain_text(row: Row, capsys: pytest.CaptureFixture[str]) -> str:
    view = PlainView()
    view.on_start(StartInfo("ring", 0, 10, 4, [], {}, "runs/x"))
    view.on_row(row)
    return capsys.readouterr().err.splitlines()[-1]


def notebook_text(row: Row, capsys: pytest.CaptureFixture[str]) -> str:
    view = NotebookView()
    view.on_start(StartInfo("ring", 0, 10, 4, [], {}, "runs/x"))
    view.on_row(row)
    view.on_step(10)
    view.on_end()
    return capsys.readouterr().out.splitlines()[-1]


def panel_text(row: Row, capsys: pytest.CaptureFixture[str]) -> str:
    view = LiveView(TerminalConsole(file=io.StringIO(), width=80))
    view.on_start(StartInfo("ring", 10, 10, 4, [], {}, "runs/x"))
    view.on_row(row)
    return panel(view)


@pytest.mark.parametrize("text", [plain_text, notebook_text, panel_text])
@pytest.mark.parametrize("stats", [{}, RATE, LOSSES, RATE | LOSSES], ids=["none", "rate", "losses", "both"])
def test_every_view_shows_what_a_row_has(
    text: Callable[..., str], stats: dict[str, Stat], now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """The last row of a run that is resumed with as many steps as it has made has no throughput."""
    shown = text(Row(10, 640, 1.0, stats), capsys)
    assert ("640 images/s" in shown) == ("time/images_per_second" in stats)
    assert ("images/s" in shown) == ("time/images_per_second" in stats)
    assert all((number in shown) == ("d/adversarial" in stats) for number in ("0.500", "1.000"))
    assert shown == shown.rstrip(" ") or text is panel_text


def run_steps(progress: RunProgress, now: list[float], steps: range, seconds: float, measurement: float = 0.0) -> None:
    """Make steps that take `seconds`; every tenth and the twenty-fifth are measured."""
    for step in steps:
        now[0] += seconds + (measurement if step % 10 == 0 or step == 25 else 0.0)
        progress.on_step(step)


def test_remaining_time_counts_steps_and_measurements(now: list[float]) -> None:
    """A step takes 2 seconds; the first measurement 60, later ones 30 (steps 10, 20 and 25)."""
    progress = RunProgress(StartInfo("ring", 0, 25, 4, [], {}, "runs/x", measure_every=10))
    assert progress.times() == "0:00 elapsed, ? left"
    now[0] += 100  # preparation
    run_steps(progress, now, range(1, 2), 2)
    assert progress.times() == "1:42 elapsed, ? left"  # one time alone includes the preparation
    run_steps(progress, now, range(2, 10), 2)
    assert progress.times() == "1:58 elapsed, at least 0:32 left"
    run_steps(progress, now, range(10, 16), 2, 60)
    assert progress.times() == "3:10 elapsed, 2:24 left"  # 10 steps, and measurements of 62 seconds
    run_steps(progress, now, range(16, 21), 2, 30)
    assert progress.times() == "3:50 elapsed, 0:42 left"
    run_steps(progress, now, range(21, 26), 2, 30)
    assert progress.times() == "4:30 elapsed, 0:00 left"


def test_roll_back_does_not_change_the_speed(now: list[float]) -> None:
    progress = RunProgress(StartInfo("ring", 0, 21, 4, [], {}, "runs/x"))
    run_steps(progress, now, range(1, 12), 1)
    now[0] += 50  # the failed step, and the checkpoint is read
    run_steps(progress, now, range(6, 12), 1)
    assert progress.times() == "1:07 elapsed, 0:10 left"


def test_remaining_time_of_a_resumed_run_that_is_measured_at_every_step(now: list[float]) -> None:
    progress = RunProgress(StartInfo("ring", 100, 104, 4, [], {}, "runs/x", measure_every=1))
    for step in (101, 102):
        now[0] += 5
        progress.on_step(step)
    assert progress.times() == "0:10 elapsed, 0:10 left"


def test_a_single_step_leaves_nothing(now: list[float]) -> None:
    progress = RunProgress(StartInfo("ring", 0, 1, 4, [], {}, "runs/x"))
    run_steps(progress, now, range(1, 2), 5)
    assert progress.times() == "0:05 elapsed, 0:00 left"


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("command", ["train", "check", "compare"])
def test_commands_report_progress_without_a_terminal(
    poise: Command, places: dict[str, DataConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setattr(progress_view, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress_view, "MESSAGE_INTERVAL", 0.0)
    folder, archive = (places[kind].path for kind in ("folder", "zip"))  # type: ignore[attr-defined]
    recipe = ("gan", "--data", folder, "--set", "data.size=8", "--steps", 2, "--set", "batch=4")
    words = {
        "train": ("train", *recipe, "--out", tmp_path / "run"),
        "check": ("check", *recipe),
        "compare": ("compare", folder, archive, "--measures", "kid"),
    }
    result = poise(*words[command])
    assert result.code == 0, result.err
    assert "reading 20 of 20 images (100%)\n" in result.err
    assert "reading" not in result.out


@pytest.mark.parametrize(
    ("objective", "note"),
    [
        ("non_saturating", " (equilibrium: log 2)"),
        ("minimax", " (equilibrium: D log 2, G -log 2)"),
        ("least_squares", " (equilibrium: 0.12)"),
        ("wasserstein", ""),
    ],
)
def test_the_losses_at_equilibrium_are_those_of_each_player(objective: str, note: str) -> None:
    given = find_components(Objective, "poise.objectives")[objective]()
    assert equilibrium_note(given.equilibrium) == note  # type: ignore[attr-defined]
