"""stdout and stderr without a reader: every command ends as it would with one."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poise.cli.progress_view import LiveView, PlainView
from poise.cli.streams import LenientStream, lenient_streams
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.training.listener import NullListener, SafeListener
from poise.training.signals import Signals
from poise.training.train import train
from poise.utils.printing import print_error


class Failing(io.StringIO):
    """A stream that fails from its first line on."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


ERRORS = [OSError(errno.EIO, "I/O"), BrokenPipeError(errno.EPIPE, "pipe"), ValueError("closed file"), RuntimeError("x")]


@pytest.mark.parametrize("error", ERRORS[:3], ids=repr)
def test_closed_stream_is_ignored(error: Exception) -> None:
    for everything in (True, False):
        stream = LenientStream(Failing(error), all_errors=everything)
        stream.write("a")
        stream.flush()
        assert stream.gone


def test_full_disk_raises_on_stdout_and_is_ignored_on_stderr() -> None:
    full = OSError(errno.ENOSPC, "full")
    LenientStream(Failing(full), all_errors=True).write("a")
    with pytest.raises(OSError, match="full"):
        LenientStream(Failing(full), all_errors=False).write("a")


def test_unencodable_line_does_not_silence_the_next() -> None:
    raw = io.BytesIO()
    stream = LenientStream(io.TextIOWrapper(raw, "ascii"), all_errors=True)
    stream.write("é\n")
    stream.write("e\n")
    stream.flush()
    assert raw.getvalue() == b"e\n"


def test_missing_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under pythonw."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    print_error("nobody hears this")
    with lenient_streams(own_process=False):
        print("a")
        print("b", file=sys.stderr)
    assert sys.stdout is None


@pytest.fixture
def ring(small: list[str]) -> Recipe:
    recipe = load_table("ring") | {"steps": 6, "batch": 8, "log": {"rows": 2, "saves": 3, "sheet": 4}}
    recipe.pop("measure", None)
    return decode(recipe)


class Broken(NullListener):
    """A watcher that fails at one of its calls."""

    def __init__(self, call: str, error: BaseException) -> None:
        self.ended = False
        self.calls = 0

        def fail(*_: object) -> None:
            self.calls += 1
            raise error

        setattr(self, call, fail)

    def on_end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("call", ["on_start", "on_step", "on_row", "on_message"])
@pytest.mark.parametrize("error", [*ERRORS, SystemExit(1)], ids=repr)
def test_failing_listener_is_removed(
    ring: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], call: str, error: BaseException
) -> None:
    ring = ring.model_copy(update={"steps": 1000})
    listener, signals = Broken(call, error), Signals()
    safe = SafeListener(listener, signals.request_stop)
    for _ in range(3):
        for name in ("on_start", "on_step", "on_row", "on_message"):
            getattr(safe, name)("told")
    safe.on_end()
    assert listener.calls == 1
    assert listener.ended
    assert capsys.readouterr().err.count("the listener Broken failed") == 1


def test_run_continues_without_its_listener(ring: Recipe, tmp_path: Path) -> None:
    run = train(ring, tmp_path / "run", listener=Broken("row", RuntimeError("mine")))
    assert run.info["state"] == "done"
    assert len(run.rows) == 3


@pytest.mark.parametrize("error", ERRORS[:3], ids=repr)
@pytest.mark.parametrize("view", [PlainView, LiveView])
def test_run_continues_without_its_terminal(
    ring: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, view: Callable[[], Any]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", Failing(error))
    run = train(ring, tmp_path / "run", listener=view())
    assert run.info["state"] == "done"


@pytest.fixture
def pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def poise(*words: str, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "poise", *words], **streams)


@pytest.mark.parametrize(("words", "code"), [(["recipes"], 0), (["tips", "no-such"], 2), (["--version"], 0)])
def test_exit_codes_without_a_reader(pipe: int, words: list[str], code: int) -> None:
    """Python's own flush at its end would make 120 of each."""
    assert poise(*words, stdout=pipe, stderr=pipe).wait(60) == code
    other = poise(*words, stdout=pipe, stderr=subprocess.PIPE)
    result = other.communicate()[1].decode()
    assert other.returncode == code
    assert "Traceback" not in result
    assert "Exception ignored" not in result


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_under_stdout_exits_with_6() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = poise("recipes", stdout=full, stderr=subprocess.PIPE)
        message = done.communicate()[1].decode()
    assert done.returncode == 6
    assert message.startswith("poise: ")
    assert len(message.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_closed_descriptors_are_not_reused_for_files(tmp_path: Path) -> None:
    """`poise ... >&- 2>&-`: a file that is opened later must not become stderr."""
    command = f"{sys.executable} -m poise train ring --steps 1 --set batch=8 --set measure=none --out run >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "run" / "run.lock").read_text().startswith("process ")
